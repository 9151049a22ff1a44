"""Check a shard set against its manifest: every byte, every checksum, every pixel of every label.

Damage is not raised but collected: each problem says where it is and what to do.
"""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from semiseg.data.errors import DataError
from semiseg.data.format.index import Index
from semiseg.data.format.manifest import Manifest, ShardEntry, shard_content
from semiseg.data.format.names import MANIFEST, PLAN, SEAL, part_of
from semiseg.data.format.proof import extent, faults
from semiseg.data.format.row import content, flags, statistics
from semiseg.data.image.decode import check_pair, decode_image, decode_label, image_kind, read_meta
from semiseg.data.parallel import Progress, Tick, run_all
from semiseg.data.read.prefetch import read_index
from semiseg.data.read.shard_set import read_manifest
from semiseg.data.remedies import remedy
from semiseg.data.storage.atomic import TEMP
from semiseg.data.storage.retry import say
from semiseg.data.storage.storage import Storage

log = logging.getLogger("semiseg.data")

_CHUNK = 1 << 24  # bytes of a read


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
    """What `verify` found: the share, its number of shards, samples and bytes checked, and every problem."""

    url: str
    share: str = "1/1"
    shards: int = 0
    samples: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(
    url: str | os.PathLike[str], *, share: str = "1/1", workers: int = 1, progress: Progress | None = None
) -> Report:
    """Check a written split, on this machine or at any URL that fsspec knows.

    Checks the manifest and its checksums; size and sha256 of every tar and index; each member's header, crc32 and offset;
    padding and end-of-archive blocks; that images and labels decode and have one size; that ids are in the raw space; sizes,
    flags, content hashes and statistics of the index against a recount; unique keys; missing and unexpected files.

    `share` "i/n" checks every n-th shard, starting with the i-th; the n shares together are the complete set, for example
    one per night or per machine. `workers` processes divide the shards (a script with several needs the usual
    `if __name__ == "__main__":`); the report is the same. Raises DataError for an invalid share.
    """
    part, of = _parse_share(share)
    if workers < 1:
        raise DataError(f"workers is {workers}; at least one process has to read")
    storage = Storage(url)
    try:
        manifest = read_manifest(storage)
    except DataError as error:
        what, _, advice = str(error).removeprefix(f"{storage.where(MANIFEST)}: ").partition("; ")
        return Report(str(url), share, problems=[Problem(shard=MANIFEST, what=what, remedy=advice)])
    jobs = [_Job(str(url), replace(manifest, shards=(entry,))) for entry in manifest.shards[part - 1 :: of]]
    total = sum(job.manifest.samples for job in jobs)
    found = run_all(_prove, jobs, workers=workers, samples=total, progress=progress)
    problems = [*_unexpected_files(storage, manifest), *(problem for result in found for problem in result.problems)]
    owners: dict[str, str] = {}
    for job, result in zip(jobs, found, strict=True):
        for key in result.keys:
            if (owner := owners.setdefault(key, job.tar)) != job.tar:
                what = f"another sample with this key is in {owner}"
                problems.append(Problem(shard=job.tar, what=what, remedy=remedy(str(url), manifest), key=key))
    samples, size = sum(result.samples for result in found), sum(result.bytes for result in found)
    return Report(str(url), share, len(jobs), samples, size, problems)


def _parse_share(share: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,8})", share)
    if match is None or int(match[1]) > int(match[2]):
        raise DataError(f"invalid share '{share}'; write i/n with i from 1 to n, as in 1/10 for the first tenth")
    return int(match[1]), int(match[2])


def _unexpected_files(storage: Storage, manifest: Manifest) -> Iterator[Problem]:
    """Unexpected files; missing ones are found when they are read."""
    known = {MANIFEST, *(name for entry in manifest.shards for name in (entry.tar, entry.index))}
    try:
        names = storage.names()
    except (OSError, DataError) as error:
        log.warning("%s cannot be listed, so unexpected files are not reported (%s)", storage.url, say(error))
        return
    for name in names:
        if name == PLAN or part_of(name) or name.endswith((TEMP, SEAL)):
            what = "is left over from an interrupted command"
            yield Problem(shard=name, what=what, remedy="rerun the command that wrote the set, or delete the file")
        elif name not in known:
            what, advice = "does not belong to this set", "move it elsewhere, or delete it"
            yield Problem(shard=name, what=what, remedy=advice)


@dataclass(frozen=True, slots=True)
class _Job:
    """One shard to check, for another process: a set's manifest with this shard only."""

    url: str
    manifest: Manifest

    @property
    def tar(self) -> str:
        return self.manifest.shards[0].tar


@dataclass(slots=True)
class _Found:
    """The results of one shard."""

    problems: list[Problem] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    samples: int = 0
    bytes: int = 0


def _prove(job: _Job, tick: Tick) -> _Found:
    """Check one tar, which is read once, from start to end, along with its index."""
    return _Proof(Storage(job.url), job.manifest, tick).run()


class _Proof:
    """The state of one shard's verification."""

    def __init__(self, storage: Storage, manifest: Manifest, tick: Tick) -> None:
        self.storage, self.manifest, self.tick = storage, manifest, tick
        self.entry: ShardEntry = manifest.shards[0]
        self.remedy = remedy(storage.url, manifest)
        self.found = _Found()

    def run(self) -> _Found:
        entry, found = self.entry, self.found
        index = self._index()
        try:
            size = self.storage.size(entry.tar)
        except (OSError, DataError) as error:
            self._add(entry.tar, f"cannot be read ({getattr(error, 'strerror', None) or error})")
            return found
        if size != entry.bytes:
            self._add(entry.tar, f"has {size} bytes, the manifest says {entry.bytes}", offset=min(size, entry.bytes))
        stream = _Stream(lambda start, stop: self._read(start, stop))
        contents = [] if index is None else list(self._samples(index, stream))
        while stream.take(_CHUNK):
            pass
        found.bytes = stream.at
        if stream.sha256.hexdigest() != entry.sha256:
            self._add(entry.tar, "its sha256 is not the manifest's")
        if index and len(contents) == len(index.keys) and shard_content(contents) != entry.content:
            what = "its keys, images, label pixels or meta differ from those in the manifest's digest"
            self._add(entry.tar, what)
        return found

    def _index(self) -> Index | None:
        try:
            return read_index(self.storage, self.entry, self.manifest, self.remedy)
        except DataError as error:
            what = str(error).removeprefix(f"{self.storage.where(self.entry.index)}: ")
            self._add(self.entry.index, what.removesuffix(f"; {self.remedy}"))
        return None

    def _samples(self, index: Index, stream: "_Stream") -> Iterator[str]:
        """Check the samples one by one; yields their recomputed content hashes."""
        for row, key in enumerate(index.keys):
            start, stop = extent(index, row, self.entry, self.manifest.members)
            span = stream.take(stop - start)
            lost = len(index.keys) - row - 1
            if start + len(span) < min(stop, self.entry.bytes) and (
                lost or start + len(span) <= index.places[row][-1][1]
            ):
                what = f"the file ends inside this sample, the {lost} samples after it are lost"
                return self._add(self.entry.tar, what, key=key, offset=start + len(span))
            for fault in faults(index, row, self.entry, self.manifest.members, span, start):
                self._add(self.entry.tar, fault.what, key=key, member=fault.member, offset=fault.offset)
            members = {name: span[at - start : at - start + size] for name, at, size, _ in index.places[row]}
            content, wrong = self._decoded(key, members, index, row)
            offsets = {member: offset for member, offset, _, _ in index.places[row]}
            for member, what in wrong:
                self._add(self.entry.tar, what, key=key, member=member, offset=offsets[member])
            self.found.keys.append(key)
            self.found.samples += 1
            self.tick(1, len(span))
            yield content
        return None

    def _decoded(self, key: str, found: dict[str, bytes], index: Index, row: int) -> tuple[str, list[tuple[str, str]]]:
        """The content hash of a sample, and what is wrong with it as (member, what)."""
        wrong: list[tuple[str, str]] = []
        label = picture = None
        tags: list[str] = []
        try:
            picture = decode_image(found["image"], verify=True)
            if (kind := image_kind(key, found["image"])) != self.manifest.image:
                wrong.append(("image", f"is a {kind}, the manifest says {self.manifest.image}"))
        except DataError as error:
            wrong.append(("image", str(error)))
        try:
            label = decode_label(found["label"], verify=True) if "label" in found else None
        except DataError as error:
            wrong.append(("label", str(error)))
        try:
            tags, _ = read_meta(key, found["meta"])
        except DataError as error:
            wrong.append(("meta", str(error)))
        if picture is None or (label is None and "label" in found):
            return "", wrong
        try:
            check_pair(picture, label, picture.size, self.manifest)
        except DataError as error:
            wrong.append(("label", str(error)))
        recount: dict[str, Any] = {
            "height": picture.height,
            "width": picture.width,
            "tags": tags,
            "flags": flags(picture, label),
            "content": content(key, found["image"], label, found["meta"]),
            "stats": [] if label is None else statistics(label),
        }
        differ = [name for name, value in recount.items() if index.table[name][row].as_py() != value]
        wrong += [("image", f"column '{name}' of the index differs from a recount") for name in differ]
        return recount["content"], wrong

    def _read(self, start: int, stop: int) -> bytes:
        try:
            return self.storage.read_range(self.entry.tar, start, stop)
        except (OSError, DataError) as error:
            what = f"cannot be read ({getattr(error, 'strerror', None) or error})"
            self._add(self.entry.tar, what, offset=start)
            return b""

    def _add(self, shard: str, what: str, **place: Any) -> None:
        self.found.problems.append(Problem(shard=shard, what=what, remedy=self.remedy, **place))


class _Stream:
    """A file that is read from its start in large pieces, and the sha256 of what was read."""

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self.read = read
        self.sha256 = hashlib.sha256()
        self.at = 0  # bytes taken
        self._buffer, self._used = b"", 0

    def take(self, size: int) -> bytes:
        """The next bytes; fewer at the end of the file."""
        missing = size - (len(self._buffer) - self._used)
        if missing > 0:
            begin = self.at + size - missing
            part = self.read(begin, begin + max(missing, _CHUNK))
            self.sha256.update(part)
            self._buffer, self._used = self._buffer[self._used :] + part, 0
        taken = self._buffer[self._used : self._used + size]
        self._used += len(taken)
        self.at += len(taken)
        return taken
