"""A model is scored on data with its classes, and on no other: raw labels and class names are compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from semiseg.cli.main import build_app
from semiseg.data import DataError, OverlaySet, ShardSet, Taxonomy, open_dataset, shard, write_overlay
from semiseg.models import create_segmenter, save_pretrained
from semiseg.train.recipe.shards import open_shards


def evaluated(*arguments: object) -> tuple[dict[str, Any], str]:
    """What `semiseg eval ... --json` prints, and its notes; raises what the command raises."""
    done = CliRunner().invoke(build_app(), ["eval", *map(str, arguments), "--json"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), done.stderr


def save(folder: Path, *taxonomies: Taxonomy, raw_space: bool) -> Path:
    """A model with random weights and a domain for each taxonomy, named after its raw space."""
    torch.manual_seed(0)
    classes = {taxonomy.raw_space: len(taxonomy.names) for taxonomy in taxonomies}
    model = create_segmenter(encoder="test_resnet", classes=classes, weights="none", context="none").eval()
    described = {
        taxonomy.raw_space: {
            "name": taxonomy.name,
            "names": list(taxonomy.names),
            "colours": [list(colour) for colour in taxonomy.colours],
            **({"raw_space": taxonomy.raw_space} if raw_space else {}),
        }
        for taxonomy in taxonomies
    }
    return save_pretrained(model, folder, metadata={"taxonomies": described})


def write_folder(here: Path, name: str, *classes: str) -> ShardSet:
    """Shards of four images whose masks have the ids 0, 1, 2, ... with these class names."""
    pixels = np.random.default_rng(0)
    for number in range(4):
        for folder in ("images", "masks"):
            (here / name / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.integers(0, 255, (32, 32, 3), np.uint8)).save(here / name / "images" / f"{number}.png")
        mask = (np.arange(32 * 32).reshape(32, 32) // 8 % len(classes)).astype(np.uint8)
        Image.fromarray(mask).save(here / name / "masks" / f"{number}.png")
    entries = [f'{{ name = "{label}", id = {number} }}' for number, label in enumerate(classes)]
    (here / name / "classes.toml").write_text(f"classes = [{', '.join(entries)}]\n")
    adapter = open_dataset("folder", here / name, name=name)
    shard(adapter, "train", here / "shards")
    return ShardSet(str(here / "shards" / name / "train"))


@pytest.mark.parametrize("recorded", [True, False])
def test_another_data_set_is_refused(scenes: Path, taxonomies: dict[str, str], tmp_path: Path, recorded: bool) -> None:
    street, room = (Taxonomy.get(taxonomies[name]) for name in ("street", "room"))
    rooms = save(tmp_path / "rooms", room, raw_space=recorded)
    scores, notes = evaluated(rooms, "--dataset", "room", "--shards", scenes)
    assert set(scores) == {"room"} and scores["room"]["images"] == 5 and "differ" not in notes
    with pytest.raises(
        DataError, match=r"labels of 'street' .*knows those of taxonomy 'room-9': wall.*--dataset"
    ) as found:
        evaluated(rooms, "--dataset", "street", "--shards", scenes)
    assert "\n" not in str(found.value)
    both = save(tmp_path / "both", street, room, raw_space=recorded)
    with pytest.raises(DataError, match="choose another domain of the model with --domain"):
        evaluated(both, "--domain", "room", "--dataset", "street", "--shards", scenes)
    assert evaluated(both, "--domain", "street", "--dataset", "street", "--shards", scenes)[0]["street"]["images"] == 5


@pytest.mark.parametrize("recorded", [True, False])
def test_names_decide_between_own_data_sets(tmp_path: Path, recorded: bool) -> None:
    roofs = write_folder(tmp_path, "roofs", "ground", "roof", "tree")
    others = {
        "same": ("ground", "roof", "tree"),
        "moved": ("roof", "ground", "tree"),
        "partly": ("ground", "water", "tree"),
        "fewer": ("ground", "roof"),
        "foreign": ("a", "b", "c"),
    }
    for name, classes in others.items():
        write_folder(tmp_path, name, *classes)
    model = save(tmp_path / "model", roofs.taxonomies[0], raw_space=recorded)
    data = ("--split", "train", "--shards", tmp_path / "shards")
    own, same = (evaluated(model, "--dataset", name, *data)[0]["roofs"] for name in ("roofs", "same"))
    assert own == same  # other shards with the same pixels and classes
    for name in ("moved", "partly", "fewer", "foreign"):
        with pytest.raises(DataError, match=f"(?s)labels of '{name}'.*{', '.join(others[name])}.*ground, roof, tree"):
            evaluated(model, "--dataset", name, *data)


def test_renamed_classes_of_the_same_labels_are_scored_and_named(tmp_path: Path) -> None:
    roofs = write_folder(tmp_path, "roofs", "ground", "roof", "tree")
    model = save(tmp_path / "model", roofs.taxonomies[0], raw_space=True)
    data = ("--dataset", "roofs", "--split", "train", "--shards", tmp_path / "shards")
    before, _ = evaluated(model, *data)
    write_folder(tmp_path, "roofs", "ground", "Dach", "tree")
    after, notes = evaluated(model, *data)
    assert list(after["roofs"]["iou"].values()) == list(before["roofs"]["iou"].values())
    assert "class names differ" in notes and "'roof' is 'Dach'" in notes


def test_an_overlay_is_scored_on_photographs(tmp_path: Path) -> None:
    """Images of an overlay's own shards show its labels; the score is that of the split with these labels."""
    roofs = write_folder(tmp_path, "roofs", "ground", "roof", "tree")
    taxonomy = roofs.taxonomies[0]
    write_overlay(
        roofs,
        "copy",
        taxonomy,
        lambda row: taxonomy.map(np.asarray(roofs[row].label)),
        settings={},
        rows=range(len(roofs)),
    )
    assert isinstance(open_shards(f"{roofs.url}@copy"), OverlaySet) and type(open_shards(roofs.url)) is ShardSet
    model = save(tmp_path / "model", taxonomy, raw_space=True)
    data = ("--dataset", "roofs", "--shards", tmp_path / "shards")
    own, copy = (evaluated(model, *data, "--split", split)[0] for split in ("train", "train@copy"))
    assert own == copy
