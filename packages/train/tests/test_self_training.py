"""Pseudo-labels by a trained model: thresholds by hand, killed and resumed, verified, and trained on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv
from typer.testing import CliRunner

from semiseg.data import DataError, OverlaySet, ShardSet
from semiseg.models import from_pretrained
from semiseg.train.commands.weak import app
from semiseg.train.loop import train
from semiseg.train.recipe.load import load
from semiseg.train.score.views import Views
from semiseg.train.weak.self_training import Namer, Naming, name_split

SHORT = ("steps=6", "evaluate.every=6", "checkpoint.every=6", "precision=no", "optimizer.lr=0.1")


@pytest.fixture
def run(recipe_file: Callable[..., Path]) -> Path:
    chosen = "objectives=[{kind='supervised'}]"
    return train(
        load(recipe_file(), [*SHORT, chosen, "name=teacher", "data.domains.street.unlabeled="]), quiet=True
    ).folder


@pytest.fixture
def split(scenes: Path, tmp_path: Path) -> Path:
    shutil.copytree(scenes / "street" / "train", tmp_path / "shards" / "street" / "train")
    shutil.copytree(scenes / "street" / "val", tmp_path / "shards" / "street" / "val")
    return tmp_path / "shards" / "street" / "train"


def by_hand(run: Path, shards: ShardSet, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes and confidences of an image, averaged with its mirror image."""
    model = from_pretrained(run)
    image = tv.pil_to_tensor(shards.read(row).image.convert("RGB"))[None]
    with torch.no_grad():
        seen = (model(image).softmax(1) + model(image.flip(-1)).softmax(1).flip(-1))[0] / 2
    return seen.argmax(0).numpy(), seen.amax(0).numpy()


def test_confident_pixels_get_their_class_and_others_none(run: Path, split: Path) -> None:
    found = CliRunner().invoke(app, ["predict", str(run), str(split), "--confidence", "0.3", "--report", "4"])
    assert found.exit_code == 0, found.output
    shards, overlay = ShardSet(str(split)), OverlaySet(f"{split}@self")
    assert len(overlay) == len(shards)
    total = named = 0
    for row in range(len(shards)):
        classes, confidence = by_hand(run, shards, row)
        label = overlay.read(row).label
        assert label is not None and ((label == classes) | (label == 255)).all()
        decided = np.abs(confidence - 0.3) > 1e-5
        assert np.array_equal(label[decided] == 255, confidence[decided] < 0.3)
        total, named = total + label.size, named + int((label != 255).sum())
    report = json.loads((run / "train@self.json").read_text())
    assert report["labeled"] == pytest.approx(100 * named / total) and 1 < report["labeled"] < 99
    assert report["against_masks"]["images"] == 4 and (run / "train@self.png").is_file()
    assert "kind = 'supervised', on = 'weak'" in found.output


def test_a_share_of_each_class_is_labeled(run: Path, split: Path) -> None:
    shards = ShardSet(str(split))
    model = from_pretrained(run)
    naming = Naming(confidence=0.0, share=0.25)
    namer = Namer(model, shards, shards.taxonomies[0], domain="street", views=Views(flip=True), naming=naming)
    namer.balance()
    overlay = name_split(namer, "quarter")
    predicted = np.zeros(len(shards.taxonomies[0].names), np.int64)
    for row in range(len(shards)):
        predicted += np.bincount(by_hand(run, shards, row)[0].ravel(), minlength=len(predicted))
    named = overlay.class_pixels(overlay.taxonomies[0]).sum(0)
    for had, has in zip(predicted, named, strict=True):
        assert has >= 0.25 * had - 1e-9  # at least the share, and no more than a bin of confidences above it
        assert has <= 0.25 * had + max(60, 0.1 * had)
    assert 0 < named.sum() < 0.4 * predicted.sum()


def test_resumed_after_a_kill_it_is_the_same_set(run: Path, split: Path, tmp_path: Path) -> None:
    shards = ShardSet(str(split))

    def namer() -> Namer:
        made = Namer(
            from_pretrained(run),
            shards,
            shards.taxonomies[0],
            domain="street",
            views=Views(),
            naming=Naming(confidence=0.2, share=0.5),
        )
        made.balance()
        return made

    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == 9:
            raise Killed

    with pytest.raises(Killed):
        name_split(namer(), "one", size="2KB", progress=kill)
    one = name_split(namer(), "one", size="2KB")
    two = name_split(namer(), "two", size="2KB")
    for row in range(len(shards)):
        assert np.array_equal(one.read(row).label, two.read(row).label)  # type: ignore[arg-type]
    other = namer()
    other.naming = Naming(confidence=0.3, share=0.5)
    with pytest.raises(DataError, match="has labels with other settings"):
        name_split(other, "one", size="2KB")


def test_a_second_model_learns_from_them(run: Path, split: Path, recipe_file: Callable[..., Path]) -> None:
    assert CliRunner().invoke(app, ["predict", str(run), str(split), "--confidence", "0.2"]).exit_code == 0
    recipe = load(
        recipe_file(),
        [
            *SHORT,
            "name=student",
            f"data.shards={split.parent.parent}",
            "data.domains.street.unlabeled=",
            "data.domains.street.weak={dataset='street', split='train', overlay='self', minus='labeled', batch_size=3}",
            "objectives=[{kind='supervised'}, {kind='supervised', on='weak'}]",
        ],
    )
    folder = train(recipe, quiet=True).folder
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(line["street/self_training"] > 0 for line in lines if "street/self_training" in line)
    assert sum("street/self_training" in line for line in lines) == 6


def test_a_model_that_is_never_confident_is_told(run: Path, split: Path) -> None:
    found = CliRunner().invoke(app, ["predict", str(run), str(split), "--confidence", "1"])
    assert found.exit_code != 0 and "nowhere as confident as 1" in str(found.exception)


def test_shards_of_other_classes_are_refused(run: Path, scenes: Path) -> None:
    found = CliRunner().invoke(app, ["predict", str(run), str(scenes / "room" / "train")])
    assert found.exit_code != 0 and "has no taxonomy with the model's classes" in str(found.exception)
