"""Check a sample's bytes in its tar. Every byte of a tar belongs to a header, a payload, padding or the tar's end, and has one
right value or a crc32. So reading all samples of a shard detects any byte that changed.
"""

import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from semiseg.data.format.manifest import Manifest, ShardEntry
from semiseg.data.format.tar import BLOCK, END, RECORD, header, padded, tar_format
from semiseg.data.source.adapter import KEY

_SIDE = 1 << 24  # pixels
_RAW_IDS = 1 << 16

if TYPE_CHECKING:
    from semiseg.data.format.index import Index


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at an offset of the tar, in a member or (None) after the last sample."""

    what: str
    offset: int
    member: str | None = None

    def __str__(self) -> str:
        return f"{self.member or 'the end'} at offset {self.offset}: {self.what}"


def extent(index: "Index", row: int, entry: ShardEntry, extensions: tuple[str, ...]) -> tuple[int, int]:
    """Where a sample starts, with its first header, and stops; the last one stops a byte after the end of the tar."""
    places = index.places[row]
    names = _names(index.keys[row], extensions)
    form = tar_format(names)
    start = places[0][1] - (BLOCK if form == 0 else len(header(names[0], places[0][2], form)))
    return start, places[-1][1] + padded(places[-1][2]) if row < len(index.keys) - 1 else entry.bytes + 1


def faults(
    index: "Index", row: int, entry: ShardEntry, extensions: tuple[str, ...], span: bytes, start: int
) -> Iterator[Fault]:
    """What is wrong with a sample, or with the tar's end after the last one; `span` holds the tar's bytes of its `extent`."""
    names, at = _names(index.keys[row], extensions), 0
    form = tar_format(names)
    for name, (member, offset, size, crc) in zip(names, index.places[row], strict=True):
        right = header(name, size, form)
        payload = at + len(right)
        if start + payload != offset:
            yield Fault(f"belongs at {start + payload} by the sizes that the index gives", offset, member)
            return
        found, data = span[at:payload], span[payload : payload + size]
        if found != right:
            yield Fault(f"its header {_header_fault(name, size, found, right)}", start + at, member)
        if len(data) < size:
            yield Fault(f"ends after {len(data)} of {size} bytes", offset, member)
        elif (now := zlib.crc32(data)) != crc:
            yield Fault(f"has crc32 {now:08x}, the index says {crc:08x}: its {size} bytes are damaged", offset, member)
        at = payload + padded(size)
        padding = span[payload + size : at]
        if len(data) == size and padding != bytes(padded(size) - size):
            yield Fault("its padding is damaged", offset + size, member)
    if row == len(index.keys) - 1:
        tail = span[at:]
        if rest := tail.lstrip(b"\0"):
            where = start + at + len(tail) - len(rest)
            yield Fault("bytes that belong to no sample follow the last one", where)
        if len(tail) < END:
            yield Fault("no end-of-archive blocks: the file is cut off", start + at + len(tail))
        elif start + len(span) != entry.bytes:
            yield Fault(f"the file does not end here, after its {entry.bytes} bytes", entry.bytes)


def index_fault(index: "Index", entry: ShardEntry, manifest: Manifest) -> str | None:
    """What in an index cannot be true of its shard: in rows, keys, members or offsets; None if nothing."""
    for name in ("bytes", "sha256", "samples", "content"):
        if (value := index.facts[name]) != str(getattr(entry, name)):
            return f"is of a tar with {name} {value}, the manifest says {getattr(entry, name)}"
    if len(index.keys) != entry.samples:
        return f"lists {len(index.keys)} samples, the manifest {entry.samples}"
    if len({*index.keys}) < entry.samples:
        key, _ = Counter(index.keys).most_common(1)[0]
        return f"lists two samples with the key '{key}'"
    expected = tuple(extension.split(".")[0] for extension in manifest.members)
    end = last = 0
    for row, (key, places) in enumerate(zip(index.keys, index.places, strict=True)):
        if not KEY.fullmatch(key):
            return f"lists a sample with the key {key!r}, which is not allowed"
        if (found := tuple(place[0] for place in places)) != expected:
            return f"'{key}' has members {', '.join(found)}; expected {', '.join(expected)}"
        if not all(0 < size <= entry.bytes for _, _, size, _ in places):
            return f"'{key}' has a member with no bytes, or with more than the {entry.bytes} bytes of {entry.tar}"
        start, stop = extent(index, row, entry, manifest.members)
        if start != end:
            return f"places '{key}' at {start}, the sample before it ends at {end}"
        end = stop
        last = entry.bytes - (places[-1][1] + padded(places[-1][2]))
    if not END <= last <= END + RECORD:
        return f"assigns {last} bytes of {entry.tar} to no sample"
    return _column_fault(index)


def _column_fault(index: "Index") -> str | None:
    """What cannot be true in the columns that are computed from pixels; those of an index whose author lied."""
    for name in ("height", "width", "tags", "flags", "content", "stats"):
        if index.table[name].null_count:
            return f"has no {name} for a sample"
    areas = np.array(
        [width * height if 0 < width <= _SIDE and 0 < height <= _SIDE else 0 for width, height in index.sizes]
    )
    if not areas.all():
        return f"'{index.keys[int(areas.argmin())]}' has no size"
    _, ids, pixels = index.statistics()
    if ids.size and not (ids.min() >= 0 and ids.max() < _RAW_IDS and pixels.min() >= 0):
        return "counts pixels of an id that no label holds, or fewer than none"
    return None


def _names(key: str, extensions: tuple[str, ...]) -> list[str]:
    return [f"{key}.{extension}" for extension in extensions]


def _header_fault(name: str, size: int, data: bytes, right: bytes) -> str:
    if len(data) < len(right):
        return f"ends after {len(data)} of {len(right)} bytes"
    try:
        found = tarfile.TarInfo.frombuf(data[-BLOCK:], "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        return f"is damaged ({error})"
    if len(right) == BLOCK and (found.name, found.size, found.isreg()) != (name, size, True):
        return f"says {found.name!r} of {found.size} bytes, expected {name!r} of {size}"
    return "is not the one that the writer makes"
