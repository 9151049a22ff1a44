"""Points and polygons in plain Python floats: exact everywhere, and quick for a handful of corners."""

import math

import numpy as np

Point = tuple[float, float, float]

# A regular polygon of twelve corners in exact arithmetic: the sine of 30 degrees is 1/2.
_HALF, _TALL = 0.5, math.sqrt(3) / 2
DISC: tuple[tuple[float, float], ...] = (
    (1.0, 0.0), (_TALL, _HALF), (_HALF, _TALL), (0.0, 1.0), (-_HALF, _TALL), (-_TALL, _HALF),
    (-1.0, 0.0), (-_TALL, -_HALF), (-_HALF, -_TALL), (0.0, -1.0), (_HALF, -_TALL), (_TALL, -_HALF),
)  # fmt: skip

NEAR = 0.15  # metres; what is nearer to the eye is cut away


def minus(a: Point, b: Point) -> Point:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def dot(a: Point, b: Point) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Point, b: Point) -> Point:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def unit(a: Point) -> Point:
    length = math.sqrt(dot(a, a)) or 1.0
    return a[0] / length, a[1] / length, a[2] / length


def clipped(points: list[Point]) -> list[Point]:
    """The part of a polygon in front of the near plane."""
    if all(point[2] >= NEAR for point in points):
        return points
    kept: list[Point] = []
    for here, there in zip(points, points[1:] + points[:1], strict=True):
        if here[2] >= NEAR:
            kept.append(here)
        if (here[2] >= NEAR) != (there[2] >= NEAR):
            share = (NEAR - here[2]) / (there[2] - here[2])
            kept.append((here[0] + share * (there[0] - here[0]), here[1] + share * (there[1] - here[1]), NEAR))
    return kept


def spans(flat: list[tuple[float, float]], ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a convex polygon begins and ends on each row (empty rows: it ends before it begins)."""
    around = np.asarray([*flat, flat[0]])
    x, y, to_y = around[:-1, :1], around[:-1, 1:], around[1:, 1:]
    rise = to_y - y
    rise[rise == 0] = 1.0  # a level edge crosses no row
    crossing = (y <= ys) != (to_y <= ys)
    at = x + (ys - y) * ((around[1:, :1] - x) / rise)
    return np.where(crossing, at, np.inf).min(axis=0), np.where(crossing, at, -np.inf).max(axis=0)
