"""As many files as the publisher has: 24,998 images, 5,000 fine and 23,473 coarse labels, all of one tiny picture."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data.write.encode import fetch
from semiseg.datasets.cityscapes import Cityscapes

CITIES = {"train": (18, 2975), "val": (3, 500), "test": (6, 1525), "train_extra": (23, 19998)}
KINDS = {"leftImg8bit": list(CITIES), "gtFine": ["train", "val", "test"], "gtCoarse": ["train", "val", "train_extra"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The publisher's archives, without the files that are not read: colours and instances."""
    picture = _png()
    for name, kind, splits in (
        ("leftImg8bit_trainvaltest.zip", "leftImg8bit", KINDS["leftImg8bit"][:3]),
        ("leftImg8bit_trainextra.zip", "leftImg8bit", KINDS["leftImg8bit"][3:]),
        ("gtFine_trainvaltest.zip", "gtFine", KINDS["gtFine"]),
        ("gtCoarse.zip", "gtCoarse", KINDS["gtCoarse"]),
    ):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for key in (key for split in splits for key in _keys(split)):
                archive.writestr(f"{kind}/{key}_{kind}{'' if kind == 'leftImg8bit' else '_labelIds'}.png", picture)
    return tmp_path


def test_everything_but_the_black_image_is_counted(root: Path) -> None:
    dataset = Cityscapes(root)
    counts = {"train": 2975, "val": 500, "test": 1525, "train_coarse": 2975, "val_coarse": 500}
    counts |= {"train_extra": 19997, "train_extra_unlabeled": 19997}
    assert {name: split.samples for name, split in dataset.splits().items()} == counts
    last = None
    for name, count in counts.items():
        samples = list(dataset.samples(name))
        assert len({sample.key for sample in samples}) == len(samples) == count
        last = samples[-1]
    assert last is not None and fetch("last", "image", last.image) == _png()
    assert len(dataset.notes()) == 1


def _keys(split: str) -> Iterator[str]:
    cities, count = CITIES[split]
    for number in range(count):
        place, frame = number % cities, number // cities
        city = "troisdorf" if split == "train_extra" and place == 0 else f"city{place}"
        yield f"{split}/{city}/{city}_000000_{frame:06}"


def _png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()
