"""A study's table, as CSV and as Markdown."""

import csv
from io import StringIO

from semiseg.train.report.study import Cell, Study
from semiseg.train.sweep.intervals import Estimate


def table_csv(study: Study) -> str:
    """A line for each domain, place and method; numbers in percent, unrounded."""
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            *("domain", study.index.across or "place", "method", "n", "planned"),
            *(f"{what}_{part}" for what in ("last", "best", "teacher") for part in ("mean", "half_of_95_interval")),
            *("compared_with", "pairs", "difference_mean", "difference_half_of_95_interval"),
        ]
    )
    for domain in study.domains:
        for cell in study.cells(domain):
            scores = [part for each in (cell.last, cell.best, cell.teacher) for part in _parts(each)]
            pairs = cell.gain.n if cell.gain else 0
            place = [domain, cell.x, cell.method, cell.last.n if cell.last else 0, cell.planned]
            writer.writerow([*place, *scores, cell.twin or "", pairs, *_parts(cell.gain)])
    return file.getvalue()


def table_markdown(study: Study) -> str:
    """A row for each method, two columns for each place: what a README shows."""
    lines = []
    for domain in study.domains:
        heads = [study.place(x) or "mIoU" for x in study.xs]
        lines += [f"mIoU in percent, {domain}, after the last update.", ""] if len(study.domains) > 1 else []
        twin, right = (" | to its twin", "---:|---:|") if study.compares else ("", "---:|")
        lines += [f"| method | {' | '.join(head + twin for head in heads)} |", "|---|" + right * len(heads)]
        for method in study.methods:
            cells = [study.cell(x, method, domain) for x in study.xs]
            told = (f"{_score(cell)} | {_gain(cell)}" if study.compares else _score(cell) for cell in cells)
            lines.append(f"| {method} | {' | '.join(told)} |")
        lines.append("")
    repeats = study.index.repeats or "run"
    counts = sorted({cell.planned for domain in study.domains for cell in study.cells(domain)})
    n = " or ".join(map(str, counts))
    lines.append(
        f"mIoU in percent after the last update: mean over {repeats}s (n = {n}) ± half of its 95 % interval (Student's t); "
        "where there are fewer it says so."
    )
    if study.compares:
        lines[-1] += (
            " To its twin: difference to supervised training with the same loss where that is there, else to `supervised`, "
            f"paired by {repeats}; bold where its interval leaves out 0."
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
