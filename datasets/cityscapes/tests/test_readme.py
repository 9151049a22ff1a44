"""The README's examples run unchanged, and its table of labels is the one in the code."""

import re
from pathlib import Path
from typing import Any

import pytest

from semiseg.datasets.cityscapes.labels import CITYSCAPES_19, LABELS

README = (Path(__file__).parents[1] / "README.md").read_text()
PLAIN, TORCH = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_example_without_a_framework_runs(
    official: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    official.pack_all(tmp_path / "cityscapes")
    monkeypatch.chdir(tmp_path)
    exec(compile(PLAIN, "README", "exec"), {})
    assert "train 4 there" in capsys.readouterr().out


def test_the_example_with_pytorch_runs(
    official: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    official.unpack(tmp_path / "cityscapes")
    next((tmp_path / "cityscapes/gtFine/val").rglob("*_labelIds.png")).unlink()
    monkeypatch.chdir(tmp_path)
    exec(compile(TORCH, "README", "exec"), {})
    assert "torch.Size([2, 3, 90, 120]) torch.Size([2, 90, 120])" in capsys.readouterr().out


def test_the_table_lists_the_labels() -> None:
    cells = re.findall(r"\| (\d+) \| ([\w ]+) \| (\w+) \|(?: (\d+))? (?=\|)", README)
    listed = {int(i): (name, category, train) for i, name, category, train in cells}
    assert listed == {
        i: (label.name, label.category, str(CITYSCAPES_19.ids.get(i, ""))) for i, label in enumerate(LABELS)
    }
