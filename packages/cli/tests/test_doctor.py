"""`semiseg doctor` in environments that are broken: the only ones in which it is needed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path


def test_an_empty_dist_info_is_reported_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "leftover-1.0.dist-info").mkdir()
    report = examined(tmp_path)
    (message,) = (problem for problem in report["problems"] if "leftover" in problem)
    assert message.startswith(str(tmp_path / "leftover-1.0.dist-info")) and "remove the folder" in message
    assert {"semiseg", "semiseg-data"} <= report["packages"].keys()


def test_a_library_whose_metadata_is_empty_counts_as_absent(tmp_path: Path) -> None:
    (tmp_path / "torch-9.9.dist-info").mkdir()
    report = examined(tmp_path)
    assert report["libraries"]["torch"] is None
    assert any("torch-9.9.dist-info has no package metadata" in problem for problem in report["problems"])


def test_a_torch_that_dies_without_a_word_is_reported_with_its_signal(tmp_path: Path) -> None:
    assert torch_problem(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)") == (
        f"torch cannot be imported (killed by signal {signal.SIGKILL:d}, {signal.strsignal(signal.SIGKILL)}); "
        "reinstall it: pip install -U torch torchvision"
    )


def test_a_torch_that_leaves_without_a_word_is_reported_with_its_exit_code(tmp_path: Path) -> None:
    assert "torch cannot be imported (exit code 3);" in torch_problem(tmp_path, "raise SystemExit(3)")


def test_a_torch_that_fails_is_reported_with_its_last_line(tmp_path: Path) -> None:
    message = torch_problem(tmp_path, "raise ImportError('libcudart.so.99: no such file')")
    assert "torch cannot be imported (ImportError: libcudart.so.99: no such file);" in message


def torch_problem(folder: Path, code: str) -> str:
    """The problem reported for an installed torch whose import runs this code."""
    (folder / "torch.py").write_text(code)
    (folder / "torch-9.9.dist-info").mkdir()
    (folder / "torch-9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9\n")
    report = examined(folder)
    assert report["libraries"]["torch"] == "9.9" and report["torch"] is None
    (message,) = (problem for problem in report["problems"] if problem.startswith("torch"))
    return message


def examined(folder: Path) -> dict:
    """The report of `semiseg doctor --json` where a folder comes first on the path; problems are exit code 1."""
    done = subprocess.run(
        [sys.executable, "-m", "semiseg.cli", "doctor", "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and not done.stderr, done.stderr
    return json.loads(done.stdout)
