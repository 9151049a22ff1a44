"""Options typed on the command line."""

from collections.abc import Callable
from pathlib import Path

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
