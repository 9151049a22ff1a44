"""Errors for users: one exception, one message, no traceback."""

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path


class SemisegError(Exception):
    """Says where, what is wrong and what to do; commands print it without a traceback."""


class DataError(SemisegError):
    """An error in data: a file, folder, label or shard, or a name that no installed package defines."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """A message for a name that does not exist: unknown taxonomy 'camvid-1'; did you mean 'camvid-11'? known: ..."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    guess = f"; did you mean '{close[0]}'?" if close else ";"
    return f"unknown {kind} '{name}'{guess} known: {', '.join(names) or 'none'}"


def unwritable(error: OSError, path: Path) -> DataError:
    """The error for a failed write, with its remedy."""
    remedies = {
        errno.ENOSPC: "the disk is full; free some space or name another folder, then rerun the command",
        errno.EDQUOT: "your disk quota is used up; free some space, then rerun the command",
        errno.ENOENT: "the folder does not exist; create it, or name another",
        errno.EROFS: "the file system is read-only; name another folder",
        errno.EACCES: "no permission to write there; name another folder or change its owner",
        errno.EPERM: "no permission to write there; name another folder or change its owner",
        errno.ENOTDIR: "a part of the path is a file, not a folder; name another folder",
        errno.EEXIST: "a file has the name of the folder; name another folder",
        errno.EFBIG: "the file is larger than the file system allows; choose smaller shards",
    }
    remedy = remedies.get(error.errno or 0, "check the folder and the disk, then rerun the command")
    return DataError(f"{path}: cannot be written ({error.strerror or error}): {remedy}")
