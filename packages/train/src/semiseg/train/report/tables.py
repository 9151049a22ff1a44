"""A study's table, as CSV and as Markdown."""

import csv
from io import StringIO

from semiseg.train.report.study import Cell, Study
from semiseg.train.sweep.cells import csv_cell, markdown_cell
from semiseg.train.sweep.intervals import Estimate


def table_csv(study: Study) -> str:
    """A line for every domain, place and method; numbers in percent, unrounded."""
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            *("domain", csv_cell(study.index.across or "place"), "method", "n", "planned"),
            *(f"{what}_{part}" for what in ("last", "best", "teacher") for part in ("mean", "half_of_95_interval")),
            *("compared_with", "pairs", "difference_mean", "difference_half_of_95_interval"),
        ]
    )
    for domain in study.domains:
        for cell in study.cells(domain):
            scores = [part for score in (cell.last, cell.best, cell.teacher) for part in _parts(score)]
            pairs = cell.gain.n if cell.gain else 0
            place = [csv_cell(text) for text in (domain, cell.x, cell.method)]
            counts = [cell.last.n if cell.last else 0, cell.planned]
            writer.writerow([*place, *counts, *scores, csv_cell(cell.baseline or ""), pairs, *_parts(cell.gain)])
    return file.getvalue()


def table_markdown(study: Study) -> str:
    """A row for every method, one or two columns for every place: the form for a README."""
    lines = []
    for domain in study.domains:
        heads = [markdown_cell(study.place(x)) or "mIoU" for x in study.xs]
        lines += [f"mIoU (%) on {markdown_cell(domain)} after the last update.", ""] if len(study.domains) > 1 else []
        gain, right = (" | vs. baseline", "---:|---:|") if study.compares else ("", "---:|")
        lines += [f"| method | {' | '.join(head + gain for head in heads)} |", "|---|" + right * len(heads)]
        for method in study.methods:
            cells = [study.cell(x, method, domain) for x in study.xs]
            columns = (f"{_score(cell)} | {_gain(cell)}" if study.compares else _score(cell) for cell in cells)
            lines.append(f"| {markdown_cell(method)} | {' | '.join(columns)} |")
        lines.append("")
    repeats = markdown_cell(study.index.repeats) or "run"
    planned = sorted({cell.planned for domain in study.domains for cell in study.cells(domain)})
    n = f"{' or '.join(map(str, planned))} {repeats}{'' if planned == [1] else 's'}"
    lines.append(
        f"Mean mIoU (%) after the last update ± half the 95% confidence interval (Student's t) over n = {n}; cells with fewer "
        "runs say so."
    )
    if study.compares:
        lines[-1] += (
            " vs. baseline: difference from the supervised baseline with the same loss if available, else from `supervised`, "
            f"paired by {repeats}; bold: the interval excludes 0."
        )
    return "\n".join(lines) + "\n"


def _parts(estimate: Estimate | None) -> list[float | str]:
    return [estimate.mean, "" if estimate.half is None else estimate.half] if estimate else ["", ""]


def _score(cell: Cell) -> str:
    if cell.last is None:
        return f"0 of {cell.planned}" if cell.planned else "-"
    half = "" if cell.last.half is None else f" ± {cell.last.half:.1f}"
    return f"{cell.last.mean:.1f}{half}" + (f" ({cell.last.n} of {cell.planned})" if cell.last.n < cell.planned else "")


def _gain(cell: Cell) -> str:
    if cell.gain is None:
        return ""
    text = f"{cell.gain.mean:+z.1f}" + ("" if cell.gain.half is None else f" ± {cell.gain.half:.1f}")
    text = f"**{text}**" if cell.gain.verdict in ("above 0", "below 0") else text
    few = cell.last is not None and cell.gain.n < cell.last.n
    return text + (f" ({cell.gain.n} {'pair' if cell.gain.n == 1 else 'pairs'})" if few else "")
