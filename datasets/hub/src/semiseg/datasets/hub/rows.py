"""The rows of one split, with random access or streamed: values as stored, images not decoded.

Both kinds can be pickled. A value of an image column is {"bytes": ..., "path": ...}, either of which may be None.
"""

import re
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from semiseg.data import DataError
from semiseg.datasets.hub.upright import upright

Homes = Sequence[str] | None
"""Folders and URLs that may hold the files of images; None for a data set that the caller's program has opened."""
_BATCH = 1000  # rows inspected together: only offsets are read, no bytes


class Stored(NamedTuple):
    """What planning needs of an image or mask: its size and path; for a mask of numbers, a stamp that identifies it."""

    size: int
    path: str | None = None
    stamp: str | None = None


class Rows(Protocol):
    """Rows of one split; `features` is the library's description of the columns."""

    @property
    def features(self) -> Mapping[str, Any]: ...

    def value(self, number: int, column: str) -> Any:
        """The value of a row in a column."""
        ...

    def facts(self, images: Sequence[str], others: Sequence[str]) -> Iterator[dict[str, Any]]:
        """For each row, in order: `Stored` or None for image columns, the value for others."""
        ...


class Table:
    """A `datasets.Dataset`, with random access. Its file is memory-mapped, so a copy in another process costs nothing."""

    def __init__(self, dataset: Any, homes: Homes = None) -> None:
        self.dataset = dataset.with_format("arrow")
        self.homes = homes

    @property
    def features(self) -> Mapping[str, Any]:
        return self.dataset.features

    def value(self, number: int, column: str) -> Any:
        return _confined(self.dataset[number][column][0].as_py(), self.homes)

    def facts(self, images: Sequence[str], others: Sequence[str]) -> Iterator[dict[str, Any]]:
        chosen = self.dataset.select_columns([*images, *others])
        for start in range(0, len(chosen), _BATCH):
            batch = chosen[start : start + _BATCH]
            columns = {name: batch[name].to_pylist() for name in others}
            columns |= {name: _sizes(batch[name], self.homes) for name in images}
            yield from (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


class Stream:
    """A `datasets.IterableDataset`: rows in its order. Each process has a separate cursor, which only moves forward.

    Reading an earlier row starts again from the first, so read rows in order.
    """

    def __init__(self, dataset: Any, homes: Homes = None) -> None:
        from datasets import Image

        if dataset.features is None:
            try:
                dataset = dataset._resolve_features()  # from the first rows
            except Exception as error:  # many kinds of errors of the library
                raise DataError(
                    f"the types of the stream's columns are unknown ({error}); set them with dataset.cast(features), or "
                    "with features= when it is created or mapped"
                ) from error
        for name, feature in dataset.features.items():
            if isinstance(feature, Image):
                dataset = dataset.cast_column(name, Image(decode=False))
        self.dataset = dataset
        self.homes = homes
        self.token = uuid.uuid4().hex

    @property
    def features(self) -> Mapping[str, Any]:
        return self.dataset.features

    def value(self, number: int, column: str) -> Any:
        cursor = _cursors.get(self.token)
        if cursor is None or cursor.number > number:
            _cursors.clear()  # keep only one: a stream may hold connections and much memory
            cursor = _cursors[self.token] = _Cursor(self.dataset)
        return _confined(cursor.row(number)[column], self.homes)

    def facts(self, images: Sequence[str], others: Sequence[str]) -> Iterator[dict[str, Any]]:
        for row in self.dataset.select_columns([*images, *others]):
            yield {name: row[name] for name in others} | {
                name: _size(_confined(row[name], self.homes)) for name in images
            }


class _Cursor:
    """A position in a stream, and its row."""

    def __init__(self, dataset: Any) -> None:
        self.rows = iter(dataset)
        self.number = -1
        self.current: dict[str, Any] = {}

    def row(self, number: int) -> dict[str, Any]:
        while self.number < number:
            try:
                self.current = next(self.rows)
            except StopIteration:
                raise DataError(
                    f"the stream ended after {self.number + 1} rows, before row {number}: its source has changed; "
                    "write the shards again"
                ) from None
            self.number += 1
        return self.current


_cursors: dict[str, _Cursor] = {}


def read_image(rows: Rows, number: int, column: str) -> bytes:
    """The publisher's file of a row; an image that EXIF rotates is returned upright, as the library shows it."""
    return upright(file_bytes(rows.value(number, column)))


def _confined(value: Any, homes: Homes) -> Any:
    """A value as stored; DataError if its image is a file outside of the data set's places."""
    if homes is None or not isinstance(value, Mapping) or value.get("bytes") is not None:
        return value
    path = value.get("path")
    return value if path is None else {**value, "path": confined_path(path, homes)}


def confined_path(path: Any, homes: Sequence[str]) -> str:
    """The path of an image, absolute or a URL; DataError unless it is in a folder or below a URL of `homes`.

    A row of a stranger's table may name any file of this machine, or any address.
    """
    refusal = DataError(
        f"a row names the file {ascii(path)[:200]}, which is not in the data set's own folder ({', '.join(homes)}), so it is "
        "not opened; store the bytes of images in the table, or move the files into the folder"
    )
    if not isinstance(path, str) or "\0" in path:
        raise refusal
    inner, chained, base = path.rpartition("::")
    if chained and not re.fullmatch(r"zip://[^:]*", inner):
        raise refusal
    if "://" in base:
        parts = base.split("/")
        if ".." in parts or not any(
            "://" in home and (base + "/").startswith((f"{home}/", f"{home}@")) for home in homes
        ):
            raise refusal
        return path
    for home in homes:
        if "://" not in home:
            folder = Path(home).resolve()
            place = (folder / base).resolve()
            if place.is_relative_to(folder):
                return f"{inner}::{place}" if chained else str(place)
    raise refusal


def file_bytes(value: Any) -> bytes:
    """The bytes of an image that is not decoded, from the value or its path."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, Mapping) or (value.get("bytes") is None and value.get("path") is None):
        raise DataError(f"the row has no image, but {type(value).__name__}; filter out such rows")
    if value.get("bytes") is not None:
        return value["bytes"]
    if "://" not in value["path"]:
        return Path(value["path"]).read_bytes()
    import fsspec

    with fsspec.open(value["path"], "rb") as file:
        return file.read()  # type: ignore[union-attr]


def _size(value: Any) -> Stored | None:
    """Size and path of an image that is not decoded; None without an image."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return Stored(len(value))
    if not isinstance(value, Mapping):
        return _numbers(value)
    data, path = value.get("bytes"), value.get("path")
    if data is not None or path is None:
        return None if data is None else Stored(len(data), path)
    if "://" not in path:
        return Stored(Path(path).stat().st_size, path)
    import fsspec

    system, inner = fsspec.core.url_to_fs(path)
    return Stored(int(system.size(inner) or 0), path)


def _sizes(column: Any, homes: Homes) -> list[Stored | None]:
    """`_size` for a column of a table, without reading the bytes of files."""
    import pyarrow as pa

    if not pa.types.is_struct(column.type):
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            return [None if size is None else Stored(size) for size in _lengths(column)]
        return [_numbers_in_table(row) for row in column]
    columns = dict(zip((field.name for field in column.type), column.flatten(), strict=True))
    return [
        Stored(length, path) if length is not None else _size(_confined({"path": path}, homes))
        for length, path in zip(_lengths(columns["bytes"]), columns["path"].to_pylist(), strict=True)
    ]


def _lengths(column: Any) -> list[int | None]:
    import pyarrow.compute as pc

    return pc.call_function("binary_length", [column]).to_pylist()


def _numbers(value: Any) -> Stored:
    """A mask of numbers: its packed size is unknown and small, so only a stamp of its values reveals a correction."""
    try:
        array = np.ascontiguousarray(value)
        return Stored(0, stamp=f"{zlib.crc32(array.tobytes(), len(array)):08x}")
    except (TypeError, ValueError):  # not a mask; reading it reports that
        return Stored(0)


def _numbers_in_table(row: Any) -> Stored | None:
    """`_numbers` for a row, read from the memory of the table: lists of numbers are a hundred times slower."""
    row = getattr(row, "value", None) if hasattr(row.type, "storage_type") else row
    values = getattr(row, "values", None)
    if values is None:
        return None
    count = len(values)
    while hasattr(values, "flatten") and hasattr(values.type, "value_type"):
        values = values.flatten()
    return Stored(0, stamp=f"{zlib.crc32(values.to_numpy(zero_copy_only=False), count):08x}")
