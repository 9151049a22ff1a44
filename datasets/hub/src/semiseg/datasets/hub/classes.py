"""What the ids of the masks mean: names from a type, a file or nowhere, and the taxonomy that follows."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semiseg.data import DataError, RawSpace, Taxonomy, unknown
from semiseg.datasets.hub.masks import Colours
from semiseg.datasets.hub.opening import Opened

ID2LABEL = "id2label.json"
_VOID = {"void", "unlabeled", "unlabelled", "ignore", "ignored", "ignore_index"}
_IGNORED = 255  # what most masks write where there is no class


@dataclass(frozen=True)
class Classes:
    """Names by id, empty where nobody gives them, and for masks in colours what each colour stands for."""

    names: Mapping[int, str]
    table: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def colours(self) -> Colours | None:
        return {colour: number for number, colour in self.table.items()} or None


def names_beside(opened: Opened) -> Path | None:
    """`id2label.json` in the folder of the data, or in its repository; None where there is none."""
    if opened.folder is not None:
        path = opened.folder / ID2LABEL
        return path if path.is_file() else None
    if opened.repository is None:
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(opened.repository, ID2LABEL, repo_type="dataset", revision=opened.revision))
    except EntryNotFoundError:  # also where it is not in the cache of a machine without network
        return None


def read_names(where: str, path: Path, columns: Iterable[str]) -> Classes:
    """Classes from a file (see `Hub`); `columns` are told in the error for a name that is neither file nor column."""
    if not path.is_file():
        what = unknown("column", str(path), columns)
        raise DataError(f"{where}: names={path} is neither a file nor a column that lists classes ({what})")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() != ".json":
            return _from_lines(text.splitlines())
        told = json.loads(text)
        pairs = enumerate(told) if isinstance(told, list) else ((int(number), name) for number, name in told.items())
        return Classes({number: str(name) for number, name in pairs})
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{where}: {path} can't be read as names of classes ({error}); expected JSON of ids and names such as "
            '{"0": "wall"}, or text with a name a line in the order of ids, or lines "R G B name"'
        ) from error


def describe_classes(
    name: str,
    given: Classes,
    found: set[int] | None,
    *,
    void: Sequence[int | str] | None,
    foreground: Sequence[str] | None,
) -> tuple[RawSpace, tuple[Taxonomy, ...]]:
    """The raw space, and its taxonomy; none where there are no classes, as for images alone.

    `found`: the ids in the masks, where nobody names them. Masks of 0 and 255 alone need `void` or names: 255 is ignored in
    one half of the world's masks, and the object in the other.
    """
    where = f"data set '{name}'"
    names = dict(given.names)
    if not names and found:
        if found == {0, _IGNORED} and void is None:
            raise DataError(
                f"{where}: its masks hold 0 and 255 alone; is 255 a class, or ignored? --option void=255 says the latter, "
                'a file {"0": "background", "255": "object"} as --option names=FILE the former'
            )
        names = {number: f"class {number}" for number in sorted(found)}
        names |= {_IGNORED: "void"} if void is None else {}
    ignored = _void(where, names, void)
    for number in ignored:
        names.setdefault(number, "void")
    raw = RawSpace(name=f"hub-{name}", names=dict(sorted(names.items())))
    ids = [number for number in raw.names if number not in ignored]
    if not ids:
        return raw, ()
    called = _apart([raw.names[number] for number in ids], ids)
    return raw, (
        Taxonomy(
            name=f"{name}-{len(ids)}",
            raw=raw,
            names=tuple(called),
            colours=tuple(given.table.get(number, _colour(place)) for place, number in enumerate(ids, start=1)),
            ids={number: place for place, number in enumerate(ids)},
            foreground=_foreground(where, called, foreground),
        ),
    )


def _from_lines(lines: Sequence[str]) -> Classes:
    """A name a line, or lines of a colour and a name."""
    words = [line.split() for line in lines if line.strip()]
    if not words:
        raise ValueError("it is empty")
    if all(len(line) > 3 and all(part.isdecimal() and int(part) < 256 for part in line[:3]) for line in words):
        table = {number: (int(r), int(g), int(b)) for number, (r, g, b, *_) in enumerate(words)}
        twice = [colour for colour in table.values() if list(table.values()).count(colour) > 1]
        if twice:
            raise ValueError(f"colour {' '.join(map(str, twice[0]))} comes twice")
        return Classes({number: " ".join(line[3:]) for number, line in enumerate(words)}, table)
    return Classes({number: " ".join(line) for number, line in enumerate(words)})


def _void(where: str, names: Mapping[int, str], void: Sequence[int | str] | None) -> set[int]:
    """Ids that are no classes; 255 is one of them unless it is named otherwise."""
    if void is None:
        called = {number for number, name in names.items() if name.lower() in _VOID}
        return called | ({_IGNORED} if _IGNORED not in names else set())
    numbers = {name: number for number, name in names.items()}
    for each in void:
        if isinstance(each, str) and each not in numbers:
            raise DataError(f"{where}: void: {unknown('class', each, numbers)}")
    return {each if isinstance(each, int) else numbers[each] for each in void}


def _apart(names: list[str], ids: list[int]) -> list[str]:
    """Names that differ: an id follows where two classes are called alike."""
    return [name if names.count(name) == 1 else f"{name} ({number})" for name, number in zip(names, ids, strict=True)]


def _foreground(where: str, names: list[str], asked: Sequence[str] | None) -> frozenset[int]:
    if asked is None:
        return frozenset(place for place, name in enumerate(names) if name.lower() != "background")
    for name in asked:
        if name not in names:
            raise DataError(f"{where}: foreground: {unknown('class', name, names)}")
    return frozenset(names.index(name) for name in asked)


def _colour(number: int) -> tuple[int, int, int]:
    """The PASCAL VOC palette: the bits of a number, dealt to red, green and blue in turn, highest first."""
    bands = [0, 0, 0]
    for bit in range(8):
        for band in range(3):
            bands[band] |= (number >> (3 * bit + band) & 1) << (7 - bit)
    return bands[0], bands[1], bands[2]
