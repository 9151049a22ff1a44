"""The figures of a report: scores against labels, differences with their intervals, validation while training."""

import math
from collections.abc import Callable, Sequence

from semiseg.train.report.drawing import Area, Drawing, Line, Point, Text, style
from semiseg.train.report.index import is_number
from semiseg.train.report.study import Cell, Run, Study

Axis = Callable[[float], float]  # a value's place on the drawing


def label_efficiency(study: Study, domain: str, *, width: float) -> Drawing:
    """Mean mIoU at the last step against the axis, a line a method, 95 % intervals as bars, each run a small mark.

    Methods stand side by side at each place, so that none hides another.
    """
    cells = [cell for cell in study.cells(domain) if cell.last]
    methods = study.methods
    lines = math.ceil(len(methods) / max(1, width // (48 + 7.4 * max(map(len, methods)))))
    columns = math.ceil(len(methods) / lines)
    top, bottom, left, right = 20 * lines + 26, 44, 44, 6
    height = top + bottom + (330 if width > 500 else 300)
    drawing = Drawing(width, height)
    for number, method in enumerate(methods):
        x, y = left + (number % columns) * (width - left) / columns, 14 + 20 * (number // columns)
        look = style(number)
        drawing.shapes.append(Line([(x, y), (x + 24, y)], look.colour, 1.6, look.dash))
        drawing.mark((x + 12, y), look.marker, look.colour, 4.2, edge=True)
        drawing.shapes.append(Text((x + 30, y + 4), method, colour="ink"))

    low, high, step = _range(cells, domain)

    def up(value: float) -> float:
        return height - bottom - (value - low) / (high - low) * (height - top - bottom)

    _grid(drawing, [low + step * i for i in range(round((high - low) / step) + 1)], up, left, width - right)
    drawing.shapes.append(Text((4, top - 12), "mIoU, %"))
    places = _places(study.xs, left, width - right)
    slot = min(
        [b - a for a, b in zip(sorted(places.values())[:-1], sorted(places.values())[1:], strict=True)] or [width]
    )
    slot = min(slot * 0.74 / len(methods), 34)
    for x, place in places.items():
        side = slot * (len(methods) / 2 + 0.4)
        band = [
            (place + a, b) for a, b in ((-side, top), (side, top), (side, height - bottom), (-side, height - bottom))
        ]
        drawing.shapes.insert(0, Area(band, "band"))
        drawing.shapes.append(Text((place, height - bottom + 18), x or "all runs", colour="ink", anchor="middle"))
    axis = {"labels": "labeled images"}.get(study.index.across or "", study.index.across or "")
    drawing.shapes.append(Text(((left + width - right) / 2, height - 6), axis, anchor="middle"))

    at = {method: slot * (number - (len(methods) - 1) / 2) for number, method in enumerate(methods)}
    for number, method in enumerate(methods):
        look = style(number)
        means = [
            (places[cell.x] + at[method], up(cell.last.mean)) for cell in cells if cell.method == method and cell.last
        ]
        if len(means) > 1:
            drawing.shapes.append(Line(means, look.colour, 1.3, look.dash, 0.55))
    for cell in cells:
        _cell(
            drawing, cell, domain, places[cell.x] + at[cell.method], up, (low, high), slot, methods.index(cell.method)
        )
    return drawing


def difference(cell: Cell, limit: float) -> Drawing:
    """A difference's interval beside zero, for a row of a table; `limit`: points at both ends, beyond which it is cut."""
    width, height = 116.0, 20.0
    drawing = Drawing(width, height, [Line([(width / 2, 1), (width / 2, height - 1)], "faint", 1)])

    def across(value: float) -> float:
        return width / 2 + max(-1.0, min(1.0, value / limit)) * (width / 2 - 6)

    if cell.gain:
        sure = cell.gain.verdict in ("above 0", "below 0")
        colour, middle, half = "ink" if sure else "faint", across(cell.gain.mean), cell.gain.half or 0
        ends = across(cell.gain.mean - half), across(cell.gain.mean + half)
        drawing.shapes.append(Line([(ends[0], height / 2), (ends[1], height / 2)], colour, 2))
        drawing.mark((middle, height / 2), 0 if sure else 3, colour, 4.2 if sure else 3.6, edge=True)
    return drawing


def training(study: Study, method: str, domain: str) -> Drawing:
    """Validation mIoU against steps: each run of a method a thin line, their mean a thick one, the twin's mean dotted."""
    runs = [run for run in study.runs if run.method == method]
    everything = [point for run in study.runs for point in run.curve(domain)]
    width, height, left, top, bottom, right = 300.0, 210.0, 30, 12, 34, 44
    drawing = Drawing(width, height)
    last = max(step for step, _ in everything)
    scores = [score for _, score in everything]
    low, high, step = _nice(min(scores), max(scores))

    def at(point: tuple[float, float]) -> Point:
        x = left + point[0] / last * (width - left - right)
        return x, height - bottom - (point[1] - low) / (high - low) * (height - top - bottom)

    _grid(
        drawing,
        [low + step * i for i in range(round((high - low) / step) + 1)],
        lambda v: at((0, v))[1],
        left,
        width - right,
    )
    for share in (0.0, 0.5, 1.0):
        anchor = {0.0: "start", 0.5: "middle", 1.0: "end"}[share]
        drawing.shapes.append(
            Text((at((share * last, low))[0], height - 18), f"{share * last:,.0f}", 11, anchor=anchor)
        )
    drawing.shapes.append(Text((left + (width - left - right) / 2, height - 3), "updates", 11, anchor="middle"))
    look = style(study.methods.index(method))
    ends: dict[str, float] = {}
    twin = study.baseline(method)
    for x in study.xs:
        if twin and (mean := _mean([other for _, other in study.pairs(x, method)], domain)):
            drawing.shapes.append(Line([at(point) for point in mean], "faint", 1.2, (2, 3)))
        for run in (run for run in runs if run.x == x and run.curve(domain)):
            drawing.shapes.append(Line([at(point) for point in run.curve(domain)], look.colour, 1, opacity=0.45))
        if mean := _mean([run for run in runs if run.x == x], domain):
            drawing.shapes.append(Line([at(point) for point in mean], look.colour, 2.2))
            drawing.mark(at(mean[-1]), look.marker, look.colour, 3.2)
            ends[x] = at(mean[-1])[1]
    for x, y in _spread(ends, 13).items():
        drawing.shapes.append(Text((width - right + 7, y + 4), x, 11, "ink"))
    return drawing


def _cell(drawing: Drawing, cell: Cell, domain: str, x: float, up: Axis, ends: Point, slot: float, number: int) -> None:
    look = style(number)
    low, high = ends
    radius = min(4.4, slot * 0.34)
    assert cell.last is not None
    if cell.last.half is not None:
        bottom, top = cell.last.mean - cell.last.half, cell.last.mean + cell.last.half
        drawing.shapes.append(Line([(x, up(max(bottom, low))), (x, up(min(top, high)))], look.colour, 1.3))
        for end in (end for end in (bottom, top) if low <= end <= high):  # what goes on beyond the figure has no cap
            drawing.shapes.append(Line([(x - radius * 0.8, up(end)), (x + radius * 0.8, up(end))], look.colour, 1.3))
    for run in cell.runs:
        score = run.miou(domain)
        if score is not None and len(cell.runs) > 1:
            drawing.mark(
                (x - radius - min(3.4, slot * 0.2), up(score)), look.marker, look.colour, radius * 0.5, opacity=0.75
            )
    drawing.mark((x, up(cell.last.mean)), look.marker, look.colour, radius, edge=True)


def _range(cells: Sequence[Cell], domain: str) -> tuple[float, float, float]:
    """Of the axis: all scores, and intervals unless they are far wider than the scores' own range."""
    scores = [score for cell in cells for run in cell.runs if (score := run.miou(domain)) is not None]
    if not scores:
        return 0.0, 100.0, 20.0
    room = 0.35 * (max(scores) - min(scores)) + 1
    ends = [cell.last.mean + sign * (cell.last.half or 0) for cell in cells if cell.last for sign in (-1, 1)]
    lowest, highest = max(min(scores) - room, min(ends + scores)), min(max(scores) + room, max(ends + scores))
    return _nice(max(0.0, lowest), min(100.0, highest))


def _nice(low: float, high: float) -> tuple[float, float, float]:
    """Round ends around an interval, and the distance of 4 to 8 round ticks."""
    raw = max(high - low, 1.0) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return first * step, max(last, first + 1) * step, step


def _grid(drawing: Drawing, ticks: Sequence[float], up: Axis, left: float, right: float) -> None:
    for tick in ticks:
        drawing.shapes.append(Line([(left, up(tick)), (right, up(tick))], "rule", 1))
        drawing.shapes.append(Text((left - 7, up(tick) + 4), f"{tick:g}", 11, anchor="end"))


def _places(xs: Sequence[str], left: float, right: float) -> dict[str, float]:
    """Numbers by their logarithm, as labels cost; words evenly; with half a place's room at both ends."""
    values = [float(x) for x in xs] if all(is_number(x) and float(x) > 0 for x in xs) else []
    shares = [math.log(value / values[0]) for value in values] or [float(place) for place in range(len(xs))]
    room = (right - left) * 0.5 / max(len(xs), 1)
    length = max(shares) - min(shares)
    if not length:
        return dict.fromkeys(xs, (left + right) / 2)
    spread = right - left - 2 * room
    return {x: left + room + (share - min(shares)) / length * spread for x, share in zip(xs, shares, strict=True)}


def _mean(runs: Sequence[Run], domain: str) -> list[tuple[int, float]]:
    """The mean curve over runs, at the steps that all have."""
    curves = [dict(run.curve(domain)) for run in runs]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    return [(step, sum(curve[step] for curve in curves) / len(curves)) for step in steps]


def _spread(ends: dict[str, float], apart: float) -> dict[str, float]:
    """Labels moved down until they don't touch."""
    placed: dict[str, float] = {}
    for name, y in sorted(ends.items(), key=lambda pair: pair[1]):
        placed[name] = max([y, *(other + apart for other in placed.values())])
    return placed
