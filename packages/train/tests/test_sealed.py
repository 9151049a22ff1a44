"""Checkpoints show every changed byte; names that a run did not write are neither used nor removed."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from semiseg.data import SemisegError
from semiseg.train import Recipe, train
from semiseg.train.run import checkpoint
from semiseg.train.run.checkpoint import CheckpointError
from semiseg.train.score.saved import open_model
from semiseg.train.sealed import SEAL, all_best, all_steps, fault, seal


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, scenes: Path, taxonomies: dict[str, str]) -> Path:
    """A run of four steps with checkpoints of steps 2 and 4 and a teacher."""
    from conftest import RECIPE
    from semiseg.train import load

    folder = tmp_path_factory.mktemp("sealed")
    text = RECIPE.format(runs=folder, shards=scenes, street=taxonomies["street"], room="")
    (folder / "tiny.toml").write_text(text)
    train(load(folder / "tiny.toml", ["steps=4", "teacher={}"]), quiet=True)
    return folder / "tiny"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs" / "tiny"))


def places(run: Path) -> Iterator[Path]:
    return (path for path in sorted((run / "step-00000004").rglob("*")) if path.is_file())


def test_every_file_is_sealed(run: Path):
    names = {path.relative_to(run / "step-00000004").as_posix() for path in places(run)}
    sealed = json.loads((run / "step-00000004" / SEAL).read_text())["files"]
    assert names == set(sealed) | {SEAL}
    assert {
        "model.safetensors",
        "teacher/model.safetensors",
        "optimizer.pt",
        "learner.safetensors",
        "state.json",
    } <= names


def test_any_flipped_byte_is_found(run: Path):
    """The ends of every file and random places in it, one bit each; SEMISEG_FUZZ_EXAMPLES (at most 100): how many of these."""
    inner = min(int(os.environ.get("SEMISEG_FUZZ_EXAMPLES", "4")), 100)
    chance = random.Random(0)
    flips = 0
    for path in places(run):
        data = path.read_bytes()
        for at in [0, len(data) - 1, *(chance.randrange(len(data)) for _ in range(inner))]:
            flipped = bytearray(data)
            flipped[at] ^= 1 << chance.randrange(8)
            path.write_bytes(flipped)
            found, state, damaged = checkpoint.newest(run)
            assert found == run / "step-00000002" and state is not None and state.step == 2, (path, at)
            assert len(damaged) == 1 and "step-00000004 is damaged: " in damaged[0] and path.name in damaged[0]
            flips += 1
        path.write_bytes(data)
    assert flips == (2 + inner) * len(list(places(run))) >= 8 * (2 + inner)
    assert checkpoint.newest(run)[0] == run / "step-00000004"


def test_any_truncated_or_missing_file_is_found(run: Path):
    for path in places(run):
        data = path.read_bytes()
        for kept in (0, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:kept])
            assert checkpoint.newest(run)[0] == run / "step-00000002", path
        path.unlink()
        assert checkpoint.newest(run)[0] == run / "step-00000002", path
        path.write_bytes(data)


def test_without_an_intact_checkpoint_there_is_one_error(run: Path):
    for folder in all_steps(run):
        with (folder / "optimizer.pt").open("r+b") as file:
            file.write(b"x")
    with pytest.raises(
        CheckpointError, match=r"step-00000004 is damaged: optimizer\.pt has changed .*no intact"
    ) as caught:
        checkpoint.newest(run)
    assert "\n" not in str(caught.value)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tiny: Callable[..., Recipe], capsys: Any):
    folder = train(tiny("steps=6"), quiet=True).folder
    straight = (folder / "step-00000006" / "model.safetensors").read_bytes()
    lines = (folder / "metrics.jsonl").read_text().count("\n")
    with (folder / "step-00000006" / "learner.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    capsys.readouterr()
    train(tiny("steps=6"))
    told = capsys.readouterr().err
    assert "step-00000006 is damaged: learner.safetensors has changed" in told and "from step 4" in told
    assert (folder / "step-00000006" / "model.safetensors").read_bytes() == straight
    assert (folder / "step-00000006.damaged").is_dir() and (folder / "metrics.jsonl").read_text().count("\n") == lines
    assert [path.name for path in all_steps(folder)] == ["step-00000004", "step-00000006"]


def test_checkpoints_without_seals_stay_readable(run: Path):
    for folder in all_steps(run):
        (folder / SEAL).unlink()
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(
            json.dumps({k: state[k] for k in state if k not in ("due", "counts", "sealed")})
        )
    found, state, damaged = checkpoint.newest(run)
    assert found == run / "step-00000004" and state is not None and not state.sealed and damaged == []


def test_strange_names_are_neither_used_nor_removed(tiny: Callable[..., Recipe], tmp_path: Path):
    """Copies by hand, with any name, folders, files and links."""
    options = ("steps=8", "checkpoint.keep=1")
    part = train(tiny("steps=4", "checkpoint.keep=1"), quiet=True).folder
    (part / "recipe.toml").write_text((part / "recipe.toml").read_text().replace("steps = 4", "steps = 8"))
    strange = [
        "step-backup",
        "step-00000004 (1)",
        "step-00000004.bak",
        "step-4",
        "step-000000040",
        "step--0000001",
        "Step-9",
    ]
    for name in strange:
        shutil.copytree(part / "step-00000004", part / name)
    (best,) = all_best(part)
    for name in ("best-copy", "best-00000003.bak", "best-99", "best-00000099"):
        shutil.copytree(best, part / name)
        strange.append(name)
    (part / "step-notes.txt").write_text("mine")
    (part / "best-idea").write_text("mine")
    (part / ".vimrc.old").write_text("mine")
    (part / "step-link").symlink_to(part / "step-00000004")
    strange += ["step-notes.txt", "best-idea", ".vimrc.old", "step-link"]
    assert [path.name for path in all_steps(part)] == ["step-00000004"] and all_best(part) == [best]
    assert open_model(str(part), best=True)[0].classes
    run = train(tiny(*options), quiet=True)
    assert run.results["steps"] == 8
    assert all(os.path.lexists(part / name) for name in strange)
    assert [path.name for path in all_steps(part)] == ["step-00000008"]


def test_a_copy_under_the_name_of_a_later_step_is_set_aside(tiny: Callable[..., Recipe]):
    folder = train(tiny("steps=4"), quiet=True).folder
    shutil.copytree(folder / "step-00000002", folder / "step-00000006")
    (folder / "step-00000008").write_text("a file")
    found, _, damaged = checkpoint.newest(folder)
    assert found == folder / "step-00000004"
    assert [text.rpartition("/")[2] for text in damaged] == [
        "step-00000008 is not a folder",
        "step-00000006 is damaged: it is a copy of step-00000002",
    ]
    checkpoint.remove_leftovers(folder, after=4)
    assert (folder / "step-00000006.damaged").is_dir() and (folder / "step-00000008.damaged").is_file()


def test_a_moved_checkpoint_behind_a_link_is_used_and_kept(tiny: Callable[..., Recipe], tmp_path: Path):
    folder = train(tiny("steps=4"), quiet=True).folder
    (folder / "step-00000004").rename(tmp_path / "step-00000004")
    (folder / "step-00000004").symlink_to(tmp_path / "step-00000004")
    assert checkpoint.newest(folder)[0] == folder / "step-00000004"
    (folder / "recipe.toml").write_text((folder / "recipe.toml").read_text().replace("steps = 4", "steps = 8"))
    train(tiny("steps=8", "checkpoint.keep=1"), quiet=True)
    assert fault(tmp_path / "step-00000004") == ""


def test_a_model_with_a_flipped_byte_is_not_scored(run: Path):
    (best,) = all_best(run)
    for folder, options in ((run / "step-00000004", {}), (best, {"best": True})):
        path = folder / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(SemisegError, match=rf"{folder.name} is damaged: model\.safetensors has changed"):
            open_model(str(run), **options)


def test_a_seal_names_what_differs(tmp_path: Path):
    folder = tmp_path / "step-00000001"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a").write_bytes(b"abc")
    seal(folder, folder.name)
    assert fault(folder) == ""
    (folder / "deep" / "a").write_bytes(b"abcd")
    assert fault(folder) == "deep/a has 4 bytes, expected 3"
    (folder / "deep" / "a").unlink()
    assert fault(folder) == "deep/a is missing"
