"""One image file: its header, and its pixels as PNG if its bytes can't be stored unchanged."""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

from semiseg.data import DataError, Tree

PIXELS = 89_478_485  # Pillow warns about decompression bombs above this size
ORIENTATION = 0x0112  # the EXIF tag
_BITS = 258  # the TIFF tag of bits per band
_TURNED = (5, 6, 7, 8)  # orientations that swap width and height


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it is stored.

    size         (width, height), as stored
    orientation  of EXIF, 1 if there is none
    kind         "jpg" or "png" if its bytes can be kept; otherwise None, and `why`
    deep         has more than 8 bits per pixel, which must be scaled
    upper        has more than 8 bits per colour band, of which Pillow returns the upper 8
    """

    size: tuple[int, int]
    orientation: int
    kind: str | None
    why: str
    deep: bool
    upper: bool

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) as viewers show it."""
        return (self.size[1], self.size[0]) if self.orientation in _TURNED else self.size


def inspect(tree: Tree, name: str) -> Picture:
    """The header of a file; DataError, without a file name, if it is not an image or too large."""
    with stream(tree, name) as file:
        head = file.read(32)
        file.seek(0)
        with opened(file, bool(head)) as picture:
            depth = head[24] if picture.format == "PNG" else 8
            if picture.format == "TIFF":
                depth = max(picture.tag_v2.get(_BITS, (8,)))
            if picture.mode == "F":
                raise DataError("pixels are floating point numbers without a defined range; convert it to 8 or 16 bits")
            # For a PNG, Pillow would decode all pixels to find EXIF data after them, which no camera writes.
            exif = picture.getexif() if picture.format != "PNG" or "exif" in picture.info else {}
            orientation = exif.get(ORIENTATION, 1)
            orientation = orientation if orientation in range(2, 9) else 1
            size = picture.size
            if picture.format == "TIFF" and orientation != 1:
                picture.load()  # Pillow rotates these itself
                size = picture.size[::-1] if orientation in _TURNED else picture.size
            why = ""
            if picture.format not in ("JPEG", "PNG", "MPO"):
                why = f"{picture.format}{' of several pages, only the first is used' * (getattr(picture, 'n_frames', 1) > 1)}"
            elif picture.mode != "RGB" or depth > 8:
                why = "16 bits" if depth > 8 else {"L": "grey", "P": "palette"}.get(picture.mode, picture.mode)
            elif orientation != 1:
                why = "rotated by EXIF"
            kind = None if why else "png" if picture.format == "PNG" else "jpg"
            deep = picture.mode.startswith("I")
            return Picture(size, orientation, kind, why, deep, upper=depth > 8 and not deep)


def highest(tree: Tree, name: str) -> int:
    """The largest value of an image of more than 8 bits; for colours, an upper bound, because Pillow drops 8 bits."""
    with stream(tree, name) as file, opened(file) as picture:
        if picture.mode.startswith("I"):
            return int(np.asarray(picture).max())
        return (int(np.asarray(picture.convert("RGB")).max()) << 8) + 255


def as_png(read: Callable[[], bytes], bits: int) -> bytes:
    """An image as an upright RGB PNG with 8 bits per band. `bits`: the number of bits in use in a deep image."""
    with opened(io.BytesIO(read())) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith("I"):
            values = np.asarray(upright).astype(np.int64) >> max(0, bits - 8)
            upright = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
        if "transparency" in upright.info:
            upright = upright.convert("RGBA")  # Pillow warns about palettes with transparency otherwise
        plain = Image.fromarray(np.asarray(upright.convert("RGB")))  # drops profiles, comments and EXIF
    written = io.BytesIO()
    plain.save(written, "PNG", compress_level=4)  # twice as fast as 6, and 2 % larger
    return written.getvalue()


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [h, w, ...], rotated and flipped by an EXIF orientation (1..8)."""
    swapped = pixels.swapaxes(0, 1) if orientation in _TURNED else pixels
    if orientation in (3, 4, 7, 8):
        swapped = swapped[::-1]
    if orientation in (2, 3, 6, 7):
        swapped = swapped[:, ::-1]
    return np.ascontiguousarray(swapped)


@contextmanager
def stream(tree: Tree, name: str) -> Iterator[BinaryIO]:
    """A file to read from; in a folder, a header can be read without the rest of the file."""
    if tree.kind == "folder":
        try:
            with (tree.path / name).open("rb") as file:
                yield file
        except OSError as error:
            raise DataError(f"can't be read ({error.strerror or error})") from error
    else:
        yield io.BytesIO(tree.read(name))


@contextmanager
def opened(file: BinaryIO, filled: bool = True) -> Iterator[Any]:
    """An open image; any error of its file becomes a DataError without a file name."""
    if not filled:
        raise DataError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # reported below
            with Image.open(file) as picture:
                if picture.width * picture.height > PIXELS:
                    raise _too_large(f"{picture.width}x{picture.height}")
                yield picture
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise _too_large("its size according to the header") from error
    except Image.UnidentifiedImageError as error:
        raise DataError(
            "Pillow can't read it: not an image, or an unusual kind (many bands); save it as PNG"
        ) from error
    except Exception as error:  # decoders raise many kinds of errors for a damaged file
        raise DataError(f"truncated or damaged ({error}); replace it") from error


def _too_large(what: str) -> DataError:
    return DataError(f"{what}: more than {PIXELS // 10**6} million pixels; cut it into tiles, or remove it")
