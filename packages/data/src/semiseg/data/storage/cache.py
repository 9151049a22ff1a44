"""Copies of remote shards on this machine's disk, shared by all its processes and named by their sha256.

    <folder>/<sha256>               a complete file; its time of modification is when it was last opened
    <folder>/.<sha256>.<pid>.tmp    a file being fetched, with its full length from the start, so that it is counted
    <folder>/locks/                 ab: fetching files whose sha256 starts with ab; room: making room

A copy is renamed to its final name after its sha256 was checked. Readers hold a shared lock (flock) on the copies that they
have open; when room is needed, the least recently opened of the others are removed. A lock ends with its process.
"""

import hashlib
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal

from semiseg.data.errors import DataError
from semiseg.data.sizes import parse_size
from semiseg.data.storage.lock import hold, remove_unheld
from semiseg.data.storage.storage import PART, Descriptor

FOLDER, SIZE = "SEMISEG_CACHE", "SEMISEG_CACHE_SIZE"  # of the environment
DEFAULT_SIZE = "50GB"
_SPARE = 0.05  # of the disk that copies never take
_OWN = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\.\d+\.tmp")  # names of the files that the cache may remove

log = logging.getLogger("semiseg.data")


def cache() -> "Cache | None":
    """The cache that the environment names, or the default one; None if it is switched off (SEMISEG_CACHE=off).

    DataError for invalid settings. If the default folder cannot be created, shards are read in ranges, without a cache.
    """
    named = os.environ.get(FOLDER, "").strip()
    if named.lower() in ("off", "0", "none"):
        return None
    size = os.environ.get(SIZE, "").strip() or DEFAULT_SIZE
    try:
        limit = parse_size(size)
    except DataError as error:
        raise DataError(f"{SIZE} is {size!r}: write it as 50GB, 512MiB or a number of bytes") from error
    folder = Path(named).expanduser() if named else _users_folder() / "semiseg" / "shards"
    try:
        (folder / "locks").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if named:
            what = f"{FOLDER}: {folder} cannot be created ({error.strerror})"
            raise DataError(f"{what}; name another folder, or 'off' to read without a cache") from error
        log.warning(
            "shards are not cached: %s cannot be created (%s); set %s to another folder", folder, error.strerror, FOLDER
        )
        return None
    return Cache(folder, limit)


class Cache:
    """Complete files in `folder`, of at most `limit` bytes in total. Safe for many processes and threads."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def open(self, sha256: str, size: int) -> Descriptor | None:
        """A copy to read, which is not removed while the descriptor is alive; None if there is no copy."""
        path = self.folder / sha256
        try:
            copy = Descriptor(path)
        except OSError:
            return None
        if not hold(copy.number, shared=True):
            return None  # it is being removed
        found = os.fstat(copy.number)
        if found.st_nlink == 0 or found.st_size != size:
            return None
        with suppress(OSError):
            os.utime(path)
        return copy

    def has(self, sha256: str) -> bool:
        """Whether there is a copy."""
        return (self.folder / sha256).exists()

    def fetch(self, sha256: str, size: int, read: Callable[[int, int], bytes]) -> Literal["kept", "busy", "full"]:
        """Fetch a copy by `read(start, stop)`, if there is none yet.

        "busy" if another process is fetching it, "full" if there is no room. Raises OSError for a disk that is full or
        can't be written, DataError if the bytes have another sha256.
        """
        path = self.folder / sha256
        with self._locked(sha256[:2], wait=False) as mine:
            if not mine:
                return "busy"
            if path.exists():
                return "kept"
            with self._room(sha256, size) as file:
                if file is None:
                    return "full"
                digest = hashlib.sha256()
                for start in range(0, size, PART):
                    part = read(start, min(size, start + PART))
                    digest.update(part)
                    file.write(part)
                if digest.hexdigest() != sha256:
                    raise DataError(f"its bytes have sha256 {digest.hexdigest()}, the manifest says {sha256}")
                file.flush()
                os.fsync(file.fileno())
                with self._locked("room", wait=True):  # nobody removes the closed file as a leftover
                    file.close()  # Windows renames closed files only
                    os.replace(file.name, path)  # noqa: PTH105 (as in storage.atomic)
        return "kept"

    def drop(self, sha256: str) -> None:
        """Remove a copy, even if it is being read."""
        (self.folder / sha256).unlink(missing_ok=True)

    @contextmanager
    def _room(self, sha256: str, size: int) -> Iterator[BinaryIO | None]:
        """A temp file of that size, removed afterwards; None if the files in use leave too little room."""
        temp = self.folder / f".{sha256}.{os.getpid()}.tmp"
        with self._locked("room", wait=True):
            if not self._make_room(size):
                yield None
                return
            file = temp.open("wb")
            hold(file.fileno())  # unheld temp files are those of killed processes
            file.truncate(size)
        try:
            yield file
        finally:
            file.close()
            temp.unlink(missing_ok=True)

    def _make_room(self, size: int) -> bool:
        """Remove leftovers, then the least recently opened copies, until `size` more bytes fit; whether they do.

        They must fit within the limit and leave a part of the disk free for other files, such as checkpoints.
        """
        files: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            if not _OWN.fullmatch(path.name):
                continue  # not a file of the cache
            with suppress(OSError):
                if not (path.name.startswith(".") and remove_unheld(path)):
                    found = path.stat()
                    files.append((found.st_mtime, found.st_size, path))
        disk = shutil.disk_usage(self.folder)
        room = min(self.limit - sum(length for _, length, _ in files), disk.free - int(_SPARE * disk.total)) - size
        for _, length, path in sorted(files):
            if room >= 0:
                break
            if not path.name.startswith(".") and remove_unheld(path):
                room += length
        return room >= 0

    @contextmanager
    def _locked(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Hold one of the cache's locks; yields whether it is held."""
        lock = os.open(self.folder / "locks" / name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield hold(lock, wait=wait)
        finally:
            os.close(lock)


def _users_folder() -> Path:
    """The system's folder for this user's caches."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
