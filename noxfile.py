"""What a fresh machine needs: `pip install nox && nox -s quickstart`, `pip install nox && nox -s tests`."""

import hashlib
import os
import shutil
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
EVERYTHING = ROOT / ".nox" / "everything"  # the one environment with torch (5 GB), shared by all sessions that need it
BIN = EVERYTHING / ("Scripts" if os.name == "nt" else "bin")
MEMBERS = sorted(
    path.parent for pattern in ("packages/*", "datasets/*") for path in ROOT.glob(f"{pattern}/pyproject.toml")
)
WITH_TORCH = {"models", "methods", "train"}

nox.options.sessions = ["lint", "tests", "isolated"]
nox.options.reuse_existing_virtualenvs = True


@nox.session(venv_backend="none")
def quickstart(session: nox.Session) -> None:
    """See CCT and its supervised twin train on generated scenes (5 minutes on 2 cores after installation)."""
    install_everything(session)
    run(session, "semiseg", "quickstart", *session.posargs)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """All tests; arguments after -- go to pytest."""
    install_everything(session)
    arguments = session.posargs or ["-n", "auto", "--durations=10"]
    run(session, "python", "-m", "pytest", *arguments, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Format, style, types, and who imports whom."""
    install_everything(session)
    run(session, "ruff", "format", "--check", ".")
    run(session, "ruff", "check", ".")
    run(session, "lint-imports")
    run(session, "pyright", "--pythonpath", str(BIN / "python"))


@nox.session
def isolated(session: nox.Session) -> None:
    """The members that promise to work without torch, from wheels, in an environment that has none."""
    wheels = Path(session.create_tmp()) / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    members = [str(member) for member in MEMBERS if member.name not in WITH_TORCH]
    session.run("python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(wheels), *members)
    built = sorted(str(wheel) for wheel in wheels.glob("*.whl"))
    session.install("-q", "--force-reinstall", "--no-deps", *built)
    session.install("-q", *built, "pytest>=8")
    session.run("python", "-m", "pytest", "tests/isolated", "-p", "no:cacheprovider", *session.posargs)


def install_everything(session: nox.Session) -> None:
    """Make the environment and install requirements-dev.txt, once for each state of the files that say what is needed."""
    said = [ROOT / "requirements-dev.txt", *(member / "pyproject.toml" for member in MEMBERS)]
    state = hashlib.sha256(b"".join(file.read_bytes() for file in said)).hexdigest()
    stamp = EVERYTHING / "installed"
    if stamp.is_file() and stamp.read_text() == state:
        return
    if not (BIN / "python").exists():
        session.run(sys.executable, "-m", "venv", str(EVERYTHING), external=True)
    session.log("installing torch and everything else (about 5 GB) into .nox/everything")
    run(session, "python", "-m", "pip", "install", "-q", "-r", "requirements-dev.txt")
    stamp.write_text(state)


def run(session: nox.Session, command: str, *arguments: str, **environment: str) -> None:
    """Run a command of the environment with everything."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    session.run(str(BIN / command), *arguments, env={"PATH": path, **environment}, external=True)
