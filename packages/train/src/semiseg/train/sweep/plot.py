"""The figure of a sweep, as CCT's Fig. 5 and 6: a score against one axis, a line for each value of another, panels."""

from collections.abc import Sequence
from pathlib import Path

from semiseg.data import atomic
from semiseg.train.sweep.figures import (
    LIGHT,
    Point,
    add_legend,
    draw_series,
    new_figure,
    png,
    score_range,
    set_scores,
    themed,
)
from semiseg.train.sweep.grid import Axis, Sweep
from semiseg.train.sweep.table import Row


@themed
def plot(sweep: Sweep, rows: Sequence[Row], to: Path) -> bool:
    """Draw the rows of the sweep's first domain as a PNG; False if no run is complete yet.

    Error bars are one standard deviation over seeds. Axes that the plot leaves out are held at their first value, which
    the title says.
    """
    axes = {axis.name: axis for axis in sweep.axes}
    across = axes[sweep.plot["x"]]
    lines, panels = (axes.get(sweep.plot.get(role, "")) for role in ("lines", "panels"))
    drawn = {axis.name for axis in (across, lines, panels) if axis}
    held = {axis.name: next(iter(axis.points)) for axis in sweep.groups if axis.name not in drawn}
    kept = [
        row
        for row in rows
        if row.domain == rows[0].domain and row.scores and all(row.at[name] == label for name, label in held.items())
    ]
    if not kept:
        return False
    titles, names = (list(axis.points) if axis else [""] for axis in (panels, lines))
    figure, cells = new_figure(110 + 250 * len(titles) + 86 * bool(lines), 280, panels=len(titles))
    set_scores(cells[0], *score_range(map(_point, kept)))
    for cell, title in zip(cells, titles, strict=True):
        here = [row for row in kept if _is_at(row, panels, title)]
        series = {
            name: {row.at[across.name]: _point(row) for row in here if _is_at(row, lines, name)} for name in names
        }
        draw_series(cell, list(across.points), series)
        cell.set_xlabel(across.name)
        if panels:
            cell.set_title(f"{panels.name} {title}")
    cells[0].set_ylabel("mIoU (%)")
    if lines:
        add_legend(figure, names, title=lines.name)
    counts = sorted({len(row.scores) for row in kept})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    spread = f"mean and sd of {seeds} runs" if counts[-1] > 1 else "one run each"
    fixed = [sweep.name, *(f"{name} {label}" for name, label in held.items())]
    figure.suptitle(f"{', '.join(fixed)}: {kept[0].domain}, {spread}", size=10, color=LIGHT["faint"])
    with atomic(to) as file:
        file.write(png(figure))
    return True


def _point(row: Row) -> Point:
    return Point(mean=row.mean or 0, half=row.sd, scores=row.scores)


def _is_at(row: Row, axis: Axis | None, label: str) -> bool:
    return axis is None or row.at[axis.name] == label
