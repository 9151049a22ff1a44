"""Images resized or in another format: exactly what is requested, the same for any number of processes."""

import io
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data import DataError, RawSample, ShardSet, shard, verify
from semiseg.data.image.convert import Conversion, parse_resize


def written(tmp_path: Path) -> ShardSet:
    found = ShardSet(tmp_path / "pictures" / "train")
    assert verify(found.url).problems == []
    return found


@pytest.mark.parametrize("format", ["keep", "jpeg", "png"])
def test_images_and_labels_get_the_size_that_was_asked_for(camvid, camvid_files, tmp_path, format):
    manifest = shard(camvid, "train", tmp_path, resize="160x90", format=format)
    converted = {} if format == "keep" else {"format": format}
    assert manifest.settings == {"size": 256_000_000, "resize": "160x90", **converted}
    stored = ShardSet(tmp_path / "camvid-part" / "train")
    assert verify(stored.url).problems == []
    for sample, (image, label) in zip(stored, camvid_files, strict=True):
        with Image.open(image) as picture, Image.open(label) as ids:
            expected = np.asarray(picture.resize((160, 90), Image.Resampling.LANCZOS)).astype(int)
            nearest = np.asarray(ids.resize((160, 90), Image.Resampling.NEAREST))  # Pillow is the oracle
        assert sample.label is not None
        assert np.array_equal(sample.label, nearest)
        found = np.asarray(sample.image).astype(int)
        if format == "jpeg":
            assert np.abs(found - expected).mean() < 4  # of 255: quality 95, colours at half the size
        else:
            assert np.array_equal(found, expected)


def test_labels_of_16_bits_are_resized_too(adapt, encoded, tmp_path):
    ids = np.random.default_rng(0).choice([0, 1, 9], (13, 29)).astype(np.uint16)
    image = encoded(np.zeros((13, 29, 3), np.uint8))
    shard(adapt([RawSample(key="a", image=image, label=encoded(ids), size=1)]), "train", tmp_path, resize=(11, 40))
    label = written(tmp_path)[0].label
    assert label is not None and label.dtype == np.uint16
    for y in range(40):
        for x in range(11):
            assert label[y, x] == ids[int((y + 0.5) * 13 / 40), int((x + 0.5) * 29 / 11)]


def test_a_single_number_shrinks_the_longer_side_and_enlarges_nothing(adapt, encoded, tmp_path):
    random = np.random.default_rng(0)
    given = [random.integers(0, 256, (*shape, 3), np.uint8) for shape in ((30, 20), (20, 31), (9, 12), (3000, 1))]
    samples = [
        RawSample(key=f"k{i}", image=encoded(image), label=partial(np.zeros, image.shape[:2], np.uint8), size=1)
        for i, image in enumerate(given)
    ]
    shard(adapt(samples), "train", tmp_path, resize=15)
    stored = written(tmp_path)
    assert stored.sizes().tolist() == [[15, 10], [10, 15], [9, 12], [15, 1]]
    assert stored.raw(2).image == samples[2].image, "a file that has its size already stays as it is"


def test_files_that_are_as_asked_stay_and_the_others_become_one_kind(adapt, draw, encoded, tmp_path):
    png, jpeg = draw(2), draw(4, kind="JPEG")[2:]
    webp = replace(draw(5)[4], image=encoded(np.arange(11 * 17 * 3, dtype=np.uint8).reshape(11, 17, 3), "WEBP"))
    mixed = [*png, *jpeg, webp]
    for format, kept in (("png", png), ("jpeg", jpeg)):
        shard(adapt(mixed), "train", tmp_path / format, format=format)
        stored = written(tmp_path / format)
        assert stored.manifest.image == {"png": "png", "jpeg": "jpg"}[format]
        for number, sample in enumerate(mixed):
            assert (stored.raw(number).image == sample.image) == (sample in kept)
            with Image.open(io.BytesIO(sample.image)) as picture:
                difference = np.asarray(stored[number].image).astype(int) - np.asarray(picture.convert("RGB"))
            assert not difference.any() or (format == "jpeg" and np.abs(difference).mean() < 50)  # of coloured noise


def test_a_mix_names_both_files_and_the_choice_before_anything_is_written(adapt, draw, tmp_path):
    samples = [*draw(2), draw(3, kind="JPEG")[2]]
    named = [replace(s, meta={"source": f"{s.key}.{e}"}) for s, e in zip(samples, ("png", "png", "JPG"), strict=True)]
    with pytest.raises(DataError) as caught:
        shard(adapt(named), "train", tmp_path)
    for word in ("source p002.JPG): the image is a jpg", "source p000.png) is a png", "--format png", 'format="png"'):
        assert word in str(caught.value)
    assert not list(tmp_path.iterdir())
    lying = [*named[:2], replace(samples[1], key="q", meta={"source": "q.jpg"})]  # a PNG all the same
    assert shard(adapt(lying), "train", tmp_path).image == "png"


def test_any_number_of_processes_writes_the_same_bytes(camvid, tmp_path):
    for workers in (1, 2):
        shard(camvid, "train", tmp_path / str(workers), size="1MB", resize=100, format="jpeg", workers=workers)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / w / "camvid-part" / "train").iterdir()} for w in "12")
    assert len(one) == 9 and one == two


def test_pictures_of_every_mode_are_converted_as_they_are_read(adapt, encoded, tmp_path):
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    clear = rgb.quantize(16)
    clear.info["transparency"] = bytes(range(16))
    pictures = [
        rgb,
        rgb.convert("L"),
        rgb.convert("RGBA"),
        rgb.convert("1"),
        rgb.quantize(16),
        clear,
        rgb.convert("CMYK"),
    ]
    samples = [
        RawSample(key=f"k{i}", image=encoded(picture, "TIFF" if picture.mode == "CMYK" else "PNG"), label=None, size=1)
        for i, picture in enumerate(pictures)
    ]
    shard(adapt(samples, labeled=False), "train", tmp_path, resize=(4, 4), format="png")
    for picture, sample in zip(pictures, written(tmp_path), strict=True):
        plain = picture if picture.mode == "L" else picture.convert("RGBA").convert("RGB")
        expected = plain.resize((4, 4), Image.Resampling.LANCZOS).convert("RGB")
        assert np.array_equal(np.asarray(sample.image), np.asarray(expected))


def test_sizes_of_images_are_read_as_people_write_them():
    assert [parse_resize(size) for size in (None, "640x480", " 64 X 48 ", "512", 512, (3, 4))] == [
        None, (640, 480), (64, 48), 512, 512, (3, 4),
    ]  # fmt: skip
    for text in ("0x4", "x4", "4x", "1x2x3", "-5", "", "256MB"):
        with pytest.raises(DataError, match="invalid image size"):
            parse_resize(text)


def test_nothing_asked_for_is_nothing_recorded():
    assert Conversion().settings() == {}
    assert Conversion(resize=(4, 3), format="png").settings() == {"resize": "4x3", "format": "png"}
