"""One pass over the rows of a split: keys, sizes, tags, which rows have masks and, if they have no names, the ids."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from semiseg.data import DataError, clean_key
from semiseg.datasets.hub.columns import Columns, class_names
from semiseg.datasets.hub.masks import Colours, ids_of, read_label
from semiseg.datasets.hub.rows import Rows


@dataclass(frozen=True, slots=True)
class Row:
    """What planning needs to know of a row; `size`: bytes of image and mask, `stamp`: identifies masks without bytes."""

    number: int
    key: str
    source: str
    size: int
    labeled: bool
    tags: tuple[str, ...]
    stamp: str | None


@dataclass(frozen=True)
class Listing:
    """All rows of a split, and the ids of its masks if they were read."""

    rows: tuple[Row, ...]
    ids: frozenset[int]


def list_rows(where: str, rows: Rows, columns: Columns, *, colours: Colours | None, scan: bool) -> Listing:
    """List a split; `scan` also decodes its masks. DataError for a key column with values that are not unique."""
    images = [columns.image] + ([columns.mask] if columns.mask is not None else [])
    others = [*columns.keys, *([columns.tags] if columns.tags else [])]
    facts: list[dict[str, Any]] = []
    ids: set[int] = set()
    for number, fact in enumerate(rows.facts(images, list(dict.fromkeys(others)))):
        facts.append(fact)
        if fact[columns.image] is None:
            raise DataError(f"{where}: row {number} has no image in column '{columns.image}'; filter out such rows")
        if scan and columns.mask is not None and fact[columns.mask] is not None:
            try:
                ids |= ids_of(read_label(rows, number, columns.mask, colours))
            except (DataError, OSError) as error:
                raise DataError(f"{where}, row {number}, column '{columns.mask}': {error}") from error
    paths = [fact[columns.image].path for fact in facts]
    keys = _keys(where, facts, paths, columns)
    names = class_names(rows.features[columns.tags]) if columns.tags else None
    listed = []
    for number, (key, path, fact) in enumerate(zip(keys, paths, facts, strict=True)):
        mask = fact[columns.mask] if columns.mask is not None else None
        size = fact[columns.image].size + (mask.size if mask else 0)
        tags = _tags(fact[columns.tags], names) if columns.tags else ()
        source = PurePosixPath(path).name if path else f"row {number}"
        listed.append(Row(number, key, source, size, mask is not None, tags, mask and mask.stamp))
    return Listing(tuple(listed), frozenset(ids))


def _keys(where: str, facts: list[dict[str, Any]], paths: list[str | None], columns: Columns) -> list[str]:
    """Keys from a column with unique values, otherwise from the paths of images, otherwise row numbers."""
    for column in columns.keys:
        values = [fact[column] for fact in facts]
        if (found := _distinct([None if value is None else str(value) for value in values])) is not None:
            return found
        if columns.key_given:
            raise DataError(
                f"{where}: the values of column '{column}' are not unique; name another one with --option key=COLUMN"
            )
    stems = None if any(path is None for path in paths) else _stems([path for path in paths if path is not None])
    return (_distinct(stems) if stems else None) or [f"{number:08}" for number in range(len(facts))]


def _distinct(names: Sequence[str | None]) -> list[str] | None:
    """Clean keys, if every row has one and all differ; otherwise None."""
    if not names or any(not name for name in names):
        return None
    keys = [clean_key(str(name)).removeprefix("__") or "_" for name in names]
    return keys if len(set(keys)) == len(keys) else None


def _stems(paths: list[str]) -> list[str]:
    """Paths below the common folder, without extensions."""
    plain = [path.split("::")[0].replace("\\", "/") for path in paths]
    shared = os.path.commonpath([os.path.dirname(path) or "." for path in plain]) if len(plain) > 1 else ""  # noqa: PTH120
    inside = [path.removeprefix(shared).strip("/") if len(plain) > 1 else path.rsplit("/", 1)[-1] for path in plain]
    return [str(PurePosixPath(path).with_suffix("")) if path else path for path in inside]


def _tags(value: Any, names: list[str] | None) -> tuple[str, ...]:
    """Image-level labels of a row: one value or a list; ids become names. Commas separate tags in shards."""
    values = list(value) if isinstance(value, list | tuple | np.ndarray) else [] if value is None else [value]
    tags = [names[item] if names and isinstance(item, int) and 0 <= item < len(names) else str(item) for item in values]
    return tuple(dict.fromkeys(tag.replace(",", ";").strip() for tag in tags if tag.strip()))
