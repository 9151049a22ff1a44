"""Sessions for a fresh machine: `pip install nox`, then `nox -s quickstart`, `nox -s tests` or `nox -l` for all of them."""

import hashlib
import os
import shutil
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
EVERYTHING = ROOT / ".nox" / "everything"  # one environment with torch (5 GB), shared by the sessions that need it
BIN = EVERYTHING / ("Scripts" if os.name == "nt" else "bin")
MEMBERS = sorted(
    path.parent for pattern in ("packages/*", "datasets/*") for path in ROOT.glob(f"{pattern}/pyproject.toml")
)
WITH_TORCH = {"models", "methods", "train"}

nox.options.sessions = ["lint", "tests", "isolated"]
nox.options.reuse_existing_virtualenvs = True


@nox.session(venv_backend="none")
def quickstart(session: nox.Session) -> None:
    """Train CCT and a supervised baseline on generated scenes (5 minutes on 2 cores after installation)."""
    install_everything(session)
    run(session, "semiseg", "quickstart", *session.posargs)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """All tests; arguments after -- are passed to pytest."""
    install_everything(session)
    arguments = session.posargs or ["-n", "auto", "--durations=10"]
    run(session, "python", "-m", "pytest", *arguments, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")


@nox.session(venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Mutated files, flipped bytes, stops at random moments; the argument after -- is the number of examples, default 5,000."""
    install_everything(session)
    examples = session.posargs[0] if session.posargs else "5000"
    run(
        session,
        "python",
        "-m",
        "pytest",
        "tests/hostile",
        "tests/test_stop.py",
        "packages/train/tests/test_sealed.py",
        "-k",
        "mutated or fuzz or flipped_byte_is or stopped_and_resumed",
        SEMISEG_FUZZ_EXAMPLES=examples,
        OMP_NUM_THREADS="1",
    )


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Format, style, import contracts and types."""
    install_everything(session)
    run(session, "ruff", "format", "--check", ".")
    run(session, "ruff", "check", ".")
    run(session, "lint-imports")
    run(session, "pyright", "--pythonpath", str(BIN / "python"))


@nox.session
def isolated(session: nox.Session) -> None:
    """The packages that work without torch, installed from wheels, in an environment without torch."""
    wheels = Path(session.create_tmp()) / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    members = [str(member) for member in MEMBERS if member.name not in WITH_TORCH]
    session.run("python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(wheels), *members)
    built = sorted(str(wheel) for wheel in wheels.glob("*.whl"))
    session.install("-q", "--force-reinstall", "--no-deps", *built)
    session.install("-q", *built, "pytest>=8")
    session.run("python", "-m", "pytest", "tests/isolated", "-p", "no:cacheprovider", *session.posargs)


def install_everything(session: nox.Session) -> None:
    """Create the environment and install requirements-dev.txt, unless neither it nor any pyproject.toml has changed since."""
    files = [ROOT / "requirements-dev.txt", *(member / "pyproject.toml" for member in MEMBERS)]
    state = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    stamp = EVERYTHING / "installed"
    if stamp.is_file() and stamp.read_text() == state:
        return
    if not (BIN / "python").exists():
        session.run(sys.executable, "-m", "venv", str(EVERYTHING), external=True)
    session.log("installing torch and everything else (about 5 GB) into .nox/everything")
    run(session, "python", "-m", "pip", "install", "-q", "-r", "requirements-dev.txt")
    stamp.write_text(state)


def run(session: nox.Session, command: str, *arguments: str, **environment: str) -> None:
    """Run a command of the environment with everything; the variables of the caller are passed on."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    session.run(str(BIN / command), *arguments, env={"PATH": path, **environment}, external=True)
