"""One mask file from any program: the values it contains, and its ids [h, w].

Masks are grey images of ids, palette images whose indices are ids (VOC), palette images in which only the colours have a
meaning (image editors), RGB in the colours of classes, or black and white. What a single file does not determine is decided
from all files, and stored as `Rules`.
"""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from semiseg.data import DataError, Tree
from semiseg.datasets.folder.pictures import ORIENTATION, opened, stream, turn
from semiseg.datasets.folder.pixels import PLAIN, TRANSPARENT, Colour, Lens, Pixels, pack, pixels, shown, unpack

MOST = 4096  # values in a mask: photographs have many more, and at most 254 classes are supported
_KEPT = 256  # number of values kept of a mask with more than `MOST`


@dataclass(frozen=True)
class Seen:
    """The contents of one mask.

    size     (width, height), as stored
    crc32    of the file's bytes
    form     see `Pixels`
    ids      id (or index in the palette, or grey value) -> pixels; empty for colours
    colours  colour -> pixels, for colours, palettes and grey RGB
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
    nodata: int | None = None  # the id that the file marks as no data
    changed: int = 0  # pixels that the lens changed
    lens: Lens = PLAIN

    @property
    def shown(self) -> dict[int, Colour]:
        """The colour that a viewer shows for every id."""
        return {number: shown(self.form, number, self.palette) for number in self.ids}


@dataclass(frozen=True)
class Rules:
    """How to read all masks of a folder.

    by_colour  forms that are read by colour, not by id
    ids        colour -> id
    as_shown   forms whose grey values, as viewers show them, are the ids: white is 255 in 1 bit, too
    numbers    ids, or marks such as TRANSPARENT, that are stored as another id
    lens       how to look at the pixels
    """

    by_colour: frozenset[str] = frozenset()
    ids: tuple[tuple[Colour, int], ...] = ()
    as_shown: frozenset[str] = frozenset()
    numbers: tuple[tuple[int, int], ...] = ()
    lens: Lens = PLAIN

    def keeps(self, mask: Seen) -> bool:
        """Whether the bytes of a mask's file can be stored as they are."""
        return mask.stored and mask.form not in self.by_colour


def look(tree: Tree, name: str, lens: Lens = PLAIN) -> Seen:
    """Count the values of a mask; DataError, without a file name, if it contains no ids or colours, or inexact ones."""
    with stream(tree, name) as file:
        data = file.read()
    head = data[:64]
    with opened(io.BytesIO(data), bool(data)) as picture:
        if picture.format == "TIFF":
            picture.load()  # rotates it by its orientation tag, and drops the tag
        orientation = picture.getexif().get(ORIENTATION, 1)
        found = pixels(picture, head, lens)
        stored = picture.format == "PNG" and picture.mode in ("L", "I", "I;16") and head[24] >= 8
        size = picture.size
    stored &= found.form == "ids" and orientation == 1 and found.numbers.dtype.kind == "u" and not found.changed
    nodata = int(found.nodata) if found.nodata is not None and found.nodata in range(1 << 16) else None
    seen = Seen(name, size, orientation, zlib.crc32(data), found.form, stored=stored, nodata=nodata,
                changed=found.changed, lens=lens)  # fmt: skip
    _count(seen, found)
    return seen


def read_ids(read: Callable[[], bytes], rules: Rules, orientation: int = 1) -> np.ndarray:
    """Ids [h, w], uint8 or uint16, rotated by the EXIF `orientation`. DataError for a colour without an id."""
    data = read()
    with opened(io.BytesIO(data), bool(data)) as picture:
        found = pixels(picture, data[:64], rules.lens)
    palette = dict(enumerate(found.palette))
    if found.form in rules.by_colour:
        numbers = found.numbers
        if found.form != "colours":
            numbers = _changed(numbers, lambda number: pack(shown(found.form, number, palette)))
        return turn(_ids_of(numbers, rules), orientation)
    numbers, special = found.numbers, dict(rules.numbers)
    if found.form in rules.as_shown:
        numbers = _changed(
            numbers, lambda number: number if number >= TRANSPARENT else shown(found.form, number, palette)[0]
        )
    if special:
        numbers = _changed(numbers, lambda number: special.get(number, number))
    return turn(numbers, orientation)


def first_pixel(tree: Tree, seen: Seen, value: int | Colour) -> tuple[int, int]:
    """(x, y) of the first pixel of an id or colour in a mask."""
    with stream(tree, seen.name) as file:
        data = file.read()
    with opened(io.BytesIO(data)) as picture:
        found = pixels(picture, data[:64], seen.lens)
    numbers, wanted = found.numbers, value
    if isinstance(value, tuple):
        wanted, palette = pack(value), dict(enumerate(found.palette))
        if found.form != "colours":
            numbers = _changed(numbers, lambda number: pack(shown(found.form, number, palette)))
    y, x = np.argwhere(numbers == wanted)[0]
    return int(x), int(y)


def _count(seen: Seen, found: Pixels) -> None:
    """Fill in the counts of a mask."""
    if found.numbers.dtype.itemsize <= 2:
        every = np.bincount(found.numbers.ravel())
        values = np.flatnonzero(every)
        counts = every[values]
    else:
        values, counts = np.unique(found.numbers, return_counts=True)
    kept = slice(_KEPT if len(values) > MOST else None)
    pairs = dict(zip(values[kept].tolist(), counts[kept].tolist(), strict=True))
    object.__setattr__(seen, "values", len(values))
    if seen.form == "colours":
        seen.colours.update({unpack(number): count for number, count in pairs.items()})
        return
    seen.ids.update(pairs)
    if seen.form in ("palette", "grey"):
        seen.palette.update({n: found.palette[n] for n in pairs if n < TRANSPARENT and found.palette})
        for number, count in pairs.items():
            colour = shown(seen.form, number, seen.palette)
            seen.colours[colour] = seen.colours.get(colour, 0) + count


def _changed(numbers: np.ndarray, change: Callable[[int], int]) -> np.ndarray:
    """Replace every number by another; uint8, uint16 or uint32, as the results need."""
    values, inverse = np.unique(numbers, return_inverse=True)
    results = np.array([change(number) for number in values.tolist()], np.int64)
    most = int(results.max())
    kind = np.uint8 if most < 256 else np.uint16 if most < 65536 else np.uint32
    return results.astype(kind)[inverse].reshape(numbers.shape)


def _ids_of(packed: np.ndarray, rules: Rules) -> np.ndarray:
    """Map the colour of every pixel to its id."""
    known = np.array(sorted((pack(colour), number) for colour, number in rules.ids), np.int64).reshape(-1, 2)
    place = np.minimum(np.searchsorted(known[:, 0], packed), len(known) - 1)
    unlisted = known[place, 0] != packed
    if unlisted.any():
        y, x = np.argwhere(unlisted)[0]
        raise DataError(f"colour {unpack(int(packed[y, x]))} at x={x}, y={y} is not the colour of a class")
    return known[place, 1].astype(np.uint8 if known[:, 1].max() < 256 else np.uint16)
