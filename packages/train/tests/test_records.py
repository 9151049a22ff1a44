"""Files of a run that are damaged: survived where they can be made again, one clear error where they can't."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from semiseg.data import DataError, SemisegError, write_text
from semiseg.train.loop import Run, train
from semiseg.train.recipe import Recipe
from semiseg.train.run import checkpoint
from semiseg.train.run.launches import read_launches
from semiseg.train.run.results import read_results
from semiseg.train.sealed import all_steps

NOT_RECORDS = ["", "\0\0\0", "{", "[]", "3", "null", '"text"', "\ud800", "{}"]
OPTIONS = ("model.norm=frozen", "steps=2", "checkpoint.every=1", "checkpoint.keep=9", "evaluate.every=9")


def damage(path: Path, text: str) -> None:
    path.write_bytes(text.encode(errors="surrogatepass"))


@pytest.fixture
def trained(tiny: Callable[..., Recipe]) -> tuple[Callable[..., Run], Path]:
    """A complete run of two steps; the function that continues it, and its folder."""

    def again(**options: bool) -> Run:
        return train(tiny(*OPTIONS), quiet=True, **options)

    return again, again().folder


def cut(run: Path) -> None:
    """Leave what a kill after the first checkpoint leaves."""
    shutil.rmtree(run / "step-00000002", ignore_errors=True)
    (run / "results.json").unlink(missing_ok=True)


def test_results_that_are_damaged_are_made_again(trained: tuple[Callable[..., Run], Path]):
    again, run = trained
    whole = read_results(run)
    assert whole is not None
    for text in (*NOT_RECORDS, '{"recipe": 3}', json.dumps({**whole, "last": None})):
        damage(run / "results.json", text)
        assert read_results(run) is None
    assert again().results["last"] == whole["last"]
    made = read_results(run)
    assert made is not None and made.keys() == whole.keys()
    assert {name for name in whole if made[name] != whole[name]} <= {"hours", "launches", "peak_memory_bytes"}
    assert [launch["start"] for launch in read_launches(run)] == [0, 2]


def test_a_record_of_starts_that_is_damaged_is_one_error(trained: tuple[Callable[..., Run], Path]):
    again, run = trained
    for text in (*NOT_RECORDS, '{"launches": 3}', '{"launches": [3]}'):
        damage(run / "env.json", text)
        with pytest.raises(SemisegError, match=r"env\.json is damaged \(.+\); put back a copy of it, or delete it"):
            read_launches(run)
    cut(run)
    metrics = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(SemisegError, match=r"env\.json is damaged"):
        again()
    (run / "metrics.jsonl").write_bytes(b'\xff\n{"step": "x"}\n{}\n3\n' + metrics)
    damage(run / "env.json", '{"launches": [{}]}')  # as another version may have written it
    (run / ".env.json.1-a.tmp").write_text("what a kill left")
    launches = again().results["launches"]
    assert [launch["start"] for launch in launches] == [None, 1] and set(launches[0].values()) == {None}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "lr" in row] == [1, 2]
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]
    (run / "env.json").unlink()
    cut(run)
    assert [launch["start"] for launch in again().results["launches"]] == [1]


def test_a_checkpoint_that_is_damaged_is_one_error(trained: tuple[Callable[..., Run], Path]):
    again, run = trained
    cut(run)
    file = run / "step-00000001" / "state.json"
    state = json.loads(file.read_text())
    (run / "step-00000001" / "seal.json").unlink()  # as of an earlier version; seals: test_sealed.py
    assert state.pop("sealed") is True
    topology = state["topology"]
    wrong = [{**state, name: "?"} for name in state] + [{**state, "best": {"miou": 3}}, {**state, "more": 3}]
    wrong.append({**state, "topology": {**topology, "precision": "fp7"}})
    for text in (*NOT_RECORDS, *map(json.dumps, wrong)):
        damage(file, text)
        with pytest.raises(SemisegError, match=r"step-00000001 cannot be restored \(.+\), and there is no intact"):
            again()
    damage(file, json.dumps({**state, "topology": {**topology, "nodes": 3}}))
    differ = (
        r"trained with different settings, so later losses would differ: nodes: 3 -> not known here; .*--allow-changes"
    )
    with pytest.raises(SemisegError, match=differ):
        again()
    assert again(allow_changes=True).results["launches"][-1]["changes"] == ["nodes: 3 -> not known here"]
    cut(run)
    damage(file, json.dumps({**state, "topology": {"precision": "no"}}))  # of a version that told less
    assert again().results["last"]["step"] == 2


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path: Path):
    (tmp_path / "there").mkdir()
    with pytest.raises(DataError, match=r"there: cannot be written"):
        write_text(tmp_path / "there", "text")
    write_text(tmp_path / "file", "größe")
    assert {path.name for path in tmp_path.iterdir()} == {"there", "file"}
    assert (tmp_path / "file").read_bytes() == "größe".encode()


def test_a_checkpoint_whose_replacement_was_killed_comes_back(tmp_path: Path):
    (tmp_path / ".step-00000004.old").mkdir()
    (tmp_path / ".step-00000004.old" / "state.json").write_text("{}")
    (tmp_path / ".step-00000004.part").mkdir()
    checkpoint.recover(tmp_path)
    assert [path.name for path in all_steps(tmp_path)] == ["step-00000004"]
    (tmp_path / ".step-00000004.old").mkdir()  # killed after both renames
    checkpoint.recover(tmp_path)
    checkpoint.remove_leftovers(tmp_path, after=4)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]
