"""Decoding: kornia-rs and Pillow decode to the same pixels, and what either refuses stays refused."""

import io
import random
import struct
import tarfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from semiseg.data import DataError
from semiseg.data.format.tar import header
from semiseg.data.image import decode
from semiseg.data.image.decode import decode_image, decode_label, unknown_id
from semiseg.data.write.encode import _png


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels: np.ndarray, *, colour: int, filters: int = 0, extra: bytes = b"") -> bytes:
    """An 8-bit PNG by hand; `filters` 0..4 for all rows, decoded by their own rules, so any bytes are pixels of some image."""
    height, width = pixels.shape[:2]
    rows = b"".join(bytes([filters]) + row.tobytes() for row in pixels)
    start = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + extra + body


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.array(picture)


@pytest.mark.parametrize("filters", range(5))
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (37, 53)])
def test_plain_pngs_are_decoded_quickly_and_alike(filters, shape):
    pytest.importorskip("kornia_rs")
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    image, label = png(noise, colour=2, filters=filters), png(noise[..., 0].copy(), colour=0, filters=filters)
    assert decode._quickly(image, (8, 2)) is not None and decode._quickly(label, (8, 0)) is not None
    assert np.array_equal(np.asarray(decode_image(image)), by_pillow(image))
    assert np.array_equal(decode_label(label), by_pillow(label))


def test_real_pngs_are_decoded_quickly_and_alike(camvid_files):
    pytest.importorskip("kornia_rs")
    for image, label in camvid_files:
        data, ids = image.read_bytes(), label.read_bytes()
        assert decode._quickly(data, (8, 2)) is not None and decode._quickly(ids, (8, 0)) is not None
        assert np.array_equal(np.asarray(decode_image(data)), by_pillow(data))
        assert np.array_equal(decode_label(ids), by_pillow(ids))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize(
    "options", [{}, {"transparency": 0}, {"dpi": (72, 72)}, {"icc_profile": b"x" * 200}, {"optimize": True}]
)
def test_pngs_of_any_kind_decode_as_in_pillow(mode, options):
    noise = np.random.default_rng(0).integers(0, 256, (21, 34, 4), np.uint8)
    picture = Image.fromarray(noise)
    picture = Image.fromarray(noise[..., 0].astype(np.uint16) * 257) if mode == "I;16" else picture.convert(mode)
    if "transparency" in options and mode in ("LA", "RGBA"):
        options = {}  # it has a separate band
    if "transparency" in options and mode == "RGB":
        options = {"transparency": tuple(noise[0, 0, :3].tolist())}
    stream = io.BytesIO()
    picture.save(stream, "PNG", **options)
    if mode == "I;16":
        with pytest.raises(DataError, match="do not fit 8 bits"):
            decode_image(stream.getvalue())
        return
    found = decode_image(stream.getvalue())
    expected = Image.open(stream)
    assert found.mode == expected.mode and np.array_equal(np.asarray(found), np.asarray(expected))
    if "transparency" in expected.info:
        assert "transparency" in found.info, "it decides what RGB is made of it"


def test_damaged_files_are_refused_or_unchanged_with_and_without(camvid_files, monkeypatch):
    """The checksums of a PNG, which add to the members' crc32."""
    data = camvid_files[0][0].read_bytes()
    whole, chance = by_pillow(data), random.Random(0)
    places = [*range(60), *chance.sample(range(len(data)), 60), *range(len(data) - 25, len(data))]
    damaged = [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in places]
    damaged += [data[:at] for at in places]
    accepted = {}
    for name, fast in (("fast", decode._fast), ("Pillow", None)):
        monkeypatch.setattr(decode, "_fast", fast)
        accepted[name] = []
        for number, file in enumerate(damaged):
            try:
                pixels = np.asarray(decode_image(file))
            except DataError:
                continue
            assert np.array_equal(pixels, whole) or number < len(places)
            accepted[name].append((number, pixels.tobytes()))
    assert accepted["fast"] == accepted["Pillow"]


@given(
    ids=st.lists(st.integers(0, 65535), min_size=1, max_size=40),
    width=st.integers(1, 5),
    deep=st.booleans(),
)
def test_stored_labels_read_the_same_in_pillow_and_here(ids, width, deep):
    label = np.resize(np.array(ids), (len(ids), width)).astype(np.uint16 if deep else np.uint8)
    data = _png(label)
    decode._check_png(data)
    for found in (by_pillow(data), decode_label(data), decode_label(data, verify=True)):
        assert np.array_equal(found, label)
    assert decode_label(data).dtype == label.dtype


@given(ids=st.lists(st.integers(0, 300), max_size=30), allowed=st.sets(st.integers(0, 300)))
def test_unknown_ids_equal_a_loop(ids, allowed):
    label = np.array([ids], np.uint16)
    strange = sorted({number for number in ids if number not in allowed})
    described = unknown_id(label, dict.fromkeys(allowed, ""))
    if not strange:
        assert described is None
    else:
        count = ids.count(strange[0])
        plural = "s" * (count > 1)
        assert described == f"holds id {strange[0]} in {count} pixel{plural}, first at x={ids.index(strange[0])}, y=0"


@settings(max_examples=300)
@given(
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=120),
    size=st.integers(0, 8**11 - 1),
)
def test_headers_are_those_of_the_standard_library(name, size):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT):
        try:
            expected = info.tobuf(format)
        except ValueError:  # too long for USTAR
            continue
        assert header(name, size, format) == expected  # type: ignore[arg-type]
