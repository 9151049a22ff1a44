"""The charts of a report: scores against labels, differences with their intervals, validation during training."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from semiseg.train.report.study import Run, Study
from semiseg.train.sweep.figures import (
    LIGHT,
    Point,
    add_legend,
    draw_series,
    new_figure,
    score_range,
    set_scores,
    style,
    themed,
)
from semiseg.train.sweep.intervals import Estimate


@themed
def label_efficiency(study: Study, domain: str, *, width: float) -> Figure:
    """Mean mIoU after the last update against the axis, a line for each method, with 95 % intervals and single runs."""
    series: dict[str, dict[str, Point]] = {method: {} for method in study.methods}
    for cell in study.cells(domain):
        if cell.last:
            scores = [score for run in cell.runs if (score := run.miou(domain)) is not None]
            series[cell.method][cell.x] = Point(mean=cell.last.mean, half=cell.last.half, scores=scores)
    columns = max(1, min(len(series), int(width // (60 + 6.6 * max(map(len, series))))))
    rows = math.ceil(len(series) / columns)
    figure, (axes,) = new_figure(width, 18 * rows + (400 if width > 500 else 370))
    set_scores(axes, *score_range(point for points in series.values() for point in points.values()))
    draw_series(axes, study.xs, series)
    if study.xs == [""]:
        axes.set_xticks([0.5], ["all runs"])
    axes.set_xlabel({"labels": "labeled images"}.get(study.index.across or "", study.index.across or ""))
    axes.set_ylabel("mIoU (%)")
    add_legend(figure, study.methods, columns=columns)
    return figure


def difference(gain: Estimate, limit: float) -> str:
    """An interval beside zero, for a row of a table, as SVG; `limit`: points at both ends, beyond which it is cut."""

    def across(value: float) -> str:
        return f"{58 + max(-1.0, min(1.0, value / limit)) * 52:.1f}"

    middle, half = across(gain.mean), gain.half or 0
    colour, inside = ("ink", "ink") if gain.verdict in ("above 0", "below 0") else ("faint", "paper")
    return (
        '<svg viewBox="0 0 116 20" width="116" height="20" aria-hidden="true"><path d="M58 1V19" style="stroke:var(--faint)"/>'
        f'<g style="fill:var(--{inside});stroke:var(--{colour})">'
        f'<path d="M{across(gain.mean - half)} 10H{across(gain.mean + half)}" style="stroke-width:2"/>'
        f'<circle cx="{middle}" cy="10" r="3.8" style="stroke-width:1.5"/></g></svg>'
    )


@themed
def training(study: Study, method: str, domain: str) -> Figure:
    """Validation mIoU against updates: runs thin, their mean thick, the mean of the method's baseline dotted."""
    everything = [point for run in study.runs for point in run.curve(domain)]
    scores, last = [score for _, score in everything], max(step for step, _ in everything)
    figure, (axes,) = new_figure(300, 210)
    set_scores(axes, min(scores), max(scores))
    axes.set_xlim(0, last)
    axes.set_xticks([0, last / 2, last], ["0", f"{last / 2:,.0f}", f"{last:,}"], size=10, color=LIGHT["faint"])
    axes.set_xlabel("updates", size=10)
    colour, _, marker, size = style(study.methods.index(method))
    ends: dict[str, float] = {}
    for x in study.xs:
        runs = [run for run in study.runs if run.method == method and run.x == x and run.curve(domain)]
        baseline = [other for _, other in study.pairs(x, method)]
        axes.plot(*_mean(baseline, domain), color=LIGHT["faint"], linestyle=(0, (1.5, 2)))
        for run in runs:
            axes.plot(*zip(*run.curve(domain), strict=True), color=colour, linewidth=1, alpha=0.45)
        steps, means = _mean(runs, domain)
        if steps:
            axes.plot(steps, means, color=colour, linewidth=2)
            axes.plot(steps[-1], means[-1], marker, color=colour, markersize=0.8 * size)
            ends[x] = means[-1]
    bottom, top = axes.get_ylim()
    for x, y in _spread(ends, (top - bottom) / 13).items():
        axes.annotate(x, (last, y), (7, 0), textcoords="offset points", va="center", size=10)
    return figure


def _mean(runs: Sequence[Run], domain: str) -> tuple[list[int], list[float]]:
    """Steps and means of the scores, at the steps that all runs have."""
    curves = [dict(run.curve(domain)) for run in runs]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    return steps, [sum(curve[step] for curve in curves) / len(curves) for step in steps]


def _spread(ends: dict[str, float], apart: float) -> dict[str, float]:
    """Labels moved up until they do not touch."""
    placed: dict[str, float] = {}
    for name, y in sorted(ends.items(), key=lambda pair: pair[1]):
        placed[name] = max([y, *(other + apart for other in placed.values())])
    return placed
