"""Errors of the operating system, in real processes: one line, exit code 1, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from semiseg.cli.main import system_error

SEMISEG = [sys.executable, "-m", "semiseg.cli"]
FULL = Path("/dev/full")


def started(*arguments: str | Path, **options: int) -> "subprocess.Popen[str]":
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "400"}
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([*SEMISEG, *map(str, arguments)], text=True, env=environment, **settings)  # type: ignore[call-overload]


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_behind_the_output_is_one_line() -> None:
    with FULL.open("w") as full:
        process = started("--help", stdout=full.fileno())
        _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.startswith("error: ") and len(errors.splitlines()) == 1, errors
    assert "No space left on device; free some space or name another folder" in errors


def test_a_reader_that_leaves_early_is_no_error() -> None:
    process = started("--help")
    assert process.stdout and process.stderr
    process.stdout.close()
    with process.stderr as stream:
        errors = stream.read()
    process.wait()
    assert "Traceback" not in errors and "Exception ignored" not in errors


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_closed_outputs_are_no_traceback() -> None:
    command = " ".join([*SEMISEG, "--version", ">&-", "2>&1"])
    run = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in run.stdout + run.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_interrupt_is_no_traceback() -> None:
    """Raised where a command runs: the process sends the signal to itself."""
    code = (
        "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # background jobs ignore it
        "from semiseg.cli import main; main.build_app = lambda: lambda: os.kill(os.getpid(), signal.SIGINT); main.main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 130 and "Traceback" not in run.stderr, run.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            PermissionError(13, "Permission denied", "/x"),
            "/x: Permission denied; change its permissions, or name another",
        ),
        (IsADirectoryError(21, "Is a directory", "/x"), "/x: Is a directory; name a file, not a folder"),
        (OSError(36, "File name too long", "x"), "x: File name too long; choose a shorter name"),
        (OSError(24, "Too many open files"), "Too many open files; raise the limit of open files: ulimit -n 4096"),
        (OSError("strange"), "strange; fix this, or show where with SEMISEG_TRACEBACK=1"),
        (MemoryError(), "out of memory; use smaller data"),
        (RecursionError(), "values are nested too deeply"),
    ],
)
def test_every_error_has_a_remedy(error: BaseException, words: str) -> None:
    message = system_error(error)
    assert message.startswith(words) and len(message.splitlines()) == 1
