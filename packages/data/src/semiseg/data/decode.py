"""Encoded images and labels, decoded whole or refused: what is broken, too large or of another kind is an error here."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from PIL import Image

from semiseg.data.errors import DataError

_PNG_END = b"IEND\xaeB\x60\x82"  # the last chunk with its checksum: decoders don't miss its last bytes
_MODES = frozenset(
    {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
)  # what becomes RGB without a loss of range
_BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)


class Bomb(DataError):
    """A picture of so many pixels that decoding it may take all memory."""


def image_kind(where: str, data: bytes) -> str:
    """ "jpg" or "png", by the first bytes; DataError for anything else."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if not data:
        raise DataError(f"{where}: the image is empty; replace the file with a whole copy, or leave it out")
    raise DataError(
        f"{where}: the image is neither JPEG nor PNG (it starts with {bytes(data[:8])!r}); have it converted while "
        'writing: --format png (format="png") keeps every pixel, jpeg is smaller'
    )


def check_kind(where: str, kind: str, first: str, expected: str) -> None:
    """DataError for a set whose images are of two kinds, which needs a choice."""
    if kind != expected:
        raise DataError(
            f"{where}: the image is a {kind}, that of {first} is a {expected}; a set holds one kind (plain readers lose what "
            'differs). Choose one: --format png (format="png") keeps every pixel, --format jpeg is smaller; '
            "or make two splits"
        )


def decode_image(data: bytes, *, verify: bool = False) -> Image.Image:
    """A whole image, as it is stored; DataError without a place where it is broken. `verify` a PNG's checksums too."""
    try:
        with _bombs_refused() if verify else nullcontext():
            _check_png(data) if verify else None
            picture = Image.open(io.BytesIO(data))
        picture.load()
    except _BOMBS as error:
        raise Bomb(f"the image has more than {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except Exception as error:  # decoders fail in many ways; each of them means a broken file
        raise DataError(f"the image is truncated or broken ({error})") from error
    if picture.mode not in _MODES:
        raise DataError(f"the image has pixels of type {picture.mode}, which do not fit 8 bits a band")
    return picture


def decode_label(data: bytes, *, verify: bool = False) -> np.ndarray:
    """Raw ids [h, w] of a stored label, uint8 or uint16; DataError without a place where it is broken or of another kind."""
    depth, colour = png_header(data)
    if colour != 0 or depth not in (8, 16):
        raise DataError(
            f"the label is a PNG of {depth} bits, colour type {colour}; stored labels have one band of 8 or 16"
        )
    return png_pixels(data, verify=verify)


def png_header(data: Any) -> tuple[int, int]:
    """Bit depth and colour type (0 grey, 2 RGB, 3 palette, 4 and 6 with alpha)."""
    if not isinstance(data, bytes) or data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 26:
        if data == b"":
            raise DataError("the label is empty")
        what = f"bytes that start with {data[:8]!r}" if isinstance(data, bytes) else type(data).__name__
        if isinstance(data, bytes) and data.startswith(b"\xff\xd8\xff"):
            what = "a JPEG, whose pixels are not the ids that were drawn"
        raise DataError(f"the label is no PNG but {what}")
    return data[24], data[25]


def png_pixels(data: bytes, *, verify: bool) -> np.ndarray:
    try:
        with _bombs_refused() if verify else nullcontext():
            _check_png(data) if verify else None
            picture = Image.open(io.BytesIO(data))
        with picture:
            ids = np.array(picture)
    except _BOMBS as error:
        raise Bomb(f"the label has more than {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except Exception as error:  # as for images
        raise DataError(f"the label is truncated or broken ({error})") from error
    return ids.astype(np.uint16 if ids.dtype.itemsize > 1 else np.uint8, copy=False)


def _check_png(data: bytes) -> None:
    """The checksums of all chunks of a PNG and its end, which decoding alone does not look at; nothing for a JPEG."""
    if data.startswith(b"\x89PNG"):
        if _PNG_END not in data:
            raise ValueError("its end is missing")
        with Image.open(io.BytesIO(data)) as probe:
            probe.verify()


@contextmanager
def _bombs_refused() -> Iterator[None]:
    """Pillow warns of very large pictures before it refuses enormous ones; here both are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
