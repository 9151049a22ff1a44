"""What the writer refuses: every bad sample is one error that names it, and nothing is left half-written."""

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data import DataError, RawSample, ShardSet, shard
from semiseg.data.source.tree import Tree


@pytest.fixture
def refuse(adapt, tmp_path):
    """refuse(samples) -> the error of writing them; checks that nothing is left."""

    count = itertools.count()

    def refuse(samples: list[RawSample], **words) -> str:
        to = tmp_path / str(next(count))
        with pytest.raises(DataError) as caught:
            shard(adapt(samples, **words), "train", to)
        assert not to.exists(), "no shard was finished, so nothing is left"
        return str(caught.value)

    return refuse


@pytest.fixture
def with_label(draw, refuse):
    """with_label(label) -> the error of a set whose last sample has that label."""

    def with_label(label) -> str:
        samples = draw(3)
        return refuse([*samples[:2], replace(samples[2], label=label)])

    return with_label


def test_every_cut_of_an_image_is_refused(draw, refuse):
    for kind in ("PNG", "JPEG"):
        samples = draw(2, kind=kind)
        whole = samples[1].image
        assert isinstance(whole, bytes)
        for cut in [*range(40, len(whole), 97), len(whole) - 1]:
            message = refuse([samples[0], replace(samples[1], image=whole[:cut])])
            assert "pictures/train: sample 'p001' (source picture 1): the image is truncated or broken" in message
            assert "replace the file" in message


def test_a_flipped_byte_of_a_png_is_refused(draw, refuse):
    samples = draw(1)
    whole = bytes(samples[0].image)  # type: ignore[arg-type]
    for at in range(8, len(whole), 61):
        flipped = whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]
        assert "sample 'p000'" in refuse([replace(samples[0], image=flipped)])


def test_other_formats_and_mixed_kinds_name_the_files(draw, encoded, refuse):
    gif = encoded(np.zeros((11, 17, 3), np.uint8), "GIF")
    first, second = draw(2)
    assert "'p000' (source picture 0): the image is neither JPEG nor PNG" in refuse([replace(first, image=gif)])
    assert "'p001' (source picture 1): the image is neither JPEG nor PNG" in refuse([first, replace(second, image=gif)])
    message = refuse([first, draw(2, kind="JPEG")[1]])
    assert (
        "sample 'p001' (source picture 1): the image is a jpg, that of sample 'p000' (source picture 0) is a png"
        in message
    )
    deep = encoded(np.zeros((11, 17), np.uint16))
    assert "do not fit 8 bits per band" in refuse([replace(first, image=deep)])


def test_labels_of_another_size_are_refused(with_label, encoded):
    message = with_label(encoded(np.zeros((17, 11), np.uint8)))
    assert "sample 'p002' (source picture 2): the label is 11x17 pixels, the image 17x11" in message


def test_ids_outside_the_raw_space_are_refused(with_label, encoded):
    label = np.zeros((11, 17), np.uint8)
    label[4:, 6] = 77
    message = with_label(encoded(label))
    assert (
        "pictures/train: sample 'p002' (source picture 2): the label holds id 77 in 7 pixels, first at x=6, y=4"
        in message
    )
    assert "ids of raw space 'pictures': 0..2, 9, 255" in message


@pytest.mark.parametrize(
    "ids", [np.full((11, 17), -1), np.full((11, 17), 1 << 16), np.zeros((11, 17)), np.zeros((11, 17, 3), np.uint8)]
)
def test_arrays_that_are_not_ids_are_refused(with_label, ids):
    assert "sample 'p002'" in with_label(partial(np.array, ids))


def test_labels_that_are_not_ids_are_refused(with_label, encoded):
    plain = np.zeros((11, 17), np.uint8)
    assert "PNG with colours" in with_label(encoded(np.zeros((11, 17, 3), np.uint8)))
    assert "colours or transparency" in with_label(encoded(Image.new("LA", (17, 11))))
    assert "greyscale PNG of 1 bits" in with_label(encoded(Image.new("1", (17, 11))))
    assert "the label is not a PNG but a JPEG, whose compression changes ids" in with_label(encoded(plain, "JPEG"))
    assert "the label is not a PNG but NoneType" in with_label(partial(dict.get, {}, "nothing"))
    assert "the label is truncated or broken" in with_label(encoded(plain)[:-14])


def test_a_source_that_cannot_be_read_is_named(draw, refuse, tmp_path):
    first, second = draw(2)
    gone = tmp_path / "gone.png"
    message = refuse([first, replace(second, image=partial(Path.read_bytes, gone))])
    assert (
        f"sample 'p001' (source picture 1): the image could not be read {gone} (No such file or directory)" in message
    )
    message = refuse([first, replace(second, label=partial(dict.__getitem__, {}, "x"))])
    assert "the label could not be read (KeyError: 'x')" in message


def test_bad_lists_are_refused_before_anything_is_written(draw, refuse):
    a, b, c = draw(3)

    def message(samples: list[RawSample], **words) -> str:
        return refuse(samples, **words)

    assert "the adapter lists no samples" in message([])
    same = message([a, b, replace(c, key="p000")])
    assert (
        "two samples have the key 'p000': sample 'p000' (source picture 0) and sample 'p000' (source picture 2)" in same
    )
    assert "1 of 3 samples have no label in a labeled split, first sample 'p001'" in message(
        [a, replace(b, label=None), c]
    )
    assert "3 of 3 samples have a label in an unlabeled split" in message([a, b, c], labeled=False)
    assert "plain readers skip keys that start with '__'" in message([replace(a, key="__x__/y")])
    assert "a key of 201 characters is too long" in message([replace(a, key="k" * 201)])
    assert "its meta has the name 'tags', which the writer adds" in message([replace(a, meta={"tags": ""})])
    assert "its meta is not JSON" in message([replace(a, meta={"x": float("nan")})])
    assert "tag 'a,b' is empty or contains a ','" in message([replace(a, tags=("a,b",))])
    differs = message([a, replace(b, meta={"source": "b"})])
    assert "sample 'p001' (source b) has the meta {source: text}" in differs
    assert "sample 'p000' (source picture 0) has {source: text, weight: number}" in differs
    assert "copy test/ there" in message([a], missing="copy test/ there")


def test_an_unknown_split_names_the_nearest(adapt, draw, tmp_path):
    with pytest.raises(DataError, match="pictures: unknown split 'trian'; did you mean 'train'"):
        shard(adapt(draw(1)), "trian", tmp_path)


def test_web_servers_are_not_written_to(adapt, draw):
    with pytest.raises(
        DataError, match="https://x: web servers can only be read from; write to a folder or an object store"
    ):
        shard(adapt(draw(1)), "train", "https://x")


def test_long_keys_that_fit_are_kept(adapt, draw, tmp_path):
    keys = ["k" * 80, "/".join(["folder" * 4] * 6), "a/b-c_d"]
    shard(adapt([replace(s, key=key) for s, key in zip(draw(3), keys, strict=True)]), "train", tmp_path)
    assert [sample.key for sample in ShardSet(tmp_path / "pictures" / "train")] == keys


def test_every_mode_of_image_reads_as_rgb(adapt, encoded, tmp_path):
    random = np.random.default_rng(0)
    rgb = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
    clear = rgb.quantize(16)
    clear.info["transparency"] = bytes(range(16))
    pictures = [
        rgb,
        rgb.convert("L"),
        rgb.convert("RGBA"),
        rgb.convert("1"),
        rgb.quantize(16),
        clear,
        rgb.convert("LA"),
    ]
    given = [encoded(picture) for picture in pictures]
    samples = [RawSample(key=f"k{i}", image=data, label=None, size=1) for i, data in enumerate(given)]
    shard(adapt(samples, labeled=False), "train", tmp_path)
    for picture, sample in zip(pictures, ShardSet(tmp_path / "pictures" / "train"), strict=True):
        expected = picture.convert("RGBA").convert("RGB")
        assert sample.image.mode == "RGB"
        assert np.array_equal(np.asarray(sample.image), np.asarray(expected))


def test_pictures_to_look_at_are_flagged(adapt, encoded, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    cases = {
        "plain": (encoded(noise, "JPEG"), np.eye(8, dtype=np.uint8)),
        "black": (encoded(noise * 0, "JPEG"), np.zeros((8, 8), np.uint8)),
        "turned": (encoded(noise, "JPEG", exif=turned), np.eye(8, dtype=np.uint8)),
    }
    samples = [RawSample(key=k, image=i, label=partial(np.array, ids), size=1) for k, (i, ids) in cases.items()]
    shard(adapt(samples), "train", tmp_path)
    flags = ShardSet(tmp_path / "pictures" / "train").flags()
    assert flags == [(), ("constant-image", "constant-label"), ("exif-orientation",)]


def test_errors_of_labels_name_their_file(adapt, draw, tmp_path):
    first, second = draw(2)
    (tmp_path / "mask.png").write_bytes(b"")
    masks = Tree.open(tmp_path)
    cases = [
        (replace(second, label=masks.member("mask.png")), f"label {tmp_path}/mask.png"),
        (replace(second, label=b"", meta={**second.meta, "mask": "annot/m.png"}), "label annot/m.png"),
    ]
    for number, (sample, message) in enumerate(cases):
        listed = [replace(first, meta=dict.fromkeys(sample.meta, "") | dict(first.meta)), sample]
        with pytest.raises(DataError) as caught:
            shard(adapt(listed), "train", tmp_path / str(number))
        words = f"{message}): the label is empty; replace the file with an intact copy, or leave it out"
        assert str(caught.value).endswith(words)


def test_a_file_that_went_away_is_one_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    read = Tree.open(tmp_path).member("a.png")
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png: cannot be read \(No such file or directory\); restore it"):
        read()
