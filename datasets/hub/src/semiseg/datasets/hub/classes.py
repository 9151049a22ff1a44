"""What the ids of masks mean: names from a column type or a file, if any, and the resulting taxonomy."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semiseg.data import DataError, RawSpace, Taxonomy, parse_json, unknown
from semiseg.datasets.hub.masks import Colours
from semiseg.datasets.hub.opening import Opened

ID2LABEL = "id2label.json"
_VOID = {"void", "unlabeled", "unlabelled", "ignore", "ignored", "ignore_index"}
_IGNORED = 255  # the usual id of pixels without a class


@dataclass(frozen=True)
class Classes:
    """Names by id, empty if unknown, and the colours of ids for coloured masks."""

    names: Mapping[int, str]
    table: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def colours(self) -> Colours | None:
        return {colour: number for number, colour in self.table.items()} or None


def names_beside(opened: Opened) -> Path | None:
    """`id2label.json` in the folder of the data, or in its repository; None if it does not exist."""
    if opened.folder is not None:
        path = opened.folder / ID2LABEL
        return path if path.is_file() else None
    if opened.repository is None:
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(opened.repository, ID2LABEL, repo_type="dataset", revision=opened.revision))
    except EntryNotFoundError:  # also if it is not in the cache of a machine without network
        return None


def read_names(where: str, path: Path, columns: Iterable[str]) -> Classes:
    """Classes from a file (see `Hub`); the error for a name that is neither file nor column lists `columns`."""
    if not path.is_file():
        what = unknown("column", str(path), columns)
        raise DataError(f"{where}: names={path} is neither a file nor a column that lists classes ({what})")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() != ".json":
            return _from_lines(text.splitlines())
        content = parse_json(text)
        pairs = enumerate(content) if isinstance(content, list) else ((int(key), name) for key, name in content.items())
        return Classes({number: str(name) for number, name in pairs})
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{where}: {path} can't be read as class names ({error}); expected JSON of ids and names such as "
            '{"0": "wall"}, text with one name per line in the order of ids, or lines "R G B name"'
        ) from error


def describe_classes(
    name: str,
    given: Classes,
    found: set[int] | None,
    *,
    void: Sequence[int | str] | None,
    foreground: Sequence[str] | None,
) -> tuple[RawSpace, tuple[Taxonomy, ...]]:
    """The raw space and its taxonomy; no taxonomy if there are no classes, for example without masks.

    `found`: the ids in the masks, if they have no names. Masks that contain only 0 and 255 require `void` or names, because
    255 is the ignored id in some data sets and the object in others.
    """
    where = f"data set '{name}'"
    names = dict(given.names)
    if not names and found:
        if found == {0, _IGNORED} and void is None:
            raise DataError(
                f"{where}: its masks contain only 0 and 255, and 255 could be a class or ignored; to ignore it, use "
                '--option void=255; if it is a class, use --option names=FILE with {"0": "background", "255": "object"}'
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
    """One name per line, or lines of a colour and a name."""
    words = [line.split() for line in lines if line.strip()]
    if not words:
        raise ValueError("the file is empty")
    if all(len(line) > 3 and all(part.isdecimal() and int(part) < 256 for part in line[:3]) for line in words):
        table = {number: (int(r), int(g), int(b)) for number, (r, g, b, *_) in enumerate(words)}
        twice = [colour for colour, times in Counter(table.values()).items() if times > 1]
        if twice:
            raise ValueError(f"colour {' '.join(map(str, twice[0]))} is listed twice")
        return Classes({number: " ".join(line[3:]) for number, line in enumerate(words)}, table)
    return Classes({number: " ".join(line) for number, line in enumerate(words)})


def _void(where: str, names: Mapping[int, str], void: Sequence[int | str] | None) -> set[int]:
    """Ids that are not classes; this includes 255 unless it has another name."""
    if void is None:
        called = {number for number, name in names.items() if name.lower() in _VOID}
        return called | ({_IGNORED} if _IGNORED not in names else set())
    numbers = {name: number for number, name in names.items()}
    for entry in void:
        if isinstance(entry, str) and entry not in numbers:
            raise DataError(f"{where}: void: {unknown('class', entry, numbers)}")
    return {entry if isinstance(entry, int) else numbers[entry] for entry in void}


def _apart(names: list[str], ids: list[int]) -> list[str]:
    """Unique names: the id is appended if two classes have the same name."""
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} ({number})" for name, number in zip(names, ids, strict=True)]


def _foreground(where: str, names: list[str], asked: Sequence[str] | None) -> frozenset[int]:
    if asked is None:
        return frozenset(place for place, name in enumerate(names) if name.lower() != "background")
    for name in asked:
        if name not in names:
            raise DataError(f"{where}: foreground: {unknown('class', name, names)}")
    return frozenset(names.index(name) for name in asked)


def _colour(number: int) -> tuple[int, int, int]:
    """The PASCAL VOC palette: the bits of a number, distributed to red, green and blue in turn, highest first."""
    bands = [0, 0, 0]
    for bit in range(8):
        for band in range(3):
            bands[band] |= (number >> (3 * bit + band) & 1) << (7 - bit)
    return bands[0], bands[1], bands[2]
