"""The figure of a sweep, as CCT's Fig. 5 and 6: a score against one axis, a line for each value of another, panels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semiseg.data import SemisegError, atomic
from semiseg.train.sweep.grid import Axis, Sweep
from semiseg.train.sweep.table import Row

# Okabe and Ito's colours, which colour-blind readers tell apart, and a marker each for print in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot(sweep: Sweep, rows: Sequence[Row], to: Path) -> bool:
    """Draw the rows of the sweep's first domain as a PNG; False where nothing is complete yet.

    Error bars are one standard deviation over seeds. Axes that the plot leaves out are held at their first value, which
    the title says. Raises SemisegError where matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise SemisegError(f"no plot: {error}; pip install 'semiseg-train[plots]'") from None
    axes = {axis.name: axis for axis in sweep.axes}
    across = axes[sweep.plot["x"]]
    lines, panels = (axes[name] if (name := sweep.plot.get(role)) else None for role in ("lines", "panels"))
    drawn = {axis.name for axis in (across, lines, panels) if axis}
    held = {axis.name: next(iter(axis.points)) for axis in sweep.groups if axis.name not in drawn}
    domain = rows[0].domain if rows else ""
    kept = [
        row
        for row in rows
        if row.domain == domain and row.scores and all(row.at[name] == label for name, label in held.items())
    ]
    if not kept:
        return False
    titles = list(panels.points) if panels else [""]
    names = list(lines.points) if lines else [""]
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(1.4 + 3.2 * len(titles) + 1.2 * bool(lines), 3.6), dpi=160, layout="constrained")
        grid: Any = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
        for cell, title in zip(grid, titles, strict=True):
            for number, name in enumerate(names):
                line = [row for row in kept if _is_at(row, panels, title) and _is_at(row, lines, name)]
                _line(cell, across, line, name, number, len(names))
            if panels:
                cell.set_title(f"{panels.name} {title}", fontsize=10)
            cell.set_xlabel(across.name)
            cell.grid(axis="y", color="0.9")
            cell.set_axisbelow(True)
            places = _places(across)
            cell.set_xticks(list(places.values()), list(places))
            cell.yaxis.set_major_locator(MaxNLocator(6))
        counts = sorted({len(row.scores) for row in kept})
        seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        grid[0].set_ylabel("mIoU (%)")
        if lines:
            handles, labels = grid[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside right center", frameon=False, title=lines.name)
        said = [sweep.name, *(f"{name} {label}" for name, label in held.items())]
        spread = f"mean and sd of {seeds} runs" if counts[-1] > 1 else "one run each"
        figure.suptitle(f"{', '.join(said)}: {domain}, {spread}", fontsize=10, color="0.3")
        with atomic(to) as file:
            figure.savefig(file, format="png")
    return True


def _line(cell: Any, across: Axis, rows: Sequence[Row], name: str, number: int, count: int) -> None:
    """Points a little apart, so that error bars do not hide one another."""
    places = _places(across)
    gap = min((b - a for a, b in zip(list(places.values())[:-1], list(places.values())[1:], strict=True)), default=1)
    shift = gap * 0.3 * ((number + 0.5) / count - 0.5)
    points = sorted((places[row.at[across.name]] + shift, row.mean, row.sd or 0) for row in rows)
    if not points:
        cell.plot([], [], color=_COLOURS[number % 7], marker=_MARKERS[number % 7], label=name)
        return
    x, mean, sd = zip(*points, strict=True)
    cell.errorbar(
        x, mean, yerr=sd if any(sd) else None, label=name, color=_COLOURS[number % 7], marker=_MARKERS[number % 7],
        markersize=5, linewidth=1.5, elinewidth=1, capsize=2.5,
    )  # fmt: skip


def _places(axis: Axis) -> dict[str, float]:
    """Label -> where it stands: numbers at their own value, words one after another."""
    values = list(axis.values.items())
    if all(isinstance(value, int | float) and not isinstance(value, bool) for _, value in values):
        return {label: float(value) for label, value in sorted(values, key=lambda pair: pair[1])}
    return {label: float(place) for place, (label, _) in enumerate(values)}


def _is_at(row: Row, axis: Axis | None, label: str) -> bool:
    return axis is None or row.at[axis.name] == label
