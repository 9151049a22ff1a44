"""Read a remote shard set through copies on this machine, which are fetched ahead of the reader.

Reading never waits for a complete shard: what is not cached yet is read in ranges, while a thread fetches the shards that
come next in the order of training. So the cache affects how fast samples are read, but never which ones.
"""

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from semiseg.data.errors import DataError
from semiseg.data.format.index import Index
from semiseg.data.format.manifest import Manifest, ShardEntry, sha256
from semiseg.data.format.proof import index_fault
from semiseg.data.storage.cache import Cache, cache
from semiseg.data.storage.retry import say
from semiseg.data.storage.storage import Descriptor, Storage

_OPEN_COPIES = 16  # that a reader protects from removal: a window of shards and the next one

log = logging.getLogger("semiseg.data")


def cached(storage: Storage, entries: Sequence[ShardEntry]) -> "Files":
    """The set's files through the cache; the storage itself if they are local or the cache is switched off."""
    found = cache() if storage.folder is None else None
    return storage if found is None else Cached(storage, entries, found)


class Cached:
    """The reading methods of `Storage`, for the files of a manifest. Pickles without handles and threads."""

    def __init__(self, storage: Storage, entries: Sequence[ShardEntry], copies: Cache) -> None:
        self.storage, self.entries, self.copies = storage, entries, copies
        self._known = {entry.tar: (entry.sha256, entry.bytes) for entry in entries}
        self._known |= {entry.index: (entry.index_sha256, entry.index_bytes) for entry in entries}
        self._reset()

    def where(self, name: str) -> str:
        """As `Storage.where`."""
        return self.storage.where(name)

    def read(self, name: str) -> bytes:
        """A complete file. If it is not cached yet, it is fetched, and kept if its sha256 is the manifest's."""
        expected, size = self._known[name]
        if (copy := self.copies.open(expected, size)) is not None:
            data = copy.read(size, 0)
            if sha256(data) == expected:
                return data
            self._drop(name)
        data = self.storage.read_range(name, 0, size)
        if sha256(data) == expected:
            try:
                self.copies.fetch(expected, size, lambda start, stop: data[start:stop])
            except OSError as error:
                log.warning("%s: not cached in %s (%s)", self.where(name), self.copies.folder, say(error))
        return data

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes start..stop of a file; fewer where the file ends before `stop`."""
        if (copy := self._copy(name)) is not None:
            try:
                return copy.read(stop - start, start)
            except OSError:  # a failing disk, or a network file system where another machine removed the file
                self.forget(name)
        return self.storage.read_range(name, start, stop)

    def forget(self, name: str) -> bool:
        """Drop a file's copy, which turned out to be damaged; whether there was one."""
        with self._ours():
            there = self._open.pop(name, None) is not None
        if there:
            self._drop(name)
        return there

    def ahead(self, names: Iterable[str]) -> None:
        """Fetch these files in the background, in this order; replaces earlier requests.

        A failure is logged; reading the file raises it if it still fails then.
        """
        with self._ours():
            self._wanted = [
                name for name in names if name not in self._failed and not self.copies.has(self._known[name][0])
            ]
            if self._wanted and not self._working:
                self._working = True
                threading.Thread(target=self._work, name="semiseg-ahead", daemon=True).start()

    def __reduce__(self) -> tuple[Any, ...]:
        return Cached, (self.storage, self.entries, self.copies)

    def _reset(self) -> None:
        """The state of a new or forked process: no descriptors, no thread, no lock that a thread held."""
        self._process = os.getpid()
        self._open: OrderedDict[str, Descriptor] = OrderedDict()
        self._lock = threading.Lock()
        self._wanted: list[str] = []
        self._failed: set[str] = set()
        self._working = False

    def _ours(self) -> threading.Lock:
        """The lock of this process."""
        if self._process != os.getpid():
            self._reset()
        return self._lock

    def _copy(self, name: str) -> Descriptor | None:
        with self._ours():
            copy = self._open.get(name) or self.copies.open(*self._known[name])
            if copy is not None:
                self._open[name] = copy
                self._open.move_to_end(name)
                if len(self._open) > _OPEN_COPIES:
                    self._open.popitem(last=False)
            return copy

    def _drop(self, name: str) -> None:
        log.warning("%s: its copy in %s is damaged; it is read again", self.where(name), self.copies.folder)
        self.copies.drop(self._known[name][0])

    def _work(self) -> None:
        """The thread: fetch until nothing is wanted."""
        while True:
            with self._lock:
                if not self._wanted:
                    self._working = False
                    return
                name = self._wanted.pop(0)
            if not self._fetch(name):
                with self._lock:
                    self._wanted = []  # no room for this one, so none for later ones

    def _fetch(self, name: str) -> bool:
        """Fetch a file; False if there is no room for it."""
        expected, size = self._known[name]
        try:
            return self.copies.fetch(expected, size, partial(self.storage.read_range, name)) != "full"
        except Exception as error:
            log.warning("%s: not fetched ahead (%s); it is read in ranges", self.where(name), say(error))
            self._failed.add(name)
            return not isinstance(error, OSError) or isinstance(error, FileNotFoundError)  # else the disk is full


Files = Storage | Cached
"""What a shard set reads through."""


def read_index(storage: "Files", entry: ShardEntry, manifest: Manifest, remedy: str) -> Index:
    """A shard's index, checked against the manifest: its sha256, and whether its values can be true of this set."""
    where = storage.where(entry.index)
    try:
        data = storage.read(entry.index)
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror or error}); {remedy}") from error
    if sha256(data) != entry.index_sha256:
        raise DataError(f"{where}: its {len(data)} bytes do not match the manifest (sha256 differs); {remedy}")
    try:
        index = Index(data)
        fault = index_fault(index, entry, manifest)
    except Exception as error:  # its checksum is right, so it was written like this; pyarrow raises many types
        raise DataError(f"{where}: is not an index ({type(error).__name__}: {error}); {remedy}") from error
    if fault is not None:
        raise DataError(f"{where}: {fault}; {remedy}")
    return index
