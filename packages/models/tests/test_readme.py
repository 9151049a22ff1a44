"""The README's sample runs as it is printed, and the shapes in its comments are true."""

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"


def test_the_sample_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert sample is not None
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(sample[1], "README.md", "exec"), names)
    assert names["logits"].shape == (2, 19, 321, 200)
    assert names["features"].deep.shape == (2, 128, 41, 25)
    assert names["small"].shape == (2, 13, 328, 200)
    assert torch.equal(names["again"](names["images"], "room"), names["model"](names["images"], "room"))
    ours, theirs = (names[which].encoder.state_dict() for which in ("other", "model"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
