"""Prove a shard set against its manifest: every byte, every checksum, every pixel of every label.

Nothing is raised for damage: all of it is collected, each problem with its place and its remedy.
"""

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from semiseg.data import encode
from semiseg.data.advice import remedy
from semiseg.data.decode import decode_image, decode_label, image_kind
from semiseg.data.errors import DataError
from semiseg.data.headers import BLOCK, header, padded, tar_format
from semiseg.data.index import Index, read_index
from semiseg.data.manifest import MANIFEST, PLAN, Manifest, ShardEntry, shard_content
from semiseg.data.shards import read_manifest
from semiseg.data.storage import TEMP, Storage

_END = 2 * BLOCK  # a tar ends in two blocks of zeros
_CHUNK = 1 << 24  # bytes


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One fault: `shard` is a file of the set; `offset` counts bytes from the start of that file."""

    shard: str
    what: str
    remedy: str
    key: str | None = None
    member: str | None = None
    offset: int | None = None

    def __str__(self) -> str:
        place = [f"'{self.key}'" if self.key else None, self.member]
        place.append(None if self.offset is None else f"at offset {self.offset}")
        named = " ".join(word for word in place if word)
        return f"{self.shard}: {named}: {self.what}" if named else f"{self.shard}: {self.what}"


@dataclass(frozen=True)
class Report:
    """What `verify` found: samples looked at, bytes read, and every problem."""

    url: str
    samples: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(url: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None) -> Report:
    """Check a written split: `progress(samples done, samples in all)`.

    The manifest and its digest; size and sha256 of every tar and index; each member's header, crc32 and place; padding and
    end-of-archive blocks; images and labels decode and agree in size; ids belong to the raw space; sizes, flags, content
    hashes and statistics of the index against a recount; unique keys; files that are missing or don't belong.
    """
    storage = Storage(url)
    try:
        manifest = read_manifest(storage)
    except DataError as error:
        told = str(error).removeprefix(f"{storage.where(MANIFEST)}: ")
        cut = storage.exists(PLAN) and not storage.exists(MANIFEST)
        advice = told.partition("; ")[2] if cut else "write the shards again"
        told = told.partition("; ")[0] if cut else told
        return Report(str(url), problems=[Problem(shard=MANIFEST, what=told, remedy=advice)])
    check = _Check(storage, manifest, progress or (lambda done, total: None))
    check.files()
    for entry in manifest.shards:
        check.shard(entry)
    return Report(str(url), check.samples, check.bytes, check.problems)


class _Check:
    """The state of one verification."""

    def __init__(self, storage: Storage, manifest: Manifest, progress: Callable[[int, int], None]) -> None:
        self.storage, self.manifest, self.progress = storage, manifest, progress
        self.problems: list[Problem] = []
        self.samples = self.bytes = 0
        self.seen: dict[str, str] = {}  # key -> shard
        self.remedy = remedy(storage.url, manifest)

    def files(self) -> None:
        """Files that don't belong; missing ones are found when they are read."""
        known = {MANIFEST, *(name for entry in self.manifest.shards for name in (entry.tar, entry.index))}
        for name in self.storage.names():
            if name == PLAN or name.endswith(TEMP):
                what = "is left over from a writing that was cut off"
                self._add(name, what, remedy="run the same command again, or delete it")
            elif name not in known:
                self._add(name, "does not belong to this set", remedy="move it elsewhere, or delete it")

    def shard(self, entry: ShardEntry) -> None:
        """One tar, read once from its start to its end, along its index."""
        index = self._index(entry)
        try:
            size = self.storage.size(entry.tar)
        except OSError as error:
            self._add(entry.tar, f"cannot be read ({error.strerror or error})")
            return
        if size != entry.bytes:
            self._add(entry.tar, f"has {size} bytes, the manifest says {entry.bytes}", offset=min(size, entry.bytes))
        digest, end = hashlib.sha256(), 0
        contents: list[str] = []
        for row in range(len(index.keys) if index else 0):
            assert index is not None
            stop = index.places[row][-1][1] + padded(index.places[row][-1][2])
            span = self._read(entry.tar, end, stop)
            digest.update(span)
            if len(span) < stop - end:
                end += len(span)
                self._add(entry.tar, "the file ends inside this sample", key=index.keys[row], offset=end)
                break
            contents.append(self._sample(entry, index, row, span, end))
            end += len(span)
            self.samples += 1
            self.progress(self.samples, self.manifest.samples)
        whole, length = self._tail(entry, digest, end, index is not None)
        self.bytes += length
        if not whole:
            self._add(entry.tar, "its sha256 is not the manifest's")
        if index and len(contents) == len(index.keys) and shard_content(contents) != entry.content:
            self._add(
                entry.tar, "its keys, images, label pixels or meta are not those that the manifest's digest names"
            )

    def _index(self, entry: ShardEntry) -> Index | None:
        try:
            index = read_index(self.storage, entry, self.remedy)
            if len(index.keys) != entry.samples:
                self._add(entry.index, f"lists {len(index.keys)} samples, the manifest {entry.samples}")
            return index
        except DataError as error:
            what = str(error).removeprefix(f"{self.storage.where(entry.index)}: ").removesuffix(f"; {self.remedy}")
            self._add(entry.index, what)
        except (KeyError, ValueError) as error:
            self._add(entry.index, f"is no index ({type(error).__name__}: {error})")
        return None

    def _sample(self, entry: ShardEntry, index: Index, row: int, span: bytes, start: int) -> str:
        """Check the bytes of one sample, which start at `start` of the tar; its content hash as recounted."""
        key = index.keys[row]
        if key in self.seen:
            self._add(entry.tar, f"another sample of this key is in {self.seen[key]}", key=key)
        self.seen[key] = entry.tar
        found: dict[str, bytes] = {}
        expected = start
        form = tar_format([f"{key}.{extension}" for extension in self.manifest.members])
        for extension, (member, offset, size, crc) in zip(self.manifest.members, index.places[row], strict=False):
            name = f"{key}.{extension}"
            right = header(name, size, form)
            if offset != expected + len(right):
                self._add(entry.index, f"places it at {offset}, not at {expected + len(right)}", key=key, member=member)
                return ""
            told, data = span[expected - start : offset - start], span[offset - start : offset - start + size]
            padding = span[offset - start + size : offset - start + padded(size)]
            for what, at in _member_faults(name, told, right, data, padding, size, crc):
                self._add(entry.tar, what, key=key, member=member, offset=offset + at)
            found[member] = data
            expected = offset + padded(size)
        if tuple(found) != tuple(name.split(".")[0] for name in self.manifest.members):
            self._add(
                entry.index, f"has members {', '.join(found)}; expected {', '.join(self.manifest.members)}", key=key
            )
            return ""
        content, faults = self._decoded(key, found, index, row)
        offsets = {member: offset for member, offset, _, _ in index.places[row]}
        for member, what in faults:
            self._add(entry.tar, what, key=key, member=member, offset=offsets[member])
        return content

    def _decoded(self, key: str, found: dict[str, bytes], index: Index, row: int) -> tuple[str, list[tuple[str, str]]]:
        """The content hash of a sample, and what is wrong with it as (member, what)."""
        faults: list[tuple[str, str]] = []
        label = picture = None
        try:
            picture = decode_image(found["image"], verify=True)
            if (kind := image_kind(key, found["image"])) != self.manifest.image:
                faults.append(("image", f"is a {kind}, the manifest says {self.manifest.image}"))
        except DataError as error:
            faults.append(("image", str(error)))
        try:
            label = decode_label(found["label"], verify=True) if "label" in found else None
        except DataError as error:
            faults.append(("label", str(error)))
        tags, fault = _tags(key, found["meta"])
        faults += [("meta", fault)] if fault else []
        if picture is None or (label is None and "label" in found):
            return "", faults
        if label is not None:
            sizes = [f"{width}x{height}" for width, height in (label.shape[::-1], picture.size)]
            if sizes[0] != sizes[1]:
                faults.append(("label", f"is {sizes[0]} pixels, the image {sizes[1]}"))
            if (strange := encode.unknown_id(label, self.manifest.raw_ids)) is not None:
                faults.append(("label", f"{strange}, which raw space '{self.manifest.raw_space}' does not have"))
        recount: dict[str, Any] = {
            "height": picture.height,
            "width": picture.width,
            "tags": tags,
            "flags": encode.flags(picture, label),
            "content": encode.content(key, found["image"], label, found["meta"]),
            "stats": [] if label is None else encode.statistics(label),
        }
        differ = [name for name, value in recount.items() if index.table[name][row].as_py() != value]
        faults += [("image", f"column '{name}' of the index differs from a recount") for name in differ]
        return recount["content"], faults

    def _tail(self, entry: ShardEntry, digest: Any, end: int, indexed: bool) -> tuple[bool, int]:
        """What follows the last sample; whether the sha256 is right, and how many bytes there are."""
        at = 0
        for part in self._chunks(entry.tar, end):
            digest.update(part)
            if indexed and (rest := part.lstrip(b"\0")):
                where = end + at + len(part) - len(rest)
                self._add(entry.tar, "bytes that belong to no sample follow the last one", offset=where)
            at += len(part)
        if indexed and at < _END:
            self._add(entry.tar, "no end-of-archive blocks: the file is cut off", offset=end + at)
        return digest.hexdigest() == entry.sha256, end + at

    def _chunks(self, name: str, start: int) -> Iterator[bytes]:
        while part := self._read(name, start, start + _CHUNK):
            yield part
            start += len(part)

    def _read(self, name: str, start: int, stop: int) -> bytes:
        try:
            return self.storage.read_range(name, start, stop)
        except OSError as error:
            self._add(name, f"cannot be read ({error.strerror or error})", offset=start)
            return b""

    def _add(self, shard: str, what: str, *, remedy: str | None = None, **place: Any) -> None:
        self.problems.append(Problem(shard=shard, what=what, remedy=remedy or self.remedy, **place))


def _member_faults(
    name: str, told: bytes, right: bytes, data: bytes, padding: bytes, size: int, crc: int
) -> Iterator[tuple[str, int]]:
    """What is wrong with a member's bytes, and where, counted from its payload."""
    if told != right:
        what = "is not the one that the writer makes"
        try:
            found = tarfile.TarInfo.frombuf(told[-BLOCK:], "utf-8", "surrogateescape")
            if len(right) == BLOCK and (found.name, found.size, found.isreg()) != (name, size, True):
                what = f"says {found.name!r} of {found.size} bytes, expected {name!r} of {size}"
        except tarfile.HeaderError as error:
            what = f"is damaged ({error})"
        yield f"its header {what}", -len(right)
    if len(data) < size:
        yield f"ends after {len(data)} of {size} bytes", len(data)
    elif encode.crc32(data) != crc:
        yield f"has crc32 {encode.crc32(data):08x}, the index says {crc:08x}", 0
    if padding.strip(b"\0") or (len(data) == size and len(padding) < padded(size) - size):
        yield "its padding is damaged", size


def _tags(key: str, meta: bytes) -> tuple[list[str], str | None]:
    """The tags in a meta.json, or what is wrong with it."""
    try:
        told = json.loads(meta)
        tags = [tag for tag in told["tags"].split(encode.TAGS) if tag]
        return tags, None if told["key"] == key else f"is of key {told['key']!r}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [], f"is no JSON with key and tags ({type(error).__name__}: {error})"
