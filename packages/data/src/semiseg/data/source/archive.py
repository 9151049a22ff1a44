"""What an archive holds and its members' bytes, without unpacking anything: zip, tar, compressed tar.

Names and kinds of members come from strangers: what is no plain file below the archive's own root is refused by name,
and nothing is ever written.
"""

import bz2
import functools
import gzip
import lzma
import os
import re
import stat
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

LARGEST = 1 << 30  # bytes of a member that is read whole; SUN RGB-D's labels, the largest known file, are 0.7e9
KEPT = 256 << 20  # bytes of passed-over members that a process keeps of each compressed tar
CURSORS = 4  # passes through a compressed tar that a process has under way at once
_KINDS = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
_OPEN = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file in an archive. `place`: its data's offset in a tar, its number among a compressed tar's members."""

    name: str  # as the archive spells it
    size: int
    place: int


@dataclass(frozen=True)
class Listing:
    """Regular files by clean relative name, in the order of names; and why each of the other members is refused."""

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
        raise DataError(f"{path} {what}: it is no folder, zip or tar (plain, gz, bz2, xz); get it anew") from error
    return "tar"


def listing(path: Path, kind: str) -> Listing:
    """All members of an archive; looked up once as long as the file stays the same. DataError where it is damaged."""
    with _damage(path):
        state = path.stat()
        return _listing(str(path), kind, state.st_mtime_ns, state.st_size)


def read(path: str, kind: str, entry: Entry) -> bytes:
    """A member's bytes; `functools.partial` of this travels to other processes. DataError names archive and member.

    Zip handles are opened once a process, a tar is read by offset. A compressed tar is read in passes: see `_Passes`.
    """
    if entry.size > LARGEST:
        raise DataError(f"{path}: {entry.name} has {entry.size:,} bytes; members up to {LARGEST:,} are read: unpack it")
    with _damage(path, entry.name):
        if kind == "tar":
            with Path(path).open("rb") as file:
                file.seek(entry.place)
                data = file.read(entry.size)
        else:
            state = Path(path).stat()
            holder = _zip if kind == "zip" else _passes
            # A handle that was opened before a fork shares its position with the parent: each process has its own.
            data = holder(path, kind, state.st_mtime_ns, state.st_size, os.getpid()).read(entry)
        if len(data) != entry.size:
            raise EOFError(f"{len(data):,} bytes instead of {entry.size:,}")
    return data


def junk(name: str) -> bool:
    """Whether macOS put a file beside the publisher's."""
    return name.startswith(("__MACOSX/", "._")) or "/._" in name or name.endswith(".DS_Store")


@functools.lru_cache(maxsize=16)
def _listing(path: str, kind: str, modified: int, size: int) -> Listing:
    members = _zip_members(path) if kind == "zip" else _tar_members(path, kind)
    entries: dict[str, Entry] = {}
    refused: dict[str, str] = {}
    for entry, fault in members:
        name, stray = _clean(entry.name)
        if junk(name):
            continue
        if fault or stray:
            refused[entry.name if stray else name] = stray or fault
            entries.pop(name, None)  # unpacking would put it in the place of an earlier file
        else:
            entries[name] = entry  # the last of a name is what unpacking would leave
    return Listing(dict(sorted(entries.items())), refused)


def _clean(name: str) -> tuple[str, str]:
    """A member's relative posix name, and why it may not be used, if so."""
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
        fault = "a name of characters that no file should have"
    return "/".join(parts), fault


def _zip_members(path: str) -> Iterator[tuple[Entry, str]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir() or kind == stat.S_IFDIR:
                continue
            fault = "encrypted" if info.flag_bits & 1 else ""
            if kind not in (0, stat.S_IFREG):
                fault = "a symbolic link" if kind == stat.S_IFLNK else "a device"
            yield Entry(info.filename, info.file_size, info.header_offset), fault


def _tar_members(path: str, kind: str) -> Iterator[tuple[Entry, str]]:
    with _members(path, kind) as (file, members):
        for number, info in enumerate(members):
            if info.isdir():
                continue
            fault = ""
            if info.issym() or info.islnk():
                fault = f"a {'symbolic' if info.issym() else 'hard'} link to {info.linkname}"
            elif not info.isreg() or info.issparse():
                fault = "a sparse file" if info.isreg() else "a device"
            yield Entry(info.name, info.size, info.offset_data if kind == "tar" else number), fault
        while kind != "tar" and file.read(1 << 20):
            pass  # to the very end, where the checksum is


@contextmanager
def _members(path: str, kind: str) -> Iterator[tuple[Any, Iterator[tarfile.TarInfo]]]:
    """The (uncompressed) file and the members of a tar, in one pass forward."""
    with _OPEN.get(kind, open)(path, "rb") as file:
        yield file, _forward(path, file)


def _forward(path: str, file: Any) -> Iterator[tarfile.TarInfo]:
    watched = _Watched(file)
    with tarfile.open(fileobj=watched, mode="r:") as tar:  # type: ignore[call-overload]
        while (info := tar.next()) is not None:
            yield info
            tar.members.clear()  # or it keeps them all
    # tarfile takes a missing or broken header for the end.
    if watched.last != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it ends without an end-of-archive block")


class _Watched:
    """A file that remembers what was read last."""

    def __init__(self, file: Any) -> None:
        self.file, self.last = file, b""
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        self.last = self.file.read(size)
        return self.last


class _Zip:
    """A zip that stays open; its own lock makes it safe for threads."""

    def __init__(self, path: str) -> None:
        self.archive = zipfile.ZipFile(path)

    def read(self, entry: Entry) -> bytes:
        try:
            return self.archive.read(entry.name)
        except (KeyError, RuntimeError) as error:  # gone since; or a compression that Python does not know
            raise ValueError(str(error)) from error


class _Passes:
    """Random access to a compressed tar, which can be read forward only.

    Up to CURSORS passes are under way, so that images and masks from two folders of the archive can be asked for in
    turn. While a pass moves on, it keeps what it passes in the asked member's own folder, KEPT bytes in all, the oldest
    going first: a folder of masks is read in any order for one pass. Beyond that, what lies behind costs a new pass.
    """

    def __init__(self, path: str, kind: str) -> None:
        self.path, self.kind = path, kind
        self.lock = threading.Lock()
        self.cursors: list[_Cursor] = []  # the one that was used last comes last
        self.kept: OrderedDict[int, bytes] = OrderedDict()
        self.bytes = 0
        self.started = 0

    def read(self, entry: Entry) -> bytes:
        with self.lock:
            if entry.place in self.kept:
                self.kept.move_to_end(entry.place)
                return self.kept[entry.place]
            cursor = max(
                (it for it in self.cursors if it.number <= entry.place), key=lambda it: it.number, default=None
            )
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
                    self.cursors = [*self.cursors[1 - CURSORS :], cursor]  # one that failed is not put back
                    return self.kept[number]
        raise EOFError("its end came first")

    def _keep(self, number: int, data: bytes) -> None:
        self.kept[number] = data
        self.bytes += len(data)
        while self.bytes > KEPT and len(self.kept) > 1:
            self.bytes -= len(self.kept.popitem(last=False)[1])


class _Cursor:
    """One pass through a compressed tar; `number` counts the members that it has gone by."""

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
    """What goes wrong inside is the archive's fault: say so."""
    try:
        yield
    except _BROKEN as error:
        where = f"{path}: {member}" if member else str(path)
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{where} can't be read ({error.strerror})") from error
        what = str(error) or type(error).__name__
        raise DataError(f"{where} can't be read ({what}); the file is cut off or damaged: get it anew") from error
