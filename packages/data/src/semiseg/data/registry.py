"""Installed data set packages, found through the entry-point group "semiseg.datasets"."""

import functools
from importlib.metadata import entry_points
from typing import Any

GROUP = "semiseg.datasets"


def installed() -> dict[str, type[Any]]:
    """The adapter classes of all installed data set packages, by name; those that fail to load are in `broken()`."""
    return {name: loaded for name in sorted(announced()) if isinstance(loaded := load(name), type)}


def broken() -> dict[str, str]:
    """Installed data set packages that could not be loaded, and why."""
    return {name: why for name in sorted(announced()) if isinstance(why := load(name), str)}


@functools.cache
def announced() -> dict[str, Any]:
    """Entry points by name, loaded or not."""
    # If a distribution is found twice, the first one wins, as in an import.
    return {entry.name: entry for entry in reversed(list(entry_points(group=GROUP)))}


@functools.cache
def load(name: str) -> type[Any] | str:
    """The adapter class, or why it cannot be loaded: a broken package must not affect the others."""
    entry = announced()[name]
    try:
        return entry.load()
    except Exception as error:
        return f"{type(error).__name__}: {error} (entry point {entry.value})"
