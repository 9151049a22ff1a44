"""Where the runs of a study stand: the axes, every run that was planned, what its classes are. A file, `runs.json`.

`semiseg collect` writes it beside the collected runs; of a folder of runs as `semiseg sweep` leaves it, it is found out.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from semiseg.data import SemisegError
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.load import load
from semiseg.train.sweep.grid import TABLE_RUN

INDEX, TABLE = "runs.json", "table.json"
_SAYS_NOTHING = ("true", "false")  # without the name of its axis
_PREDICTIONS = {"domain", "taxonomy", "dataset", "splits", "keys", "rule", "runs", "scores"}


@dataclass(frozen=True, kw_only=True)
class Index:
    """A study. axes: name -> labels, in order; repeats: the axis that means are taken over; runs: name -> axis -> label.

    plan: run -> what its results must say, see `records.plan`; empty for runs without a sweep.
    classes: domain -> {"name", "names", "colours"}; predictions: which masks lie in predictions/, see `collect_masks`.
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
        """The axis that curves are drawn against: labels, or the last one of numbers; None where there is none."""
        groups = [axis for axis in self.axes if axis != self.repeats]
        numbers = [axis for axis in groups if all(is_number(label) for label in self.axes[axis])]
        return "labels" if "labels" in groups else (numbers or [None])[-1]

    def method(self, run: str) -> str:
        """What tells the lines of a curve apart: where a run stands on all axes but `across` and `repeats`."""
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

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


def read_index(folder: Path) -> Index:
    """The index of a collected folder, or of a folder of runs. Raises SemisegError for any other."""
    if not folder.is_dir():
        raise SemisegError(f"{folder}: no such folder; give a folder of runs, or one that `semiseg collect` wrote")
    if not (folder / INDEX).is_file():
        return _of_runs(folder)
    path = folder / INDEX
    raw = read_json(path, remedy="collect the runs again: semiseg collect RUNS --to " + str(folder))
    index = None
    try:
        index = Index(**raw)
        whole = all(at[axis] in labels for at in index.runs.values() for axis, labels in index.axes.items())
        whole &= index.predictions is None or index.predictions.keys() >= _PREDICTIONS
        whole &= all(isinstance(each, dict) for each in index.plan.values())
    except (TypeError, KeyError, AttributeError):
        whole = False
    if index is None or not whole:
        raise SemisegError(
            f"{path}: not what `semiseg collect` writes; name a folder that it wrote, or a folder of runs"
        )
    return index


def merged(old: Index, new: Index, folder: Path) -> Index:
    """Two parts of one study as one: its name and axes must be the same. Raises SemisegError where they are not.

    A sweep's table names every run of it, wherever that is trained: what it does not plan any more is left out.
    """
    if list(old.axes) != list(new.axes) or old.repeats != new.repeats:
        was, now = (f"{', '.join(each.axes)} (repeated over {each.repeats or 'nothing'})" for each in (old, new))
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
    """An object of a JSON file. Raises SemisegError with the place and the remedy."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SemisegError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    except ValueError as error:
        raise SemisegError(f"{path}: damaged, no JSON ({error}); {remedy}") from None
    if not isinstance(found, dict):
        raise SemisegError(f"{path}: expected a JSON object, found {type(found).__name__}; {remedy}")
    return found


def is_number(label: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", label))


def _of_runs(folder: Path) -> Index:
    index = _of_table(folder) if (folder / TABLE).is_file() else _of_recipes(folder)
    _check_apart(index.runs, folder)
    return replace(index, classes=_classes(folder / run for run in index.runs))


def _of_table(folder: Path) -> Index:
    """What `semiseg sweep` says of its runs."""
    path = folder / TABLE
    remedy = "run the same `semiseg sweep` again, which writes it"
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
        told = {axis for row in table["rows"] for axis in row}
        repeats = next((axis for axis in axes if axis not in told), "")
        return Index(study=str(table["sweep"]), axes=axes, repeats=repeats, runs=placed, plan=plan)
    except (KeyError, TypeError, AttributeError, StopIteration):
        raise SemisegError(f"{path}: not a sweep's table; {remedy}") from None


def unread(folder: Path) -> dict[str, str]:
    """Runs that stand nowhere since their recipe can't be read -> why; none in a folder that has an index or a table."""
    if (folder / INDEX).is_file() or (folder / TABLE).is_file():
        return {}
    return {path.parent.name: str(each) for path, each in _recipes(folder).items() if isinstance(each, SemisegError)}


def _recipes(folder: Path) -> dict[Path, Recipe | SemisegError]:
    found: dict[Path, Recipe | SemisegError] = {}
    for path in sorted(folder.glob("*/recipe.toml")):
        try:
            found[path] = load(path)
        except SemisegError as error:
            found[path] = error
    return found


def _of_recipes(folder: Path) -> Index:
    """Runs without a sweep: labels and seed as their recipes say, the method is what else their name tells."""
    runs = {}
    for path, recipe in _recipes(folder).items():
        if isinstance(recipe, SemisegError):
            continue  # `unread` tells of it
        subset = next(iter(recipe.data.domains.values())).labeled.subset
        method = _method(path.parent.name)
        labels = _labels_of(path.parent, recipe) if subset is None else str(subset.count)
        runs[path.parent.name] = {"method": method, "labels": labels, "seed": str(recipe.seed)}
    if not runs and (bad := unread(folder)):
        raise SemisegError("\n".join(bad.values()))
    if not runs:
        raise SemisegError(
            f"{folder}: neither a folder of runs (<run>/recipe.toml, or a sweep's {TABLE}) nor one that `semiseg collect` "
            f"wrote ({INDEX}); name the folder that holds them, such as runs/<sweep>"
        )
    supervised = sorted(runs.values(), key=lambda at: (not at["method"].startswith("supervised"), at["method"]))
    axes = {axis: _ordered(at[axis] for at in supervised) for axis in ("method", "labels", "seed")}
    return Index(study=folder.resolve().name, axes=axes, repeats="seed", runs=runs)


def _labels_of(run: Path, recipe: Recipe) -> str:
    """How many images a file of keys chose: the run keeps them."""
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
            raise SemisegError(f"{folder}: {other} and {name} are both {where}; take one of them out")


def _ordered(labels: Iterable[str]) -> list[str]:
    """Each label once: numbers by size, words as they come."""
    found = list(dict.fromkeys(labels))
    return sorted(found, key=float) if all(map(is_number, found)) else found


def _classes(runs: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What the first saved models say of their classes; nothing where weights are gone."""
    classes: dict[str, dict[str, Any]] = {}
    for run in runs:
        for path in sorted(run.glob("*-*/config.json"))[-1:]:
            told = read_json(path, remedy=f"remove the folder {path.parent}").get("metadata", {})
            classes = {**told.get("taxonomies", {}), **classes}
        if classes:
            break
    return classes
