"""Images from cameras and scanners: stored unchanged if possible, otherwise as upright PNGs; and harmful files."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from semiseg.data import DataError, RawSample, shard
from semiseg.datasets.folder import Folder
from semiseg.datasets.folder.pictures import turn

Put = Callable[..., Path]


def images(folder: Folder, split: str = "train") -> dict[str, bytes]:
    return {sample.key: data(sample) for sample in folder.samples(split)}


def data(sample: RawSample) -> bytes:
    assert callable(sample.image)
    return sample.image()


def pixels(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)))


def test_jpegs_and_pngs_are_kept_byte_for_byte(put: Put, ids: Callable) -> None:
    for name, suffix in (("train/a", "jpg"), ("train/b", "JPEG"), ("val/c", "png")):
        put(f"images/{name}.{suffix}")
        root = put(f"masks/{name}.png", ids(0))
    folder = Folder(root)
    assert images(folder) == {name: next((root / "images/train").glob(f"{name}.*")).read_bytes() for name in "ab"}
    assert images(folder, "val") == {"c": (root / "images/val/c.png").read_bytes()}
    assert not any("stored as PNG" in note for note in folder.notes())


def test_one_file_that_cannot_be_kept_turns_the_split_into_png(put: Put, photo: Callable) -> None:
    grey, rgba = photo(1)[..., 0], np.dstack([photo(2), photo(3)[..., :1]])
    put("images/tiff.tif", photo(0))
    put("images/bmp.bmp", photo(4))
    put("images/grey.png", grey)
    put("images/rgba.png", rgba)
    put("images/palette.gif", Image.fromarray(grey))
    put("images/cmyk.jpg", Image.fromarray(photo(5)).convert("CMYK"), quality=100, subsampling=0)
    root = put("images/jpeg.jpg", photo(6))
    folder = Folder(root)
    found = images(folder, "unlabeled")
    assert all(encoded.startswith(b"\x89PNG") for encoded in found.values())
    arrays = {name: pixels(encoded) for name, encoded in found.items()}
    assert np.array_equal(arrays["tiff"], photo(0)) and np.array_equal(arrays["bmp"], photo(4))
    assert np.array_equal(arrays["grey"], np.dstack([grey] * 3)) and np.array_equal(arrays["palette"], arrays["grey"])
    assert np.array_equal(arrays["rgba"], photo(2))
    assert np.array_equal(arrays["jpeg"], pixels((root / "images/jpeg.jpg").read_bytes()))
    assert abs(arrays["cmyk"].astype(int) - photo(5)).mean() < 12  # inverted inks would be off by 85 on average
    (note,) = [note for note in folder.notes() if "stored as PNG" in note]
    assert "1 TIFF" in note and "1 CMYK" in note and "1 JPEG become" in note


def test_sixteen_bits_are_scaled_by_the_bits_in_use_of_all_images(put: Put) -> None:
    low, high = (
        np.random.default_rng(i).integers(0, top, (9, 12)).astype(np.uint16) for i, top in enumerate((900, 4000))
    )
    high[0, 0] = 3999
    put("images/low.png", low)
    root = put("images/high.tif", high)
    folder = Folder(root)
    found = {name: pixels(encoded)[..., 0] for name, encoded in images(folder, "unlabeled").items()}
    assert np.array_equal(found["low"], low // 16) and np.array_equal(found["high"], high // 16)
    assert folder.version == "ids-12bit"
    assert any("values up to 3999: scaled from 12 to 8 bits" in note for note in folder.notes())


@pytest.mark.parametrize("kind", ["png", "rgba png", "tif"])
def test_sixteen_bit_colours_are_reported_and_rejected_if_they_would_be_black(put: Put, kind: str) -> None:
    values = np.random.default_rng(0).integers(0, 40_000, (9, 12, 3)).astype(np.uint16)
    values[0, 0] = 40_000
    suffix = kind.split()[-1]
    write = tiff16 if kind == "tif" else png16
    if kind == "rgba png":
        values = np.dstack([values, np.full((9, 12), 65_535, np.uint16)])
    folder = Folder(put(f"images/x.{suffix}", write(values)))
    assert np.array_equal(pixels(images(folder, "unlabeled")["x"]), values[..., :3] >> 8)
    assert any(f"with 16-bit colours, values up to {40_000 | 255}: the upper 8" in note for note in folder.notes())
    values[..., :3] //= 10
    put(f"images/y.{suffix}", write(values // np.array([2, 2, 2, 1], np.uint16)[: values.shape[2]]))
    root = put(f"images/x.{suffix}", write(values))
    with pytest.raises(DataError, match=rf"images/x\.{suffix} +16-bit colours, values up to {4_000 | 255} in all 2 "):
        Folder(root)
    put(f"images/y.{suffix}", write(values * np.uint16(5)))
    assert any("2 images with 16-bit colours" in note for note in Folder(root).notes())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_follows_exif(orientation: int, photo: Callable) -> None:
    image = Image.fromarray(photo(0))
    image.getexif()[0x0112] = orientation
    assert np.array_equal(turn(photo(0), orientation), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
@pytest.mark.parametrize("drawn", ["upright", "as stored", "with EXIF"])
def test_image_and_mask_are_rotated_together(
    put: Put, photo: Callable, ids: Callable, orientation: int, drawn: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.kron(photo(0), np.ones((8, 8, 1), np.uint8))
    upright = turn(np.kron(ids(0), np.ones((8, 8), np.uint8)), orientation)
    put("images/x.jpg", Image.fromarray(stored), exif=exif, quality=95)
    as_stored = np.kron(ids(0), np.ones((8, 8), np.uint8))
    if drawn == "with EXIF":
        root = put("masks/x.png", Image.fromarray(as_stored), exif=exif)
    else:
        root = put("masks/x.png", upright if drawn == "upright" else as_stored)
    folder = Folder(root, val=0)
    (sample,) = folder.samples("train")
    picture = pixels(data(sample))
    assert abs(picture.astype(int) - turn(stored, orientation)).mean() < 10
    label = sample.label() if callable(sample.label) else sample.label
    label = pixels(label) if isinstance(label, bytes) else label
    unsure = orientation == 3 and drawn != "with EXIF"
    assert isinstance(label, np.ndarray)
    if not unsure:
        assert np.array_equal(label, upright)
    assert any("fit either way" in note for note in folder.notes()) == unsure


def test_masks_that_fit_either_way_follow_the_others(put: Put, photo: Callable, ids: Callable) -> None:
    for name, orientation in (("sure", 6), ("unsure", 3)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        put(f"images/{name}.jpg", Image.fromarray(photo(0)), exif=exif)
        put(f"masks/{name}.png", ids(0))
    folder = Folder(put("read me", ""), val=0)
    labels = {s.key: s.label() for s in folder.samples("train") if callable(s.label)}
    assert np.array_equal(labels["unsure"], turn(ids(0), 3)) and np.array_equal(labels["sure"], turn(ids(0), 6))


def test_harmful_and_damaged_files_are_all_reported_at_once(
    pairs: Callable[..., Path], put: Put, photo: Callable, ids: Callable
) -> None:
    pairs(2)
    intact = io.BytesIO()
    Image.fromarray(photo(0, 90, 120)).save(intact, "PNG")
    put("images/bomb.png", bomb(10_000, 10_000))
    put("images/huge.png", bomb(60_000, 60_000))
    put("images/empty.jpg", b"")
    put("images/text.jpg", b"<html>not found</html>")
    put("images/float.tif", np.zeros((9, 12), np.float32))
    put("images/cut.tif", photo(0))
    put("images/jm.png")
    put("masks/jm.jpg", ids(0))
    put("images/cm.png", intact.getvalue())
    put("masks/cm.png", intact.getvalue()[: len(intact.getvalue()) // 2])
    put("images/em.png")
    put("masks/em.png", b"")
    root = put("images/bm.png")
    put("masks/bm.png", bomb(10_000, 10_000, grey=True))
    with pytest.raises(DataError) as raised:
        Folder(root)
    rows = {
        line.split()[5]: line
        for line in str(raised.value).splitlines()
        if "that can't be used" in line and "/" in line.split()[5]
    }
    for name, what in {
        "images/bomb.png": "10000x10000: more than 89 million pixels; cut it into tiles",
        "images/huge.png": "more than 89 million pixels",
        "images/empty.jpg": "the file is empty",
        "images/text.jpg": "Pillow can't read it: not an image, or an unusual kind",
        "images/float.tif": "floating point numbers",
        "masks/jm.jpg": "the mask is a JPEG, whose compression changes ids",
        "masks/cm.png": "truncated or damaged",
        "masks/em.png": "the file is empty",
        "masks/bm.png": "10000x10000: more than 89 million pixels",
    }.items():
        assert what in rows[name], name


@pytest.mark.parametrize("suffix", ["png", "bmp"])  # kept as it is, and converted
def test_an_image_cut_off_in_its_pixels_is_named_while_sharding(
    put: Put, photo: Callable, ids: Callable, tmp_path: Path, suffix: str
) -> None:
    intact = io.BytesIO()
    Image.fromarray(photo(0, 90, 120)).save(intact, suffix.upper())
    put(f"images/x.{suffix}", intact.getvalue()[: len(intact.getvalue()) // 2])
    root = put("masks/x.png", ids(0, 90, 120))
    with pytest.raises(DataError, match=rf"source images/x\.{suffix}\): .*image.*truncated"):
        shard(Folder(root, val=0), "train", tmp_path)


def png16(values: np.ndarray) -> bytes:
    """RGB or RGBA [h, w, 3 or 4] of 16 bits as PNG, which Pillow can't write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, bands = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2 if bands == 3 else 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff16(values: np.ndarray) -> bytes:
    """RGB [h, w, 3] of 16 bits as a plain TIFF, which Pillow can't write."""
    height, width, _ = values.shape
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 140),
            (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, values.nbytes), (284, 3, 1, 1)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0)
    return head + struct.pack("<3H", 16, 16, 16) + values.astype("<u2").tobytes()


def bomb(width: int, height: int, grey: bool = False) -> bytes:
    """A small PNG file of many black pixels: its rows compress to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = bytes(1 + width * (1 if grey else 3))
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(row) for _ in range(min(height, 50))) + packer.flush()  # as much as a header needs
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if grey else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("kinds", ["tif png", "png tif", "tif tif"])
def test_tiffs_with_an_orientation_are_rotated_once(
    put: Put, photo: Callable, ids: Callable, orientation: int, kinds: str
) -> None:
    """The TIFF is stored rotated; the PNG beside it and the result are upright."""
    for what, upright, kind in zip(("images", "masks"), (photo(0), ids(0)), kinds.split(), strict=True):
        back = {6: 8, 8: 6}.get(orientation, orientation)
        options = {"tiffinfo": {0x0112: orientation}} if kind == "tif" else {}
        put(f"{what}/x.{kind}", turn(upright, back) if kind == "tif" else upright, **options)
    folder = Folder(put("read me", ""), val=0)
    (sample,) = folder.samples("train")
    assert np.array_equal(pixels(data(sample)), photo(0))
    assert callable(sample.label)
    label = sample.label()
    assert np.array_equal(pixels(label) if isinstance(label, bytes) else label, ids(0))


def test_a_mask_drawn_over_a_tiff_as_stored_is_rotated_with_it(put: Put, photo: Callable, ids: Callable) -> None:
    put("images/x.tif", photo(0), tiffinfo={0x0112: 6})
    (sample,) = Folder(put("masks/x.png", ids(0)), val=0).samples("train")
    assert callable(sample.label) and np.array_equal(sample.label(), turn(ids(0), 6))
    assert np.array_equal(pixels(data(sample)), turn(photo(0), 6))
