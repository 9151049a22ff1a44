"""The results of a sweep: means over its seeds, with their spread, as a table, CSV and JSON."""

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semiseg.data import write_text
from semiseg.train.recipe.problems import shortened
from semiseg.train.run.results import plan
from semiseg.train.sweep.cells import csv_cell
from semiseg.train.sweep.grid import Planned, Sweep, results_of
from semiseg.train.sweep.intervals import estimate


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting in one domain. scores: mIoU in percent at the last step of each complete run; planned: number of runs.

    mean, sd (of the sample, n - 1) and half (half the width of the mean's 95 % interval) are None where n is too small.
    """

    at: dict[str, str]
    domain: str
    scores: tuple[float, ...]
    planned: int

    @property
    def mean(self) -> float | None:
        found = estimate(self.scores)
        return found.mean if found else None

    @property
    def sd(self) -> float | None:
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def half(self) -> float | None:
        """By Student's t: few seeds make wide intervals."""
        found = estimate(self.scores)
        return found.half if found else None


def tabulate(sweep: Sweep, runs: Sequence[Planned]) -> list[Row]:
    """A row for every setting and domain, in the order of the axes."""
    settings: dict[tuple[str, ...], list[Planned]] = {}
    for run in runs:
        settings.setdefault(tuple(run.at[axis.name] for axis in sweep.groups), []).append(run)
    rows = []
    for labels, members in settings.items():
        results = [result for run in members if (result := results_of(run))]
        for domain in [name for name, source in members[0].recipe.data.domains.items() if source.val]:
            scores = [result["last"].get("domains", {}).get(domain, {}).get("miou") for result in results]
            rows.append(
                Row(
                    at={axis.name: label for axis, label in zip(sweep.groups, labels, strict=True)},
                    domain=domain,
                    scores=tuple(score for score in scores if score is not None),
                    planned=len(members),
                )
            )
    return rows


def print_table(sweep: Sweep, rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    domains = len({row.domain for row in rows}) > 1
    headings = [*(shortened(axis.name) for axis in sweep.groups), *["domain"] * domains]
    table = Table(*headings, "n", "mean mIoU %", "sd", "95 % interval", title=sweep.name)
    for column in table.columns[len(headings) :]:
        column.justify = "right"
    for row in rows:
        n = str(len(row.scores)) if len(row.scores) == row.planned else f"{len(row.scores)} of {row.planned}"
        interval = "-"
        if row.mean is not None and row.half is not None:
            interval = f"{row.mean - row.half:.2f} .. {row.mean + row.half:.2f}"
        labels = map(shortened, row.at.values())
        table.add_row(*labels, *[row.domain] * domains, n, _number(row.mean), _number(row.sd), interval)
    Console(markup=False, emoji=False).print(table)


def write_table(sweep: Sweep, runs: Sequence[Planned], rows: Sequence[Row], folder: Path) -> None:
    """table.csv, a line for each row, and table.json, which also has every run."""
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(
        [*(csv_cell(axis.name) for axis in sweep.groups), "domain", "n", "mean", "sd", "half_of_95_interval"]
    )
    for row in rows:
        labels = [csv_cell(label) for label in row.at.values()]
        writer.writerow([*labels, row.domain, len(row.scores), row.mean, row.sd, row.half])
    write_text(folder / "table.csv", lines.getvalue())
    table: dict[str, Any] = {
        "sweep": sweep.name,
        "rows": [
            {**row.at, "domain": row.domain, "n": len(row.scores), "planned": row.planned, "mean": row.mean}
            | {"sd": row.sd, "half_of_95_interval": row.half, "scores": row.scores}
            for row in rows
        ],
        "runs": [
            {"folder": str(run.folder), **run.at, **plan(run.recipe), "complete": results_of(run) is not None}
            for run in runs
        ],
    }
    write_text(folder / "table.json", json.dumps(table, indent=2) + "\n")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
