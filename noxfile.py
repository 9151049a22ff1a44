"""What a fresh machine needs: `pip install nox && nox -s quickstart`, `pip install nox && nox -s tests`."""

import hashlib
import shutil
from pathlib import Path

import nox

ROOT = Path(__file__).parent
EVERYTHING = ROOT / ".nox" / "everything"  # the one environment with torch (5 GB), shared by all sessions that need it
TORCH_FREE = ("packages/data", "packages/cli", *(f"datasets/{path.name}" for path in sorted((ROOT / "datasets").iterdir())))

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "tests", "isolated"]
nox.options.reuse_venv = "yes"


@nox.session(venv_location=str(EVERYTHING))
def quickstart(session: nox.Session) -> None:
    """See CCT and its supervised twin train on generated scenes (5 minutes on 2 cores after installation)."""
    install_everything(session)
    session.run("semiseg", "quickstart", *session.posargs)


@nox.session(venv_location=str(EVERYTHING))
def tests(session: nox.Session) -> None:
    """All tests; arguments after -- go to pytest."""
    install_everything(session)
    arguments = session.posargs or ["-n", "auto", "--durations=10"]
    session.run("python", "-m", "pytest", *arguments, env={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})


@nox.session(venv_location=str(EVERYTHING))
def lint(session: nox.Session) -> None:
    """Format, style, types, and who imports whom."""
    install_everything(session)
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")
    session.run("pyright")


@nox.session
def isolated(session: nox.Session) -> None:
    """The members that promise to work without torch, from wheels, in an environment that has none."""
    wheels = Path(session.create_tmp()) / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    session.run(
        "python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(wheels), *(f"./{path}" for path in TORCH_FREE)
    )
    built = sorted(str(wheel) for wheel in wheels.glob("*.whl"))
    session.install("-q", "--force-reinstall", "--no-deps", *built)
    session.install("-q", *built, "pytest>=8")
    session.run("python", "-m", "pytest", "tests/isolated", "-p", "no:cacheprovider", *session.posargs)


def install_everything(session: nox.Session) -> None:
    """Install requirements-dev.txt, once for each state of the files that say what is needed."""
    said = [
        ROOT / "requirements-dev.txt",
        *sorted(ROOT.glob("packages/*/pyproject.toml")),
        *sorted(ROOT.glob("datasets/*/pyproject.toml")),
    ]
    state = hashlib.sha256(b"".join(file.read_bytes() for file in said)).hexdigest()
    stamp = EVERYTHING / "installed"
    if stamp.is_file() and stamp.read_text() == state:
        return
    session.install("-q", "-r", "requirements-dev.txt")
    stamp.write_text(state)
