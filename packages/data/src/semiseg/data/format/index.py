"""A shard's index, beside its tar: one row per sample, so that a sample costs one range read and statistics no pixels."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


MEMBERS = ("image", "label", "meta")  # in their order in the tar
_FACTS = ("bytes", "sha256", "samples", "content")  # of the tar, kept in the metadata: a resumed writer needs them
_CONFIGURATION = "configuration"  # names what the set is written from; only the writer needs it
_PREFIX = "semiseg."


def schema() -> "pa.Schema":
    """Columns of an index. Offsets are those of payloads, in bytes from the start of the tar; null for a missing label.

    content  sha256 of key, image bytes, label type, shape and pixels, and meta.json
    stats    of the label, per tile (row-major, `format.row.TILE` pixels a side) and raw id: pixels, and sums of absolute x
             and y; they can be added exactly under any taxonomy
    """
    import pyarrow as pa

    place = [
        pa.field(f"{member}_{what}", kind)
        for member in MEMBERS
        for what, kind in (("offset", pa.int64()), ("size", pa.int64()), ("crc32", pa.uint32()))
    ]
    counts = pa.struct(
        [("tile", pa.int32()), ("id", pa.int32()), ("pixels", pa.int64()), ("sum_x", pa.int64()), ("sum_y", pa.int64())]
    )
    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            *place,
            pa.field("height", pa.int32()),
            pa.field("width", pa.int32()),
            pa.field("tags", pa.list_(pa.string())),
            pa.field("flags", pa.list_(pa.string())),
            pa.field("content", pa.string()),
            pa.field("stats", pa.list_(counts)),
        ]
    )


def pack(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, str]) -> bytes:
    """The bytes of an index file: one row per sample, and `facts` about the tar in its metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = schema().with_metadata({f"{_PREFIX}{name}": value for name, value in facts.items()})
    table = pa.table({name: [row.get(name) for row in rows] for name in columns.names}, schema=columns)
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()


class Index:
    """One shard's index in memory. ValueError or KeyError for bytes that are not an index."""

    def __init__(self, data: bytes) -> None:
        import pyarrow.parquet as pq

        # Without threads: if torch is loaded too, a thread that holds a Python object when the interpreter ends aborts it
        # ("terminate called without an active exception", apache/arrow #34314), in 1 of 3 runs.
        with pq.ParquetFile(io.BytesIO(data), pre_buffer=False) as file:
            self.table = file.read(use_threads=False)
        metadata = self.table.schema.metadata or {}
        self.facts = {name: metadata[f"{_PREFIX}{name}".encode()].decode() for name in _FACTS}
        if (configuration := metadata.get(f"{_PREFIX}{_CONFIGURATION}".encode())) is not None:
            self.facts[_CONFIGURATION] = configuration.decode()
        self.keys: list[str] = self.table["key"].to_pylist()
        places = [self._places(member) for member in MEMBERS if self.table[f"{member}_offset"].null_count == 0]
        self.places: list[tuple[tuple[str, int, int, int], ...]] = list(zip(*places, strict=True))
        """The members of each row, in their order in the tar: (member, offset, size, crc32)."""
        sizes = (self.table[name].to_pylist() for name in ("width", "height"))
        self.sizes: list[tuple[int, int]] = list(zip(*sizes, strict=True))
        """The image size of each row: (width, height)."""

    def contents(self) -> list[str]:
        """The hash of each row's contents."""
        return self.table["content"].to_pylist()

    def statistics(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, raw ids and pixels, int64, one element for each row, tile and id."""
        import pyarrow.compute as pc

        stats = self.table["stats"].combine_chunks()
        rows = np.asarray(pc.call_function("list_parent_indices", [stats]), np.int64)
        values = stats.flatten()
        return rows, np.asarray(values.field("id"), np.int64), np.asarray(values.field("pixels"), np.int64)

    def sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rows, tiles and raw ids, int64 [n], and sums int64 [n, 3] of pixels, x and y, for each row, tile and id."""
        values = self.table["stats"].combine_chunks().flatten()
        rows, ids, pixels = self.statistics()
        tile, x, y = (np.asarray(values.field(name), np.int64) for name in ("tile", "sum_x", "sum_y"))
        return rows, tile, ids, np.stack([pixels, x, y], axis=1)

    def _places(self, member: str) -> list[tuple[str, int, int, int]]:
        offset, size, crc = (self.table[f"{member}_{what}"].to_pylist() for what in ("offset", "size", "crc32"))
        return [(member, *place) for place in zip(offset, size, crc, strict=True)]
