"""List and read the members of an archive without unpacking it: zip, tar, compressed tar.

Archives are not trusted: members that are not regular files below the archive's root are refused by name, nothing is
ever written, and what is unpacked into memory is bounded, whatever the archive says about sizes.
"""

import bz2
import copy
import functools
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from semiseg.data.errors import DataError
from semiseg.data.source.hidden import hidden
from semiseg.data.source.unpack import is_bomb, too_large, unpacked

LARGEST = 1 << 30  # bytes of a member that is read; SUN RGB-D's labels, the largest known file, are 0.7e9
KEPT = 256 << 20  # bytes of skipped members that a process keeps per compressed tar
CURSORS = 4  # simultaneous passes of a process through a compressed tar
_HEADER = 1 << 20  # bytes of a tar's header; names and attributes take a few hundred
_KINDS = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
_OPEN = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, KeyError,
    ArithmeticError, MemoryError, RuntimeError,  # offsets beyond 64 bits; sizes of petabytes; unknown methods, recursion
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file in an archive. `place`: its data's offset in a tar, its number among a compressed tar's members."""

    name: str  # as in the archive
    size: int
    place: int


@dataclass(frozen=True)
class Listing:
    """Regular files by clean relative name, sorted by name; and why the other members are refused."""

    entries: dict[str, Entry]
    refused: dict[str, str]

    @cached_property
    def names(self) -> list[str]:
        return list(self.entries)


def kind_of(path: Path) -> str:
    """ "zip", "tar", "gz", "bz2" or "xz" by the first bytes; DataError for a file that is none of these."""
    with _damage(path), path.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    for magic, kind in _KINDS.items():
        if head.startswith(magic):
            return kind
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        what = f"starts with {head[:8]!r}" if head else "is empty"
        raise DataError(f"{path} {what}: it is not a folder, zip or tar (plain, gz, bz2, xz); get it again") from error
    return "tar"


def listing(path: Path, kind: str) -> Listing:
    """All members of an archive; listed once as long as the file stays the same. DataError if it is damaged."""
    with _damage(path):
        state = path.stat()
        return _listing(str(path), kind, state.st_mtime_ns, state.st_size)


def read(path: str, kind: str, entry: Entry) -> bytes:
    """A member's bytes; `functools.partial` of this can be pickled. DataError names archive and member.

    Zips are opened once per process, a tar is read by offset. A compressed tar is read in passes: see `_Passes`.
    """
    if entry.size > LARGEST:
        raise DataError(
            f"{path}: {entry.name} has {entry.size:,} bytes; members have at most {LARGEST:,}: unpack the archive"
        )
    with _damage(path, entry.name):
        if kind == "tar":
            with Path(path).open("rb") as file:
                file.seek(entry.place)
                data = file.read(entry.size)
        else:
            state = Path(path).stat()
            holder = _zip if kind == "zip" else _passes
            # A handle from before a fork shares its position with the parent, so each process opens its own.
            data = holder(path, kind, state.st_mtime_ns, state.st_size, os.getpid()).read(entry)
        if len(data) != entry.size:
            raise EOFError(f"{len(data):,} bytes instead of {entry.size:,}")
    return data


@functools.lru_cache(maxsize=16)
def _listing(path: str, kind: str, modified: int, size: int) -> Listing:
    members = _zip_members(path) if kind == "zip" else _tar_members(path, kind)
    entries: dict[str, Entry] = {}
    refused: dict[str, str] = {}
    for entry, fault in members:
        name, stray = _clean(entry.name)
        if hidden(name):
            continue
        if fault or stray:
            refused[entry.name if stray else name] = stray or fault
            entries.pop(name, None)  # unpacking would replace an earlier file with it
        else:
            entries[name] = entry  # of several with one name, unpacking would leave the last
    return Listing(dict(sorted(entries.items())), refused)


def _clean(name: str) -> tuple[str, str]:
    """A member's relative posix name, and why it is refused, or ""."""
    posix = name.replace("\\", "/")
    parts = [part for part in posix.split("/") if part not in ("", ".")]
    fault = ""
    if posix.startswith("/"):
        fault = "an absolute name"
    elif re.match("[A-Za-z]:", posix):
        fault = "a name with a drive letter"
    elif ".." in parts:
        fault = "a name that climbs out of the archive"
    elif not parts or not posix.isprintable():
        fault = "an empty name" if not parts else "a name with unprintable characters"
    return "/".join(parts), fault


def _zip_members(path: str) -> Iterator[tuple[Entry, str]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir() or kind == stat.S_IFDIR:
                continue
            fault = "encrypted" if info.flag_bits & 1 else ""
            if is_bomb(info.file_size, info.compress_size):
                fault = f"packed {info.file_size // max(info.compress_size, 1):,}-fold, to {info.file_size:,} bytes"
            if kind not in (0, stat.S_IFREG):
                fault = "a symbolic link" if kind == stat.S_IFLNK else "a device"
            yield Entry(info.filename, info.file_size, info.header_offset), fault


def _tar_members(path: str, kind: str) -> Iterator[tuple[Entry, str]]:
    packed = Path(path).stat().st_size
    with _members(path, kind) as (file, members):
        for number, info in enumerate(members):
            if kind != "tar" and is_bomb(info.offset_data + info.size, packed):
                raise too_large(info.offset_data + info.size, packed)
            if info.isdir():
                continue
            fault = ""
            if info.issym() or info.islnk():
                fault = f"a {'symbolic' if info.issym() else 'hard'} link to {info.linkname}"
            elif not info.isreg() or info.issparse():
                fault = "a sparse file" if info.isreg() else "a device"
            yield Entry(info.name, info.size, info.offset_data if kind == "tar" else number), fault
        while kind != "tar" and file.read(1 << 20):  # up to the end, where the checksum is
            if is_bomb(file.tell(), packed):
                raise too_large(file.tell(), packed)


@contextmanager
def _members(path: str, kind: str) -> Iterator[tuple[Any, Iterator[tarfile.TarInfo]]]:
    """The (uncompressed) file and the members of a tar, in one forward pass."""
    with _OPEN.get(kind, open)(path, "rb") as file:
        yield file, _forward(path, file)


def _forward(path: str, file: Any) -> Iterator[tarfile.TarInfo]:
    watched = _Watched(file)
    with tarfile.open(fileobj=watched, mode="r:") as tar:  # type: ignore[call-overload]
        while (info := tar.next()) is not None:
            if not 0 <= info.size < 1 << 50:
                raise tarfile.ReadError(f"a member of {info.size} bytes")
            yield info
            tar.members.clear()  # tarfile would keep all of them
    # tarfile treats a missing or broken header as the end.
    if watched.last != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it ends without an end-of-archive block")


class _Watched:
    """A file that remembers the last block that was read."""

    def __init__(self, file: Any) -> None:
        self.file, self.last = file, b""
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self.last = self.file.read(size)
        return self.last


class _Zip:
    """A zip that stays open; safe for threads, by zipfile's lock."""

    def __init__(self, path: str) -> None:
        self.archive = zipfile.ZipFile(path)
        self.size = Path(path).stat().st_size

    def read(self, entry: Entry) -> bytes:
        info = self.archive.getinfo(entry.name)
        if info.compress_size > self.size:
            raise EOFError(f"{info.compress_size:,} packed bytes in an archive of {self.size:,}")
        stored = copy.copy(info)
        stored.compress_type, stored.file_size = zipfile.ZIP_STORED, info.compress_size
        stored.CRC = None  # type: ignore[assignment]  # of the packed bytes, which is unknown
        with self.archive.open(stored) as file:
            packed = file.read(info.compress_size)
        # zipfile would unpack all that is there, also where the archive says that it is less.
        data = unpacked(packed, info.compress_type, info.file_size)
        if zlib.crc32(data) != info.CRC:
            raise zipfile.BadZipFile("its checksum differs")
        return data


class _Passes:
    """Random access to a compressed tar, which can only be read forward.

    There are up to CURSORS passes at a time, so that images and masks from two folders of the archive can be read in turn.
    A pass keeps the members that it skips in the folder of the requested one, up to KEPT bytes, dropping the oldest first:
    a folder of masks can be read in any order in one pass. Any other member behind the passes costs a new pass.
    """

    def __init__(self, path: str, kind: str) -> None:
        self.path, self.kind = path, kind
        self.lock = threading.Lock()
        self.cursors: list[_Cursor] = []  # the last one is the most recently used
        self.kept: OrderedDict[int, bytes] = OrderedDict()
        self.bytes = 0
        self.started = 0

    def read(self, entry: Entry) -> bytes:
        with self.lock:
            if entry.place in self.kept:
                self.kept.move_to_end(entry.place)
                return self.kept[entry.place]
            before = (cursor for cursor in self.cursors if cursor.number <= entry.place)
            cursor = max(before, key=lambda cursor: cursor.number, default=None)
            if cursor is None:
                cursor = _Cursor(self.path, self.kind)
                self.started += 1
            else:
                self.cursors.remove(cursor)
            folder = entry.name.rpartition("/")[0]
            for number, info in cursor:
                wanted = number == entry.place
                neighbour = info.isreg() and info.size <= KEPT // 8 and info.name.rpartition("/")[0] == folder
                if (wanted or neighbour) and number not in self.kept:
                    self._keep(number, cursor.data(info))
                if wanted:
                    self.cursors = [*self.cursors[1 - CURSORS :], cursor]  # a failed one is not put back
                    return self.kept[number]
        raise EOFError("the archive ends before it")

    def _keep(self, number: int, data: bytes) -> None:
        self.kept[number] = data
        self.bytes += len(data)
        while self.bytes > KEPT and len(self.kept) > 1:
            self.bytes -= len(self.kept.popitem(last=False)[1])


class _Cursor:
    """One pass through a compressed tar; `number` counts the members that it has passed."""

    def __init__(self, path: str, kind: str) -> None:
        self.number = 0
        self._pass = _members(path, kind)
        self._file, self._members = self._pass.__enter__()

    def __iter__(self) -> "Iterator[tuple[int, tarfile.TarInfo]]":
        for info in self._members:
            self.number += 1
            yield self.number - 1, info

    def data(self, info: tarfile.TarInfo) -> bytes:
        self._file.seek(info.offset_data)
        return self._file.read(info.size)


@functools.lru_cache(maxsize=8)
def _zip(path: str, kind: str, modified: int, size: int, process: int) -> _Zip:
    return _Zip(path)


@functools.lru_cache(maxsize=4)
def _passes(path: str, kind: str, modified: int, size: int, process: int) -> _Passes:
    return _Passes(path, kind)


@contextmanager
def _damage(path: str | Path, member: str = "") -> Iterator[None]:
    """Report errors in the block as damage of the archive."""
    try:
        yield
    except _BROKEN as error:
        where = f"{path}: {member}" if member else str(path)
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{where} can't be read ({error.strerror})") from error
        what = str(error) or type(error).__name__
        raise DataError(f"{where} can't be read ({what}); the file is cut off or damaged: get it again") from error
