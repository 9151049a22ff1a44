"""Images that EXIF rotates: upright in the `datasets` library, pixels as stored in shards; pairs fit in both."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets import Dataset, Features
from datasets import Image as ImageFeature
from semiseg.data import ShardSet, shard
from semiseg.datasets.hub import Hub, to_hf
from semiseg.datasets.hub.upright import ORIENTATION, as_stored, orientation, upright

PIXELS = np.zeros((32, 48, 3), np.uint8)  # blocks of whole JPEG cells, so that no edge blurs; no two corners are alike
PIXELS[:16, :16], PIXELS[16:, :32] = 255, (255, 60, 60)


def picture(turn: int, kind: str = "JPEG", **options: Any) -> bytes:
    """PIXELS as stored, to be shown as an orientation says."""
    exif = Image.Exif()
    exif[0x010F], exif[ORIENTATION], exif[0x0110] = "maker", turn, "model"
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, kind, exif=exif, **options)
    return stream.getvalue()


def red(image: Any) -> np.ndarray:
    """A mask of the image: where it is red or white."""
    return (np.asarray(image.convert("RGB"))[..., 0] > 128).astype(np.uint8)


def table(images: list[bytes], masks: list[bytes]) -> Dataset:
    files = {"image": images, "label": masks}
    columns = {name: [{"bytes": data, "path": None} for data in column] for name, column in files.items()}
    return Dataset.from_dict(columns, features=Features({"image": ImageFeature(), "label": ImageFeature()}))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pairs_that_fit_in_the_library_fit_in_shards(kind: str, encoded: Any, tmp_path: Path) -> None:
    images = [picture(turn, kind) for turn in range(1, 9)]
    shown = list(table(images, images)["image"])
    found = table(images, [encoded(red(image)) for image in shown])
    shard(Hub(dataset=found), "train", tmp_path)
    stored = ShardSet(tmp_path / "hub" / "train")
    assert stored.raw(0).image == images[0], "upright, and untouched"
    assert stored.flags() == [()] * 8
    for sample, image in zip(stored, shown, strict=True):
        assert sample.label is not None and np.array_equal(sample.label, red(image))
        assert np.array_equal(red(sample.image), sample.label)
        difference = np.abs(np.asarray(sample.image, np.int16) - np.asarray(image.convert("RGB"), np.int16))
        assert difference.max() <= (0 if kind == "PNG" else 12) and difference.mean() < 1


@pytest.mark.parametrize("palette", [False, True])
def test_a_mask_that_exif_rotates_is_rotated_with_its_image(palette: bool, tmp_path: Path) -> None:
    mask = Image.fromarray((PIXELS[..., 0] > 128).astype(np.uint8))
    if palette:
        mask.putpalette([0, 0, 0, 128, 0, 0], "RGB")
    exif, stream = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = 6
    mask.save(stream, "PNG", exif=exif)
    shard(Hub(dataset=table([picture(6)], [stream.getvalue()])), "train", tmp_path)
    (sample,) = ShardSet(tmp_path / "hub" / "train")
    assert sample.label is not None and sample.label.shape == (48, 32)
    assert np.array_equal(sample.label, red(sample.image))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pairs_as_stored_agree_in_the_library(kind: str, streaming: bool, raw_set: Any) -> None:
    stored = raw_set([picture(turn, kind) for turn in range(1, 9)])
    assert all("exif-orientation" in flags for flags in stored.flags()[1:]), "the case under test"
    for row, sample in zip(to_hf(stored, streaming=streaming), stored, strict=True):
        assert np.array_equal(np.asarray(row["image"]), np.asarray(sample.image)), "no pixel differs"
        assert np.array_equal(np.asarray(row["label"]), sample.label)


@pytest.mark.parametrize("order", [b"II", b"MM"])
def test_only_the_orientation_of_a_jpeg_changes(order: bytes) -> None:
    exif = Image.Exif()
    exif.endian = "<" if order == b"II" else ">"
    exif[0x010F], exif[ORIENTATION] = "maker", 8
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "JPEG", exif=exif)
    data = stream.getvalue()
    assert b"Exif\0\0" + order in data
    found = as_stored(data)
    assert sum(one != other for one, other in zip(data, found, strict=True)) == 1
    exif = Image.open(io.BytesIO(found)).getexif()
    assert (exif[ORIENTATION], exif[0x010F]) == (1, "maker")


def test_an_orientation_in_xmp_alone_counts() -> None:
    stream = io.BytesIO()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    Image.fromarray(PIXELS).save(stream, "JPEG", xmp=xmp)
    data = stream.getvalue()
    assert orientation(data) == 3 and orientation(upright(data)) == 1
    assert sum(one != other for one, other in zip(data, as_stored(data), strict=True)) == 1


def test_damaged_files_are_returned_unchanged() -> None:
    intact = picture(6)
    for data in (b"", b"no picture", intact[:40], intact[: len(intact) // 2]):
        assert upright(data) == data


@pytest.fixture
def raw_set(tmp_path: Path, encoded: Any) -> Any:
    """raw_set(images) -> shards of images with masks that fit them as they are stored."""
    from semiseg.data import RawSample, RawSpace, Split

    class Stored:
        name, summary, home, taxonomies, version, root = "stored", "", "", (), "1", None
        raw_space = RawSpace(name="stored", names={0: "other", 1: "red"})

        def __init__(self, images: list[bytes]) -> None:
            self.images = images

        def splits(self) -> dict[str, Split]:
            return {"train": Split(name="train", samples=len(self.images))}

        def samples(self, split: str) -> Any:
            for number, image in enumerate(self.images):
                mask = encoded((PIXELS[..., 0] > 128).astype(np.uint8))
                yield RawSample(key=str(number), image=image, label=mask, size=len(image))

    def raw_set(images: list[bytes]) -> ShardSet:
        adapter: Any = Stored(images)
        shard(adapter, "train", tmp_path)
        return ShardSet(tmp_path / "stored" / "train")

    return raw_set
