"""A study: collected runs, and the statistics of their scores."""

import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from semiseg.data import SemisegError
from semiseg.train.report.index import Index, is_number
from semiseg.train.report.runs import read_runs
from semiseg.train.sweep.intervals import Estimate, estimate


@dataclass(frozen=True, kw_only=True)
class Run:
    """A complete run on its curve. x: its label on the axis of the curves; repeat: its label on that of the repeats."""

    name: str
    method: str
    x: str
    repeat: str
    results: dict[str, Any]
    recipe: dict[str, Any]
    launches: list[dict[str, Any]]
    metrics: list[dict[str, Any]]

    def miou(self, domain: str, when: str = "last") -> float | None:
        """In percent; when: "last", "best", or "teacher" (the moving average at the last step, if it was scored too)."""
        scores = self.results["last"].get("teacher", {}) if when == "teacher" else self.results[when]
        return scores.get("domains", {}).get(domain, {}).get("miou")

    def iou(self, domain: str, name: str) -> float | None:
        """Of one class, in percent, at the last step."""
        return self.results["last"]["domains"].get(domain, {}).get("iou", {}).get(name)

    def curve(self, domain: str) -> list[tuple[int, float]]:
        """(step, validation mIoU) of every evaluation; the last one of a step that was scored again."""
        key = f"{domain}/miou"
        return list({row["step"]: row[key] for row in self.metrics if row.get(key) is not None}.items())


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method at one place of the axis, in one domain; runs that have another domain do not count as planned.

    baseline: the method that it is compared with; gain: the differences from it, paired by repeat.
    """

    x: str
    method: str
    runs: tuple[Run, ...]
    planned: int
    last: Estimate | None
    best: Estimate | None
    teacher: Estimate | None
    baseline: str | None
    gain: Estimate | None


@dataclass(frozen=True, kw_only=True)
class Study:
    """Collected runs and their index. missing: planned runs that do not count -> why, "" for those that are not there."""

    folder: Path
    index: Index
    runs: list[Run]
    missing: dict[str, str]

    @cached_property
    def methods(self) -> list[str]:
        return self.index.methods

    @cached_property
    def xs(self) -> list[str]:
        return self.index.axes[self.index.across] if self.index.across else [""]

    @cached_property
    def domains(self) -> list[str]:
        return list(dict.fromkeys(domain for run in self.runs for domain in run.results["last"]["domains"]))

    def place(self, x: str) -> str:
        """A place on the axis in words: "20 labels", "K 4"; "" where there is no axis."""
        across = self.index.across
        if across is None or x.startswith(across):
            return x
        return f"{x} {across}" if across == "labels" and is_number(x) else f"{across} {x}"

    def cell(self, x: str, method: str, domain: str) -> Cell:
        planned = [
            name
            for name, at in self.index.runs.items()
            if self.index.method(name) == method and (not self.index.across or at[self.index.across] == x)
        ]
        found = self._at(x, method)
        runs = [run for run in found if domain in run.results["last"]["domains"]]
        pairs = [(run.miou(domain), other.miou(domain)) for run, other in self.pairs(x, method)]
        gains = [score - other for score, other in pairs if score is not None and other is not None]
        last, best, teacher = (
            estimate([score for run in runs if (score := run.miou(domain, when)) is not None])
            for when in ("last", "best", "teacher")
        )
        return Cell(
            x=x,
            method=method,
            runs=tuple(runs),
            planned=len(planned) - (len(found) - len(runs)),
            last=last,
            best=best,
            teacher=teacher,
            baseline=self.baseline(method),
            gain=estimate(gains),
        )

    def cells(self, domain: str) -> list[Cell]:
        """Of every place and method that was planned, in the order of the axes."""
        found = (self.cell(x, method, domain) for x in self.xs for method in self.methods)
        return [cell for cell in found if cell.planned]

    def pairs(self, x: str, method: str) -> list[tuple[Run, Run]]:
        """The runs of a method at a place, with the baseline's run of the same repeat; those without one are left out."""
        others = {run.repeat: run for run in self._at(x, self.baseline(method))}
        return [(run, others[run.repeat]) for run in self._at(x, method) if run.repeat in others]

    def baseline(self, method: str) -> str | None:
        """The supervised baseline of a method: its name with as few words as possible replaced by "supervised".

        cct_abce is compared with supervised_abce if that was trained too, else with supervised, as is supervised_abce;
        "cct, K 4" with "supervised, K 4"; camvid-cct with camvid-supervised.
        """
        words = re.split(r"([^A-Za-z0-9]+)", method)  # words at even places, separators at odd ones
        spans = sorted(
            (end - start, start, end)
            for start in range(0, len(words), 2)
            for end in range(start + 1, len(words) + 1, 2)
        )
        names = ("".join([*words[:start], "supervised", *words[end:]]) for _, start, end in spans)
        return next((name for name in names if name in self.methods and name != method), None)

    @property
    def compares(self) -> bool:
        """Whether any method has a baseline."""
        return any(self.baseline(method) for method in self.methods)

    def _at(self, x: str, method: str | None) -> list[Run]:
        return [run for run in self.runs if run.x == x and run.method == method]


def read_study(folder: Path) -> Study:
    """Read what `semiseg collect` wrote, or a sweep's folder. Raises SemisegError for damage, and for no run at all."""
    index, records, left = read_runs(folder)
    if not records:
        raise SemisegError(
            f"{folder}: none of its {len(index.runs)} planned runs is complete; train, then collect again"
        )
    runs = [
        Run(
            name=record.name,
            method=index.method(record.name),
            x=index.runs[record.name][index.across] if index.across else "",
            repeat=index.runs[record.name].get(index.repeats, ""),
            results=record.results,
            recipe=tomllib.loads(record.recipe),
            launches=record.launches,
            metrics=record.metrics,
        )
        for record in records
    ]
    complete = {run.name for run in runs}
    missing = {name: left.get(name, "") for name in index.runs if name not in complete} | left
    return Study(folder=folder, index=index, runs=runs, missing=missing)
