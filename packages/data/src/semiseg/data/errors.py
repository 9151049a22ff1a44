"""What a user is told when something is wrong: one exception, one message, no traceback."""

import difflib
from collections.abc import Iterable


class SemisegError(Exception):
    """What went wrong, where, and the remedy; commands print it without a traceback."""


class DataError(SemisegError):
    """Something about data: a file, a folder, a label, a shard, a name that no installed package offers."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name does not exist: unknown taxonomy 'camvid-1'; did you mean 'camvid-11'? known: ..."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    guess = f"; did you mean '{close[0]}'?" if close else ";"
    return f"unknown {kind} '{name}'{guess} known: {', '.join(names) or 'none'}"
