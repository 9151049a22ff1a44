"""The index of a study: its axes, where every planned run stands on them, and its classes.

`semiseg collect` writes it into the first line of `runs.jsonl`; that of a folder of runs comes from the sweep's table or the
recipes.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from semiseg.data import SemisegError, parse_json
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.load import load
from semiseg.train.recipe.problems import shortened
from semiseg.train.report.checked import check_classes, check_index
from semiseg.train.sweep.grid import TABLE_RUN

TABLE = "table.json"
_SAYS_NOTHING = ("true", "false")  # without the name of its axis


@dataclass(frozen=True, kw_only=True)
class Index:
    """A study. axes: name -> labels, in order; repeats: the axis that means are taken over; runs: name -> axis -> label.

    plan: run -> what its results must say, see `records.plan`; empty for runs without a sweep.
    classes: domain -> {"name", "names", "colours"}; predictions: the collected masks, see `masks.predict`.
    """

    study: str
    axes: dict[str, list[str]]
    repeats: str
    runs: dict[str, dict[str, str]]
    plan: dict[str, dict[str, Any]] = field(default_factory=dict)
    classes: dict[str, dict[str, Any]] = field(default_factory=dict)
    predictions: dict[str, Any] | None = None

    @property
    def across(self) -> str | None:
        """The axis that curves are drawn against: labels, or the last one of numbers; None without either."""
        groups = [axis for axis in self.axes if axis != self.repeats]
        numbers = [axis for axis in groups if all(is_number(label) for label in self.axes[axis])]
        return "labels" if "labels" in groups else (numbers or [None])[-1]

    def method(self, run: str) -> str:
        """The name of a run's curve: its labels on all axes but `across` and `repeats`."""
        at = self.runs[run]
        rest = [axis for axis in self.axes if axis not in (self.repeats, self.across)]
        words = [
            f"{axis} {at[axis]}" if is_number(at[axis]) or at[axis] in _SAYS_NOTHING else at[axis] for axis in rest
        ]
        return ", ".join(words) or self.study

    @property
    def methods(self) -> list[str]:
        """Every method, in the order of the axes."""

        def place(run: str) -> list[int]:
            return [self.axes[axis].index(self.runs[run][axis]) for axis in self.axes]

        return list(dict.fromkeys(self.method(run) for run in sorted(self.runs, key=place)))

    @classmethod
    def of(cls, raw: Any) -> "Index":
        """The index that is stored as `raw`. Raises ValueError for anything else."""
        if not isinstance(raw, dict):
            raise ValueError("not an index")
        check_index(raw)
        return cls(**raw)


def index_runs(folder: Path) -> Index:
    """The index of a folder of runs, as `semiseg sweep` leaves it or of any other. Raises SemisegError for other folders."""
    if not folder.is_dir():
        raise SemisegError(f"{folder}: no such folder; name a folder of runs, or one that `semiseg collect` wrote")
    index = _of_table(folder) if (folder / TABLE).is_file() else _of_recipes(folder)
    _check_apart(index.runs, folder)
    return replace(index, classes=_classes(folder / run for run in index.runs))


def unread(folder: Path) -> dict[str, str]:
    """Runs without a place on the axes because their recipe can't be read -> why; none if a sweep's table has the places."""
    if (folder / TABLE).is_file():
        return {}
    return {path.parent.name: str(error) for path, error in _recipes(folder).items() if isinstance(error, SemisegError)}


def merged(old: Index, new: Index, folder: Path) -> Index:
    """Two parts of one study as one. Raises SemisegError if their names or axes differ.

    A sweep's table lists all its runs, on whichever machine they are trained: runs that are not in it are left out.
    """
    if list(old.axes) != list(new.axes) or old.repeats != new.repeats:
        was, now = (f"{', '.join(part.axes)} (repeated over {part.repeats or 'nothing'})" for part in (old, new))
        raise SemisegError(f"{folder} holds runs along {was}, these are along {now}; choose another folder with --to")
    if old.study != new.study:
        raise SemisegError(
            f"{folder} holds runs of {old.study}, these are of {new.study}; choose another folder with --to"
        )
    classes = {**old.classes, **new.classes}
    if new.plan:
        return replace(new, classes=classes, predictions=old.predictions)
    axes = {axis: _ordered([*old.axes[axis], *new.axes[axis]]) for axis in new.axes}
    runs = {**old.runs, **new.runs}
    _check_apart(runs, folder)
    return replace(new, axes=axes, runs=runs, plan=old.plan, classes=classes, predictions=old.predictions)


def read_json(path: Path, *, remedy: str) -> Any:
    """The object in a JSON file. Raises SemisegError with the path and the remedy."""
    try:
        found = parse_json(path.read_bytes())
    except OSError as error:
        raise SemisegError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    except ValueError as error:
        raise SemisegError(f"{path}: damaged, not JSON ({shortened(str(error))}); {remedy}") from None
    if not isinstance(found, dict):
        raise SemisegError(f"{path}: expected a JSON object, found {type(found).__name__}; {remedy}")
    return found


def is_number(label: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", label))


def _of_table(folder: Path) -> Index:
    """From what `semiseg sweep` wrote about its runs."""
    path = folder / TABLE
    remedy = "rerun the same `semiseg sweep`, which writes it"
    table = read_json(path, remedy=remedy)
    try:
        placed = {
            Path(run["folder"]).name: {axis: str(label) for axis, label in run.items() if axis not in TABLE_RUN}
            for run in table["runs"]
        }
        plan = {
            Path(run["folder"]).name: {name: run[name] for name in ("recipe", "evaluation") if name in run}
            for run in table["runs"]
        }
        axes = {axis: _ordered(at[axis] for at in placed.values()) for axis in next(iter(placed.values()))}
        columns = {column for row in table["rows"] for column in row}
        repeats = next((axis for axis in axes if axis not in columns), "")
        index = Index(study=str(table["sweep"]), axes=axes, repeats=repeats, runs=placed, plan=plan)
        check_index(vars(index))
        return index
    except (KeyError, TypeError, AttributeError, StopIteration, ValueError):
        raise SemisegError(f"{path}: not a sweep's table; {remedy}") from None


def _recipes(folder: Path) -> dict[Path, Recipe | SemisegError]:
    found: dict[Path, Recipe | SemisegError] = {}
    for path in sorted(folder.glob("*/recipe.toml")):
        try:
            found[path] = load(path)
        except SemisegError as error:
            found[path] = error
    return found


def _of_recipes(folder: Path) -> Index:
    """Runs without a sweep: labels and seed as in their recipes, the method is the rest of their name."""
    runs = {}
    for path, recipe in _recipes(folder).items():
        if isinstance(recipe, SemisegError):
            continue  # `unread` reports it
        subset = next(iter(recipe.data.domains.values())).labeled.subset
        method = _method(path.parent.name)
        labels = _labels_of(path.parent, recipe) if subset is None else str(subset.count)
        runs[path.parent.name] = {"method": method, "labels": labels, "seed": str(recipe.seed)}
    if not runs and (bad := unread(folder)):
        raise SemisegError("\n".join(bad.values()))
    if not runs:
        raise SemisegError(
            f"{folder}: neither a folder of runs (<run>/recipe.toml, or a sweep's {TABLE}) nor one that `semiseg collect` "
            "wrote (runs.jsonl); name the folder that holds them, such as runs/<sweep>"
        )
    supervised = sorted(runs.values(), key=lambda at: (not at["method"].startswith("supervised"), at["method"]))
    axes = {axis: _ordered(at[axis] for at in supervised) for axis in ("method", "labels", "seed")}
    return Index(study=folder.resolve().name, axes=axes, repeats="seed", runs=runs)


def _labels_of(run: Path, recipe: Recipe) -> str:
    """How many images a file of keys chose; the run keeps a copy of the keys."""
    domain, data = next(iter(recipe.data.domains.items()))
    if data.labeled.ids is None:
        return "all"
    kept = run / "subsets" / f"{domain}.labeled.txt"
    return str(len(kept.read_text(encoding="utf-8").split())) if kept.is_file() else Path(data.labeled.ids).stem


def _method(name: str) -> str:
    """What is left of a run's name without its labels and seed: cct_abce of labels20-seed0-cct_abce."""
    rest = re.sub(r"(?<![A-Za-z0-9])(labels?|seed|n)[-_]?\d+(?![A-Za-z0-9])", "", name)
    return re.sub(r"[-_.]*-[-_.]*", "-", rest).strip("-_.") or "run"


def _check_apart(runs: dict[str, dict[str, str]], folder: Path) -> None:
    first: dict[tuple[str, ...], str] = {}
    for name, at in runs.items():
        other = first.setdefault(tuple(at.values()), name)
        if other != name:
            where = ", ".join(f"{axis} {label}" for axis, label in at.items())
            raise SemisegError(f"{folder}: {other} and {name} are both {where}; move one of them to another folder")


def _ordered(labels: Iterable[str]) -> list[str]:
    """Every label once: numbers by size, words as they come."""
    found = list(dict.fromkeys(labels))
    return sorted(found, key=float) if all(map(is_number, found)) else found


def _classes(runs: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """The classes of the first saved models; none if no weights are left."""
    classes: dict[str, dict[str, Any]] = {}
    for run in runs:
        for path in sorted(run.glob("*-*/config.json"))[-1:]:
            remedy = f"remove the folder {path.parent}"
            metadata = read_json(path, remedy=remedy).get("metadata", {})
            try:
                found = metadata.get("taxonomies", {})
                check_classes(found)
            except (AttributeError, ValueError) as error:
                raise SemisegError(f"{path}: damaged (metadata.taxonomies: {error}); {remedy}") from None
            classes = {**found, **classes}
        if classes:
            break
    return classes
