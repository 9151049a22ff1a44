"""Classes reordered behind the same shards: scores, resumed runs and new starts refuse them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.train.run.resume import data_changes
from semiseg.train.score.saved import class_conflict
from tests.processes import python

RECIPE = """name = "own"
steps = 2
precision = "no"
runs = "{here}/runs"
[data]
shards = "{here}/shards"
workers = 0
[data.domains.own]
taxonomy = "{taxonomy}"
augment = {{ crop = [32, 32] }}
labeled = {{ dataset = "own", split = "train", batch_size = 2 }}
val = {{ dataset = "own", split = "val" }}
[model]
context = {{ kind = "none", channels = 16 }}
encoder = {{ name = "test_resnet", weights = "none" }}
[[objectives]]
kind = "supervised"
[optimizer]
kind = "sgd"
lr = 0.05
[evaluate]
every = 1
[checkpoint]
every = 1
keep = 5
"""


def classes(*names: str) -> str:
    ids = {"sky": 0, "roof": 1, "dach": 1, "tree": 2}
    entries = [f'{{ name = "{name}", id = {ids[name]} }}' for name in names]
    return f"classes = [{', '.join(entries)}]\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Ten images and masks of three ids, sharded; a run of two steps on them."""
    pixels = np.random.default_rng(0)
    for number in range(10):
        for folder, picture in (("images", pixels.integers(0, 255, (40, 40, 3), np.uint8)),
                                ("masks", pixels.integers(0, 3, (5, 5), np.uint8).repeat(8, 0).repeat(8, 1))):  # fmt: skip
            (tmp_path / "own" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(tmp_path / "own" / folder / f"{number}.png")
    reorder(tmp_path, "sky", "roof", "tree")
    manifest = json.loads((tmp_path / "shards" / "own" / "train" / "manifest.json").read_text())
    (tmp_path / "own.toml").write_text(RECIPE.format(here=tmp_path, taxonomy=manifest["taxonomies"][0]["name"]))
    python("-m", "semiseg.train", tmp_path / "own.toml")
    return tmp_path


def reorder(here: Path, *names: str) -> None:
    (here / "own" / "classes.toml").write_text(classes(*names))
    python("-m", "semiseg.cli", "data", "shard", "folder", here / "own", "--to", here / "shards")


def test_moved_classes_are_refused_and_renamed_ones_are_not(own: Path):
    cut = own / "runs" / "own"
    score = json.loads((cut / "results.json").read_text())["last"]["domains"]["own"]["miou"]
    reorder(own, "sky", "dach", "tree")  # a new name in the same position
    renamed = json.loads(python("-m", "semiseg.cli", "eval", cut, "--json").stdout)["own"]
    assert renamed["miou"] == score
    for name in ("results.json", "step-00000002/state.json"):
        (cut / name).unlink()  # as if the run had been interrupted after its first step
    python("-m", "semiseg.train", own / "own.toml")
    reorder(own, "tree", "sky", "roof")
    message = python("-m", "semiseg.cli", "eval", cut, expect=1).stderr
    assert "the model's classes are sky, dach, tree, those of the data tree, sky, roof" in message.replace("\n", " ")
    (cut / "step-00000002" / "state.json").unlink()
    message = python("-m", "semiseg.train", own / "own.toml", expect=1).stderr
    assert (
        "was trained on other data, so later losses would differ: data of own (classes): " in message
        and "--allow-changes" in message
    )
    message = python(
        "-m", "semiseg.train", own / "own.toml", "name=new", f"model.start={cut}/step-00000001", expect=1
    ).stderr
    assert "the model's classes are sky, roof, tree" in message and "give the domain another name" in message


def test_which_names_are_in_conflict():
    assert not class_conflict(("a", "b", "c"), ("a", "b", "c")) and not class_conflict(("a", "b", "c"), ("a", "x", "c"))
    for other in (("b", "a", "c"), ("a", "c", "x"), ("x", "y", "z"), ("a", "b")):
        assert "the model's classes are a, b, c" in class_conflict(("a", "b", "c"), other)
    before = {"own/labeled": "1"}  # a checkpoint from before classes were kept
    assert data_changes(before, {"own/labeled": "1", "own (classes)": "2"}) == []
    assert len(data_changes({**before, "own (classes)": "1"}, {"own/labeled": "1", "own (classes)": "2"})) == 1
