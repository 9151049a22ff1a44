"""One image file: what its header says, and its pixels as PNG where its own bytes can't be stored."""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

from semiseg.data import DataError, Tree

PIXELS = 89_478_485  # where Pillow begins to suspect a file that is made to fill the memory
ORIENTATION = 0x0112  # the EXIF tag
_BITS = 258  # the TIFF tag of bits a band
_TURNED = (5, 6, 7, 8)  # orientations that swap width and height


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it is stored.

    size         (width, height), as stored
    orientation  EXIF's, 1 where there is none
    kind         "jpg" or "png" where its bytes can be kept; else None, and `why`
    deep         has more than 8 bits a pixel, which are to be scaled
    upper        has more than 8 bits a band of colours, of which Pillow gives the upper 8
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
    """What a file's header says; DataError without a place where it is no picture, or one too large."""
    with stream(tree, name) as file:
        head = file.read(32)
        file.seek(0)
        with opened(file, bool(head)) as picture:
            depth = head[24] if picture.format == "PNG" else 8
            if picture.format == "TIFF":
                depth = max(picture.tag_v2.get(_BITS, (8,)))
            if picture.mode == "F":
                raise DataError(
                    "pixels are floating point numbers, which have no agreed range: convert it to 8 or 16 bits"
                )
            # A PNG would be decoded for what may come after its pixels, which no camera writes.
            exif = picture.getexif() if picture.format != "PNG" or "exif" in picture.info else {}
            orientation = exif.get(ORIENTATION, 1)
            orientation = orientation if orientation in range(2, 9) else 1
            size = picture.size
            if picture.format == "TIFF" and orientation != 1:
                picture.load()  # Pillow turns these itself
                size = picture.size[::-1] if orientation in _TURNED else picture.size
            why = ""
            if picture.format not in ("JPEG", "PNG", "MPO"):
                why = f"{picture.format}{' of several pages, the first taken' * (getattr(picture, 'n_frames', 1) > 1)}"
            elif picture.mode != "RGB" or depth > 8:
                why = "16 bits" if depth > 8 else {"L": "grey", "P": "palette"}.get(picture.mode, picture.mode)
            elif orientation != 1:
                why = "turned by EXIF"
            kind = None if why else "png" if picture.format == "PNG" else "jpg"
            deep = picture.mode.startswith("I")
            return Picture(size, orientation, kind, why, deep, upper=depth > 8 and not deep)


def highest(tree: Tree, name: str) -> int:
    """The largest value of a picture of more than 8 bits; of colours, the most it can have been, since 8 bits are lost."""
    with stream(tree, name) as file, opened(file) as picture:
        if picture.mode.startswith("I"):
            return int(np.asarray(picture).max())
        return (int(np.asarray(picture.convert("RGB")).max()) << 8) + 255


def as_png(read: Callable[[], bytes], bits: int) -> bytes:
    """An image as an upright RGB PNG of 8 bits a band. `bits`: how many of a deep picture's bits are in use."""
    with opened(io.BytesIO(read())) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith("I"):
            values = np.asarray(upright).astype(np.int64) >> max(0, bits - 8)
            upright = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
        if "transparency" in upright.info:
            upright = upright.convert("RGBA")  # Pillow warns about palettes with transparency otherwise
        plain = Image.fromarray(np.asarray(upright.convert("RGB")))  # without profiles, comments, EXIF
    written = io.BytesIO()
    plain.save(written, "PNG", compress_level=4)  # twice as fast as 6, and 2 % larger
    return written.getvalue()


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [h, w, ...] as stored, the way that EXIF's orientation (1..8) says to show them."""
    swapped = pixels.swapaxes(0, 1) if orientation in _TURNED else pixels
    if orientation in (3, 4, 7, 8):
        swapped = swapped[::-1]
    if orientation in (2, 3, 6, 7):
        swapped = swapped[:, ::-1]
    return np.ascontiguousarray(swapped)


@contextmanager
def stream(tree: Tree, name: str) -> Iterator[BinaryIO]:
    """A file to read from: headers of files in a folder are read without the rest."""
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
    """A picture, with everything that is wrong with its file as a DataError without a place."""
    if not filled:
        raise DataError("an empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # told below, in our own words
            with Image.open(file) as picture:
                if picture.width * picture.height > PIXELS:
                    raise _too_large(f"{picture.width}x{picture.height}")
                yield picture
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise _too_large("its header says that") from error
    except Image.UnidentifiedImageError as error:
        raise DataError("Pillow can't read it: no picture, or of a rare kind (many bands); save it as PNG") from error
    except Exception as error:  # decoders fail in many ways; each of them means a broken file
        raise DataError(f"truncated or broken ({error})") from error


def _too_large(what: str) -> DataError:
    return DataError(f"{what}: more than {PIXELS // 10**6} million pixels; cut it into tiles, or leave it out")
