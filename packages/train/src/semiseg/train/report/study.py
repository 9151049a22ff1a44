"""What a report is made of: the collected runs, and the statistics of their scores."""

import json
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from semiseg.data import SemisegError
from semiseg.train.report.collect import why_incomplete
from semiseg.train.report.index import INDEX, Index, is_number, read_index, read_json, unread
from semiseg.train.run.records import differs, read_launches
from semiseg.train.sweep.intervals import Estimate, estimate


@dataclass(frozen=True, kw_only=True)
class Run:
    """A complete run. at: axis -> label; x: where it stands on the axis of the curves; recipe: as written, a dict."""

    name: str
    method: str
    x: str
    repeat: str
    results: dict[str, Any]
    recipe: dict[str, Any]
    launches: list[dict[str, Any]]
    metrics: list[dict[str, Any]]

    def miou(self, domain: str, when: str = "last") -> float | None:
        """In percent; when: "last", "best", or "teacher" (the moving average at the last step, where it was scored too)."""
        scores = self.results["last"].get("teacher", {}) if when == "teacher" else self.results[when]
        return scores.get("domains", {}).get(domain, {}).get("miou")

    def iou(self, domain: str, name: str) -> float | None:
        """Of one class, in percent, at the last step."""
        return self.results["last"]["domains"].get(domain, {}).get("iou", {}).get(name)

    def curve(self, domain: str) -> list[tuple[int, float]]:
        """(step, validation mIoU) of every evaluation; of one step the last, where it was scored again."""
        key = f"{domain}/miou"
        return list({row["step"]: row[key] for row in self.metrics if row.get(key) is not None}.items())


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method at one place of the axis, in one domain; runs that have another domain do not count as planned.

    gain: what it has over `twin`, differences paired by repeat.
    """

    x: str
    method: str
    runs: tuple[Run, ...]
    planned: int
    last: Estimate | None
    best: Estimate | None
    teacher: Estimate | None
    twin: str | None
    gain: Estimate | None


@dataclass(frozen=True, kw_only=True)
class Study:
    """Collected runs and where they stand. missing: planned runs that are not there -> why they don't count, if they are."""

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
        there, twin = self._at(x, method), self.twin(method)
        runs = [run for run in there if domain in run.results["last"]["domains"]]
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
            planned=len(planned) - (len(there) - len(runs)),
            last=last,
            best=best,
            teacher=teacher,
            twin=twin,
            gain=estimate(gains),
        )

    def cells(self, domain: str) -> list[Cell]:
        """Of every place and method that was planned, in the order of the axes."""
        found = (self.cell(x, method, domain) for x in self.xs for method in self.methods)
        return [cell for cell in found if cell.planned]

    def pairs(self, x: str, method: str) -> list[tuple[Run, Run]]:
        """The runs of a method at a place, each beside its twin's of the same repeat, where there is one."""
        others = {run.repeat: run for run in self._at(x, self.twin(method))}
        return [(run, others[run.repeat]) for run in self._at(x, method) if run.repeat in others]

    def twin(self, method: str) -> str | None:
        """What a method is compared with: the one of its name with "supervised" for as few of its words as possible.

        cct_abce is compared with supervised_abce where that was trained too, else with supervised, and so is supervised_abce;
        "cct, K 4" with "supervised, K 4"; camvid-cct with camvid-supervised.
        """
        words = re.split(r"([^A-Za-z0-9]+)", method)  # words at even places, what is between them at odd ones
        spans = sorted(
            (end - start, start, end)
            for start in range(0, len(words), 2)
            for end in range(start + 1, len(words) + 1, 2)
        )
        names = ("".join([*words[:start], "supervised", *words[end:]]) for _, start, end in spans)
        return next((name for name in names if name in self.methods and name != method), None)

    @property
    def compares(self) -> bool:
        """Whether any method has a twin."""
        return any(self.twin(method) for method in self.methods)

    def _at(self, x: str, method: str | None) -> list[Run]:
        return [run for run in self.runs if run.x == x and run.method == method]


def read_study(folder: Path) -> Study:
    """Read what `semiseg collect` wrote, or a sweep's folder. Raises SemisegError for damage, and for no run at all."""
    index = read_index(folder)
    collected = (folder / INDEX).is_file()
    runs: list[Run] = []
    missing: dict[str, str] = {}
    for name in index.runs:
        there, planned = (folder / name / "results.json").is_file(), index.plan.get(name, {})
        # a collected recipe has lost its machine's paths, so its own digest tells nothing any more
        reason = why_incomplete(folder / name, planned) if there and not collected else ""
        run = _read(folder, name, index) if there and not reason else None
        reason = reason or (differs(run.results, planned) if run else "")
        if run and not reason:
            runs.append(run)
        else:
            missing[name] = reason
    missing |= unread(folder)
    if not runs:
        raise SemisegError(
            f"{folder}: none of its {len(index.runs)} planned runs is complete; train, then collect again"
        )
    return Study(folder=folder, index=index, runs=runs, missing=missing)


def _read(folder: Path, name: str, index: Index) -> Run:
    run, at = folder / name, index.runs[name]
    remedy = "collect it again, or remove its folder"
    results = read_json(run / "results.json", remedy=remedy)
    launches = read_launches(run)
    try:
        recipe = tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for scores in (results[when]["domains"].values() for when in ("last", "best")):
            _ = [float(each["miou"] or 0) + sum(float(iou or 0) for iou in each["iou"].values()) for each in scores]
        _ = [int(row["step"]) for row in metrics]
        _ = float(results["hours"]), str(results["recipe"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SemisegError(f"{run}: damaged ({type(error).__name__}: {error}); {remedy}") from None
    return Run(
        name=name,
        method=index.method(name),
        x=at[index.across] if index.across else "",
        repeat=at.get(index.repeats, ""),
        results=results,
        recipe=recipe,
        launches=launches,
        metrics=metrics,
    )
