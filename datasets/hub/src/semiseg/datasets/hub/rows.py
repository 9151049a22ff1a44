"""The rows of one split, with random access or streamed: values as they are stored, images undecoded.

Both kinds travel to other processes. A value of an image column is {"bytes": ..., "path": ...}, either of which may be None.
"""

import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from semiseg.data import DataError
from semiseg.datasets.hub.upright import upright

_BATCH = 1000  # rows looked at together: no bytes are touched, only their offsets


class Stored(NamedTuple):
    """What planning sees of an image or mask: its bytes, where it came from; of a mask of numbers, what tells others apart."""

    size: int
    path: str | None = None
    stamp: str | None = None


class Rows(Protocol):
    """Rows of one split; `features` is the library's description of the columns."""

    @property
    def features(self) -> Mapping[str, Any]: ...

    def value(self, number: int, column: str) -> Any:
        """What a row holds in a column."""
        ...

    def facts(self, images: Sequence[str], others: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Row after row: of each image column what is `Stored` or None, of the others the value."""
        ...


class Table:
    """A `datasets.Dataset`: any row at once. Its file is mapped, so that a copy in another process costs nothing."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset.with_format("arrow")

    @property
    def features(self) -> Mapping[str, Any]:
        return self.dataset.features

    def value(self, number: int, column: str) -> Any:
        return self.dataset[number][column][0].as_py()

    def facts(self, images: Sequence[str], others: Sequence[str]) -> Iterator[dict[str, Any]]:
        chosen = self.dataset.select_columns([*images, *others])
        for start in range(0, len(chosen), _BATCH):
            batch = chosen[start : start + _BATCH]
            columns = {name: batch[name].to_pylist() for name in others}
            columns |= {name: _sizes(batch[name]) for name in images}
            yield from (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


class Stream:
    """A `datasets.IterableDataset`: rows in its order, each process with a cursor of its own that only goes forward.

    Asking for an earlier row starts over, so readers go from the first to the last.
    """

    def __init__(self, dataset: Any) -> None:
        from datasets import Image

        if dataset.features is None:
            try:
                dataset = dataset._resolve_features()  # from the first rows
            except Exception as error:  # the library's own, of many kinds
                raise DataError(
                    f"the types of the stream's columns are not known ({error}); state them: dataset.cast(features), or "
                    "features= where it is made or mapped"
                ) from error
        for name, feature in dataset.features.items():
            if isinstance(feature, Image):
                dataset = dataset.cast_column(name, Image(decode=False))
        self.dataset = dataset
        self.token = uuid.uuid4().hex

    @property
    def features(self) -> Mapping[str, Any]:
        return self.dataset.features

    def value(self, number: int, column: str) -> Any:
        cursor = _cursors.get(self.token)
        if cursor is None or cursor.number > number:
            _cursors.clear()  # one at a time: a stream may hold connections and much memory
            cursor = _cursors[self.token] = _Cursor(self.dataset)
        return cursor.row(number)[column]

    def facts(self, images: Sequence[str], others: Sequence[str]) -> Iterator[dict[str, Any]]:
        for row in self.dataset.select_columns([*images, *others]):
            yield {name: row[name] for name in others} | {name: _size(row[name]) for name in images}


class _Cursor:
    """A place in a stream, and the row there."""

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
                    f"the stream ended after {self.number + 1} rows, before row {number}: its source has changed"
                ) from None
            self.number += 1
        return self.current


_cursors: dict[str, _Cursor] = {}


def read_image(rows: Rows, number: int, column: str) -> bytes:
    """The publisher's file, from a row; one that EXIF turns as the upright picture that the library shows."""
    return upright(file_bytes(rows.value(number, column)))


def file_bytes(value: Any) -> bytes:
    """The bytes that an undecoded image value holds or points to."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, Mapping) or (value.get("bytes") is None and value.get("path") is None):
        raise DataError(f"there is no image in the row but {type(value).__name__}")
    if value.get("bytes") is not None:
        return value["bytes"]
    if "://" not in value["path"]:
        return Path(value["path"]).read_bytes()
    import fsspec

    with fsspec.open(value["path"], "rb") as file:
        return file.read()  # type: ignore[union-attr]


def _size(value: Any) -> Stored | None:
    """What is stored of an undecoded image; None where there is none."""
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


def _sizes(column: Any) -> list[Stored | None]:
    """`_size` of a column of a table, without touching the bytes of files."""
    import pyarrow as pa

    if not pa.types.is_struct(column.type):
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            return [None if size is None else Stored(size) for size in _lengths(column)]
        return [_numbers_in_table(row) for row in column]
    columns = dict(zip((field.name for field in column.type), column.flatten(), strict=True))
    return [
        Stored(length, path) if length is not None else _size({"path": path})
        for length, path in zip(_lengths(columns["bytes"]), columns["path"].to_pylist(), strict=True)
    ]


def _lengths(column: Any) -> list[int | None]:
    import pyarrow.compute as pc

    return pc.call_function("binary_length", [column]).to_pylist()


def _numbers(value: Any) -> Stored:
    """A mask of numbers: what it packs to is not known, and little, so that only its values tell of a correction."""
    try:
        array = np.ascontiguousarray(value)
        return Stored(0, stamp=f"{zlib.crc32(array.tobytes(), len(array)):08x}")
    except (TypeError, ValueError):  # no mask; reading it says so
        return Stored(0)


def _numbers_in_table(row: Any) -> Stored | None:
    """`_numbers` of a row, by the table's own memory: lists of numbers take a hundred times as long."""
    row = getattr(row, "value", None) if hasattr(row.type, "storage_type") else row
    values = getattr(row, "values", None)
    if values is None:
        return None
    count = len(values)
    while hasattr(values, "flatten") and hasattr(values.type, "value_type"):
        values = values.flatten()
    return Stored(0, stamp=f"{zlib.crc32(values.to_numpy(zero_copy_only=False), count):08x}")
