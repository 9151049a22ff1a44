"""Where bytes come from and go to: any fsspec URL for reading, local folders for writing.

Reads are whole files or ranges. Local files are read with pread on descriptors that each process opens for itself;
remote file systems are opened after a fork, never before it. Writes appear whole or not at all.
"""

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from semiseg.data.errors import DataError

_OPEN_FILES = 64  # descriptors kept a storage: far below the usual limit of 1,024 a process


class Storage:
    """A folder of shards, local or remote (`memory://...`, `s3://...`, `file://...`). Pickles as its URL alone."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.url = str(url).rstrip("/") or "/"
        self.folder = local_path(self.url)  # None where remote
        self._reset()

    def where(self, name: str) -> str:
        """The full name of a file, for messages."""
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes:
        """A whole file. Raises FileNotFoundError and other OSErrors."""
        if self.folder is not None:
            return (self.folder / name).read_bytes()
        system, root = self._remote()
        return system.cat_file(f"{root}/{name}")

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes start..stop of a file; fewer where the file ends before `stop`."""
        if self.folder is None:
            system, root = self._remote()
            return system.cat_file(f"{root}/{name}", start=start, end=stop)
        file = self._local(name)
        parts, at = [], start
        while at < stop and (part := os.pread(file.descriptor, stop - at, at)):  # one read gives at most 2 GiB
            parts.append(part)
            at += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        if self.folder is not None:
            return (self.folder / name).stat().st_size
        system, root = self._remote()
        return int(system.size(f"{root}/{name}") or 0)

    def exists(self, name: str) -> bool:
        if self.folder is not None:
            return (self.folder / name).exists()
        system, root = self._remote()
        return bool(system.exists(f"{root}/{name}"))

    def names(self) -> list[str]:
        """Names of all that lies in the folder, sorted."""
        if self.folder is not None:
            return sorted(path.name for path in self.folder.iterdir())
        system, root = self._remote()
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in system.ls(root, detail=False))

    def __reduce__(self) -> tuple[type["Storage"], tuple[str]]:
        return Storage, (self.url,)

    def _reset(self) -> None:
        self._process = os.getpid()
        self._files: OrderedDict[str, _Descriptor] = OrderedDict()
        self._system: tuple[Any, str] | None = None
        self._lock = threading.Lock()

    def _local(self, name: str) -> "_Descriptor":
        if self._process != os.getpid():
            self._reset()
        with self._lock:
            if name not in self._files:
                assert self.folder is not None
                self._files[name] = _Descriptor(self.folder / name)
                if len(self._files) > _OPEN_FILES:
                    self._files.popitem(last=False)
            self._files.move_to_end(name)
            return self._files[name]

    def _remote(self) -> tuple[Any, str]:
        if self._process != os.getpid():
            self._reset()
        if self._system is None:
            import fsspec

            try:
                system, root = fsspec.core.url_to_fs(self.url)
            except (ImportError, ValueError) as error:
                raise DataError(f"{self.url}: cannot be opened ({error}); install what fsspec asks for") from error
            self._system = system, root.rstrip("/")
        return self._system


class _Descriptor:
    """An open file that closes with its last user: a reader in another thread may outlive its place in the cache."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def local_path(url: str | os.PathLike[str]) -> Path | None:
    """The folder that a URL names on this machine, or None for a remote one."""
    text = str(url)
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    return None if "://" in text else Path(text)


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears under its name whole or not at all.

    A temp name in the same folder, fsync, rename, fsync of the folder.
    DataError for a full disk or a folder that can't be written; the temp file is removed.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}{TEMP}")
    try:
        with temp.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)  # noqa: PTH105 (the pair fsync and replace reads best as what it is)
        _sync_folder(path.parent)
    except OSError as error:
        raise unwritable(error, path) from error
    finally:
        with suppress(OSError):
            temp.unlink()


TEMP = ".tmp"


def remove_stale(folder: Path) -> None:
    """Remove the temp files that a killed writer left."""
    for path in stale(folder):
        with suppress(FileNotFoundError):
            path.unlink()


def stale(folder: Path) -> Iterator[Path]:
    """Temp files: of a writer that is at work, or was killed."""
    return folder.glob(f".*{TEMP}")


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder against a second writer, which would take our temp files for leftovers; a kill lets go of it."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise unwritable(error, folder) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise DataError(f"{folder}: another process is writing here; wait for it to end") from error
    except OSError:
        pass  # a network file system without locks
    try:
        yield
    finally:
        os.close(descriptor)


def check_place(folder: Path) -> None:
    """DataError where a file is in the place of the folder, or of one above it."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), None)
    if there is not None and not there.is_dir():
        code = errno.EEXIST if there == folder else errno.ENOTDIR
        raise unwritable(OSError(code, os.strerror(code)), folder)


def unwritable(error: OSError, path: Path) -> DataError:
    """What to tell of a failed write."""
    remedies = {
        errno.ENOSPC: "the disk is full; free some space or name another folder, then run the same command again",
        errno.EDQUOT: "your disk quota is used up; free some space, then run the same command again",
        errno.ENOENT: "the folder does not exist; create it, or name another",
        errno.EROFS: "the file system is read-only; name another folder",
        errno.EACCES: "no permission to write there; name another folder or change its owner",
        errno.EPERM: "no permission to write there; name another folder or change its owner",
        errno.ENOTDIR: "a part of the path is a file, not a folder; name another folder",
        errno.EEXIST: "a file is in the place of the folder; name another folder",
        errno.EFBIG: "the file is larger than the file system allows; ask for smaller shards",
    }
    remedy = remedies.get(error.errno or 0, "check the folder and the disk, then run the same command again")
    return DataError(f"{path}: cannot be written ({error.strerror or error}): {remedy}")


def _sync_folder(folder: Path) -> None:
    """Make the rename survive a power cut, where the system lets a folder be synced."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # some network file systems don't sync folders
            raise
    finally:
        os.close(descriptor)
