"""One mask file from any program: the values it contains, and its ids [h, w].

Masks are grey images of ids, palette images whose indices are ids (VOC), palette images in which only the colours have a
meaning (image editors), RGB in the colours of classes, or black and white. What a single file does not determine is decided
from all files, and stored as `Rules`.
"""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from semiseg.data import DataError, Tree
from semiseg.datasets.folder.pictures import ORIENTATION, opened, stream, turn

Colour = tuple[int, int, int]
MOST = 4096  # values in a mask: photographs have many more, and at most 254 classes are supported
_KEPT = 256  # number of values kept of a mask with more than `MOST`
_LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF", "HEIF")


@dataclass(frozen=True)
class Seen:
    """The contents of one mask.

    size     (width, height), as stored
    crc32    of the file's bytes
    form     "ids", "palette", "colours", or "grey" for RGB whose three bands are equal everywhere
    ids      id (or index in the palette, or grey value) -> pixels; empty for colours
    colours  colour -> pixels, for all forms except ids
    palette  index in the palette -> colour, for those that occur
    values   number of ids or colours; above `MOST`, `ids` and `colours` hold only some of them
    """

    name: str
    size: tuple[int, int]
    orientation: int
    crc32: int
    form: str
    ids: dict[int, int] = field(default_factory=dict)
    colours: dict[Colour, int] = field(default_factory=dict)
    palette: dict[int, Colour] = field(default_factory=dict)
    values: int = 0
    stored: bool = False  # a PNG whose bytes can be stored unchanged, if its values are ids


@dataclass(frozen=True)
class Rules:
    """How to read all masks of a folder.

    by_colour  forms that are read by colour, not by id
    ids        colour -> id
    """

    by_colour: frozenset[str] = frozenset()
    ids: tuple[tuple[Colour, int], ...] = ()


def look(tree: Tree, name: str) -> Seen:
    """Count the values of a mask; DataError, without a file name, if it contains no ids or colours, or inexact ones."""
    with stream(tree, name) as file:
        data = file.read()
    head = data[:64]
    with opened(io.BytesIO(data), bool(data)) as picture:
        _refuse_lossy(picture, head)
        if picture.format == "TIFF":
            picture.load()  # rotates it by its orientation tag, and drops the tag
        orientation = picture.getexif().get(ORIENTATION, 1)
        form, values, palette = _values(picture, head)
        stored = picture.format == "PNG" and form == "ids" and picture.mode not in ("1", "LA") and head[24] >= 8
        size = picture.size
    crc32 = zlib.crc32(data)
    if form == "colours":
        packed, counts = np.unique(_pack(values), return_counts=True)
        kept = slice(_KEPT if len(packed) > MOST else None)
        colours = {_unpack(int(code)): int(count) for code, count in zip(packed[kept], counts[kept], strict=True)}
        if len(packed) <= MOST and all(red == green == blue for red, green, blue in colours):
            greys = {colour[0]: count for colour, count in colours.items()}
            return Seen(name, size, orientation, crc32, "grey", greys, colours, values=len(greys))
        return Seen(name, size, orientation, crc32, form, colours=colours, values=len(packed))
    counts = np.bincount(values.ravel())
    numbers = np.flatnonzero(counts)
    kept = slice(_KEPT if len(numbers) > MOST else None)
    ids = {int(number): int(counts[number]) for number in numbers[kept]}
    if form == "ids":
        return Seen(name, size, orientation, crc32, form, ids, values=len(numbers), stored=stored and orientation == 1)
    used = {number: palette[number] for number in ids}
    return Seen(name, size, orientation, crc32, form, ids, {used[i]: n for i, n in ids.items()}, used, values=len(ids))


def read_ids(read: Callable[[], bytes], rules: Rules, orientation: int = 1) -> np.ndarray:
    """Ids [h, w], uint8 or uint16, rotated by the EXIF `orientation`. DataError for a colour without an id."""
    data = read()
    with opened(io.BytesIO(data), bool(data)) as picture:
        form, values, palette = _values(picture, data[:64])
    if form == "colours" and (values == values[..., :1]).all():
        form = "grey"
    if form in rules.by_colour:
        if form == "palette":
            values = np.array(palette, np.uint8)[values]
        ids = _ids_of(values, rules)
    else:
        ids = values[..., 0] if form == "grey" else values
    return turn(ids, orientation)


def first_pixel(tree: Tree, seen: Seen, value: int | Colour) -> tuple[int, int]:
    """(x, y) of the first pixel of an id or colour in a mask."""
    with stream(tree, seen.name) as file:
        head = file.read(64)
        file.seek(0)
        with opened(file) as picture:
            _, values, palette = _values(picture, head)
    if isinstance(value, tuple) and values.ndim == 2:
        values = np.array(palette, np.uint8)[values]
    matching = (values == value).all(-1) if isinstance(value, tuple) else values == value
    y, x = np.argwhere(matching if matching.ndim == 2 else matching[..., 0])[0]
    return int(x), int(y)


def _refuse_lossy(picture: Any, head: bytes) -> None:
    lossy = picture.format in _LOSSY or (picture.format == "WEBP" and b"VP8L" not in head)
    if lossy or picture.info.get("compression") == "jpeg":
        raise DataError(
            f"the mask is a {picture.format}, whose compression changes ids and colours; export it again as PNG"
        )


def _values(picture: Any, head: bytes) -> tuple[str, np.ndarray, list[Colour]]:
    """("ids" or "palette", [h, w], palette) or ("colours", [h, w, 3], [])."""
    mode = picture.mode
    if mode in ("P", "PA"):
        flat = picture.getpalette("RGB") or []
        palette = [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat) - 2, 3)]
        values = np.asarray(picture if mode == "P" else picture.getchannel("P"))
        palette += [(0, 0, 0)] * (int(values.max()) + 1 - len(palette))
        return "palette", values, palette
    if mode in ("1", "L", "LA"):
        values = np.asarray(picture.convert("L"))
        depth = head[24] if picture.format == "PNG" else 8
        if depth in (2, 4):  # Pillow scales them to 0..255
            values = values // np.uint8(255 // (2**depth - 1))
        return "ids", values, []
    if mode.startswith("I"):
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise DataError(f"values {values.min()} to {values.max()}; ids are 0 to 65535")
        return "ids", values.astype(np.uint16), []
    if mode in ("RGB", "RGBA", "RGBX"):
        return "colours", np.asarray(picture.convert("RGB")), []
    raise DataError(f"pixels of type {mode}, which are not ids; export it as a PNG of ids or of colours")


def _ids_of(colours: np.ndarray, rules: Rules) -> np.ndarray:
    """Map the colour of every pixel to its id, [h, w, 3] -> [h, w]."""
    known = np.array(sorted((_packed(colour), number) for colour, number in rules.ids), np.int64).reshape(-1, 2)
    packed = _pack(colours)
    place = np.minimum(np.searchsorted(known[:, 0], packed), len(known) - 1)
    unlisted = known[place, 0] != packed
    if unlisted.any():
        y, x = np.argwhere(unlisted)[0]
        raise DataError(f"colour {tuple(colours[y, x].tolist())} at x={x}, y={y} is not the colour of a class")
    return known[place, 1].astype(np.uint8 if known[:, 1].max() < 256 else np.uint16)


def _pack(colours: np.ndarray) -> np.ndarray:
    red, green, blue = (colours[..., band].astype(np.uint32) for band in range(3))
    return red << 16 | green << 8 | blue


def _packed(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _unpack(packed: int) -> Colour:
    return packed >> 16, packed >> 8 & 255, packed & 255
