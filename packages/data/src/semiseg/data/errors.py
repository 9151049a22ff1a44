"""Errors for users: one exception, one message, no traceback."""

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class SemisegError(Exception):
    """Says where, what is wrong and what to do; commands print it without a traceback.

    Its text shows control characters, which names from files may hold, as escapes.
    """

    def __str__(self) -> str:
        return visible(super().__str__(), keep="\n\t")


class DataError(SemisegError):
    """An error in data: a file, folder, label or shard, or a name that no installed package defines."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """A message for a name that does not exist: unknown taxonomy 'camvid-1'; did you mean 'camvid-11'? known: ..."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    guess = f"; did you mean '{close[0]}'?" if close else ";"
    return f"unknown {kind} '{name}'{guess} known: {', '.join(names) or 'none'}"


def visible(text: str, keep: str = "") -> str:
    r"""Text from a file, for a console: control characters, line breaks and marks of direction as escapes such as \x1b."""
    if text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() else ascii(c)[1:-1] for c in text)


@contextmanager
def reading(where: str, remedy: str = "get the file again") -> Iterator[None]:
    """Turn any error that the contents of a user's file cause into one DataError that names the file.

    Only for the code that parses a file: it would hide a mistake in ours.
    """
    try:
        yield
    except SemisegError:
        raise
    except RecursionError as error:
        raise DataError(f"{where}: values are nested too deep; {remedy}") from error
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror or error}); {remedy}") from error
    except MemoryError as error:
        raise DataError(f"{where}: its values do not fit into memory; {remedy}") from error
    except Exception as error:
        what = " ".join(str(error).split())[:300]
        raise DataError(f"{where}: damaged ({type(error).__name__}: {what}); {remedy}") from error


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
