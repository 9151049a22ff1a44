"""Whether masks are read by number or by colour: decided by the class file or, without one, by the masks themselves.

The table in README.md ("What a mask means") says the same in words.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from semiseg.datasets.folder.classes import VOID, ClassFile
from semiseg.datasets.folder.masks import Seen
from semiseg.datasets.folder.palettes import palettes_are_colours
from semiseg.datasets.folder.pixels import OUTSIDE, TRANSPARENT, Colour, unpack
from semiseg.datasets.folder.problems import Problems

BLACK = (0, 0, 0)
_MARKS: dict[Colour, int | Colour] = {unpack(TRANSPARENT): BLACK, unpack(OUTSIDE): OUTSIDE}
_NARROW = ("1-bit", "2-bit", "4-bit")
Value = int | Colour


@dataclass(frozen=True)
class Reading:
    """by_colour: forms that are read by colour; as_shown: forms read by the grey that viewers show; the rest by number.

    binary   black is the first class, white the second
    """

    by_colour: frozenset[str] = frozenset()
    as_shown: frozenset[str] = frozenset()
    binary: bool = False

    def values(self, mask: Seen) -> dict[Value, int]:
        """Value -> pixels of a mask. Transparent pixels count as black, those without any label as OUTSIDE."""
        found: Counter[Value] = Counter()
        for value, count in self._read(mask):
            found[value] += count
        return found

    def _read(self, mask: Seen) -> Iterator[tuple[Value, int]]:
        if mask.form == "colours":
            yield from ((_MARKS.get(colour, colour), count) for colour, count in mask.colours.items())
            return
        shown = mask.shown
        for number, count in mask.ids.items():
            if number >= TRANSPARENT and number != TRANSPARENT:
                yield OUTSIDE, count
            elif mask.form in self.by_colour:
                yield (BLACK if number == TRANSPARENT else shown[number]), count
            elif number == TRANSPARENT:
                yield 0, count
            else:
                yield (shown[number][0] if mask.form in self.as_shown else number), count


def with_classes(seen: Sequence[Seen], given: ClassFile, palette: str | None, problems: Problems) -> Reading:
    """The class file decides: numbers that it lists are ids, else colours that it lists are those that a mask shows."""
    colours = {entry.colour for entry in given.classes if entry.colour} | set(given.ignore_colours)
    coloured = {"colours"} & {mask.form for mask in seen}
    chosen = set(coloured)
    palettes = [mask for mask in seen if mask.form == "palette"]
    if palettes and (
        (coloured and palette is None) or palettes_are_colours(palettes, given, colours, palette, problems)
    ):
        chosen.add("palette")
    flat = [mask for mask in seen if mask.form not in ("colours", "palette")]
    if coloured and not colours:  # reported elsewhere: the class file lists no colours
        return Reading(frozenset(chosen | {mask.form for mask in flat if mask.form == "grey"}))
    by_colour, as_shown, binary = (
        _grey(flat, given, colours, bool(coloured), problems) if flat else (False, False, False)
    )
    forms = frozenset(mask.form for mask in flat)
    chosen |= forms if by_colour else set()
    return Reading(frozenset(chosen), forms & set(_NARROW) if as_shown else frozenset(), binary)


def by_looks(seen: Sequence[Seen], palette: str | None, problems: Problems) -> Reading:
    """Without a class file, colours and palettes that contradict each other are colours, the rest are numbers."""
    forms = {mask.form for mask in seen}
    chosen = {"colours"} & forms
    chosen |= {"grey"} & forms if chosen else set()
    palettes = [mask for mask in seen if mask.form == "palette"]
    if palettes and ((chosen and palette is None) or palettes_are_colours(palettes, None, set(), palette, problems)):
        chosen.add("palette")
    narrow = {form for form in ("palette", *_NARROW) if form in forms - chosen}
    if palette or not all(len(set(colour)) == 1 for mask in palettes for colour in mask.palette.values()):
        narrow.discard("palette")
    others = {
        number for mask in seen if mask.form not in narrow | chosen for number in mask.ids if number < TRANSPARENT
    }
    shown = {colour[0] for mask in seen if mask.form in narrow for colour in mask.shown.values()}
    numbers = {number for mask in seen if mask.form in narrow for number in mask.ids}
    fits = shown <= others and not numbers <= others
    alone = "1-bit" in narrow and others <= {0, VOID}
    as_shown = narrow if fits else narrow & {"1-bit"} if alone else set()
    return Reading(frozenset(chosen), frozenset(as_shown))


def _grey(
    masks: Sequence[Seen], given: ClassFile, colours: set[Colour], coloured: bool, problems: Problems
) -> tuple[bool, bool, bool]:
    """(by colour, as shown, binary) of all grey masks.

    1. all numbers are listed ids, or listed in `ignore`; 2. so are the greys that viewers show for few bits; 3. all greys
    are listed colours; 4. black and white for two classes; 5. numbers, with 255 ignored by default.
    """
    listed = {entry.id for entry in given.classes}
    explicit = listed | (set(given.ignore_ids) if given.ignore_given else set())
    explicit |= {mask.nodata for mask in masks if mask.nodata is not None}
    forms = frozenset(mask.form for mask in masks)
    numbers = _pooled(Reading(), masks)
    levels = _pooled(Reading(as_shown=forms & set(_NARROW)), masks)
    shown = _pooled(Reading(by_colour=forms), masks)
    black_and_white = VOID in levels and set(levels) <= {0, VOID}
    is_colours = bool(colours) and set(shown) <= colours
    is_numbers = set(numbers) <= explicit and not (forms == {"1-bit"} and VOID not in listed)
    if is_colours and (coloured or forms & set(_NARROW)):
        return True, False, False
    if is_colours and is_numbers and _differ(numbers, given):
        what = (
            "gives the masks two meanings: as ids and as grey colours; remove the colours, or use the ids that masks "
            "contain, and remove white (255) from `ignore` if it is a class"
        )
        problems.add("class file", given.name, what)
        return False, False, False
    if is_numbers and not (black_and_white and is_colours):
        return False, False, False
    if set(levels) <= explicit:
        return False, True, False
    if is_colours:
        return True, False, False
    if black_and_white and listed == {0, 1} and not given.ignore_given:
        return False, True, True
    if black_and_white and not given.ignore_given and VOID not in listed:
        what = (
            "masks are black and white, but no class has the id 255: in a classes.toml, give the white class id = 255, "
            "or write ignore = [255] to ignore white pixels"
        )
        problems.add("class file", given.name, what)
    known = explicit | set(given.ignore_ids)
    unknown = {
        (False, False): _unlisted(numbers, known),
        (False, True): _unlisted(levels, known),
        (True, False): _unlisted(shown, colours) if colours else numbers.total() + 1,
    }
    return (*min(unknown, key=unknown.__getitem__), False)


def _differ(numbers: Counter[Value], given: ClassFile) -> bool:
    """Whether some grey is another class by its number than by its colour."""
    by_colour = {entry.colour: entry.id for entry in given.classes if entry.colour}
    ids = {entry.id for entry in given.classes}
    greys = [number for number in numbers if isinstance(number, int)]
    return any((grey if grey in ids else None) != by_colour.get((grey, grey, grey)) for grey in greys)


def _pooled(reading: Reading, masks: Sequence[Seen]) -> Counter[Value]:
    found: Counter[Value] = Counter()
    for mask in masks:
        found.update(reading.values(mask))
    del found[OUTSIDE]
    return found


def _unlisted(found: Counter[Value], known: set) -> int:
    return sum(count for value, count in found.items() if value not in known)
