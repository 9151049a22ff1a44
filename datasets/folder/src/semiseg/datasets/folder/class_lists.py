"""The file that lists a folder's classes: the user's classes.toml, or the list that another program wrote.

roof                                 one name per line, in the order of ids (also "1: roof" and "128 0 0 roof")
roof:255,0,0::                       CVAT's labelmap.txt
Pixel Value, Class                   tables with a header (Roboflow's _classes.csv, class_dict.csv, ADE's objectInfo150.txt)
{"classes": [{"title": "roof", "color": "#ff0000"}]}     Supervisely's meta.json, and other lists and mappings in JSON
names: [ground, roof]                data.yaml
"""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from semiseg.data import Tree, parse_json
from semiseg.datasets.folder.classes import KIND, VOID, Class, ClassFile, check_classes, colour_of, is_id, read_toml
from semiseg.datasets.folder.pixels import Colour
from semiseg.datasets.folder.problems import Problems

OWN = ("classes.toml", "classes.txt")
# In the order in which they are used. labelme writes class_names.txt and labels.txt; its masks use the ids of the first.
FILES = (
    *OWN, "class_names.txt", "labels.txt", "names.txt", "label_colors.txt", "classes.names", "obj.names",
    "labelmap.txt", "label_map.txt",
    "_classes.csv", "class_dict.csv", "classes.csv", "labels.csv", "label_colors.csv", "codes.txt", "objectinfo150.txt",
    "objectinfo150.csv", "id2label.json", "classes.json", "labels.json", "label_map.json", "obj_class_to_machine_color.json",
    "meta.json", "config.json", "data.yaml", "data.yml", "dataset.yaml", "classes.yaml",
)  # fmt: skip
_GENERAL = (
    "meta.json",
    "config.json",
    "labels.csv",
    "labels.json",
    "label_map.json",
    "data.yaml",
    "data.yml",
    "dataset.yaml",
)  # may hold anything else
_LARGEST = 4 << 20  # bytes
_SETTINGS = ("meta.json", "config.json")
_COLOURED = re.compile(r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\S.*)")
_NUMBERED = re.compile(r"(\d{1,5})[\s:,]+(\S.*)")
_CVAT = re.compile(r"([^:]+):(\d{1,3}),(\d{1,3}),(\d{1,3}):[^:]*:.*")
_IGNORED = "__ignore__"  # labelme's first line, for its id -1, which is stored as 255
_NO_CLASS = ("ignore", "ignored", "void", "unlabeled", "unlabelled")  # names of 255 in lists of ids
_COLUMNS = {
    "name": (
        "name",
        "class",
        "label",
        "title",
        "readable",
        "class name",
        "label name",
        "class_name",
        "label_name",
        "category",
    ),
    "id": ("id", "index", "idx", "value", "pixel value", "pixel_value", "class_id", "label_id", "class id", "label id"),
    "colour": ("color", "colour", "rgb"),
    "red": ("r", "red"),
    "green": ("g", "green"),
    "blue": ("b", "blue"),
}  # usual names of columns, and of keys in JSON


def read_class_file(tree: Tree, named: str | None, problems: Problems, notes: list[str]) -> ClassFile | None:
    """The class file of a folder, or None; all its mistakes are added to `problems`, other lists of classes to `notes`.

    `named`: the option classes, a file or "none".
    """
    if named is not None and named.lower() == "none":
        return None
    found = [named] if named else _candidates(tree)
    for place, name in enumerate(found):
        if name not in tree:
            problems.add(KIND, name, "does not exist; correct the option classes")
            return None
        before = len(problems.rows)
        read = _read(tree, name, problems)
        if read is not None:
            check_classes(read, problems)
        wrong = len(problems.rows) > before
        if wrong and not named and _base(name) in _GENERAL:
            notes.append(f"{name}: not a list of classes ({problems.rows[before][2]}); not used")
            del problems.rows[before:]
            continue
        if read is None or wrong:
            return None
        if name not in OWN:
            notes.append(f"classes: {len(read.classes)} from {name}; --option classes=none reads masks without it")
        unused = [other for other in found[place + 1 :] if tree.read(other) != tree.read(name)]
        alike = next((other for other in unused if _base(other) == _base(name)), None)
        if alike is not None:
            problems.add(KIND, name, f"differs from {alike}; choose one, as in --option classes={name}")
            return None
        if unused:
            notes.append(
                f"other lists of classes, not used: {', '.join(unused[:5])}; choose one with --option classes=FILE"
            )
        return read
    return None


def _candidates(tree: Tree) -> list[str]:
    """Lists of classes by rank: those at the top, then those in folders."""
    ranked = []
    for name in tree.names():
        path, base = PurePosixPath(name), _base(name)
        if (
            base in FILES
            and not (base in _GENERAL and len(path.parts) > 1)
            and not any(p[0] == "." for p in path.parts)
        ):
            ranked.append((len(path.parts) > 1, FILES.index(base), len(path.parts), name))
    return [name for *_, name in sorted(ranked)]


def _base(name: str) -> str:
    return PurePosixPath(name).name.lower()


def _read(tree: Tree, name: str, problems: Problems) -> ClassFile | None:
    if tree.size(name) > _LARGEST:
        problems.add(KIND, name, f"has {tree.size(name):,} bytes, too many for a list of classes")
        return None
    try:
        text = tree.read(name).decode("utf-8-sig")
    except UnicodeDecodeError:
        problems.add(KIND, name, "not UTF-8 text; save it as UTF-8")
        return None
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".toml":
        return read_toml(name, text, problems)
    try:
        if suffix in (".json", ".yaml", ".yml"):
            data = parse_json(text) if suffix == ".json" else _yaml_names(text)
            found = _of_data(data, keyed=_base(name) in _SETTINGS)
        else:
            found = _of_table(text) or _of_lines(text)
    except (ValueError, RecursionError, csv.Error) as error:
        problems.add(KIND, name, f"can't be read as a list of classes ({error}); write the classes into a classes.toml")
        return None
    if not found:
        problems.add(KIND, name, "contains no names; write one per line, in the order of the ids")
        return None
    for entry in found:
        if not is_id(entry.id):
            problems.add(KIND, name, f"{entry.name}: id {entry.id} is not an integer 0..65535")
    classes = [entry for entry in found if entry.id != VOID or entry.name.strip("_").lower() not in _NO_CLASS]
    return ClassFile(name, tuple(classes), () if any(entry.id == VOID for entry in classes) else (VOID,))


def _of_lines(text: str) -> list[Class]:
    """One class per line: "roof" in the order of ids, "128 0 0 roof" with a colour, or "1: roof" with an id on every line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    lines = lines[1:] if lines[:1] == [_IGNORED] else lines
    cvat = [match for line in lines if (match := _CVAT.fullmatch(line))]
    if cvat and len(cvat) == len(lines):
        return [Class(match[1].strip(), i, _bands(match[2], match[3], match[4])) for i, match in enumerate(cvat)]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if all(numbered) and not any(_COLOURED.fullmatch(line) for line in lines):
        return [Class(match[2], int(match[1])) for match in numbered if match]
    classes = []
    for line in lines:
        match = _COLOURED.fullmatch(line)
        colour = _bands(match[1], match[2], match[3]) if match else None
        classes.append(Class(match[4].strip() if match else line, len(classes), colour))
    return classes


def _of_table(text: str) -> list[Class]:
    """A table whose first line names the columns; [] if it does not."""
    head = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = next((sign for sign in "\t,;" if sign in head), None)
    if delimiter is None:
        return []
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter)]
    rows = [row for row in rows if any(row)]
    titles = [cell.lower() for cell in rows[0]]
    columns = {key: i for key, words in _COLUMNS.items() for i, title in enumerate(titles) if title in words}
    if "name" not in columns or len(columns) < 2:
        return []
    fields = ({key: row[i] for key, i in columns.items() if i < len(row)} for row in rows[1:])
    return _entries(
        {key: int(cell) if key == "id" and cell.isdigit() else cell for key, cell in row.items()} for row in fields
    )


def _of_data(found: Any, keyed: bool = False) -> list[Class]:
    """Classes of JSON or YAML: a list of names or of objects, or a mapping of names and ids or colours.

    `keyed`: only below a key such as "classes".
    """
    if isinstance(found, dict):
        for key in ("classes", "labels", "names", "categories", "id2label"):
            if isinstance(found.get(key), list | dict):
                return _of_data(found[key])
        pairs = [] if keyed else list(found.items())
        if all(isinstance(value, str) and str(key).isdigit() for key, value in pairs):
            return [Class(value, int(key)) for key, value in pairs]
        if all(is_id(value) for _, value in pairs):
            return [Class(str(key), value) for key, value in pairs]
        colours = [(str(key), colour_of(value)) for key, value in pairs]
        if all(colour for _, colour in colours):
            return _behind([Class(key, i, colour) for i, (key, colour) in enumerate(colours)])
        return []
    if not isinstance(found, list):
        return []
    if all(isinstance(item, str) for item in found):
        return [Class(item, i) for i, item in enumerate(found)]
    if not all(isinstance(item, dict) for item in found):
        return []
    named = [{str(key).lower(): value for key, value in item.items()} for item in found]
    keys = {key: word for key, words in _COLUMNS.items() for word in words if any(word in item for item in named)}
    supervisely = any("shape" in item for item in named)  # its ids count all classes of all projects
    rows = [{key: item[word] for key, word in keys.items() if word in item} for item in named]
    entries = _entries({key: value for key, value in row.items() if key != "id" or not supervisely} for row in rows)
    return _behind(entries) if supervisely else entries


def _entries(rows: Iterable[dict[str, Any]]) -> list[Class]:
    classes = []
    for place, row in enumerate(rows):
        name = row.get("name")
        if not isinstance(name, str) or not name:
            raise ValueError(f"entry {place} has no name")
        colour: Colour | None = None
        if "red" in row and "green" in row and "blue" in row:
            colour = _bands(row["red"], row["green"], row["blue"])
        elif value := row.get("colour"):
            three = re.findall(r"\d{1,3}", value) if isinstance(value, str) and "#" not in value else None
            colour = _bands(*three) if three and len(three) == 3 else colour_of(value)
        classes.append(Class(name, row.get("id", place), colour))
    return classes


def _behind(classes: list[Class]) -> list[Class]:
    """The classes behind a black background that the list leaves out; grey colours of a mask are ids at the same time."""
    if any(entry.colour == (0, 0, 0) for entry in classes):
        return classes
    grey = all(entry.colour and len(set(entry.colour)) == 1 for entry in classes)
    moved = [Class(c.name, c.colour[0] if grey and c.colour else c.id + 1, c.colour) for c in classes]
    return [Class("background", 0, (0, 0, 0)), *moved]


def _bands(red: str, green: str, blue: str) -> Colour:
    bands = (int(red), int(green), int(blue))
    if max(bands) > 255:
        raise ValueError(f"colour {bands}; bands are 0 to 255")
    return bands


def _yaml_names(text: str) -> Any:
    """`names` of a YAML file, written as [a, b], {0: a, 1: b}, or as a block of "- a" or "0: a"."""
    match = re.search(r"^names:[ \t]*(.*(?:\n(?:[ \t]+|-).*|\n[ \t]*$)*)", text, re.MULTILINE)
    body = match[1].strip() if match else ""
    inline = " ".join(line.strip() for line in body.split("\n")) if body[:1] in ("[", "{") else None
    rows = re.split(r",", inline.strip("[]{} ")) if inline else body.splitlines()
    items = [re.sub(r"(?<!\s)\s+#.*", "", row).strip() for row in rows]
    items = [re.sub(r"^-\s*", "", item) for item in items if item and not item.startswith("#")]
    pairs = [re.fullmatch(r"(\d+)\s*:\s*(.+)", item) for item in items]
    if pairs and all(pairs):
        return {pair[1]: pair[2].strip("'\"") for pair in pairs if pair}
    return [item.strip("'\"") for item in items]
