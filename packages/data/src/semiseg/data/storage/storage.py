"""Read and write files in local folders and at any URL that fsspec knows.

Reads are complete files or ranges. Local files are read with pread on descriptors that each process opens for itself;
remote file systems are opened after a fork, never before it, and requests are retried when the network fails. Files that
are written appear complete or not at all.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from semiseg.data.errors import DataError
from semiseg.data.storage.remote import REQUEST_S, UPLOAD_BYTES_S, Remote, check_url, timed
from semiseg.data.storage.retry import ShortRead, persist, status

PART = 1 << 23  # bytes of a request: what a failure costs to repeat
_OPEN_FILES = 64  # descriptors kept per storage, far below the usual limit of 1,024 per process


class Storage:
    """A folder of files, local or remote (`s3://...`, `https://...`, `memory://...`, `file://...`). Pickles as its URL.

    Remote reads are retried by `retry.persist`; they raise FileNotFoundError, or DataError for anything else. Local reads
    raise OSErrors. DataError for a URL that contains credentials.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.url = str(url).rstrip("/") or "/"
        self.folder = local_path(self.url)  # None where remote
        self._remote = Remote(self.url)
        self._reset()
        if self.folder is None:
            check_url(self.url)

    def where(self, name: str) -> str:
        """The full name of a file, for messages."""
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes:
        """A complete file."""
        if self.folder is not None:
            return (self.folder / name).read_bytes()
        return self.read_range(name, 0, self.size(name))

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes start..stop of a file; fewer where the file ends before `stop`."""
        descriptor = None if self.folder is None else self._local(name)
        parts, at = [], start
        while at < stop:
            if descriptor is None:
                part = self._request(name, at, min(stop, at + PART))
            else:
                part = descriptor.read(stop - at, at)  # one read gives at most 2 GiB
            if not part:
                break
            parts.append(part)
            at += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        if self.folder is not None:
            return (self.folder / name).stat().st_size
        return persist(self.where(name), lambda: self._size(name))

    def modified(self, name: str) -> float:
        """When a file was last written, in seconds; 0 if the store does not tell."""
        if self.folder is not None:
            return (self.folder / name).stat().st_mtime
        system, root = self._remote.open()
        try:
            return system.modified(f"{root}/{name}").timestamp()
        except (NotImplementedError, AttributeError, TypeError, OSError):
            return 0.0

    def exists(self, name: str) -> bool:
        if self.folder is not None:
            return (self.folder / name).exists()
        try:  # fsspec's `exists` treats any failure as an answer
            self.size(name)
        except FileNotFoundError:
            return False
        return True

    def names(self) -> list[str]:
        """Names of everything in the folder, sorted."""
        if self.folder is not None:
            return sorted(path.name for path in self.folder.iterdir())

        def ask() -> list[str]:
            system, root = self._remote.open()
            system.invalidate_cache()
            return [
                path.rstrip("/") for path in system.ls(root, detail=False, **timed(system)) if path.strip("/") != root
            ]

        return sorted({path.rsplit("/", 1)[-1] for path in persist(self.url, ask)})

    def put(self, path: Path, name: str) -> None:
        """Upload a local file atomically; large files are sent in parts (multipart)."""

        def ask() -> None:
            system, root = self._remote.open()
            limit = REQUEST_S + path.stat().st_size / UPLOAD_BYTES_S
            system.put_file(str(path), f"{root}/{name}", **timed(system, limit))

        persist(self.where(name), ask)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small remote file unless there is one; whether that happened. Decided by the store, if it can (S3)."""

        def ask() -> bool:
            system, root = self._remote.open()
            system.invalidate_cache()
            try:
                system.pipe_file(f"{root}/{name}", data, mode="create", **timed(system))
            except Exception as error:
                if isinstance(error, FileExistsError) or status(error) in (409, 412):
                    return False
                if not isinstance(error, TypeError | NotImplementedError) and status(error) not in (400, 405, 501):
                    raise
            else:
                return True
            try:  # a store, or a package, without conditions
                self._size(name)
            except FileNotFoundError:
                system.pipe_file(f"{root}/{name}", data, **timed(system))
                return True
            return False

        return persist(self.where(name), ask)

    def delete(self, name: str) -> None:
        """Remove a remote file if it exists: a first attempt may have removed it without an answer."""
        system, root = self._remote.open()
        with suppress(FileNotFoundError):
            persist(self.where(name), lambda: system.rm_file(f"{root}/{name}", **timed(system)))

    def forget(self, name: str) -> bool:
        """Drop a copy of a file; whether there was one. Never here, see `read.prefetch.Cached`."""
        return False

    def ahead(self, names: Iterable[str]) -> None:
        """Announce files that will be read soon; ignored here, see `read.prefetch.Cached`."""

    def __reduce__(self) -> tuple[type["Storage"], tuple[str]]:
        return Storage, (self.url,)

    def _request(self, name: str, start: int, stop: int) -> bytes:
        """One range read of a remote file."""

        def ask() -> bytes:
            system, root = self._remote.open()
            try:
                data = system.cat_file(f"{root}/{name}", start=start, end=stop, **timed(system))
            except Exception as error:
                if status(error) != 416:
                    raise
                data = b""  # the range starts at or after the file's end
            if len(data) > stop - start:
                raise DataError(
                    f"{self.where(name)}: the server sends {len(data)} bytes instead of the requested {stop - start}: it "
                    "ignores ranges; serve the folder by one that supports them (nginx, any object store), or copy it to disk"
                )
            if len(data) < stop - start and (size := self._size(name)) > start + len(data):
                raise ShortRead(f"{len(data)} bytes from {start}, expected {min(stop, size) - start}")
            return data

        return persist(self.where(name), ask)

    def _size(self, name: str) -> int:
        system, root = self._remote.open()
        system.invalidate_cache()
        size = system.info(f"{root}/{name}", **timed(system))["size"]
        if size is None:
            raise DataError(f"{self.where(name)}: the server does not report its size; use another server")
        return int(size)

    def _reset(self) -> None:
        self._process = os.getpid()
        self._files: OrderedDict[str, Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def _local(self, name: str) -> "Descriptor":
        if self._process != os.getpid():
            self._reset()
        with self._lock:
            if name not in self._files:
                assert self.folder is not None
                self._files[name] = Descriptor(self.folder / name)
                if len(self._files) > _OPEN_FILES:
                    self._files.popitem(last=False)
            self._files.move_to_end(name)
            return self._files[name]


class Descriptor:
    """An open file that closes with its last user: a reader in another thread may outlive its entry in the cache."""

    def __init__(self, path: Path) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._seeking = threading.Lock()

    def read(self, size: int, start: int) -> bytes:
        """Bytes from `start` on, at most `size`; safe for several threads."""
        if hasattr(os, "pread"):
            return os.pread(self.number, size, start)
        with self._seeking:  # Windows has no pread
            os.lseek(self.number, start, os.SEEK_SET)
            return os.read(self.number, size)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


def local_path(url: str | os.PathLike[str]) -> Path | None:
    """The local folder that a URL names, or None for a remote URL."""
    text = str(url)
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    return None if "://" in text else Path(text)
