"""Convert images and labels to another size or format, if asked for."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from semiseg.data.errors import DataError, unknown
from semiseg.data.image.formats import open_image
from semiseg.data.image.reading import AS_IT_IS, Reading, inspect_image, read_rgb

FORMATS = {"keep": None, "jpeg": "jpg", "png": "png"}
_SIGNS = {"jpg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}  # how such a file begins
# JPEG with colours at half the size (4:2:0): 40 dB on CamVid, decoded in 0.65 of the time of 4:4:4 (42 dB).
_QUALITY = 95
_DARK = 16  # of the upper 8 of 16 bits: below, at most 12 bits are in use


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How the writer converts images and labels; the default changes nothing.

    resize  (width, height) exactly, or the most that the longer side may have; None keeps sizes
    format  "keep", "jpeg" (quality 95, 4:2:0) or "png"; labels are recompressed without filter, which halves decoding time
    reading how values that are not 8-bit RGB became it, as the data set's adapter says; it has been applied already

    A file that already has the requested size and format is kept, byte for byte. Images are resized by Lanczos filtering
    (which smooths when it shrinks), labels by the nearest id.
    """

    resize: tuple[int, int] | int | None = None
    format: str = "keep"
    reading: Reading = AS_IT_IS

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise DataError(unknown("image format", self.format, FORMATS))

    @property
    def kind(self) -> str | None:
        """The extension of every image of the set; None: that of the publisher's first image."""
        return FORMATS[self.format]

    def settings(self) -> dict[str, int | str]:
        """Settings for the manifest: none by default, so that digests of unconverted sets stay the same."""
        settings: dict[str, int | str] = {} if self.format == "keep" else {"format": self.format}
        if self.resize is not None:
            settings["resize"] = str(self.resize) if isinstance(self.resize, int) else "x".join(map(str, self.resize))
        return settings | self.reading.settings()

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Conversion":
        """From settings as in a manifest or in a model's metadata; DataError if a value is not one."""
        resize, format_ = settings.get("resize"), settings.get("format", "keep")
        if not isinstance(format_, str):
            raise DataError(f"image format {format_!r} is not text; expected one of {', '.join(FORMATS)}")
        return cls(resize=parse_resize(resize), format=format_, reading=Reading.of(settings))

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The new size of an image."""
        if self.resize is None:
            return width, height
        if isinstance(self.resize, tuple):
            return self.resize
        longer = max(width, height)
        if longer <= self.resize:
            return width, height
        return tuple(max(1, (side * self.resize * 2 + longer) // (2 * longer)) for side in (width, height))  # type: ignore[return-value]

    def image(self, data: bytes, picture: Image.Image, kind: str) -> tuple[bytes, Image.Image]:
        """The converted file of a kind ("jpg" or "png") and its pixels; `picture` is `data` decoded."""
        size = self.size(*picture.size)
        if size == picture.size and data.startswith(_SIGNS[kind]):
            return data, picture
        plain = picture if picture.mode in ("L", "RGB") and "transparency" not in picture.info else rgb(picture)
        return _encoded(self.resized(plain), kind)

    def of_file(self, data: bytes, kind: str = "png") -> "Rendered":
        """What a set of this conversion and kind ("jpg" or "png") would hold for a file, as RGB.

        Exactly these pixels, except where a JPEG in a set of mixed files was compressed again. DataError, without a file name,
        if the file can't be read.
        """
        header = inspect_image(io.BytesIO(data), self.reading, alpha=False)
        upright = read_rgb(data, self.reading)
        notes = ["several frames or pages, of which the first is used"] * header.frames
        if header.upper:
            dark = all(top < _DARK for _, top in upright.getextrema())  # type: ignore[misc]  # of three bands
            notes.append(
                "16-bit colours, of which the upper 8 bits are used" + ": almost black, scale it to 8 bits" * dark
            )
        pixels = self.resized(upright)
        changed = pixels is not upright or header.kind != "jpg"
        if changed and (
            self.kind == "jpg" or (pixels is not upright and kind == header.kind == "jpg" and not self.kind)
        ):
            pixels = _encoded(pixels, "jpg")[1]
        return Rendered(pixels, upright, tuple(notes))

    def resized(self, picture: Image.Image) -> Image.Image:
        """An image in its new size; the same object if it has that."""
        size = self.size(*picture.size)
        return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)

    def label(self, ids: np.ndarray) -> np.ndarray:
        """Raw ids [h, w] in the new size of their image: for each new pixel, the id at its centre."""
        height, width = ids.shape
        new_width, new_height = self.size(width, height)
        if (new_width, new_height) == (width, height):
            return ids
        rows, columns = (
            (2 * np.arange(new) + 1) * old // (2 * new) for new, old in ((new_height, height), (new_width, width))
        )
        return np.ascontiguousarray(ids[rows[:, None], columns])


@dataclass(frozen=True)
class Rendered:
    """An image as a set holds it, as it was before it was resized or compressed, and what a person should know about it."""

    pixels: Image.Image
    original: Image.Image
    notes: tuple[str, ...] = ()


def _encoded(picture: Image.Image, kind: str) -> tuple[bytes, Image.Image]:
    """A file of a kind ("jpg" or "png"), and its pixels."""
    stream = io.BytesIO()
    if kind == "jpg":
        picture.save(stream, "JPEG", quality=_QUALITY, subsampling="4:2:0", exif=b"")
    else:
        picture.save(stream, "PNG", exif=b"")
    with open_image(io.BytesIO(stream.getvalue())) as stored:
        stored.load()
    return stream.getvalue(), stored


def parse_resize(size: str | int | tuple[int, int] | None) -> tuple[int, int] | int | None:
    """Parse "640x480" (width, height) or "512" (the longer side); values of `Conversion.resize` stay as they are."""
    if size is None:
        return None
    text = "x".join(map(str, size)) if isinstance(size, tuple) else str(size)
    match = re.fullmatch(r"\s*([1-9]\d{0,5})(?:\s*[xX]\s*([1-9]\d{0,5}))?\s*", text)
    if match is None:
        hint = "; the size of shards is --shard-size" if re.search(r"\d\s*[kKmMgGtT]i?[bB]?\s*$", text) else ""
        raise DataError(
            f"invalid image size {text!r}; write WIDTHxHEIGHT as in 640x480, or the longer side as in 512{hint}"
        )
    return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))


def rgb(image: Image.Image) -> Image.Image:
    """Convert any image to three bands. Pillow warns about palettes with transparency unless they pass through RGBA."""
    if image.mode == "RGB":
        return image
    return (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")
