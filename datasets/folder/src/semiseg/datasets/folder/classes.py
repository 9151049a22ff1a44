"""The user's class file: classes.toml, or the list of another program (see `class_lists`).

    ignore = [255]                       # ids or colours that are not classes; default: 255
    foreground = ["roof"]                # objects, as opposed to the background
    classes = [
      { name = "background", id = 0, colour = [0, 0, 0] },
      { name = "roof", id = 1, colour = "#ff0000" },
    ]

The default id is the position in the list; colours are required if masks are coloured. `[[classes]]` tables and
`classes = ["background", "roof"]` are also accepted.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from semiseg.data import unknown
from semiseg.datasets.folder.pixels import Colour
from semiseg.datasets.folder.problems import Problems

VOID = 255
BACKGROUND = ("background", "bg", "hintergrund", "fond", "fondo", "void", "other", "rest", "_background_")
KIND = "class file"
_LONG_KEY = re.compile(r"""(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){32}""")


@dataclass(frozen=True)
class Class:
    name: str
    id: int
    colour: Colour | None = None


@dataclass(frozen=True)
class ClassFile:
    """The classes as defined by the user; `ignore_given`: whether the file lists what to ignore."""

    name: str
    classes: tuple[Class, ...]
    ignore_ids: tuple[int, ...] = (VOID,)
    ignore_colours: tuple[Colour, ...] = ()
    foreground: tuple[str, ...] | None = None
    ignore_given: bool = False

    def default_foreground(self) -> frozenset[int]:
        """Positions of the foreground classes: as given, or all but the background if a class is named so."""
        names = [entry.name for entry in self.classes]
        if self.foreground is not None:
            return frozenset(names.index(name) for name in self.foreground)
        if any(name.lower() in BACKGROUND for name in names):
            return frozenset(i for i, name in enumerate(names) if name.lower() not in BACKGROUND)
        return frozenset()


def propose(classes: Sequence[Class], ignore: Sequence[int | str]) -> str:
    """The text of a classes.toml for the classes that were found, in which the user fills in names."""
    rows = []
    for entry in classes:
        colour = f", colour = {list(entry.colour)}" if entry.colour else ""
        rows.append(f'  {{ name = "{entry.name}", id = {entry.id}{colour} }},')
    return "\n".join([f"ignore = [{', '.join(map(str, ignore))}]", "classes = [", *rows, "]"])


def generated_colour(number: int) -> Colour:
    """The colour of a class in VOC's palette: the bits of its number, spread over the bands from the highest bit down."""
    red = green = blue = 0
    for bit in range(8):
        red |= (number >> 3 * bit & 1) << (7 - bit)
        green |= (number >> (3 * bit + 1) & 1) << (7 - bit)
        blue |= (number >> (3 * bit + 2) & 1) << (7 - bit)
    return red, green, blue


def coloured(classes: Sequence[Class]) -> tuple[Colour, ...]:
    """A colour for every class: the given one, or a generated one that no other class has."""
    taken = {entry.colour for entry in classes}
    spare = (colour for colour in map(generated_colour, range(512)) if colour not in taken)
    return tuple(entry.colour or next(spare) for entry in classes)


def read_toml(name: str, text: str, problems: Problems) -> ClassFile | None:
    """A classes.toml; None, with all its mistakes in `problems`, if it can't be read."""
    if _LONG_KEY.search(text):  # tomllib takes time with the square of its parts
        problems.add(KIND, name, "a key of more than 32 parts; expected classes, ignore and foreground")
        return None
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and deep nesting
        problems.add(KIND, name, f"not TOML: {error}")
        return None
    for key in raw:
        if key not in ("classes", "names", "ignore", "foreground"):
            problems.add(KIND, name, unknown("key", key, ("classes", "ignore", "foreground")))
    listed = raw.get("classes", raw.get("names"))
    if not isinstance(listed, list) or not listed:
        problems.add(KIND, name, 'lists no classes; write classes = ["background", ...] or [[classes]] tables')
        return None
    classes = []
    for place, item in enumerate(listed):
        entry: Any = {"name": item} if isinstance(item, str) else item
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
            problems.add(KIND, name, f"class {place} has no name")
            continue
        for key in entry:
            if key not in ("name", "id", "colour", "color", "foreground"):
                problems.add(
                    KIND, name, f"{entry['name']}: {unknown('key', key, ('name', 'id', 'colour', 'foreground'))}"
                )
        number = entry.get("id", place)
        if not is_id(number):
            problems.add(KIND, name, f"{entry['name']}: id {number!r} is not an integer 0..65535")
            number = place
        colour = entry.get("colour", entry.get("color"))
        if colour is not None and (colour := colour_of(colour)) is None:
            problems.add(KIND, name, f'{entry["name"]}: expected a colour as three numbers 0..255 or "#rrggbb"')
        classes.append(Class(entry["name"], number, colour))
    marked = [item["name"] for item in listed if isinstance(item, dict) and item.get("foreground") and "name" in item]
    foreground = raw.get("foreground", marked or None)
    foreground = [foreground] if isinstance(foreground, str) else foreground
    names = [entry.name for entry in classes]
    if foreground is not None and not isinstance(foreground, list):
        problems.add(KIND, name, 'foreground: expected a list of class names, as in foreground = ["roof"]')
        foreground = None
    for object_name in foreground or ():
        if object_name not in names:
            problems.add(KIND, name, f"foreground: {unknown('class', str(object_name), names)}")
    default = [] if any(entry.id == VOID for entry in classes) else [VOID]
    ids, colours = _ignored(name, raw.get("ignore", default), problems)
    objects = None if foreground is None else tuple(foreground)
    return ClassFile(name, tuple(classes), ids, colours, objects, ignore_given="ignore" in raw)


def _ignored(name: str, ignore: Any, problems: Problems) -> tuple[tuple[int, ...], tuple[Colour, ...]]:
    ids, colours = [], []
    for value in ignore if isinstance(ignore, list) else [ignore]:
        if is_id(value):
            ids.append(value)
        elif colour := colour_of(value):
            colours.append(colour)
        else:
            problems.add(KIND, name, f"ignore: {value!r} is neither an id 0..65535 nor a colour")
    return tuple(ids), tuple(colours)


def check_classes(found: ClassFile, problems: Problems) -> None:
    """Report names, ids and colours that occur twice or contradict `ignore`."""
    if len(found.classes) > 254:
        problems.add(KIND, found.name, f"{len(found.classes)} classes; at most 254 are supported")
        return
    for what in ("name", "id", "colour"):
        values = [getattr(entry, what) for entry in found.classes]
        for value in sorted({v for v in values if v is not None and values.count(v) > 1}):
            problems.add(KIND, found.name, f"{values.count(value)} classes have the {what} {value}; it must be unique")
    for entry in found.classes:
        if entry.id in found.ignore_ids:
            problems.add(KIND, found.name, f"{entry.name}: id {entry.id} is also in `ignore`; remove it there")
        if entry.colour in found.ignore_colours:
            problems.add(KIND, found.name, f"{entry.name}: colour {entry.colour} is also in `ignore`; remove it there")


def is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0xFFFF


def colour_of(value: Any) -> Colour | None:
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    if isinstance(value, list) and len(value) == 3 and all(is_id(band) and band <= 255 for band in value):
        return value[0], value[1], value[2]
    return None
