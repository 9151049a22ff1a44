"""Training a run for more steps than it was begun with."""

from collections.abc import Callable

import pytest

from semiseg.train import Recipe, train
from semiseg.train.run.folder import RunError

CONSTANT = ("schedule={kind='constant'}", "objectives=[{kind='supervised'}]")


def test_where_nothing_depends_on_steps_an_extended_run_equals_a_longer_one(tiny: Callable[..., Recipe]):
    long = train(tiny("steps=6", "name=long", *CONSTANT), quiet=True)
    folder = train(tiny("steps=4", *CONSTANT), quiet=True).folder
    run = train(tiny("steps=6", *CONSTANT), quiet=True, extend=True)
    assert run.results["launches"][-1]["changes"] == ["steps: 4 -> 6"] and run.results["steps"] == 6
    weights = [path / "step-00000006" / "model.safetensors" for path in (long.folder, folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_the_refusal_prints_the_command(tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch):
    train(tiny("steps=2"), quiet=True)
    monkeypatch.setattr("sys.argv", ["/bin/semiseg", "train", "my recipe.toml", "steps=4"])
    with pytest.raises(
        RunError, match=r"a run of 2 steps; to train it for 4, .*: semiseg train 'my recipe.toml' steps=4 --extend$"
    ):
        train(tiny("steps=4"), quiet=True)
    monkeypatch.setattr("sys.argv", ["/lib/semiseg/train/__main__.py", "r.toml", "steps=4"])
    with pytest.raises(RunError, match=r": python -m semiseg\.train r\.toml steps=4 --extend$"):
        train(tiny("steps=4"), quiet=True)
    with pytest.raises(RunError, match=r"another recipe .steps: 2 -> 4; optimizer\.lr"):  # all else stays refused
        train(tiny("steps=4", "optimizer.lr=0.01"), quiet=True, extend=True)
    with pytest.raises(RunError, match="--extend cannot shorten to 1"):
        train(tiny("steps=1"), quiet=True, extend=True)
    assert train(tiny("steps=2"), quiet=True, extend=True).results["steps"] == 2
