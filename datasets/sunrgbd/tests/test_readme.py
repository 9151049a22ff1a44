"""The README's programs run unchanged, and its table is the one in the code."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semiseg.data import Taxonomy

README = (Path(__file__).parents[1] / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def program(
    small: list, write_official: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The variables of the first program, after running it beside a folder `sunrgbd`."""
    write_official(tmp_path / "sunrgbd", small)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(PROGRAMS[0], names)
    return names


def test_the_program_without_torch_runs(
    program: dict[str, Any], small: list, capsys: pytest.CaptureFixture[str]
) -> None:
    assert np.array_equal(program["train"][0].label, small[1].label)
    assert np.array_equal(program["ids"], Taxonomy.get("sunrgbd-13").map(small[1].label))


def test_the_program_with_torch_runs(program: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    exec(PROGRAMS[1], program)
    assert program["images"].shape == (2, 3, 480, 640)
    assert program["masks"].shape == (2, 480, 640)
    assert program["masks"].dtype == torch.int64


def test_the_table_of_labels_is_the_map() -> None:
    taxonomy, all37 = Taxonomy.get("sunrgbd-13"), Taxonomy.get("sunrgbd-37")
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (\d.*) \|$", README, re.MULTILINE)
    assert [(int(number), name) for number, name, _ in rows] == list(enumerate(taxonomy.names, start=1))
    table = {}
    for number, _, members in rows:
        for member in members.split(", "):
            stored, name = member.split()
            assert all37.raw.names[int(stored)] == name
            table[int(stored)] = int(number) - 1
    assert table == taxonomy.ids
