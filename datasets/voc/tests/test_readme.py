"""What the README shows runs as it stands, in a folder with both archives."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from semiseg.datasets.voc.classes import NAMES

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_examples_run_in_order(archives: Path, tmp_path: Path) -> None:
    for archive in archives.glob("*.t*"):
        (tmp_path / archive.name).symlink_to(archive)
    plain, torch = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    out = _run(plain, tmp_path)
    assert "trainaug 22 complete" in out
    assert "2 in VOC's val, which are left out" in out
    assert re.search(r"^2008_\d+ \(\d+, \d+\) SBD \{.*'background'.*\}$", out, re.MULTILINE)
    if find_spec("torchvision") is None:
        pytest.skip("NOT TESTED: the example with PyTorch; it is not installed")
    assert _run(torch + "print(*images.shape, *masks.shape, masks.dtype)", tmp_path).split() == [
        *("4", "3", "224", "224"),
        *("4", "224", "224"),
        "torch.int64",
    ]


def test_the_table_lists_all_classes() -> None:
    assert re.findall(r"\| (\d+) (\w+)", README.replace("|", "| ").replace("|  ", "| ")) == [
        (str(number), name) for number, name in enumerate(NAMES)
    ]


def _run(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
