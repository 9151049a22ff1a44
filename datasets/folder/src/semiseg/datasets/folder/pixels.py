"""The pixels of one mask file: numbers or colours, before it is decided what they mean.

What the options of the user change happens here, pixel by pixel, and is counted: `threshold`, `nearest`, `transparent`, and
numbers to ignore that no label can hold.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from semiseg.data import DataError

Colour = tuple[int, int, int]
TRANSPARENT = 1 << 24  # a pixel of alpha 0, in place of its number or colour
OUTSIDE = TRANSPARENT + 1  # a pixel without a label: NaN, or a number that is ignored and no id (-9999)
NODATA = 42113  # GDAL's TIFF tag, as text
_BITS, _PAGE = 258, 254  # TIFF tags: bits per band; whether a page is a smaller copy or a mask of another
_LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF", "HEIF")
_GREY = 32  # the bands of compressed grey differ by less
_SHOWN = {"1-bit": 255, "2-bit": 85, "4-bit": 17}  # how much brighter a viewer shows the next number
_WHITE = 255


@dataclass(frozen=True)
class Lens:
    """How to look at all masks, as the user has decided.

    threshold    numbers (and alpha values) of at least this are 1, all others 0
    nearest      colours that differ by at most this in every band become the nearest of `colours`
    transparent  pixels of alpha 0 are "black", "ignore" or "opaque" (alpha is not used); None: black, if that is unambiguous
    ignore       numbers that are not a class
    """

    threshold: float | None = None
    nearest: int | None = None
    colours: tuple[Colour, ...] = ()
    transparent: str | None = None
    ignore: frozenset[float] = frozenset()


PLAIN = Lens()


@dataclass(frozen=True)
class Pixels:
    """The decoded mask.

    form     "ids" for grey of 8 or more bits, "1-bit", "2-bit", "4-bit" grey, "palette" (numbers are indices), "grey" for RGB
             whose bands are equal everywhere (one number), or "colours"
    numbers  [h, w], a colour as its 24 bits; may hold TRANSPARENT and OUTSIDE
    palette  colours of the indices
    nodata   the number that the file itself marks as no data
    changed  pixels changed by `threshold` or `nearest`
    """

    form: str
    numbers: np.ndarray
    palette: tuple[Colour, ...] = ()
    nodata: float | None = None
    changed: int = 0


def pixels(picture: Any, head: bytes, lens: Lens) -> Pixels:
    """Decode an open mask; DataError, without a file name, if it contains no exact ids or colours."""
    _refuse_pages(picture)
    found, alpha = _decoded(picture, head, lens)
    _refuse_lossy(picture, head, found, lens)
    if alpha is not None:
        found = Pixels(found.form, _transparent(found, alpha, lens), found.palette)
    if lens.nearest is not None:
        return _nearest(found, lens)
    return found if lens.threshold is None else _binary(found, lens.threshold, lens.ignore)


def shown(form: str, number: int, palette: dict[int, Colour]) -> Colour:
    """The colour that a viewer shows for a number; one that no class can have if 8 bits per band do not hold it."""
    if number >= TRANSPARENT or form == "colours":
        return unpack(number)
    if form == "palette":
        return palette[number]
    grey = number * _SHOWN.get(form, 1)
    if grey > _WHITE:
        grey, rest = divmod(grey, 257)
        if rest:
            return (257, number >> 8, number & 255)
    return grey, grey, grey


def pack(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def unpack(number: int) -> Colour:
    return number >> 16, number >> 8 & 255, number & 255


def _refuse_pages(picture: Any) -> None:
    count = getattr(picture, "n_frames", 1)
    if picture.format == "TIFF" and count > 1:  # smaller copies for viewers are no pages
        pages = []
        for number in range(count):
            picture.seek(number)
            pages.append(picture.tag_v2.get(_PAGE, 0) & 5 == 0)
        picture.seek(0)
        count = sum(pages)
    if count > 1 and picture.format != "MPO":
        raise DataError(f"{count} pages in one file; a mask has one: save the page that holds it as PNG")


def _decoded(picture: Any, head: bytes, lens: Lens) -> tuple[Pixels, np.ndarray | None]:
    """Pixels, and their alpha if it says anything."""
    mode, depth = picture.mode, _depth(picture, head)
    alpha = np.asarray(picture.getchannel("A")) if mode in ("LA", "PA", "RGBA") else None
    if depth > 8 and not mode.startswith(("I", "F")):
        raise DataError(f"{depth} bits per band, of which 8 can be read; save it as PNG with 8 bits, or 16 in one band")
    if mode in ("P", "PA"):
        flat = picture.getpalette("RGB") or []
        palette = [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat) - 2, 3)]
        numbers = np.asarray(picture if mode == "P" else picture.getchannel("P"))
        palette += [(0, 0, 0)] * (int(numbers.max()) + 1 - len(palette))
        used = np.flatnonzero(np.bincount(numbers.ravel())).tolist()
        form = "ids" if all(palette[number] == (number,) * 3 for number in used) else "palette"
        return Pixels(form, numbers, tuple(palette) if form == "palette" else ()), alpha
    if mode == "1":
        return Pixels("1-bit", np.asarray(picture).astype(np.uint8)), None
    if mode in ("L", "LA"):
        numbers = np.asarray(picture if mode == "L" else picture.getchannel("L"))
        most = _most(head) if picture.format == "PPM" else 0
        if 0 < most < _WHITE:  # Pillow scales them to 0..255
            return Pixels("ids", np.rint(numbers * (most / _WHITE)).astype(np.uint8)), None
        if depth in (2, 4):  # so it does with these
            return Pixels(f"{depth}-bit", numbers // np.uint8(_SHOWN[f"{depth}-bit"])), alpha
        return Pixels("ids", numbers, nodata=_nodata(picture)), alpha
    if mode.startswith("I") or mode == "F":
        return _wide(picture, head, lens), None
    if mode in ("RGB", "RGBA", "RGBX"):
        bands = np.asarray(picture)[..., :3]
        hidden = None if alpha is None or lens.transparent == "opaque" or not alpha.any() else alpha == 0
        coloured = (bands[..., 0] != bands[..., 1]) | (bands[..., 0] != bands[..., 2])
        if not (coloured if hidden is None else coloured & ~hidden).any():  # colours under alpha 0 are not seen
            return Pixels(
                "grey", bands[..., 0] if hidden is None else np.where(hidden, np.uint8(0), bands[..., 0])
            ), alpha
        red, green, blue = (bands[..., band].astype(np.uint32) for band in range(3))
        return Pixels("colours", red << 16 | green << 8 | blue), alpha
    raise DataError(f"pixels of type {mode}, which are not ids; export it as a PNG of ids or of colours")


def _wide(picture: Any, head: bytes, lens: Lens) -> Pixels:
    """Numbers of 16 or 32 bits, or floating point: exact ids, and numbers that are ignored."""
    numbers, nodata = np.asarray(picture), _nodata(picture)
    most = _most(head) if picture.format == "PPM" else 0
    if 0 < most < 0xFFFF:
        numbers = np.rint(numbers * (most / 0xFFFF))
    ignored = lens.ignore | ({nodata} if nodata is not None else set())
    empty = np.isin(numbers, [number for number in ignored if not 0 <= number <= 0xFFFF])
    if numbers.dtype.kind == "f":
        empty |= np.isnan(numbers) if any(number != number for number in ignored) else False
        if np.isnan(numbers[~empty]).any():
            raise DataError("contains NaN; if it marks pixels without a label, use --option ignore=nan")
        broken = ~empty & (numbers != np.rint(numbers))
        if broken.any() and lens.threshold is not None:
            above = (numbers >= lens.threshold).astype(np.uint32)
            return Pixels("1-bit", np.where(empty, np.uint32(OUTSIDE), above), changed=int(broken.sum()))
        if broken.any():
            some = f"such as {numbers[broken][0]:g}; ids are whole numbers"
            raise DataError(f"fractions, {some}. For two classes, use a threshold, as in --option threshold=0.5")
    kept = numbers[~empty]
    if kept.size and (kept.min() < 0 or kept.max() > 0xFFFF):
        strange = np.unique(kept[(kept < 0) | (kept > 0xFFFF)])
        some = ",".join(f"{number:.0f}" for number in strange[:8].tolist())
        remedy = f"; if they mark pixels without a label, use --option ignore={some}" if len(strange) <= 8 else ""
        raise DataError(f"values {kept.min():.0f} to {kept.max():.0f}; ids are 0 to 65535{remedy}")
    if empty.any():
        whole = np.where(empty, 0, numbers).astype(np.uint32)  # first, because float32 does not hold OUTSIDE
        return Pixels("ids", np.where(empty, np.uint32(OUTSIDE), whole), nodata=nodata)
    return Pixels("ids", numbers.astype(np.uint16), nodata=nodata)


def _depth(picture: Any, head: bytes) -> int:
    """Bits per band."""
    if picture.format == "PNG":
        return head[24]
    return max(picture.tag_v2.get(_BITS, (8,))) if picture.format == "TIFF" else 8


def _most(head: bytes) -> int:
    """The largest number of a PGM, by its header."""
    words = re.sub(rb"#[^\n]*\n?", b" ", head).split()
    return int(words[3]) if len(words) > 3 and words[3].isdigit() else 0


def _nodata(picture: Any) -> float | None:
    text = picture.tag_v2.get(NODATA) if picture.format == "TIFF" else None
    try:
        return None if text is None else float(str(text).strip("\0 "))
    except ValueError:
        return None


def _refuse_lossy(picture: Any, head: bytes, found: Pixels, lens: Lens) -> None:
    lossy = picture.format in _LOSSY or (picture.format == "WEBP" and b"VP8L" not in head)
    if not lossy and picture.info.get("compression") != "jpeg":
        return
    if lens.threshold is not None or lens.nearest is not None:
        return
    remedy = "--option threshold=128 if it is black and white"
    if found.form == "colours" and _spread(found.numbers) > _GREY:
        remedy = "--option nearest=128 with the colours of the classes in classes.toml"
    kind = "TIFF of JPEG tiles" if picture.format == "TIFF" else picture.format
    raise DataError(
        f"the mask is a {kind}, whose compression changes ids and colours; export it again as PNG, or use {remedy}"
    )


def _transparent(found: Pixels, alpha: np.ndarray, lens: Lens) -> np.ndarray:
    """Numbers in which pixels of alpha 0 are marked. The mask may also be in alpha alone: black on nothing."""
    numbers, levels = found.numbers, np.flatnonzero(np.bincount(alpha.ravel()))
    if lens.transparent == "opaque":
        return numbers
    if len(levels) == 1:  # 0 over several colours is a program's mistake; over one colour, the mask is empty
        empty = levels[0] == 0 and (numbers == numbers.flat[0]).all()
        return np.full(numbers.shape, _EMPTY[lens.transparent], np.uint32) if empty else numbers
    clear = alpha == 0
    if len(levels) > 2 or levels[0] > 0:
        if lens.threshold is None:
            some = int(((alpha > 0) & (alpha < _WHITE)).sum())
            raise DataError(
                f"{some} pixels ({some / alpha.size:.1%}) are partly transparent (alpha {levels[0]} to {levels[-1]}); use "
                "--option threshold=128 to read alpha of at least 128 as opaque, or --option transparent=opaque to read "
                "the mask without alpha; if alpha holds ids, save that band as a grey PNG"
            )
        clear = alpha < lens.threshold
    opaque = numbers[~clear]
    if lens.transparent is None and opaque.size and not opaque.any():
        return np.where(clear, 0, 0xFFFFFF if found.form == "colours" else _WHITE).astype(numbers.dtype)
    return np.where(clear, np.uint32(_EMPTY[lens.transparent]), numbers.astype(np.uint32))


_EMPTY = {None: TRANSPARENT, "black": 0, "ignore": OUTSIDE}


def _binary(found: Pixels, threshold: float, ignore: frozenset[float]) -> Pixels:
    """1 for numbers of at least the threshold, 0 for others; grey palettes and colours count as what they show."""
    numbers, form = found.numbers, found.form
    marked = numbers >= TRANSPARENT
    if form == "1-bit":
        return found
    if form == "colours":
        if _spread(numbers) > _GREY:
            if marked.any() and len(np.unique(numbers[~marked])) == 1:  # one colour on nothing
                return Pixels("1-bit", np.where(numbers == OUTSIDE, np.uint32(OUTSIDE), np.uint32(~marked)))
            raise DataError("coloured; threshold is for grey masks: list the colours in classes.toml instead")
        bands = [numbers >> 16 & 255, numbers >> 8 & 255, numbers & 255]
        grey = (299 * bands[0] + 587 * bands[1] + 114 * bands[2] + 500) // 1000
    elif form == "palette":
        used = np.flatnonzero(np.bincount(numbers[~marked].ravel()))
        is_grey = all(len(set(found.palette[number])) == 1 for number in used)
        table = np.array([colour[0] if is_grey else i for i, colour in enumerate(found.palette)], np.uint32)
        grey = table[np.where(marked, 0, numbers)]
    else:
        grey = numbers.astype(np.uint32) * np.uint32(_SHOWN.get(form, 1))
    outside = (numbers == OUTSIDE) | np.isin(grey, [number for number in ignore if number >= 0])
    changed = ~marked & ~outside & ~np.isin(grey, (0, 1, _WHITE, 0xFFFF) if threshold <= 1 else (0, _WHITE, 0xFFFF))
    above = (grey >= threshold) & ~marked
    binary = np.where(outside, np.uint32(OUTSIDE), above) if outside.any() else above.astype(np.uint8)
    return Pixels("1-bit", binary, changed=int(changed.sum()))


def _nearest(found: Pixels, lens: Lens) -> Pixels:
    """Colours moved to the nearest one of the classes; those that are too far stay as they are."""
    codes, inverse, counts = np.unique(found.numbers, return_inverse=True, return_counts=True)
    palette = dict(enumerate(found.palette))
    seen = np.array([shown(found.form, int(code), palette) for code in codes], np.int32)
    known = np.array(lens.colours, np.int32)
    apart = np.empty((len(seen), len(known)), np.int32)
    for place, colour in enumerate(known):
        apart[:, place] = ((seen - colour) ** 2).sum(1)
    best = known[apart.argmin(1)]
    moved = (abs(seen - best).max(1) <= (lens.nearest or 0)) & (seen[:, 0] < 256)
    result = np.where(moved[:, None], best, seen)
    packed = (result[:, 0] << 16 | result[:, 1] << 8 | result[:, 2]).astype(np.uint32)
    changed = int(counts[(result != seen).any(1)].sum())
    return Pixels("colours", packed[inverse].reshape(found.numbers.shape), changed=changed)


def _spread(packed: np.ndarray) -> int:
    """The largest difference between the bands of a pixel."""
    packed = packed[packed < TRANSPARENT].astype(np.int32)
    bands = np.stack([packed >> 16, packed >> 8 & 255, packed & 255])
    return int((bands.max(0) - bands.min(0)).max()) if bands.size else 0
