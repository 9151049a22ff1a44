"""Copies of remote shards on this machine's disk, shared by all its processes, named by what they hold.

    <folder>/<sha256>          a whole file of that sha256; its time of modification is that of its last opening
    <folder>/.<sha256>.<pid>.tmp    one that is being fetched, at its full length from the start, so that it is counted
    <folder>/locks/            ab: fetching files whose sha256 starts with ab; room: making room

A copy appears under its name by a rename, after its sha256 was checked. Readers hold a shared lock (flock) on the copies
that they have open, and the oldest of the others go when room is needed; locks go with their process, however it ends.
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
from typing import Literal

from semiseg.data.errors import DataError
from semiseg.data.storage.lock import hold, remove_unheld
from semiseg.data.storage.storage import PART, Descriptor

FOLDER, SIZE = "SEMISEG_CACHE", "SEMISEG_CACHE_SIZE"  # of the environment
DEFAULT_SIZE = "50GB"
_SPARE = 0.05  # of the disk that copies never take
_OWN = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\.\d+\.tmp")  # names of files that are ours to remove

log = logging.getLogger("semiseg.data")


def cache() -> "Cache | None":
    """The cache that the environment names, or the default one; None where it is switched off (SEMISEG_CACHE=off).

    DataError for settings that make no sense. A default folder that cannot be made is no error: shards are then read in
    ranges.
    """
    from semiseg.data.sizes import parse_size

    told = os.environ.get(FOLDER, "").strip()
    if told.lower() in ("off", "0", "none"):
        return None
    size = os.environ.get(SIZE, "").strip() or DEFAULT_SIZE
    try:
        limit = parse_size(size)
    except DataError as error:
        raise DataError(f"{SIZE} is {size!r}: write it as 50GB, 512MiB or a number of bytes") from error
    folder = Path(told).expanduser() if told else _users_folder() / "semiseg" / "shards"
    try:
        (folder / "locks").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if told:
            what = f"{FOLDER}: {folder} cannot be made ({error.strerror})"
            raise DataError(f"{what}; name another folder, or 'off' to read without a cache") from error
        log.warning("no cache of shards: %s cannot be made (%s); set %s", folder, error.strerror, FOLDER)
        return None
    return Cache(folder, limit)


class Cache:
    """Whole files below `folder`, of at most `limit` bytes together. Safe for many processes and threads."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def open(self, sha256: str, size: int) -> Descriptor | None:
        """A copy to read, which is not removed while the descriptor is alive; None where there is none."""
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

        "busy" where another process is at it, "full" where there is no room. Raises OSError for a disk that is full or
        can't be written, DataError where the bytes are not of that sha256.
        """
        path = self.folder / sha256
        with self._locked(sha256[:2], wait=False) as mine:
            if not mine:
                return "busy"
            if path.exists():
                return "kept"
            with self._room(sha256, size) as temp:
                if temp is None:
                    return "full"
                digest = hashlib.sha256()
                with temp.open("r+b") as file:
                    for start in range(0, size, PART):
                        part = read(start, min(size, start + PART))
                        digest.update(part)
                        file.write(part)
                    if digest.hexdigest() != sha256:
                        raise DataError(f"its bytes have sha256 {digest.hexdigest()}, the manifest says {sha256}")
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temp, path)  # noqa: PTH105 (as in storage.atomic)
        return "kept"

    def drop(self, sha256: str) -> None:
        """Remove a copy, whoever reads it."""
        (self.folder / sha256).unlink(missing_ok=True)

    @contextmanager
    def _room(self, sha256: str, size: int) -> Iterator[Path | None]:
        """A temp file of that size, or None where others that are in use leave too little room. It is gone afterwards."""
        temp = self.folder / f".{sha256}.{os.getpid()}.tmp"
        with self._locked("room", wait=True):
            if not self._make_room(size):
                yield None
                return
            file = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            hold(file, shared=False)  # while it is alive: what is not locked is of a process that was killed
            os.truncate(file, size)
        try:
            yield temp
        finally:
            temp.unlink(missing_ok=True)
            os.close(file)

    def _make_room(self, size: int) -> bool:
        """Remove leftovers, then the copies that were opened longest ago, until `size` more bytes fit.

        They fit below the limit, and leave a part of the disk to others: checkpoints, for one.
        """
        files: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            if not _OWN.fullmatch(path.name):
                continue  # somebody's folder, of somebody's files
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
        """Hold one of the cache's locks; whether it is held."""
        lock = os.open(self.folder / "locks" / name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield hold(lock, shared=False, wait=wait)
        finally:
            os.close(lock)


def _users_folder() -> Path:
    """Where this user's programs keep what can be fetched again."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
