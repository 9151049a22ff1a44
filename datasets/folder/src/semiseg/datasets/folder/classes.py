"""The user's class file: classes.toml, or a text list with one name a line.

    ignore = [255]                       # ids or colours that are no class; 255 unless said
    foreground = ["roof"]                # objects, as opposed to the scene around them
    classes = [
      { name = "background", id = 0, colour = [0, 0, 0] },
      { name = "roof", id = 1, colour = "#ff0000" },
    ]

An id is the class's place in the list unless said; colours are needed where masks are in colours. `[[classes]]` tables and
`classes = ["background", "roof"]` are read as well.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from semiseg.data import Tree, unknown
from semiseg.datasets.folder.masks import Colour
from semiseg.datasets.folder.problems import Problems

FILES = (
    "classes.toml",
    "classes.txt",
    "class_names.txt",  # before labels.txt: labelme writes both, and this one has the ids of its masks
    "labels.txt",
    "names.txt",
    "label_colors.txt",
    "classes.names",
)
VOID = 255
BACKGROUND = ("background", "bg", "hintergrund", "fond", "fondo", "void", "other", "rest", "_background_")
_COLOURED = re.compile(r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\S.*)")
_NUMBERED = re.compile(r"(\d{1,5})[\s:,]+(\S.*)")
_IGNORED = "__ignore__"  # labelme's first line, which stands for its id -1, stored as 255
_NO_CLASS = ("ignore", "ignored", "void", "unlabeled", "unlabelled")  # names of 255 in lists of ids
_KIND = "class file"


@dataclass(frozen=True)
class Class:
    name: str
    id: int
    colour: Colour | None = None


@dataclass(frozen=True)
class ClassFile:
    """What the user says of the classes; `ignore_said` where that includes what is ignored."""

    name: str
    classes: tuple[Class, ...]
    ignore_ids: tuple[int, ...] = (VOID,)
    ignore_colours: tuple[Colour, ...] = ()
    foreground: tuple[str, ...] | None = None
    ignore_said: bool = False

    def default_foreground(self) -> frozenset[int]:
        """Places of the classes that are objects: as said, or all but the background if a class is named so."""
        names = [each.name for each in self.classes]
        if self.foreground is not None:
            return frozenset(names.index(name) for name in self.foreground)
        if any(name.lower() in BACKGROUND for name in names):
            return frozenset(i for i, name in enumerate(names) if name.lower() not in BACKGROUND)
        return frozenset()


def read_class_file(tree: Tree, told: str | None, problems: Problems) -> ClassFile | None:
    """The class file of a folder, if there is one; what is wrong with it goes to `problems`, all at once."""
    lower = {name.lower(): name for name in tree.names() if "/" not in name}
    name = told or next((lower[known] for known in FILES if known in lower), None)
    if name is None:
        return None
    if name not in tree:
        problems.add(_KIND, name, "not there")
        return None
    try:
        text = tree.read(name).decode("utf-8-sig")
    except UnicodeDecodeError:
        problems.add(_KIND, name, "not UTF-8 text; save it as UTF-8")
        return None
    before = len(problems.rows)
    read = _toml if PurePosixPath(name).suffix.lower() == ".toml" else _lines
    found = read(name, text, problems)
    if found is not None:
        _check(found, problems)
    return found if len(problems.rows) == before else None


def propose(classes: Sequence[Class], ignore: Sequence[int]) -> str:
    """The text of a classes.toml for classes that were found, to be given names."""
    rows = []
    for each in classes:
        colour = f", colour = {list(each.colour)}" if each.colour else ""
        rows.append(f'  {{ name = "{each.name}", id = {each.id}{colour} }},')
    return "\n".join([f"ignore = {list(ignore)}", "classes = [", *rows, "]"])


def generated_colour(number: int) -> Colour:
    """VOC's colour of a class: the bits of its number, spread over the bands from the highest bit down."""
    red = green = blue = 0
    for bit in range(8):
        red |= (number >> 3 * bit & 1) << (7 - bit)
        green |= (number >> (3 * bit + 1) & 1) << (7 - bit)
        blue |= (number >> (3 * bit + 2) & 1) << (7 - bit)
    return red, green, blue


def coloured(classes: Sequence[Class]) -> tuple[Colour, ...]:
    """A colour for every class: its own, or a generated one that no other class has."""
    taken = {each.colour for each in classes}
    spare = (colour for colour in map(generated_colour, range(512)) if colour not in taken)
    return tuple(each.colour or next(spare) for each in classes)


def _toml(name: str, text: str, problems: Problems) -> ClassFile | None:
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.add(_KIND, name, f"no TOML: {error}")
        return None
    for key in raw:
        if key not in ("classes", "names", "ignore", "foreground"):
            problems.add(_KIND, name, unknown("key", key, ("classes", "ignore", "foreground")))
    listed = raw.get("classes", raw.get("names"))
    if not isinstance(listed, list) or not listed:
        problems.add(_KIND, name, 'lists no classes; write classes = ["background", ...] or [[classes]] tables')
        return None
    classes = []
    for place, each in enumerate(listed):
        entry: Any = {"name": each} if isinstance(each, str) else each
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
            problems.add(_KIND, name, f"class {place} has no name")
            continue
        for key in entry:
            if key not in ("name", "id", "colour", "color", "foreground"):
                problems.add(
                    _KIND, name, f"{entry['name']}: {unknown('key', key, ('name', 'id', 'colour', 'foreground'))}"
                )
        number = entry.get("id", place)
        if not _is_id(number):
            problems.add(_KIND, name, f"{entry['name']}: id {number!r} is no number 0..65535")
            number = place
        colour = entry.get("colour", entry.get("color"))
        if colour is not None and (colour := _colour(colour)) is None:
            problems.add(_KIND, name, f'{entry["name"]}: a colour is three numbers 0..255 or "#rrggbb"')
        classes.append(Class(entry["name"], number, colour))
    said = [e["name"] for e in listed if isinstance(e, dict) and e.get("foreground") and "name" in e]
    foreground = raw.get("foreground", said or None)
    foreground = [foreground] if isinstance(foreground, str) else foreground
    names = [each.name for each in classes]
    for each in foreground or ():
        if each not in names:
            problems.add(_KIND, name, f"foreground: {unknown('class', str(each), names)}")
    unsaid = [] if any(each.id == VOID for each in classes) else [VOID]
    ids, colours = _ignored(name, raw.get("ignore", unsaid), problems)
    objects = None if foreground is None else tuple(foreground)
    return ClassFile(name, tuple(classes), ids, colours, objects, ignore_said="ignore" in raw)


def _ignored(name: str, ignore: Any, problems: Problems) -> tuple[tuple[int, ...], tuple[Colour, ...]]:
    ids, colours = [], []
    for each in ignore if isinstance(ignore, list) else [ignore]:
        if _is_id(each):
            ids.append(each)
        elif colour := _colour(each):
            colours.append(colour)
        else:
            problems.add(_KIND, name, f"ignore: {each!r} is neither an id 0..65535 nor a colour")
    return tuple(ids), tuple(colours)


def _lines(name: str, text: str, problems: Problems) -> ClassFile | None:
    """One class a line: "roof" in the order of ids, "128 0 0 roof" with its colour, or "1: roof" with its id on every line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    lines = lines[1:] if lines[:1] == [_IGNORED] else lines
    if not lines:
        problems.add(_KIND, name, "holds no names; write one a line, in the order of the ids")
        return None
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if all(numbered) and not any(_COLOURED.fullmatch(line) for line in lines):
        classes = [Class(match[2], int(match[1])) for match in numbered if match]
        classes = [each for each in classes if each.id != VOID or each.name.strip("_").lower() not in _NO_CLASS]
        for each in classes:
            if not _is_id(each.id):
                problems.add(_KIND, name, f"{each.name}: id {each.id} is no number 0..65535")
        return ClassFile(name, tuple(classes), () if any(each.id == VOID for each in classes) else (VOID,))
    classes = []
    for line in lines:
        match = _COLOURED.fullmatch(line)
        colour = _colour([int(match[i]) for i in (1, 2, 3)]) if match else None
        classes.append(Class(match[4].strip() if match else line, len(classes), colour))
    return ClassFile(name, tuple(classes))


def _check(found: ClassFile, problems: Problems) -> None:
    if len(found.classes) > 254:
        problems.add(_KIND, found.name, f"{len(found.classes)} classes; 254 are the most")
    for what in ("name", "id", "colour"):
        values = [getattr(each, what) for each in found.classes]
        for value in sorted({v for v in values if v is not None and values.count(v) > 1}):
            problems.add(_KIND, found.name, f"the {what} {value} is given to {values.count(value)} classes")
    for each in found.classes:
        if each.id in found.ignore_ids:
            problems.add(_KIND, found.name, f"{each.name}: id {each.id} is in `ignore` as well; take it out there")


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0xFFFF


def _colour(value: Any) -> Colour | None:
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    if isinstance(value, list) and len(value) == 3 and all(_is_id(each) and each <= 255 for each in value):
        return value[0], value[1], value[2]
    return None
