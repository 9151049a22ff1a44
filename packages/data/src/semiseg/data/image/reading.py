"""The pixels of an image file: upright, RGB, 8 bits per band. Data sets and prediction read images by this code alone."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageOps

from semiseg.data.errors import DataError
from semiseg.data.image.bands import check_alpha, check_bands, choose_bands
from semiseg.data.image.formats import open_image
from semiseg.data.image.tiff import TiffBands, with_fourth_band

ORIENTATION = 0x0112  # the EXIF tag
_TURNED = (5, 6, 7, 8)  # orientations that swap width and height
_BITS = (8, 10, 12, 14, 16)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How values that are not 8-bit RGB become it; the default suits ordinary images.

    bits   in use in grey images of more than 8 bits: the upper 8 of these are kept
    range  (low, high): these values become 0 and 255 in floating point images, and in deep grey ones if `bits` is None
    bands  numbers, from 1, of the three bands (or the one) of images with more bands
    """

    bits: int | None = None
    range: tuple[float, float] | None = None
    bands: tuple[int, ...] = ()

    @classmethod
    def parse(cls, *, bits: object = None, range: object = None, bands: object = None) -> "Reading":
        """From texts such as "12", "0,1" and "1,2,3"; None where not given."""
        return cls(bits=_bits(bits), range=_range(range), bands=_bands(bands))

    def settings(self) -> dict[str, int | str]:
        """Settings for a manifest: none by default."""
        found: dict[str, int | str] = {} if self.bits is None else {"bits": self.bits}
        if self.range is not None:
            found["range"] = ",".join(repr(value).removesuffix(".0") for value in self.range)
        if self.bands:
            found["bands"] = ",".join(map(str, self.bands))
        return found

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Reading":
        """From settings as in a manifest; others are ignored."""
        return cls.parse(**{name: settings.get(name) for name in ("bits", "range", "bands")})


@runtime_checkable
class Converter(Protocol):
    """An adapter that converts images which are not 8-bit RGB, and says how; optional.

    The writer records it in the manifest, a model trained on these shards keeps it, and prediction repeats it.
    """

    @property
    def reading(self) -> Reading: ...


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it is stored.

    size         (width, height), as stored
    orientation  of EXIF, 1 if there is none
    kind         "jpg" or "png" if its bytes can be kept; otherwise None, and `why`
    deep         has more than 8 bits per pixel, which must be scaled by their number
    upper        has more than 8 bits per colour band, of which Pillow returns the upper 8
    floating     has floating point numbers
    frames       whether there are further frames or pages, which are not used
    """

    size: tuple[int, int]
    orientation: int
    kind: str | None
    why: str
    deep: bool
    upper: bool
    floating: bool = False
    frames: bool = False

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) as viewers show it."""
        return (self.size[1], self.size[0]) if self.orientation in _TURNED else self.size


AS_IT_IS = Reading()


def inspect_image(file: BinaryIO, reading: Reading = AS_IT_IS, *, alpha: bool = True) -> Picture:
    """The header of a file; DataError, without a file name, if it can't be read as an image in this way.

    `alpha`: decode an image with alpha to see whether it is transparency, as `read_rgb` does.
    """
    head = file.read(32)
    file.seek(0)
    if max(reading.bands, default=0) > 3:
        file = with_fourth_band(file)
    with open_image(file, bool(head)) as picture:
        depth = head[24] if picture.format == "PNG" else 8
        if picture.format == "TIFF":
            bands = TiffBands.of(picture)
            depth = max(bands.bits)
        check_bands(picture, reading.bands)
        deep = picture.mode.startswith("I")
        floating = picture.mode == "F"
        if floating and reading.range is None:
            raise DataError(_needs_range(picture, "pixels are floating point numbers without a defined range"))
        if alpha and picture.mode == "RGBA" and not reading.bands:
            picture.load()
            check_alpha(picture)
        frames = bool(getattr(picture, "is_animated", False)) and picture.format != "MPO"
        turned, size = orientation(picture), picture.size
        if picture.format == "TIFF" and turned != 1:
            picture.load()  # Pillow rotates these itself
            size = picture.size[::-1] if turned in _TURNED else picture.size
        why = ""
        if picture.format not in ("JPEG", "PNG", "MPO"):
            why = f"{picture.format}{' of several pages, only the first is used' * frames}"
        elif picture.mode != "RGB" or depth > 8:
            why = "16 bits" if depth > 8 else {"L": "grey", "P": "palette"}.get(picture.mode, picture.mode)
        elif turned != 1:
            why = "rotated by EXIF"
        kind = None if why else "png" if picture.format == "PNG" else "jpg"
        upper = depth > 8 and not deep and not floating
        return Picture(size, turned, kind, why, deep, upper, floating, frames)


def read_rgb(data: bytes, reading: Reading = AS_IT_IS) -> Image.Image:
    """The first frame as an upright RGB image; DataError, without a file name, if it can't be read in this way.

    Profiles are not applied, inks and palettes are converted as Pillow does, and alpha is dropped.
    """
    file: BinaryIO = io.BytesIO(data)
    if max(reading.bands, default=0) > 3:
        file = with_fourth_band(file)
    with open_image(file, bool(data)) as picture:
        turned = orientation(picture) if picture.format != "TIFF" else 1  # Pillow rotates TIFFs when it loads them
        check_bands(picture, reading.bands)
        picture.load()
        if not reading.bands:
            check_alpha(picture)
        upright: Any = Image.fromarray(turn(np.asarray(picture), turned)) if _deep(picture) else picture
        if _deep(picture):
            upright = Image.fromarray(_eight_bits(np.asarray(upright), reading))
        elif turned != 1:
            upright = ImageOps.exif_transpose(picture)
        if reading.bands:
            return choose_bands(upright, reading.bands)
        if "transparency" in upright.info:
            upright = upright.convert("RGBA")  # Pillow warns about palettes with transparency otherwise
        return Image.fromarray(np.asarray(upright.convert("RGB")))  # drops profiles, comments and EXIF


def as_png(read: Callable[[], bytes], reading: Reading = AS_IT_IS) -> bytes:
    """An image as an upright RGB PNG with 8 bits per band."""
    written = io.BytesIO()
    read_rgb(read(), reading).save(written, "PNG", compress_level=4)  # twice as fast as 6, and 2 % larger
    return written.getvalue()


def deepest(file: BinaryIO) -> tuple[int | None, bool]:
    """The largest value of a grey image of more than 8 bits, None for others; and whether it has floating point numbers."""
    with open_image(file) as picture:
        deep, floating = picture.mode.startswith("I"), picture.mode == "F"
    if not deep:
        return None, floating
    file.seek(0)
    return highest(file), False


def highest(file: BinaryIO) -> int:
    """The largest value of an image of more than 8 bits; for colours, an upper bound, because Pillow drops 8 bits."""
    with open_image(file) as picture:
        if picture.mode.startswith("I"):
            values = np.asarray(picture)
            if values.min() < 0:
                raise DataError(_needs_range(picture, f"pixels have values below 0, down to {int(values.min())}"))
            return int(values.max())
        return (int(np.asarray(picture.convert("RGB")).max()) << 8) + 255


def bits_for(top: int) -> int:
    """The number of bits in use in images with this largest value: 8, 10, 12, 14, 16 or more."""
    return next((bits for bits in _BITS if top < 1 << bits), top.bit_length())


def orientation(picture: Any) -> int:
    """The EXIF orientation, 1..8."""
    if picture.format == "PNG" and not {"exif", "Raw profile type exif", "XML:com.adobe.xmp"} & picture.info.keys():
        return 1  # Pillow would decode all pixels to find EXIF data after them, which no camera writes
    found = picture.getexif().get(ORIENTATION, 1)
    return found if found in range(2, 9) else 1


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [h, w, ...], rotated and flipped by an EXIF orientation (1..8)."""
    swapped = pixels.swapaxes(0, 1) if orientation in _TURNED else pixels
    if orientation in (3, 4, 7, 8):
        swapped = swapped[::-1]
    if orientation in (2, 3, 6, 7):
        swapped = swapped[:, ::-1]
    return np.ascontiguousarray(swapped)


def _deep(picture: Any) -> bool:
    return picture.mode == "F" or picture.mode.startswith("I")


def _eight_bits(values: np.ndarray, reading: Reading) -> np.ndarray:
    """Deep or floating point values as uint8."""
    if reading.range is not None and (values.dtype.kind == "f" or reading.bits is None):
        return _in_range(values, reading.range)
    if values.dtype.kind == "f":
        raise DataError(
            "pixels are floating point numbers without a defined range; give it with --option range=LOW,HIGH"
        )
    wide = values.astype(np.int64)
    low, top = (int(wide.min()), int(wide.max())) if wide.size else (0, 0)
    if low < 0:
        raise DataError(f"pixels have values from {low} to {top}; give their range with --option range={low},{top}")
    bits = bits_for(top) if reading.bits is None else reading.bits
    if top >= 1 << bits:
        raise DataError(
            f"pixels have values up to {top}, but images are scaled from {bits} bits, which end at {(1 << bits) - 1}; "
            f"scale it as the others, or read all images with --option bits={bits_for(top)}"
        )
    return (wide >> max(0, bits - 8)).astype(np.uint8)


def _in_range(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    exact = values.astype(np.float64)
    if lost := int(np.count_nonzero(~np.isfinite(exact))):
        raise DataError(f"{lost} pixels are not numbers (NaN or infinite); fill them with a value first")
    low, high = ends
    if values.dtype.kind != "f" and ((exact < low) | (exact > high)).mean() > 0.9:
        ends_of = f"values from {exact.min():g} to {exact.max():g}"
        raise DataError(
            f"more than 90 % of its pixels, with {ends_of}, are outside range={low:g},{high:g}; correct the range, or give the "
            "number of bits in use, as in --option bits=16"
        )
    return np.clip(np.floor((exact - low) * (255 / (high - low)) + 0.5), 0, 255).astype(np.uint8)


def _needs_range(picture: Any, what: str) -> str:
    values = np.asarray(picture).astype(np.float64)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high if high > low else low + 1)
    return (
        f"{what}; give the values of black and white with --option range={low:g},{high:g}, or save it with 8 or 16 bits"
    )


def _bits(text: object) -> int | None:
    if text is None:
        return None
    if not str(text).strip().isdigit() or not 8 <= int(str(text)) <= 32:
        raise DataError(f"option bits={text}: expected the number of bits in use, 8 to 32, such as bits=12")
    return int(str(text))


def _range(text: object) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in str(text).split(","))
    except ValueError:
        low = high = 0.0
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise DataError(f"option range={text}: expected the values of black and white, such as range=0,1")
    return low, high


def _bands(text: object) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = [part.strip() for part in str(text).split(",")]
    if len(parts) not in (1, 3) or not all(part.isdigit() and 0 < int(part) < 1000 for part in parts):
        raise DataError(
            f"option bands={text}: expected the numbers of three bands (or one), from 1, such as bands=1,2,3"
        )
    return tuple(map(int, parts))
