"""Files and folders that appear under their name whole or not at all, even after a kill or a power cut."""

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
    """Write a file that appears under its name whole or not at all.

    A temp name in the same folder, fsync, rename, fsync of the folder; remote: a temp file on this machine, uploaded.
    DataError for a full disk or a folder that can't be written; the temp file is removed.
    """
    if not isinstance(path, Path):
        with path.uploaded() as file:
            yield file
        return
    temp = path.with_name(
        f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMP}"
    )  # containers share process numbers
    try:
        with temp.open("wb") as file:
            hold(file.fileno())  # no leftover, to `leftovers.remove_stale` of another process
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
    """Temp files: of a writer that is at work, or was killed. None on object stores."""
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
    """An empty folder to write into, which takes the place of `target` when all is written; `target` stays where that fails.

    A kill between the two renames leaves `target` under another name: `put_back` mends that, as does the next `replaced`.
    """
    part, old = (target.with_name(f".{target.name}.{what}") for what in ("part", "old"))
    put_back(target)
    for each in (part, old):
        shutil.rmtree(each, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if target.is_dir():
            target.rename(old)
        part.rename(target)
    finally:
        put_back(target)
        for each in (part, old):
            shutil.rmtree(each, ignore_errors=True)


def put_back(target: Path) -> None:
    """Give a folder its name back that a kill in `replaced` left without one. Several processes may call this at once."""
    if not target.is_dir():
        with suppress(FileNotFoundError):
            target.with_name(f".{target.name}.old").rename(target)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all, also when the machine loses power. DataError where it cannot be written."""
    with atomic(path) as file:
        file.write(text.encode())
