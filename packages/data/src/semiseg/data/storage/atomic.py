"""Files and folders that appear under their name complete or not at all, even after a kill or a power cut."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from semiseg.data.errors import unwritable
from semiseg.data.storage.lock import hold
from semiseg.data.storage.target import RemotePath

TEMP = ".tmp"


@contextmanager
def atomic(path: "Path | RemotePath") -> Iterator[BinaryIO]:
    """Write a file that appears under its name complete or not at all.

    A temp name in the same folder, fsync, rename, fsync of the folder; remote: a temp file on this machine, uploaded.
    DataError for a full disk or a folder that can't be written; the temp file is removed.
    """
    if not isinstance(path, Path):
        with path.uploaded() as file:
            yield file
        return
    # Containers may share process numbers, hence the token.
    temp = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMP}")
    try:
        with temp.open("wb") as file:
            hold(file.fileno())  # so `write.leftovers.remove_stale` of another process keeps it
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


def stale(folder: "Path | RemotePath") -> Iterator[Path]:
    """Temp files of writers that are running or were killed; none on object stores."""
    return folder.glob(f".*{TEMP}") if isinstance(folder, Path) else iter(())


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


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """An empty folder to write into, which replaces `target` when the block ends; if the block fails, `target` stays.

    A kill between the two renames leaves `target` under another name: `put_back` or the next `replaced` restores it.
    """
    part, old = (target.with_name(f".{target.name}.{what}") for what in ("part", "old"))
    put_back(target)
    for leftover in (part, old):
        shutil.rmtree(leftover, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if target.is_dir():
            target.rename(old)
        part.rename(target)
    finally:
        put_back(target)
        for leftover in (part, old):
            shutil.rmtree(leftover, ignore_errors=True)


def put_back(target: Path) -> None:
    """Restore the name of a folder after a kill in `replaced`. Several processes may call this at once."""
    if not target.is_dir():
        with suppress(FileNotFoundError):
            target.with_name(f".{target.name}.old").rename(target)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, even if the machine loses power. DataError if it cannot be written."""
    with atomic(path) as file:
        file.write(text.encode())
