"""Options typed on the command line."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from semiseg.cli.main import build_app
from semiseg.data import DataError, ShardSet


@pytest.mark.parametrize("name", ["2024_05", "0x10", "2024-05-01", "1e5", "inf", "true", "007"])
def test_a_name_that_looks_like_a_number_stays_as_it_is_typed(
    pairs: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    words = ["data", "shard", "folder", str(pairs(4)), "--option", f"name={name}", "--option", "val=0.25"]
    ran = CliRunner().invoke(build_app(), [*words, "--to", str(tmp_path / "out"), "--workers", "1"])
    assert ran.exit_code == 0, ran.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert ShardSet(tmp_path / "out" / name / "train").taxonomy(name).names == ("class_0", "class_1", "class_2")


def test_an_option_given_twice_is_refused(pairs: Callable[..., Path]) -> None:
    words = ["data", "shard", "folder", str(pairs(2)), "--option", "name=a", "--option", "name=b"]
    ran = CliRunner().invoke(build_app(), words)
    assert isinstance(ran.exception, DataError)
    assert str(ran.exception) == "data set 'folder': option name is given twice, as a and b; keep one"


@pytest.mark.parametrize(
    ("values", "option", "expected"),
    [
        ([0, 127, 255], "threshold=128", [0, 0, 1]),
        ([0, 127, 255], "ignore=none", [0, 1, 2]),
        ([0, 127, 255], "ignore=127", [0, 255, 1]),
        ([0, 1, 255], "ignore=255", [0, 1, 255]),
    ],
)
def test_the_options_that_a_refusal_names_work_as_they_are_typed(
    put: Callable[..., Path], ids: Callable, tmp_path: Path, values: list[int], option: str, expected: list[int]
) -> None:
    for number in range(4):
        put(f"images/{number}.png")
        put(f"masks/{number}.png", np.array(values, np.uint8)[ids(number)])
    words = ["data", "shard", "folder", str(put("read me.md", "")), "--option", "val=0", "--workers", "1"]
    refused = CliRunner().invoke(build_app(), [*words, "--to", str(tmp_path / "out")])
    assert isinstance(refused.exception, DataError) and not (tmp_path / "out").exists()
    typed = re.findall(r"--option [a-z]+=\w+", str(refused.exception))
    assert f"--option {option}" in typed
    ran = CliRunner().invoke(build_app(), [*words, "--to", str(tmp_path / "out"), "--option", option])
    assert ran.exit_code == 0, ran.output
    stored = ShardSet(tmp_path / "out/roofs/train")
    for sample in stored:
        assert sample.label is not None
        found = stored.taxonomy("roofs").map(sample.label)
        assert np.array_equal(found, np.array(expected, np.uint8)[ids(int(sample.key))])
