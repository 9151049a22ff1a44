"""Limits of a document: what no recipe has, and what would take minutes or a traceback to reject later."""

import math
from collections.abc import Iterator
from typing import Any

from semiseg.train.recipe.lines import KeyPath
from semiseg.train.recipe.problems import Problem

LARGEST = 256_000  # bytes of a file; the longest recipe has 6 kB
DEEPEST = 24  # tables and lists within one another; recipes have 7
MOST = 5000  # values
ARGUMENTS = 1000
INTEGER = 10**9  # of steps, images, channels, pixels
SEED = 2**63 - 1
NUMBER = 1e38  # of 32 bits


def beyond_limits(raw: Any, most: int = MOST) -> Iterator[Problem]:
    """Values that are nested too deeply, too many, too large or no numbers. Needs no recursion."""
    waiting: list[tuple[KeyPath, Any]] = [((), raw)]
    count = 0
    while waiting:
        path, value = waiting.pop()
        count += 1
        if count > most:
            yield Problem((), f"has more than {most:,} values; a recipe has a few hundred: is this the right file?")
            return
        if len(path) > DEEPEST:
            yield Problem((), f"tables and lists more than {DEEPEST} deep; recipes have 7: is this the right file?")
            return
        if isinstance(value, dict | list):
            items = list(value.items() if isinstance(value, dict) else enumerate(value))
            waiting += [((*path, part), inner) for part, inner in reversed(items)]
        elif isinstance(value, int) and abs(value) > (limit := SEED if "seed" in path else INTEGER):
            found = f"{value:,}" if abs(value) < 10**18 else f"an integer of {value.bit_length()} bits"
            yield Problem(path, f"{found}; expected at most {limit:,}")
        elif isinstance(value, float) and math.isfinite(value) and abs(value) > NUMBER:  # others fail by their type
            yield Problem(path, f"{value:g}; expected a number between {-NUMBER:g} and {NUMBER:g}")
