"""Values of masks that are neither a class nor ignored, each with its first pixel."""

import functools
from collections.abc import Mapping, Sequence

from semiseg.data import Tree
from semiseg.datasets.folder.choices import Choices
from semiseg.datasets.folder.class_lists import OWN
from semiseg.datasets.folder.classes import Class, ClassFile
from semiseg.datasets.folder.masks import Seen, first_pixel
from semiseg.datasets.folder.palettes import UNCLEAR
from semiseg.datasets.folder.pixels import OUTSIDE, TRANSPARENT, Colour, unpack
from semiseg.datasets.folder.problems import Problems
from semiseg.datasets.folder.reading import BLACK, Reading, Value

UNKNOWN = "unknown value in a mask"
SMOOTH = "save masks without smoothing, as PNG, or list the classes in classes.toml"
_MANY = {"ids": 100, "colours": 64}  # more unknown values of a mask are not reported one by one
_SEVERAL = 8
_MOST = 1000  # flawed colours whose distance to the classes is computed
_APART = 128  # colours of JPEG between two classes


def check_transparent(seen: Sequence[Seen], reading: Reading, picked: Choices, problems: Problems) -> None:
    """Transparent pixels count as black; masks must not also contain black that is visible."""
    for mask in seen:
        numbers = mask.ids if mask.form not in reading.by_colour or mask.ids else {}
        clear = numbers.get(TRANSPARENT, 0) or mask.colours.get(unpack(TRANSPARENT), 0)
        black = numbers.get(0, 0) or mask.colours.get(BLACK, 0)
        if clear and black and picked.transparent is None:
            what = (
                f"{clear} transparent pixels and {black} black ones: use --option transparent=black if both mean the same, "
                "transparent=ignore if transparent pixels have no label, or transparent=opaque to read colours alone"
            )
            problems.add(UNCLEAR, mask.name, what)


def check_values(
    tree: Tree,
    seen: Sequence[Seen],
    reading: Reading,
    colours: Mapping[Colour, int],
    classes: Sequence[Class],
    ignored: Sequence[int],
    given: ClassFile | None,
    problems: Problems,
) -> None:
    """Report values that are neither a class nor ignored. `colours`: those that are one or the other."""
    ids = {entry.id for entry in classes} | set(ignored)
    names = {entry.colour: entry.name for entry in classes if entry.colour}
    flawed = {value for mask in seen if mask.form in reading.by_colour for value in reading.values(mask)} - set(colours)
    apart = (
        [_apart(value, colours) for value in flawed if isinstance(value, tuple)]
        if colours and len(flawed) <= _MOST
        else []
    )
    widest = max(apart, default=_APART + 1)
    for mask in seen:
        by_colour = mask.form in reading.by_colour
        if by_colour and not colours:
            continue
        if reading.by_colour and not by_colour and given is None and set(mask.ids) - {0}:
            what = "contains ids, but other masks contain colours; write a classes.toml with both"
            problems.add("ids and colours mixed", mask.name, what)
            continue
        kind, known = ("colours", colours) if by_colour else ("ids", ids)
        unlisted = [value for value in reading.values(mask) if value not in known and value != OUTSIDE]
        for value in unlisted:
            remedy = _nearest(value, colours, names, widest) if isinstance(value, tuple) else _listed(value, given)
            if value in (0, BLACK) and (TRANSPARENT in mask.ids or unpack(TRANSPARENT) in mask.colours):
                remedy += "; it is transparent: use --option transparent=ignore if that means no label"
            problems.add(UNKNOWN, mask.name, functools.partial(_where, tree, mask, reading, value, remedy))
            if mask.values > _MANY[kind] or len(unlisted) > _SEVERAL:
                remedy = ", or use --option threshold=128" if len(classes) == 2 and not by_colour else ""
                problems.add("too many values", mask.name, f"{mask.values} {kind}: {SMOOTH}{remedy}")
                break


def _where(tree: Tree, mask: Seen, reading: Reading, value: Value, remedy: str) -> str:
    """Describe an unknown value; decodes the mask again to locate it."""
    count = reading.values(mask)[value]
    what = f"colour {value}" if isinstance(value, tuple) else f"id {value}"
    place = f"in {count} pixel{'s' * (count != 1)}"
    stored = isinstance(value, tuple) or value in mask.ids  # otherwise it is only shown as this value
    if stored and not (value == BLACK and BLACK not in mask.colours):
        x, y = first_pixel(tree, mask, value)
        place += f", first at x={x}, y={y}"
    return f"{what} {place}; {remedy}"


def _nearest(value: Colour, colours: Mapping[Colour, int], names: Mapping[Colour, str], widest: int) -> str:
    near = _closest(value, colours)
    name = names.get(near, "ignore")
    remedy = f"; if it is a flaw, --option nearest={widest} reads it as {name}" if widest <= _APART else ""
    return f"nearest: {name} {near}{remedy}"


def _apart(value: Colour, colours: Mapping[Colour, int]) -> int:
    """The distance to the closest colour, as `nearest` measures it."""
    return max(abs(a - b) for a, b in zip(value, _closest(value, colours), strict=True))


def _closest(value: Colour, colours: Mapping[Colour, int]) -> Colour:
    return min(colours, key=lambda other: sum((a - b) ** 2 for a, b in zip(value, other, strict=True)))


def _listed(value: int, given: ClassFile | None) -> str:
    remedy = "add it to classes.toml"
    if given is not None:
        remedy = f"add it to {given.name}"
        if given.name not in OWN:
            remedy = f"list it in a classes.toml, which is used instead of {given.name}"
        if not given.ignore_given:
            remedy += f", or use --option ignore={value} if it marks pixels without a label"
        if len(given.classes) == 2 and given.classes[0].id < given.classes[1].id:
            remedy += f", or --option threshold=1 if all ids above 0 are {given.classes[1].name}"
    return remedy
