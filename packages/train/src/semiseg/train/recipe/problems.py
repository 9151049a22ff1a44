"""The mistakes in a recipe, reported at once: where each is, what was found and how to fix it."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semiseg.data import SemisegError, visible
from semiseg.train.recipe.lines import KeyPath

MOST = 50  # mistakes that are listed


class RecipeError(SemisegError):
    """All mistakes in a recipe; the message has one line for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True)
class Problem:
    """One mistake: the key, what is wrong with it, and, for a misspelt key, the one that was probably meant."""

    path: KeyPath
    what: str
    meant: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where each value of a recipe came from: a line of `file`, or an argument, which takes precedence.

    `arguments`: path -> argument as typed, for values set by arguments; `lines`: path -> line of the others.
    """

    file: str
    lines: Mapping[KeyPath, int]
    arguments: Mapping[KeyPath, str]

    def attach(self, recipe: object) -> None:
        """Attach this origin for `of` to find. It is not a field: equality, copies and the digest ignore it."""
        object.__setattr__(recipe, "_origin", self)

    @classmethod
    def of(cls, recipe: object) -> "Origin":
        """The origin of a loaded recipe; an empty one for a recipe made in Python."""
        return getattr(recipe, "_origin", cls("recipe", {}, {}))

    def report(self, problems: Iterable[Problem]) -> list[str]:
        """One line for each problem, in the order of the file, then of the arguments."""
        placed = [(*self._place(problem.path), problem) for problem in problems]
        order = {path: number for number, path in enumerate(self.arguments, start=1)}
        placed.sort(key=lambda item: (order.get(item[1], 0), item[0]))
        faults = list(dict.fromkeys(self._line(*item) for item in placed))
        return faults if len(faults) <= MOST else [*faults[:MOST], f"{self.file}: and {len(faults) - MOST:,} more"]

    def _place(self, path: KeyPath) -> tuple[int, KeyPath]:
        """The line of the innermost key that contains `path`, or the path that an argument set; 0 and () if neither."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.arguments:
                return 0, path[:end]
            if path[:end] in self.lines:
                return self.lines[path[:end]], ()
        return 0, ()

    def _line(self, line: int, argument: KeyPath, problem: Problem) -> str:
        if not argument:
            place = f"{self.file}:{line}" if line else self.file
            meant = problem.meant
            key = f"{dotted(problem.path)}: " if problem.path else ""
        else:
            place = f"argument '{shortened(self.arguments[argument])}'"
            meant = problem.meant and dotted((*problem.path[:-1], problem.meant))
            key = "" if problem.path == argument else f"{dotted(problem.path)}: "
        what = shortened(problem.what, 2000)
        return f"{place}: {key}{what}" + (f"; did you mean '{meant}'?" if meant else "")


def dotted(path: KeyPath) -> str:
    """A path as typed in an argument: objectives.1.weight.value."""
    return ".".join(shortened(str(part), 60) for part in path)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return close[0] if close else None


def show(value: Any) -> str:
    """A value as in TOML, shortened if it is long."""
    if isinstance(value, dict):
        return "a table"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return shortened(text, 60)


def shortened(text: str, length: int = 200) -> str:
    """Text that a user or a file gave, on one line, without control characters and not too long."""
    return visible(text if len(text) <= length else f"{text[: length - 3]}...")
