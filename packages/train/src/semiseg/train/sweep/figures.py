"""Figures of scores, drawn by matplotlib: as PNG, and as SVG in the colours of a page."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO, StringIO
from itertools import pairwise
from math import log
from typing import Literal, NamedTuple

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

# After Okabe and Ito, whom colour-blind readers can follow, darkened to 3:1 against white and lightened against black.
LIGHT = {
    "paper": "#ffffff", "ink": "#1c1c1e", "faint": "#5b5b63", "rule": "#dedee3", "band": "#f5f5f7",
    "s0": "#1c1c1e", "s1": "#8a8a92", "s2": "#00549a", "s3": "#2a94cf", "s4": "#00875f", "s5": "#d55e00", "s6": "#b0408f",
}  # fmt: skip
DARK = {
    "paper": "#16171a", "ink": "#ececf0", "faint": "#a5a6b0", "rule": "#34353b", "band": "#1f2024",
    "s0": "#ececf0", "s1": "#8f909a", "s2": "#3590dc", "s3": "#9bd8f7", "s4": "#2dc796", "s5": "#ff8a3c", "s6": "#e58bc9",
}  # fmt: skip
_DASHES: tuple[Literal["-"] | tuple[float, tuple[float, ...]], ...] = (
    "-",
    (0, (5, 2)),
    "-",
    (0, (5, 2)),
    (0, (1.5, 2)),
    "-",
    (0, (7, 2, 1.5, 2)),
)
_MARKERS = (("o", 7.0), ("s", 6.5), ("^", 8.0), ("D", 6.5), ("v", 8.0), ("P", 8.5), ("X", 8.0))  # and their sizes

# Functions that create or save figures are decorated with it: they look the same whatever a user's matplotlibrc says.
themed = matplotlib.style.context(
    [
        "default",
        {
            "font.size": 11, "font.sans-serif": ["DejaVu Sans"], "text.color": LIGHT["ink"], "svg.fonttype": "none",
            "figure.facecolor": LIGHT["paper"], "axes.facecolor": "none", "axes.edgecolor": "none", "axes.titlesize": 11,
            "axes.labelcolor": LIGHT["faint"], "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True,
            "grid.color": LIGHT["rule"], "xtick.labelcolor": LIGHT["ink"], "xtick.major.size": 0, "xtick.major.pad": 6,
            "ytick.labelcolor": LIGHT["faint"], "ytick.labelsize": 10, "ytick.major.size": 0, "legend.frameon": False,
            "lines.linewidth": 1.2, "lines.markeredgewidth": 0, "text.parse_math": False,
        },
    ]
)  # fmt: skip
# What an SVG has that a page does without: head and foot, clip paths (nothing is drawn outside), ids other than markers'.
_DROPPED = re.compile(
    r"\A.*?<svg[^>]*>|</svg>\s*\Z|<(metadata|style|clipPath).*?</\1>|<!--.*?-->"
    r'| clip-path="[^"]*"| id="(?!m\w{10}")[^"]*"',
    re.DOTALL,
)


class Style(NamedTuple):
    """How a series looks. Each has its own marker, so colour is never the only difference."""

    colour: str
    dash: Literal["-"] | tuple[float, tuple[float, ...]]
    marker: str
    size: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """A mean, half the length of its error bar (None for no bar), and the scores of the single runs."""

    mean: float
    half: float | None
    scores: Sequence[float]


def style(number: int) -> Style:
    """The style of a series; from the eighth on, colours repeat with other markers."""
    return Style(LIGHT[f"s{number % 7}"], _DASHES[number % 7], *_MARKERS[(number + number // 7) % 7])


def new_figure(width: float, height: float, *, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure, in points, with panels side by side that share their y axis."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    return figure, list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])


def set_scores(axes: Axes, low: float, high: float) -> None:
    """Let the y axis show the scores (%) from `low` to `high`, or at least one point around them, with round ends."""
    room = max(0, 1 - (high - low)) / 2
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(max(0, low - room), min(100, high + room))
    axes.set_yticks(ticks)
    axes.set_ylim(ticks[0], ticks[-1])


def score_range(points: Iterable[Point]) -> tuple[float, float]:
    """Of all scores, and of error bars unless they are far longer than the range of the scores."""
    points = list(points)
    scores = [score for point in points for score in point.scores]
    if not scores:
        return 0, 100
    ends = [point.mean + sign * (point.half or 0) for point in points for sign in (-1, 1)]
    room = 0.35 * (max(scores) - min(scores)) + 1
    return max(min(scores) - room, min(ends + scores)), min(max(scores) + room, max(ends + scores))


def draw_series(axes: Axes, labels: Sequence[str], series: Mapping[str, Mapping[str, Point]]) -> None:
    """Draw series (name -> label -> point) against labels, on axes whose scores are set.

    Positive numbers are placed by their logarithm, other labels evenly. Series are side by side at each label, so that
    none hides another. Each mean has small marks for the single runs on its left.
    """
    places = _places(labels)
    gap = min((right - left for left, right in pairwise(places.values())), default=1.0)
    slot = min(gap * 0.8 / len(series), 0.05)
    scale = min(1.0, max(0.6, slot * axes.bbox.width / 14))  # of marks, by the pixels of a slot (100 an inch)
    axes.set_xlim(0, 1)
    axes.set_xticks(list(places.values()), list(places))
    for place in places.values():
        half = slot * (len(series) / 2 + 0.4)
        axes.axvspan(place - half, place + half, color=LIGHT["band"], linewidth=0, zorder=0)
    for number, points in enumerate(series.values()):
        colour, dash, marker, size = style(number)
        shift = slot * (number - (len(series) - 1) / 2)
        means = [(places[label] + shift, points[label]) for label in places if label in points]
        x, y = [place for place, _ in means], [point.mean for _, point in means]
        axes.plot(x, y, color=colour, linestyle=dash, alpha=0.55)
        for place, point in means:
            _error_bar(axes, place, point, colour, 5.6 * scale)
            if len(point.scores) > 1:
                runs = [place - 0.42 * slot] * len(point.scores)
                axes.plot(runs, point.scores, marker, color=colour, markersize=size / 2 * scale, alpha=0.75)
        axes.plot(
            x, y, marker, color=LIGHT["paper"], markersize=(size + 2.4) * scale, zorder=3
        )  # set off from what is below
        axes.plot(x, y, marker, color=colour, markersize=size * scale, zorder=3)


def add_legend(figure: Figure, names: Sequence[str], *, columns: int = 1, title: str | None = None) -> None:
    """Lines and markers of series, with their names: under a title on the right, or without one in rows at the top."""
    order = [
        number for column in range(columns) for number in range(column, len(names), columns)
    ]  # matplotlib goes down
    handles = []
    for colour, dash, marker, size in map(style, order):
        handles.append(Line2D([], [], color=colour, linestyle=dash, marker=marker, markersize=size))
    place = "outside right center" if title else "outside upper left"
    labels = [names[number] for number in order]
    figure.legend(handles, labels, loc=place, ncols=columns, title=title, handlelength=2.6)


def _error_bar(axes: Axes, place: float, point: Point, colour: str, cap: float) -> None:
    """An end beyond the axis has no cap."""
    if point.half is None:
        return
    bottom, top = axes.get_ylim()
    ends = point.mean - point.half, point.mean + point.half
    axes.plot([place, place], [max(ends[0], bottom), min(ends[1], top)], color=colour)
    caps = [end for end in ends if bottom <= end <= top]
    axes.plot([place] * len(caps), caps, "_", color=colour, markersize=cap, markeredgewidth=1.2)


def _places(labels: Sequence[str]) -> dict[str, float]:
    """Label -> x from 0 to 1, with half a place's room at both ends."""
    try:
        values = [log(float(label)) for label in labels]
    except ValueError:
        values = []
    if len(set(values)) < len(labels):  # not numbers, not positive, or some are equal
        values = [float(number) for number in range(len(labels))]
    if len(labels) == 1:
        return {labels[0]: 0.5}
    low, length, room = min(values), max(values) - min(values), 0.5 / len(labels)
    placed = {
        label: room + (value - low) / length * (1 - 2 * room) for label, value in zip(labels, values, strict=True)
    }
    return dict(sorted(placed.items(), key=lambda item: item[1]))


@themed
def png(figure: Figure) -> bytes:
    """In the light palette, two pixels a point."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=144, metadata={"Software": None})
    return file.getvalue()


@themed
def svg(figure: Figure, alt: str, *, css_class: str) -> str:
    """For a page that defines the palette as --paper, --ink, ...; `alt` says what the figure shows."""
    file = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": css_class + alt}):  # ids are unique on a page, and the same every time
        figure.savefig(file, format="svg", metadata={"Date": None})
    names = {colour: name for name, colour in reversed(LIGHT.items())}
    body = _DROPPED.sub("", file.getvalue())
    body = re.sub(r"(?<=: )#[0-9a-f]{6}", lambda found: f"var(--{names[found[0]]})", body)
    width, height = (72 * inches for inches in figure.get_size_inches())
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return f'<svg class="{css_class}" {size} role="img" aria-label="{escape(alt)}">{body}</svg>'
