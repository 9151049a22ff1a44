"""The example in the README runs, with the shapes stated in its comments."""

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(example[1], "README.md", "exec"), names)
    assert names["logits"].shape == (2, 19, 321, 200)
    assert names["features"].deep.shape == (2, 128, 41, 25)
    assert names["small"].shape == (2, 13, 328, 200)
    assert torch.equal(names["again"](names["images"], "room"), names["model"](names["images"], "room"))
    ours, theirs = (names[name].encoder.state_dict() for name in ("other", "model"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
