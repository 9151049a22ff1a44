"""Decode images and labels; files that are broken, too large or of an unsupported kind are errors."""

import io
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from semiseg.data.errors import DataError
from semiseg.data.format.json_text import parse_json
from semiseg.data.format.manifest import Manifest
from semiseg.data.image.formats import image_formats

TAGS = ","  # between the tags in meta.json: of a list, readers could not infer the type from samples without tags
_PNG_END = b"IEND\xaeB\x60\x82"  # the last chunk with its checksum: decoders accept files without it
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})  # convert to RGB without losing range
_BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)


class Bomb(DataError):
    """An image with more pixels than may fit in memory."""


def image_kind(where: str, data: bytes) -> str:
    """ "jpg" or "png", by the first bytes; DataError for anything else."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if not data:
        raise DataError(f"{where}: the image is empty; replace the file with an intact copy, or leave it out")
    raise DataError(
        f"{where}: the image is neither JPEG nor PNG (it starts with {bytes(data[:8])!r}); convert it while "
        'writing: --format png (format="png") keeps every pixel, jpeg is smaller'
    )


def check_kind(where: str, kind: str, first: str, expected: str) -> None:
    """DataError if an image is of another kind than the set's first."""
    if kind != expected:
        raise DataError(
            f"{where}: the image is a {kind}, that of {first} is a {expected}; a set has one kind (plain readers lose samples "
            'that differ). Choose one: --format png (format="png") keeps every pixel, --format jpeg is smaller; '
            "or make two splits"
        )


def decode_image(data: bytes, *, verify: bool = False) -> Image.Image:
    """Decode an image; DataError, without its name, if it is broken. `verify` also checks a PNG's checksums."""
    if not verify and (pixels := _quickly(data, _RGB)) is not None:
        return Image.fromarray(pixels)
    try:
        with _bombs_refused() if verify else nullcontext():
            _check_png(data) if verify else None
            picture = Image.open(io.BytesIO(data), formats=image_formats())
        picture.load()
    except _BOMBS as error:
        raise Bomb(f"the image has more than {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except Exception as error:  # decoders fail in many ways, all of which mean a broken file
        raise DataError(f"the image is truncated or broken ({_why(error)})") from error
    if picture.mode not in _MODES:
        raise DataError(f"the image has pixels of type {picture.mode}, which do not fit 8 bits per band")
    return picture


def decode_label(data: bytes, *, verify: bool = False) -> np.ndarray:
    """Raw ids [h, w], uint8 or uint16, of a stored label; DataError, without its name, if it is broken or of another kind."""
    depth, colour = png_header(data)
    if colour != 0 or depth not in (8, 16):
        raise DataError(
            f"the label is a PNG of {depth} bits, colour type {colour}; stored labels have one band of 8 or 16"
        )
    if not verify and (pixels := _quickly(data, _GREY)) is not None:
        return pixels[..., 0]
    return png_pixels(data, verify=verify)


def read_meta(key: str, data: bytes) -> tuple[list[str], dict[str, Any]]:
    """The tags in a meta.json, and all of it; DataError if it is invalid or has another key."""
    try:
        meta = parse_json(data)
        found, tags = meta["key"], [tag for tag in meta["tags"].split(TAGS) if tag]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"the meta is not JSON with key and tags ({type(error).__name__}: {error})") from error
    if found != key:
        raise DataError(f"the meta has key {found!r}")
    return tags, meta


def check_pair(image: Image.Image, label: np.ndarray | None, size: tuple[int, int], manifest: Manifest) -> None:
    """DataError unless image and label have the size (width, height) in the index, and all ids are in the raw space."""
    for what, found in (("image", image.size), ("label", size if label is None else label.shape[::-1])):
        if found != size:
            found, wanted = (f"{width}x{height}" for width, height in (found, size))
            raise DataError(f"the {what} is {found} pixels, the index says {wanted}")
    if label is not None and (strange := unknown_id(label, manifest.raw_ids)) is not None:
        raise DataError(f"the label {strange}, which raw space '{manifest.raw_space}' does not have")


def unknown_id(label: np.ndarray, allowed: Mapping[int, str]) -> str | None:
    """A description of the first pixel whose id is not allowed; None if there is none."""
    largest = int(label.max(initial=0))
    if largest < len(allowed) and all(number in allowed for number in range(largest + 1)):
        return None  # the usual case, without counting
    for number in np.flatnonzero(np.bincount(label.ravel())):
        if int(number) not in allowed:
            y, x = np.argwhere(label == number)[0]
            count = int((label == number).sum())
            return f"holds id {number} in {count} pixel{'s' * (count > 1)}, first at x={x}, y={y}"
    return None


def png_header(data: Any) -> tuple[int, int]:
    """Bit depth and colour type (0 grey, 2 RGB, 3 palette, 4 and 6 with alpha)."""
    if not isinstance(data, bytes) or data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 26:
        if data == b"":
            raise DataError("the label is empty")
        what = f"bytes that start with {data[:8]!r}" if isinstance(data, bytes) else type(data).__name__
        if isinstance(data, bytes) and data.startswith(b"\xff\xd8\xff"):
            what = "a JPEG, whose compression changes ids"
        raise DataError(f"the label is not a PNG but {what}")
    return data[24], data[25]


def png_pixels(data: bytes, *, verify: bool) -> np.ndarray:
    try:
        with _bombs_refused() if verify else nullcontext():
            _check_png(data) if verify else None
            picture = Image.open(io.BytesIO(data), formats=image_formats())
        with picture:
            ids = np.array(picture)
    except _BOMBS as error:
        raise Bomb(f"the label has more than {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except Exception as error:  # as in `decode_image`
        raise DataError(f"the label is truncated or broken ({_why(error)})") from error
    return ids.astype(np.uint16 if ids.dtype.itemsize > 1 else np.uint8, copy=False)


_GREY, _RGB = (8, 0), (8, 2)  # bits and colour type
_PLAIN = frozenset({b"IHDR", b"cHRM", b"gAMA", b"sBIT", b"sRGB", b"bKGD", b"pHYs", b"tEXt", b"tIME"})  # change no pixel


def _quickly(data: bytes, kind: tuple[int, int]) -> np.ndarray | None:
    """Pixels [h, w, bands] of a plain PNG, decoded by kornia-rs in a third of Pillow's time; None if Pillow must do it.

    That is the case if kornia-rs is not installed, and for other bits, colours or chunks, and interlaced, very large or
    broken files, whose errors Pillow explains.
    """
    if _fast is None or not data.startswith(b"\x89PNG\r\n\x1a\n") or len(data) < 33:
        return None
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if (depth, colour) != kind or interlaced or width * height > (Image.MAX_IMAGE_PIXELS or 0):
        return None
    at = 8
    while (name := data[at + 4 : at + 8]) in _PLAIN:
        at += 12 + int.from_bytes(data[at : at + 4])
    if name != b"IDAT":
        return None
    try:
        return _fast(data, (height, width), "rgb" if kind == _RGB else "mono")
    except Exception:
        return None


def _fast_decoder() -> Callable[[bytes, tuple[int, int], str], np.ndarray] | None:
    try:
        from kornia_rs.io import decode_image_png_u8  # pyright: ignore[reportMissingModuleSource]
    except ImportError:
        return None
    return decode_image_png_u8


_fast = _fast_decoder()


def _why(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a known kind of image"  # its message names an address in memory
    return str(error)


def _check_png(data: bytes) -> None:
    """Check a PNG's end and the checksums of its chunks, which decoding ignores; do nothing for a JPEG."""
    if data.startswith(b"\x89PNG"):
        if _PNG_END not in data:
            raise ValueError("its end is missing")
        with Image.open(io.BytesIO(data), formats=image_formats()) as probe:
            probe.verify()


@contextmanager
def _bombs_refused() -> Iterator[None]:
    """Turn Pillow's warning about very large images into an error, as for even larger ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
