"""Files that would exhaust memory, are cut off, empty or of another kind, and keys that strain a tar."""

import functools
import gc
import io
import os
import struct
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data import DataError, ShardSet, shard, verify


@functools.cache
def bomb(side: int) -> bytes:
    """A PNG of side x side black pixels in less than a megabyte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + side)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("member", ["image", "label"])
@pytest.mark.parametrize("side", [10_000, 14_000])  # Pillow warns about the first and refuses the second
def test_a_bomb_is_refused_by_name(adapt, draw, tmp_path, member, side):
    first, second = draw(2)
    second = replace(second, **{member: bomb(side)})
    with pytest.raises(DataError) as caught:
        shard(adapt([first, second]), "train", tmp_path)
    message = str(caught.value)
    assert message.startswith(
        f"pictures/train: sample 'p001' (source picture 1): the {member} has more than 89,478,485 pixels"
    )
    assert "leave it out" in message and "tiles" in message
    assert not list(tmp_path.rglob("manifest.json"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("format", ["keep", "png"])
def test_a_picture_cut_anywhere_is_refused_by_name(adapt, draw, tmp_path, kind, format):
    first, second = draw(2, kind=kind)
    whole = second.image
    for cut in [*range(1, 20), len(whole) // 2, len(whole) - 30]:
        with pytest.raises(DataError, match=r"sample 'p001' \(source picture 1\): the image is truncated or broken"):
            shard(adapt([first, replace(second, image=whole[:-cut])]), "train", tmp_path / str(cut), format=format)


@pytest.mark.parametrize("format", ["keep", "jpeg"])
def test_empty_files_are_refused_by_name(adapt, draw, tmp_path, format):
    first, second = draw(2)
    with pytest.raises(DataError, match=r"'p001' \(source picture 1\): the image is empty; replace the file"):
        shard(adapt([first, replace(second, image=b"")]), "train", tmp_path / "image", format=format)
    with pytest.raises(DataError, match=r"'p001' \(source picture 1\): the label is empty"):
        shard(adapt([first, replace(second, label=b"")]), "train", tmp_path / "label", format=format)


def test_a_mask_as_jpeg_is_refused_by_name(adapt, draw, encoded, tmp_path):
    first, second = draw(2)
    mask = encoded(np.zeros((11, 17), np.uint8), "JPEG")
    with pytest.raises(DataError, match=r"'p001' \(source picture 1\): the label is not a PNG but a JPEG"):
        shard(adapt([first, replace(second, label=mask)]), "train", tmp_path)


LONG = [
    "k" * 89,  # the longest of one part that a plain header holds beside ".meta.json"
    "k" * 90,
    "k" * 91,
    "k" * 200,
    "a/" * 99 + "bc",
    "/".join(["folder" * 5] * 6),  # fits a plain header, which splits names at a slash
    "x/" + "y" * 150 + "/z",
    "short",
]


@pytest.fixture
def long_keys(adapt, draw, tmp_path) -> tuple[Path, list]:
    samples = [replace(sample, key=key) for sample, key in zip(draw(len(LONG)), LONG, strict=True)]
    shard(adapt(samples), "train", tmp_path)
    return tmp_path / "pictures" / "train", samples


def test_long_keys_lie_where_the_index_says(long_keys, adapt, tmp_path):
    folder, samples = long_keys
    stored = ShardSet(folder)
    assert verify(folder).problems == []
    assert stored.keys() == LONG
    with tarfile.open(folder / "000000.tar", "r:") as tar:  # the standard library's reader is the oracle for offsets
        members = {member.name: member for member in tar}
        assert list(members) == [f"{key}.{member}" for key in LONG for member in stored.manifest.members]
    data = (folder / "000000.tar").read_bytes()
    for number, sample in enumerate(samples):
        assert stored.raw(number).image == sample.image
        assert stored.raw(number).label == sample.label
        place = members[f"{sample.key}.image.png"]
        assert data[place.offset_data :][: place.size] == sample.image
    shard(adapt(samples), "train", tmp_path / "again", workers=2, size="2KB")
    assert verify(tmp_path / "again" / "pictures" / "train").problems == []


def test_every_damaged_byte_of_a_long_name_is_found(long_keys):
    folder, _ = long_keys
    data = bytearray((folder / "000000.tar").read_bytes())
    at = data.index(b"././@LongLink")
    for offset in [*range(at, at + 1024, 37), at + 512]:
        data[offset] ^= 1
        (folder / "000000.tar").write_bytes(data)
        assert any("its header" in problem.what for problem in verify(folder).problems), offset
        data[offset] ^= 1


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_other_readers_know_long_keys(long_keys, tmp_path, monkeypatch):
    webdataset = pytest.importorskip("webdataset")
    folder, samples = long_keys
    reader = webdataset.WebDataset(str(folder / "000000.tar"), shardshuffle=False)
    read = list(reader)
    assert [sample["__key__"] for sample in read] == LONG
    assert [sample["image.png"] for sample in read] == [sample.image for sample in samples]
    del reader
    gc.collect()  # it leaves files open, and warns when they are collected: here, not in another test
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    words = {"data_files": str(folder / "000000.tar"), "split": "train", "cache_dir": str(tmp_path / "cache")}
    found = datasets.load_dataset("webdataset", **words)
    assert list(found["__key__"]) == LONG
    for row, sample in zip(found, samples, strict=True):
        with Image.open(io.BytesIO(sample.image)) as picture:
            assert np.array_equal(np.asarray(row["image.png"]), np.asarray(picture))


def test_unpacked_long_keys_fit_file_systems(long_keys, tmp_path):
    folder, samples = long_keys
    with tarfile.open(folder / "000000.tar") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    assert max(len(name) for _, _, names in os.walk(tmp_path / "out") for name in names) <= 255
    assert (tmp_path / "out" / f"{LONG[3]}.image.png").read_bytes() == samples[3].image
