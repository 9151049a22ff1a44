"""What a sweep is: a base recipe and axes along which it changes, as a TOML file; expanded, a list of named recipes.

    name   = "street-small"
    recipe = "../quickstart.toml"                  # a path from this file, or a shipped recipe's name

    [axes.method.sets]                             # named sets of changes, as one types them after `semiseg train RECIPE`
    CCT        = []
    supervised = ["recipe=camvid_supervised"]      # or another recipe
    [axes.K]                                       # one key, several values
    key    = "objectives.1.perturbations.0.count"
    values = [2, 4, 6]
    [axes.seed]
    key    = "seed"
    values = [0, 1, 2]

    [plot]                                         # optional: axes of the plot; seeds become error bars
    x = "K"
    lines = "method"

Changes are applied in the order of the axes. The axis named by `repeats` (default "seed") is what means are taken over.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from semiseg.train.recipe import Recipe
from semiseg.train.recipe.lines import KeyPath, lines
from semiseg.train.recipe.load import digest, load
from semiseg.train.recipe.preflight import preflight
from semiseg.train.recipe.problems import RecipeError, nearest, show
from semiseg.train.recipe.resolved import changes
from semiseg.train.recipe.shipped import find
from semiseg.train.run.records import is_scored, read_results

KNOWN = ("name", "recipe", "repeats", "axes", "plot")
PLOT = ("x", "lines", "panels")
TABLE_RUN = ("folder", "recipe", "evaluation", "complete")  # what table.json says of a run beside its place on the axes
RESERVED = (*TABLE_RUN, "domain", "n", "planned", "mean", "sd", "half_of_95_interval", "scores")  # of all tables


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One thing that changes. points: label -> changes as typed in a command; values: label -> what a plot shows."""

    name: str
    points: dict[str, tuple[str, ...]]
    values: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One run of a sweep: where it stands on every axis, its recipe, and the words that start it."""

    at: dict[str, str]
    recipe: Recipe
    command: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return Path(self.recipe.runs) / self.recipe.name


def results_of(run: Planned) -> dict[str, Any] | None:
    """What a complete run of this very recipe found, scored as it says; None where it has yet to be run to its end."""
    found = read_results(run.folder)
    return found if found and found["recipe"] == digest(run.recipe) and is_scored(found, run.recipe) else None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep as it is written. plot: which axis is "x", "lines", "panels"; empty where there is none to draw."""

    file: Path
    name: str
    recipe: str
    axes: tuple[Axis, ...]
    repeats: str = "seed"
    plot: dict[str, str] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[Axis, ...]:
        """The axes that tell rows of the table apart: all but the one that repeats."""
        return tuple(axis for axis in self.axes if axis.name != self.repeats)


def read_sweep(path: str | Path) -> Sweep:
    """Read a sweep's file. Raises RecipeError with every mistake, `file:line: key: what is wrong`."""
    path, text = Path(path), ""
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text)
    except OSError as error:
        raise RecipeError([f"{path}: cannot read this sweep ({error.strerror})"]) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError([f"{path}: not TOML: {error}"]) from error
    reader = _Reader(str(path), lines(text))
    reader.known((), raw, KNOWN)
    name = reader.text(("name",), raw.get("name"))
    recipe = reader.text(("recipe",), raw.get("recipe"))
    if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        reader.fault(("name",), f"'{name}' cannot name a folder; use letters, digits, '.', '_' and '-'")
    axes = reader.table(("axes",), raw.get("axes"))
    found = tuple(reader.axis(each, value) for each, value in axes.items())
    repeats = raw.get("repeats", "seed")
    plot = reader.table(("plot",), raw.get("plot", {}))
    reader.known(("plot",), plot, PLOT)
    for role, axis in plot.items():
        if not isinstance(axis, str) or axis not in axes:
            reader.fault(("plot", role), f"no axis {show(axis)}; axes: {', '.join(axes)}", nearest(str(axis), axes))
        elif axis == repeats:
            reader.fault(("plot", role), f"means are taken over '{axis}', so it can't be drawn; name another axis")
    if plot and not plot.keys() >= {"x"}:
        reader.fault(("plot",), 'missing x; name an axis, such as x = "K"')
    if "repeats" in raw and (not isinstance(repeats, str) or repeats not in axes):
        reader.fault(("repeats",), f"no axis {show(repeats)}; axes: {', '.join(axes)}")
    if reader.faults:
        raise RecipeError([fault for _, fault in sorted(reader.faults, key=lambda each: each[0])])
    return Sweep(file=path, name=name, recipe=recipe, axes=found, repeats=repeats, plot=plot)


def expand(sweep: Sweep, overrides: Sequence[str] = ()) -> list[Planned]:
    """Every run of a sweep, its recipe checked; `overrides` come after the axes' own changes.

    Raises RecipeError with all mistakes of all runs, and where two runs would be the same training.
    """
    runs: list[Planned] = []
    faults: dict[str, None] = {}
    if given := next((each for each in overrides if each.startswith("name=")), None):
        raise RecipeError(
            [f"argument '{given}': each run of a sweep is named by its axes; runs=FOLDER trains elsewhere"]
        )
    for labels in product(*(axis.points for axis in sweep.axes)):
        at = {axis.name: label for axis, label in zip(sweep.axes, labels, strict=True)}
        typed = [change for axis in sweep.axes for change in axis.points[at[axis.name]]]
        base, typed = _base(sweep, typed)
        try:
            source = _beside(sweep.file, base)
            before = load(source, [*typed, *overrides])
            name = "-".join(_folder_part(axis, at[axis.name]) for axis in sweep.axes)
            added = (*typed, *overrides, f"runs={Path(before.runs) / sweep.name}", f"name={name}")
            runs.append(Planned(at=at, recipe=load(source, added), command=(str(source), *added)))
        except RecipeError as error:
            faults.update(dict.fromkeys(error.faults))
    if faults:
        raise RecipeError([f"{sweep.file}: {fault}" if fault.startswith("argument ") else fault for fault in faults])
    first: dict[str, Planned] = {}
    for run in runs:
        same = first.setdefault(f"folder {run.recipe.name}", run)
        if same is not run:
            what = f"{dict(same.at)} and {dict(run.at)} would share the folder {run.recipe.name}"
            raise RecipeError([f"{sweep.file}: {what}; give labels that differ in letters or digits"])
        same = first.setdefault(digest(run.recipe), run)
        if same is not run:
            apart = " ".join(changes(same.recipe, run.recipe, incidental=True))
            raise RecipeError(
                [
                    f"{sweep.file}: {same.recipe.name} and {run.recipe.name} are the same training ({apart}); take the key "
                    "that undoes an axis out of the arguments, or remove one of the two"
                ]
            )
    return runs


def check_runs(runs: Sequence[Planned]) -> None:
    """Raise RecipeError with everything that keeps any of the runs from being trained here.

    That includes folders with a checkpoint of another recipe, as they are once a sweep's file was changed.
    """
    from semiseg.train.run.folder import changes_since  # torch

    faults: dict[str, None] = {}
    for run in runs:
        if changed := changes_since(run.recipe):
            faults[
                f"{run.folder} holds a run of another recipe ({'; '.join(changed)}); give the sweep another name or "
                "runs=FOLDER, undo the change, or remove that folder"
            ] = None
        try:
            preflight(run.recipe)
        except RecipeError as error:
            faults.update(dict.fromkeys(error.faults))
    if faults:
        raise RecipeError(list(faults))


class _Reader:
    """Judges the bare values of a sweep's file and keeps every fault with its line."""

    def __init__(self, file: str, at: dict[KeyPath, int]) -> None:
        self.file, self.at = file, at
        self.faults: list[tuple[int, str]] = []

    def fault(self, key: KeyPath, what: str, meant: str | None = None) -> None:
        line = next((self.at[key[:end]] for end in range(len(key), 0, -1) if key[:end] in self.at), 0)
        place = f"{self.file}:{line}" if line else self.file
        guess = f"; did you mean '{meant}'?" if meant else ""
        self.faults.append((line, f"{place}: {'.'.join(map(str, key))}: {what}{guess}"))

    def known(self, key: KeyPath, table: dict[str, Any], names: Sequence[str]) -> None:
        for name in table:
            if name not in names:
                self.fault((*key, name), f"unknown key; known: {', '.join(names)}", nearest(name, names))

    def text(self, key: KeyPath, value: Any) -> str:
        if not isinstance(value, str) or not value:
            self.fault(
                key, "missing; expected a string" if value is None else f"expected a string, found {show(value)}"
            )
            return ""
        return value

    def table(self, key: KeyPath, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or (not value and key == ("axes",)):
            self.fault(key, "expected a table of axes, such as [axes.seed]" if value is None else "expected a table")
            return {}
        return value

    def axis(self, name: str, value: Any) -> Axis:
        key = ("axes", name)
        if name in RESERVED:
            self.fault(key, f"tables have a column of that name; call the axis something else, such as '{name}s'")
        table = self.table(key, value)
        self.known(key, table, ("key", "values", "sets"))
        points: dict[str, tuple[str, ...]] = {}
        shown: dict[str, Any] = {}
        if "sets" in table:
            if table.keys() & {"key", "values"}:
                self.fault(key, "has 'sets' beside 'key' and 'values'; keep one of the two")
            sets = self.table((*key, "sets"), table["sets"])
            if sets == {}:
                self.fault((*key, "sets"), "is empty; name at least one set of changes, such as plain = []")
            for label, typed in sets.items():
                if not isinstance(typed, list) or not all(isinstance(each, str) and "=" in each for each in typed):
                    self.fault((*key, "sets", label), 'expected a list of changes, such as ["steps=100"]')
                    continue
                points[label], shown[label] = tuple(typed), label
        else:
            changed = self.text((*key, "key"), table.get("key"))
            values = table.get("values")
            plain = isinstance(values, list) and values and all(isinstance(v, str | int | float) for v in values)
            if not plain:
                self.fault((*key, "values"), f"expected a list of values, found {show(values)}")
            for each in values if plain and isinstance(values, list) else ():
                label = str(each).lower() if isinstance(each, bool) else str(each)
                if label in points:
                    self.fault((*key, "values"), f"has {label} twice; keep one")
                points[label], shown[label] = (f"{changed}={label}",), each
        return Axis(name=name, points=points, values=shown)


def _base(sweep: Sweep, typed: list[str]) -> tuple[str, list[str]]:
    """The recipe that a run starts from, and its changes without those that only name it."""
    named = [change.removeprefix("recipe=") for change in typed if change.startswith("recipe=")]
    return (named or [sweep.recipe])[-1], [change for change in typed if not change.startswith("recipe=")]


def _beside(file: Path, recipe: str) -> Path:
    beside = file.parent / recipe
    return beside.resolve() if beside.is_file() else find(recipe)


def _folder_part(axis: Axis, label: str) -> str:
    text = label if axis.values[label] == label else f"{axis.name}{label}"
    return re.sub(r"[^A-Za-z0-9._]+", "_", text)
