"""Where shards are written: a local folder, or an object store with the methods of pathlib that the writer uses.

Folders of an object store are prefixes of names: they exist if they contain something, and are never created or removed.
"""

import errno
import io
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

from semiseg.data.errors import DataError, unwritable
from semiseg.data.storage.lock import hold, remove_unheld
from semiseg.data.storage.remote import check_url
from semiseg.data.storage.storage import PART, Storage, local_path


class RemotePath:
    """A file or folder of a remote file system, with methods of `pathlib.Path`. Equal if the URLs are."""

    parents: tuple["RemotePath", ...] = ()

    def __init__(self, url: str) -> None:
        check_url(url)
        self.url = url.rstrip("/")
        folder, _, self.name = self.url.rpartition("/")
        self._storage = Storage(folder)

    @property
    def parent(self) -> "RemotePath":
        return RemotePath(self._storage.url)

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(f"{self.url}/{name}")

    def with_name(self, name: str) -> "RemotePath":
        return self.parent / name

    def absolute(self) -> "RemotePath":
        return self

    def exists(self) -> bool:
        return self._storage.exists(self.name)

    def stat(self) -> Any:
        """An object with `st_size`."""
        return SimpleNamespace(st_size=self._storage.size(self.name))

    def modified(self) -> float:
        """When the file was last written, in seconds; 0 if the store does not tell."""
        return self._storage.modified(self.name)

    def created(self, data: bytes) -> bool:
        """Write the file unless there is one; whether that happened."""
        return self._storage.create(self.name, data)

    def read_bytes(self) -> bytes:
        return self._storage.read(self.name)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open the file for reading from its start; other modes are not supported."""
        assert mode == "rb"
        return cast(BinaryIO, io.BufferedReader(_Reader(self._storage, self.name), PART))

    @contextmanager
    def uploaded(self) -> Iterator[BinaryIO]:
        """A local temp file that is uploaded under this name when the block ends, and discarded if it fails."""
        _remove_leftovers()
        descriptor, name = tempfile.mkstemp(prefix=_TEMP)  # NamedTemporaryFile can't be opened again on Windows
        temp = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                hold(descriptor)
                try:
                    yield file
                    file.flush()
                except OSError as error:
                    raise unwritable(error, temp) from error
                self._storage.put(temp, self.name)
        finally:
            temp.unlink(missing_ok=True)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file; a missing file is not an error, as in most stores."""
        self._storage.delete(self.name)

    def iterdir(self) -> Iterator["RemotePath"]:
        return (self / name for name in Storage(self.url).names())

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """Matching files directly in the folder; none if it does not exist."""
        try:
            names = Storage(self.url).names()
        except FileNotFoundError:
            names = []
        return (self / name for name in names if fnmatchcase(name, pattern))

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a folder appears with its first file."""

    def rmdir(self) -> None:
        """Do nothing: a folder disappears with its last file."""

    def __str__(self) -> str:
        return self.url

    __repr__ = __fspath__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)


_TEMP, _YOUNG_S = "semiseg-upload-", 60.0


def _remove_leftovers() -> None:
    """Remove the temp files that killed writers left on this machine."""
    for path in Path(tempfile.gettempdir()).glob(f"{_TEMP}*"):
        with suppress(OSError):  # another user's
            if path.stat().st_mtime < time.time() - _YOUNG_S:  # younger ones may not be held yet
                remove_unheld(path)


class _Reader(io.RawIOBase):
    """A remote file from start to end, in range reads that are retried one by one."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name, self._at = storage, name, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._storage.read_range(self._name, self._at, self._at + len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def target(to: str | os.PathLike[str]) -> Path:
    """A folder to write to; for a remote one a `RemotePath`, which has all methods of Path that the writer needs.

    DataError for a web server.
    """
    folder = local_path(to)
    if folder is not None:
        return folder
    if str(to).startswith(("http://", "https://")):
        raise DataError(
            f"{to}: web servers can only be read from; write to a folder or an object store (s3://bucket/shards)"
        )
    return cast(Path, RemotePath(str(to)))


def check_target(folder: "Path | RemotePath") -> None:
    """DataError if the folder, or one above it, is a file."""
    if not isinstance(folder, Path):
        return
    there = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if there is not None and not there.is_dir():
        code = errno.EEXIST if there == folder else errno.ENOTDIR
        raise unwritable(OSError(code, os.strerror(code)), folder)
