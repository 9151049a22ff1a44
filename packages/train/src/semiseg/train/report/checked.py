"""Check the records of runs and of their index before a report uses them: types, ranges, and names that are safe in paths."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Le, MinLen

from semiseg.train.recipe.problems import shortened
from semiseg.train.recipe.typed import Counted, Name, Words, check_types
from semiseg.train.run.checked import Results

LARGEST = 256_000_000  # bytes of runs.jsonl

Byte = Annotated[int, Ge(0), Le(255)]


@dataclass(frozen=True, kw_only=True)
class _Launch:
    command: tuple[Words, ...] = ()
    changes: tuple[Words, ...] | None = None
    device: Words | None = None
    threads: int | None = None
    platform: Words | None = None
    python: Words | None = None
    packages: dict[str, Words | None] = field(default_factory=dict)
    commit: Words | None = None
    dirty: bool | None = None


@dataclass(frozen=True, kw_only=True)
class _Row:
    step: Counted


@dataclass(frozen=True, kw_only=True)
class _Source:
    dataset: Words | None = None
    split: Words | tuple[Words, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class _Domain:
    labeled: _Source | None = None
    val: _Source | None = None


@dataclass(frozen=True, kw_only=True)
class _Data:
    domains: dict[Name, _Domain] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Evaluate:
    scales: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, kw_only=True)
class _Objective:
    kind: Words = ""


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """What a report reads of a recipe, which an earlier version may have written."""

    steps: Counted = 0
    paper: Words = ""
    data: _Data = _Data()
    evaluate: _Evaluate = _Evaluate()
    objectives: tuple[_Objective, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Record:
    name: Name
    results: Results
    launches: tuple[_Launch, ...]
    metrics: tuple[_Row, ...]


@dataclass(frozen=True, kw_only=True)
class _Classes:
    names: tuple[Words, ...]
    colours: tuple[tuple[Byte, Byte, Byte], ...]


@dataclass(frozen=True, kw_only=True)
class _Predictions:
    domain: Words
    taxonomy: Words
    dataset: Name
    splits: Annotated[tuple[Name, ...], MinLen(1)]
    keys: Annotated[tuple[Words, ...], MinLen(1)]
    rule: Words
    runs: Annotated[dict[Words, Name], MinLen(1)]
    scores: dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class _Index:
    study: Words
    axes: dict[Words, tuple[Words, ...]]
    repeats: Words
    runs: dict[Name, dict[Words, Words]]
    plan: dict[str, dict[str, Any]] = field(default_factory=dict)
    classes: dict[Words, _Classes] = field(default_factory=dict)
    predictions: _Predictions | None = None


def check_record(record: Mapping[str, Any]) -> None:
    """Raise ValueError unless everything that a report reads of a run has the right type and range."""
    kept = {key: record[key] for key in ("name", "results", "launches", "metrics")}
    check_types(_Record, kept)
    if not all(kept["results"][when].get("domains") for when in ("last", "best")):
        raise ValueError("results: was never evaluated")
    for number, row in enumerate(kept["metrics"]):
        for key, value in row.items():
            if key.endswith("/miou") and value is not None and not _is_percent(value):
                raise ValueError(
                    f"metrics.{number}.{shortened(key, 60)}: expected a percentage, found {shortened(str(value))}"
                )
    text = record["recipe"]
    if not isinstance(text, str) or len(text) > LARGEST // 1000:
        raise ValueError("recipe: expected the text of a recipe")
    try:
        recipe = tomllib.loads(text)
    except RecursionError:
        raise ValueError("recipe: nested too deeply") from None
    check_types(_Recipe, recipe, "recipe.")


def check_index(raw: Mapping[str, Any]) -> None:
    """Raise ValueError unless an index has the right types, its labels are on its axes, and its predictions are of its runs."""
    if unknown := raw.keys() - _Index.__dataclass_fields__.keys():
        raise ValueError(f"unknown key {shortened(repr(min(unknown)))}")
    check_types(_Index, raw)
    axes, predictions = raw["axes"], raw.get("predictions")
    for run, at in raw["runs"].items():
        for axis, labels in axes.items():
            if at.get(axis) not in labels:
                raise ValueError(f"runs.{run}: its place on the axis {axis} is missing")
    if predictions and (strange := set(predictions["runs"].values()) - raw["runs"].keys()):
        raise ValueError(f"predictions.runs: no run {min(strange)}")


def check_classes(raw: Any) -> None:
    """Raise ValueError unless each domain has names and colours of its classes."""
    check_types(_Index, {"study": "", "axes": {}, "repeats": "", "runs": {}, "classes": raw})


def _is_percent(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -0.001 <= value <= 100.001
