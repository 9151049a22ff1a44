"""A sweep: a TOML file with a base recipe and axes along which it changes, expanded to a list of named recipes.

    name   = "street-small"
    recipe = "../quickstart.toml"                  # a path relative to this file, or a name from `semiseg recipe ls`

    [axes.method.sets]                             # named sets of changes, as typed after `semiseg train RECIPE`
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

Changes are applied in the order of the axes. Means are taken over the axis that `repeats` names, by default "seed".
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import MinLen

from semiseg.train.recipe import Recipe
from semiseg.train.recipe.bounds import Text
from semiseg.train.recipe.document import read
from semiseg.train.recipe.load import digest, load, validate
from semiseg.train.recipe.preflight import preflight
from semiseg.train.recipe.problems import Problem, RecipeError, nearest, show
from semiseg.train.recipe.resolved import changes
from semiseg.train.recipe.shipped import find
from semiseg.train.run.results import is_scored, read_results

MOST_RUNS = 10_000
TABLE_RUN = ("folder", "recipe", "evaluation", "complete")  # keys of a run in table.json that are no axes
RESERVED = {
    *TABLE_RUN,
    "domain",
    "n",
    "planned",
    "mean",
    "sd",
    "half_of_95_interval",
    "scores",
}  # columns of the tables


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What changes from run to run. points: label -> changes as typed in a command; values: label -> its value."""

    name: str
    points: dict[str, tuple[str, ...]]
    values: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One run of a sweep: its label on every axis, its recipe, and the arguments that start it."""

    at: dict[str, str]
    recipe: Recipe
    command: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return Path(self.recipe.runs) / self.recipe.name


def results_of(run: Planned) -> dict[str, Any] | None:
    """The results of a run if it is complete, of exactly this recipe, and scored as the recipe says; else None."""
    found = read_results(run.folder)
    return found if found and found["recipe"] == digest(run.recipe) and is_scored(found, run.recipe) else None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep as written. plot: "x", "lines", "panels" -> the axis; empty for no plot."""

    file: Path
    name: str
    recipe: str
    axes: tuple[Axis, ...]
    repeats: str = "seed"
    plot: dict[str, str] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[Axis, ...]:
        """The axes that distinguish rows of the table: all but the one that repeats."""
        return tuple(axis for axis in self.axes if axis.name != self.repeats)


def read_sweep(path: str | Path) -> Sweep:
    """Read a sweep's file. Raises RecipeError with every mistake, `file:line: key: what is wrong`."""
    raw, origin = read(path)
    file, problems = validate(_File, raw, origin.arguments)
    problems += _misnamed(raw)
    if file is not None:
        problems += _broken_rules(file)
    if problems or file is None:
        raise RecipeError(origin.report(problems))
    axes = tuple(axis.named(name) for name, axis in file.axes.items())
    plot = {role: axis for role, axis in vars(file.plot).items() if axis} if file.plot else {}
    return Sweep(file=Path(path), name=file.name, recipe=file.recipe, axes=axes, repeats=file.repeats, plot=plot)


def expand(sweep: Sweep, overrides: Sequence[str] = ()) -> list[Planned]:
    """Every run of a sweep, with its recipe checked; `overrides` are applied after the changes of the axes.

    Raises RecipeError with all mistakes of all runs, and if two runs would be the same training.
    """
    runs: list[Planned] = []
    faults: dict[str, None] = {}
    if given := next((argument for argument in overrides if argument.startswith("name=")), None):
        what = "runs of a sweep are named after their axes; remove it, or use runs=FOLDER"
        raise RecipeError([f"argument '{given}': {what}"])
    if (count := prod(len(axis.points) for axis in sweep.axes)) > MOST_RUNS:
        raise RecipeError([f"{sweep.file}: {count:,} runs, expected {MOST_RUNS:,} at most; shorten its axes"])
    for labels in product(*(axis.points for axis in sweep.axes)):
        at = {axis.name: label for axis, label in zip(sweep.axes, labels, strict=True)}
        typed = [change for axis in sweep.axes for change in axis.points[at[axis.name]]]
        base, typed = _base(sweep, typed)
        try:
            source = _find_base(sweep.file, base)
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
            what = f"{same.recipe.name} and {run.recipe.name} are the same training ({apart})"
            raise RecipeError([f"{sweep.file}: {what}; remove the argument that undoes an axis, or one of the two"])
    return runs


def check_runs(runs: Sequence[Planned]) -> None:
    """Raise RecipeError with everything that prevents any of the runs from being trained here.

    That includes folders with a checkpoint of another recipe, which a sweep has after its file was changed.
    """
    from semiseg.train.run.folder import changes_since  # torch

    faults: dict[str, None] = {}
    for run in runs:
        if changed := changes_since(run.recipe):
            what = f"{run.folder} holds a run of another recipe ({'; '.join(changed)})"
            remedy = "give the sweep another name or runs=FOLDER, undo the change, or remove the folder"
            faults[f"{what}; {remedy}"] = None
        try:
            preflight(run.recipe)
        except RecipeError as error:
            faults.update(dict.fromkeys(error.faults))
    if faults:
        raise RecipeError(list(faults))


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """[axes.NAME] of a file: `key` and `values`, or `sets`."""

    key: Text | None = None
    values: Annotated[tuple[str | int | float | bool, ...], MinLen(1)] | None = None
    sets: dict[str, tuple[str, ...]] | None = None

    def named(self, name: str) -> Axis:
        if self.sets is not None:
            return Axis(name=name, points=self.sets, values={label: label for label in self.sets})
        values = {_label(value): value for value in self.values or ()}
        return Axis(name=name, points={label: (f"{self.key}={label}",) for label in values}, values=values)


@dataclass(frozen=True, kw_only=True)
class _Plot:
    """[plot] of a file: names of axes."""

    x: Text
    lines: Text | None = None
    panels: Text | None = None


@dataclass(frozen=True, kw_only=True)
class _File:
    """A sweep's file."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    name: Text
    recipe: Text
    repeats: Text = "seed"
    axes: Annotated[dict[str, _Axis], MinLen(1)]
    plot: _Plot | None = None


def _misnamed(raw: dict[str, Any]) -> Iterator[Problem]:
    """Names of axes that are reserved, do not exist or cannot be drawn."""
    axes, plot = (table if isinstance(table := raw.get(key), dict) else {} for key in ("axes", "plot"))
    for name in RESERVED & axes.keys():
        yield Problem(("axes", name), f"tables have a column of that name; use another name, such as '{name}s'")
    for path, axis in ((("repeats",), raw.get("repeats")), *((("plot", role), axis) for role, axis in plot.items())):
        if isinstance(axis, str) and axis not in axes:
            yield Problem(path, f"no axis {show(axis)}; axes: {', '.join(axes)}", nearest(axis, axes))
        elif path[0] == "plot" and axis == raw.get("repeats", "seed"):
            yield Problem(path, f"means are taken over '{axis}', so it cannot be drawn; use another axis")


def _broken_rules(file: _File) -> Iterator[Problem]:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", file.name):
        yield Problem(("name",), f"'{file.name}' cannot name a folder; use letters, digits, '.', '_' and '-'")
    for name, axis in file.axes.items():
        path, given = ("axes", name), {key for key, value in vars(axis).items() if value is not None}
        if given not in ({"key", "values"}, {"sets"}):
            found = ", ".join(f"'{key}'" for key in sorted(given)) or "neither"
            yield Problem(path, f"expected 'key' and 'values', or 'sets' alone; found {found}")
        if axis.sets == {}:
            yield Problem((*path, "sets"), "empty; expected at least one set of changes, such as plain = []")
        for label, typed in (axis.sets or {}).items():
            if not all("=" in change for change in typed):
                yield Problem((*path, "sets", label), 'expected a list of changes, such as ["steps=100"]')
        labels = [_label(value) for value in axis.values or ()]
        if twice := next((label for label in labels if labels.count(label) > 1), None):
            yield Problem((*path, "values"), f"has {twice} twice; keep one")


def _label(value: str | float) -> str:
    """A value as typed in a change."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _base(sweep: Sweep, typed: list[str]) -> tuple[str, list[str]]:
    """The base recipe of a run, and its changes without those that name the recipe."""
    named = [change.removeprefix("recipe=") for change in typed if change.startswith("recipe=")]
    return (named or [sweep.recipe])[-1], [change for change in typed if not change.startswith("recipe=")]


def _find_base(file: Path, recipe: str) -> Path:
    beside = file.parent / recipe
    return beside.resolve() if beside.is_file() else find(recipe)


def _folder_part(axis: Axis, label: str) -> str:
    text = label if axis.values[label] == label else f"{axis.name}{label}"
    return re.sub(r"[^A-Za-z0-9._]+", "_", text)
