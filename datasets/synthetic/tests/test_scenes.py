"""Generated scenes: the same pixels everywhere, every class, legal ids, sane shares, and not solved by colour."""

import hashlib
import io
import pickle
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semiseg.data import DataError, open_dataset
from semiseg.datasets.synthetic import Room, Street
from semiseg.datasets.synthetic.adapter import Kind, draw

SCENES = 50
GOLDEN = {  # sha256 of image and label pixels; a change here is a change of protocol: raise REVISION in adapter.py
    ("street", 0, "train", 0): "f0d6ffd1062833e3",
    ("street", 0, "val", 3): "a33d430efba10a8f",
    ("street", 7, "train", 12): "b82fc402915319cd",
    ("room", 0, "train", 0): "ad337c7dbc334650",
    ("room", 0, "val", 3): "037f9fdb4e1f69d5",
    ("room", 7, "train", 12): "d9fb79e88c17cf3f",
}
SHARES = {  # of all pixels: (least, most) over 50 scenes
    "street": {
        "sky": (0.08, 0.25), "road": (0.15, 0.35), "pavement": (0.05, 0.15), "building": (0.2, 0.4), "vegetation": (0.06, 0.2),
        "pole": (0.002, 0.015), "car": (0.02, 0.12), "person": (0.002, 0.015), "void": (0.01, 0.05),
    },
    "room": {
        "wall": (0.3, 0.5), "floor": (0.12, 0.28), "ceiling": (0.06, 0.2), "window": (0.02, 0.1), "picture": (0.005, 0.03),
        "shelf": (0.04, 0.14), "table": (0.02, 0.1), "chair": (0.015, 0.08), "lamp": (0.003, 0.015), "void": (0.01, 0.05),
    },
}  # fmt: skip


@pytest.mark.parametrize(("kind", "seed", "split", "number"), list(GOLDEN))
def test_a_scene_has_the_same_pixels_everywhere(kind: Kind, seed: int, split: str, number: int) -> None:
    scene = draw.__wrapped__(kind, 96, 72, seed, split, number)
    digest = hashlib.sha256(scene.image.tobytes() + scene.label.tobytes()).hexdigest()
    assert digest[:16] == GOLDEN[kind, seed, split, number]


@pytest.mark.parametrize("adapter", [Street, Room])
def test_every_class_occurs_in_its_share_and_every_pixel_has_a_legal_id(adapter: type[Street] | type[Room]) -> None:
    labels = np.stack([draw(adapter.name, 96, 72, 0, "train", number).label for number in range(SCENES)])
    space = adapter.raw_space.names
    assert set(np.unique(labels).tolist()) == set(space)
    shares = np.bincount(labels.ravel(), minlength=len(space)) / labels.size
    for id, name in space.items():
        least, most = SHARES[adapter.name][name]
        assert least < shares[id] < most, f"{name}: {shares[id]:.4f}"
    assert len({label.tobytes() for label in labels}) == SCENES


@pytest.mark.parametrize("kind", ["street", "room"])
def test_colour_alone_does_not_tell_the_classes(kind: Kind) -> None:
    """The nearest mean colour of each class, learnt on 20 scenes, stays under 0.3 mIoU on 20 others."""
    classes = len(SHARES[kind]) - 1
    pixels, ids = _pixels(kind, "train", classes)
    centroids = np.stack([pixels[ids == c].mean(axis=0) for c in range(classes)])
    pixels, ids = _pixels(kind, "val", classes)
    guess = ((pixels[:, None] - centroids) ** 2).sum(axis=2).argmin(axis=1)
    iou = [((guess == c) & (ids == c)).sum() / ((guess == c) | (ids == c)).sum() for c in range(classes)]
    assert np.mean(iou) < 0.3


@pytest.mark.parametrize("kind", ["street", "room"])
def test_the_picture_shows_what_the_label_says(kind: Kind) -> None:
    """Colours change more across the label's boundaries than elsewhere, and most so when the two are not shifted."""
    steps = dict.fromkeys((-4, -2, 0, 2, 4), 0.0)
    for number in range(12):
        scene = draw(kind, 96, 72, 0, "train", number)
        change = abs(np.diff(scene.image.astype(float), axis=1)).sum(axis=2)
        edge = np.diff(scene.label.astype(int), axis=1) != 0
        for shift in steps:
            steps[shift] += change[np.roll(edge, shift, axis=1)].mean()
    assert max(steps, key=lambda shift: steps[shift]) == 0
    assert steps[0] > 1.5 * max(steps[-4], steps[4])


@pytest.mark.parametrize("kind", ["street", "room"])
def test_seed_split_and_number_each_make_another_scene(kind: Kind) -> None:
    keys = [(0, "train", 0), (1, "train", 0), (0, "val", 0), (0, "train", 1)]
    pictures = [draw(kind, 64, 48, *key).image.astype(int) for key in keys]
    for other in pictures[1:]:
        assert abs(other - pictures[0]).mean() > 10


@pytest.mark.parametrize("kind", ["street", "room"])
def test_another_size_shows_the_same_scene(kind: Kind) -> None:
    small, large = (draw(kind, width, width * 3 // 4, 0, "train", 1) for width in (64, 128))
    agree = small.label == large.label[::2, ::2]
    assert agree.mean() > 0.85
    reduced = np.asarray(Image.fromarray(large.image).resize((64, 48), Image.Resampling.BOX), int)
    assert abs(reduced - small.image).mean() < 12


def test_samples_are_lazy_picklable_and_agree_with_the_drawing() -> None:
    dataset = open_dataset("street", size="64x48", train_count="3", val_count=2, seed="5")
    samples = list(dataset.samples("train"))
    assert [sample.key for sample in samples] == ["train-000000", "train-000001", "train-000002"]
    for number, sample in enumerate(pickle.loads(pickle.dumps(samples))):
        scene = draw("street", 64, 48, 5, "train", number)
        with Image.open(io.BytesIO(sample.image())) as image:
            assert np.array_equal(np.asarray(image), scene.image)
        assert np.array_equal(sample.label(), scene.label)
    assert {name: split.samples for name, split in dataset.splits().items()} == {"train": 3, "val": 2}
    assert dataset.version == "scenes1-64x48-seed5"


def test_a_scene_does_not_depend_on_how_many_there_are() -> None:
    few, many = (list(Room(size=(32, 32), train_count=count).samples("train")) for count in (1, 3))
    assert (len(few), len(many)) == (1, 3)
    assert few[0].key == many[0].key
    assert callable(few[0].image) and callable(many[0].image)
    assert few[0].image() == many[0].image()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"size": "192"},
            "option size is '192'; expected WIDTHxHEIGHT in pixels, both from 32 to 2048, such as size=192x144",
        ),
        ({"size": (16, 64)}, r"option size is \(16, 64\); expected WIDTHxHEIGHT"),
        ({"size": 192}, "option size is 192; expected WIDTHxHEIGHT"),
        ({"train_count": "many"}, "option train_count is 'many'; expected an integer, 1 or more"),
        ({"val_count": 0}, "option val_count is 0; expected an integer, 1 or more"),
        ({"seed": "-1"}, "option seed is '-1'; expected an integer, 0 or more"),
        ({"train_count": 2.5}, "option train_count is 2.5; expected an integer"),
        ({"sead": 1}, "unknown option 'sead'; did you mean 'seed'"),
    ],
)
def test_invalid_options_are_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset("street", **options)


def test_a_root_or_an_unknown_split_is_an_error(tmp_path) -> None:
    with pytest.raises(DataError, match="'room' is generated and reads no files"):
        open_dataset("room", tmp_path)
    with pytest.raises(DataError, match="unknown split 'test'"):
        Room().samples("test")


def _pixels(kind: Kind, split: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours [n, 3] and class ids [n] of 20 scenes, void left out."""
    scenes = [draw(kind, 96, 72, 0, split, number) for number in range(20)]
    pixels = np.concatenate([scene.image[::2, ::2].reshape(-1, 3) for scene in scenes]).astype(float)
    ids = np.concatenate([scene.label[::2, ::2].ravel() for scene in scenes])
    return pixels[ids < classes], ids[ids < classes]
