"""The examples of the README run unchanged."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL)


def test_the_examples_run(make, tmp_path):
    make(3).to_parquet(tmp_path / "yards.parquet")
    (tmp_path / "id2label.json").write_text('{"0": "grass", "1": "path", "2": "pond"}')
    plain, torch = BLOCKS
    done = subprocess.run([sys.executable, "-c", plain], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "00000001 (12, 8) {'path'}" in done.stdout
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", torch], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch.Size([2, 3, 8, 12]) torch.Size([2, 8, 12])" in done.stdout
    assert all(len(block.strip().splitlines()) <= 14 for block in BLOCKS)
