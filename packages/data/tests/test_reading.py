"""Pixels of image files against numpy: bits, ranges, bands, rotation; what can't be read is one clear line."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image, ImageOps

from semiseg.data import (
    Conversion,
    DataError,
    Reading,
    Tree,
    hidden,
    image_suffixes,
    inspect_image,
    read_rgb,
    unreadable_suffixes,
)

RANDOM = np.random.default_rng(0)


def saved(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def tiff(pixels: np.ndarray, extra: tuple[int, ...] = (), order: Literal["<", ">"] = "<") -> bytes:
    """A plain TIFF of [h, w, bands] of any type; `extra`: what the bands after the colours are (0 unknown, 2 alpha)."""
    height, width, bands = pixels.shape
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    tags = {256: [width], 257: [height], 258: [8 * pixels.itemsize] * bands, 259: [1], 262: [2 if bands > 2 else 1],
            277: [bands], 278: [height], 284: [1], 339: [kind] * bands} | ({338: list(extra)} if extra else {})  # fmt: skip
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    blob, entries = b"", {}
    for tag, values in tags.items():
        packed = struct.pack(f"{order}{len(values)}H", *values)
        entries[tag] = struct.pack(f"{order}HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
        if len(packed) > 4:
            entries[tag] = struct.pack(f"{order}HHII", tag, 3, len(values), start + len(blob))
            blob += packed
    entries[273] = struct.pack(f"{order}HHII", 273, 4, 1, start + len(blob))
    entries[279] = struct.pack(f"{order}HHII", 279, 4, 1, len(data))
    head = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(entries))
    return head + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4) + blob + data


def floats(*shape: int) -> np.ndarray:
    return RANDOM.random(shape).astype(np.float32)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["png", "tif", "tif big-endian", "int32 tif"])
def test_deep_grey_keeps_the_upper_bits_in_use(bits: int, kind: str) -> None:
    values = RANDOM.integers(0, 1 << bits, (7, 9)).astype(np.uint16)
    values[0, 0] = (1 << bits) - 1
    data = {
        "png": lambda: saved(values),
        "tif": lambda: saved(values, "TIFF"),
        "tif big-endian": lambda: tiff(values[..., None], order=">"),
        "int32 tif": lambda: tiff(values[..., None].astype(np.int32)),
    }[kind]()
    expected = np.dstack([values // 2 ** (bits - 8)] * 3)
    assert np.array_equal(np.asarray(read_rgb(data)), expected)  # the bits in use in this image
    assert np.array_equal(np.asarray(read_rgb(data, Reading(bits=16))), np.dstack([values // 256] * 3))
    if bits > 8:
        with pytest.raises(
            DataError, match=rf"values up to {values.max()}, but images are scaled from {bits - 2} bits"
        ):
            read_rgb(data, Reading(bits=bits - 2))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 7.5), (0.25, 0.75)])
def test_floats_need_a_range(low: float, high: float) -> None:
    values = floats(7, 9) * 12 - 4
    data = tiff(values[..., None])
    with pytest.raises(DataError, match=r"floating point numbers without a defined range.*--option range="):
        inspect_image(io.BytesIO(data))
    with pytest.raises(DataError, match="floating point numbers"):
        read_rgb(data)
    share = (values.astype(np.float64) - low) / (high - low)
    expected = np.array([[min(255, max(0, int(v * 255 + 0.5))) if v > 0 else 0 for v in row] for row in share])
    found = np.asarray(read_rgb(data, Reading(range=(low, high))))
    assert np.array_equal(found, np.dstack([expected] * 3))


def test_values_that_no_range_explains_are_refused() -> None:
    values = floats(7, 9)
    values[2, 3] = np.nan
    with pytest.raises(DataError, match="1 pixels are not numbers"):
        read_rgb(tiff(values[..., None]), Reading(range=(0, 1)))
    signed = RANDOM.integers(-1000, 3000, (7, 9)).astype(np.int16)
    signed[0, :2] = -1000, 2999
    with pytest.raises(DataError, match="values from -1000 to 2999; give their range with --option range=-1000,2999"):
        read_rgb(tiff(signed[..., None]))
    expected = np.floor((signed + 1000.0) / 3999 * 255 + 0.5)
    found = np.asarray(read_rgb(tiff(signed[..., None]), Reading(range=(-1000, 2999))))
    assert np.array_equal(found[..., 0], expected)
    deep = RANDOM.integers(2000, 60000, (7, 9)).astype(np.uint16)
    with pytest.raises(DataError, match=r"outside range=0,1; .*--option bits=16"):
        read_rgb(saved(deep), Reading(range=(0, 1)))
    assert np.array_equal(np.asarray(read_rgb(saved(deep), Reading(range=(0, 1), bits=16)))[..., 0], deep // 256)
    with pytest.raises(DataError, match="signed 8-bit"):
        read_rgb(tiff(signed[..., None].astype(np.int8)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("count", [2, 4, 5, 6])
def test_bands_beyond_the_colours_are_refused_or_chosen(count: int, order: Literal["<", ">"]) -> None:
    values = RANDOM.integers(0, 256, (7, 9, count)).astype(np.uint8)
    extra = (0,) * (count - 3 if count > 3 else 1)
    data = tiff(values, extra, order)
    for read in (read_rgb, lambda data: inspect_image(io.BytesIO(data))):
        with pytest.raises(DataError, match=f"it has {count} bands.*--option bands=1"):
            read(data)
    assert np.array_equal(np.asarray(read_rgb(data, Reading(bands=(1,))))[..., 2], values[..., 0])
    if count > 3:
        assert np.array_equal(np.asarray(read_rgb(data, Reading(bands=(1, 2, 3)))), values[..., :3])
        assert np.array_equal(np.asarray(read_rgb(data, Reading(bands=(4, 1, 2)))), values[..., [3, 0, 1]])
    with pytest.raises(DataError, match=r"band 5 can't be read.*gdal_translate -b 5 -b 1 -b 2 IN.tif OUT.tif"):
        read_rgb(data, Reading(bands=(5, 1, 2)))


def test_bands_that_pillow_does_not_open_are_named() -> None:
    for values, words in (
        (RANDOM.integers(0, 60000, (7, 9, 5)).astype(np.uint16), "a TIFF of 5 bands of 16 bits"),
        (floats(7, 9, 3), "a TIFF of 3 floating point bands of 32 bits"),
    ):
        with pytest.raises(DataError, match=f"{words}; write 8-bit bands: gdal_translate .* -b 1 -b 2 -b 3 "):
            read_rgb(tiff(values, (0,) * (values.shape[2] - 3)))


def test_a_band_that_follows_the_picture_is_not_transparency() -> None:
    picture = np.asarray(Image.fromarray(RANDOM.integers(0, 256, (8, 8, 3), np.uint8)).resize((64, 48)))
    infrared = np.clip(picture.mean(2) * 0.8 + RANDOM.normal(20, 4, (48, 64)), 0, 255).astype(np.uint8)
    for data in (saved(np.dstack([picture, infrared])), tiff(np.dstack([picture, infrared]), (2,))):
        with pytest.raises(DataError, match=r"not transparency.*--option bands=1,2,3"):
            read_rgb(data)
        with pytest.raises(DataError, match="not transparency"):
            inspect_image(io.BytesIO(data))
        assert np.array_equal(np.asarray(read_rgb(data, Reading(bands=(1, 2, 3)))), picture)
        assert np.array_equal(np.asarray(read_rgb(data, Reading(bands=(4, 2, 3))))[..., 0], infrared)
    fade = np.tile(np.linspace(1, 254, 64).astype(np.uint8), (48, 1))
    noise = RANDOM.integers(0, 256, (48, 64), np.uint8)
    cut = np.where(np.indices((48, 64)).sum(0) % 40 < 20, 255, 0).astype(np.uint8)
    for alpha in (fade, noise, cut, np.full_like(fade, 128)):
        assert np.array_equal(np.asarray(read_rgb(saved(np.dstack([picture, alpha])))), picture)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "deep PNG", "deep TIFF"])
def test_every_orientation_is_turned_once(orientation: int, kind: str) -> None:
    pixels = RANDOM.integers(0, 256, (16, 24, 3), np.uint8)
    image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257 if "deep" in kind else pixels)
    image.getexif()[0x0112] = orientation
    stream = io.BytesIO()
    form = kind.split()[-1]
    options = {"lossless": True} if form == "WEBP" else {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    image.save(stream, form, exif=image.getexif(), **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.fromarray(pixels)))
    marked = Image.fromarray(pixels)
    marked.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(marked))
    found = np.asarray(read_rgb(stream.getvalue()))
    if "deep" in kind:
        upright = np.dstack([upright[..., 0]] * 3)
    assert found.shape == upright.shape and np.abs(found.astype(int) - upright).max() <= (4 if form == "JPEG" else 0)
    assert inspect_image(io.BytesIO(stream.getvalue())).upright == upright.shape[1::-1]


def test_what_is_not_an_image_is_named() -> None:
    for data, what in (
        (b"", "empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "pip install pillow-heif"),
        (b"  <html><body>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"random", "not an image"),
    ):
        with pytest.raises(DataError, match=what):
            read_rgb(data)


def test_no_file_starts_another_program(tmp_path: Path) -> None:
    """An EPS called a.png, with a program named gs on the path that leaves a trace if it is started."""
    gs = tmp_path / "bin/gs"
    gs.parent.mkdir()
    gs.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    gs.chmod(0o755)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a.png").write_bytes(eps)
    code = (
        "import sys; from PIL import Image; from semiseg.data import decode_image, read_rgb, DataError\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "for read in (read_rgb, decode_image, lambda data: decode_image(data, verify=True)):\n"
        "    try: read(data); sys.exit(3)\n"
        "    except DataError: pass\n"
        "if sys.argv[2:]: Image.open(sys.argv[1]).load()\n"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    environment = {**os.environ, "PATH": f"{gs.parent}:{os.environ['PATH']}"}
    assert subprocess.run(run, env=environment, timeout=60).returncode == 0
    assert not (tmp_path / "started").exists()
    subprocess.run([*run, "plain Pillow"], env=environment, timeout=60, stderr=subprocess.DEVNULL)
    assert (tmp_path / "started").exists()  # the trap works


def test_suffixes_are_those_that_pillow_reads_here() -> None:
    for suffix in (".jpg", ".jfif", ".jp2", ".avif", ".tif", ".mpo", ".webp"):
        assert suffix in image_suffixes()
    assert not image_suffixes() & unreadable_suffixes().keys()
    assert "pillow-heif" in unreadable_suffixes().get(".heic", "pillow-heif")


def test_hidden_files_and_linked_folders_of_a_tree(tmp_path: Path) -> None:
    for name in (".ipynb_checkpoints/a.png", "__MACOSX/a.png", "@eaDir/a.png", "x/._a.png", "x/.DS_Store", "x/Thumbs.db",
                 "desktop.ini", "#recycle/a.png", "x/a.png", "x/_a.png", "x/a..png"):  # fmt: skip
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).touch()
        assert hidden(name) == (name not in ("x/a.png", "x/_a.png", "x/a..png"))
    (tmp_path / "root/a link").symlink_to(tmp_path / "root/x")
    (tmp_path / "root/x/circle").symlink_to(tmp_path / "root")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/b.png").touch()
    (tmp_path / "root/outside").symlink_to(tmp_path / "other")
    tree = Tree.open(tmp_path / "root")
    assert tree.names() == ["outside/b.png", "x/_a.png", "x/a..png", "x/a.png"]
    assert tree.refused == {"a link": "a symbolic link to x, which is read already"}


def test_settings_are_read_back_and_wrong_ones_are_named() -> None:
    made = Conversion(resize=(40, 30), format="jpeg", reading=Reading(bits=12, range=(0.1, 1), bands=(4, 1, 2)))
    assert made.settings() == {
        "format": "jpeg",
        "resize": "40x30",
        "bits": 12,
        "range": "0.1,1",
        "bands": "4,1,2",
    }
    assert Conversion.of({**made.settings(), "size": 1, "image": "jpg"}) == made
    assert Conversion().settings() == {} and Conversion.of({}) == Conversion()
    for name, value in (("bits", "x"), ("bits", 7), ("bits", [1]), ("range", "1"), ("range", "1,0"), ("range", "0,nan"),
                        ("bands", "1,2"), ("bands", "0,1,2"), ("bands", 1.5), ("resize", "big"),
                        ("format", "gif"), ("format", 3)):  # fmt: skip
        with pytest.raises(DataError, match=f"{name}=|image (size|format)"):
            Conversion.of({name: value})


def test_text_that_unpacks_to_more_than_memory_is_refused() -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    plain = saved(RANDOM.integers(0, 256, (8, 8, 3), np.uint8))
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(64 << 20), 9))
    with pytest.raises(DataError, match="truncated or damaged"):
        read_rgb(plain[:33] + text + plain[33:])
