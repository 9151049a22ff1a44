"""From a finished canvas to a picture and its label: haze, glows, film, and ids at the picture's own size."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from semiseg.datasets.synthetic.dice import Colour, Dice
from semiseg.datasets.synthetic.geometry import Point
from semiseg.datasets.synthetic.raster import Canvas

OVERSAMPLING = 2  # a scene is drawn at twice its size, and each block of 2 x 2 becomes a pixel


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture, uint8 RGB [h, w, 3], and its raw ids, uint8 [h, w]."""

    image: np.ndarray
    label: np.ndarray


@dataclass(frozen=True)
class Glow:
    """A lamp seen by the camera: a soft disc of light around a point, `radius` in metres."""

    at: Point
    radius: float
    colour: Colour


@dataclass(kw_only=True)
class Air:
    """What lies between a scene and its picture."""

    haze: Colour = (0.8, 0.85, 0.9)
    visibility: float = 1e9  # metres at which haze and scene are equally strong
    exposure: float = 1.0
    noise: float = 0.02  # standard deviation of the sensor's noise, of 1
    tone: Colour = (1.0, 1.0, 1.0)
    glows: list[Glow] = field(default_factory=list)


def develop(canvas: Canvas, air: Air, dice: Dice, *, void: int, hazeless: Sequence[int] = ()) -> Scene:
    """Halves the canvas into a picture and its label; classes in `hazeless` (the sky) lie beyond the haze."""
    ids = _majority(canvas.ids, void)
    picture = _halved(canvas.colour)
    nearness = _halved(canvas.nearness)
    haze = 1 / (1 + np.float32(air.visibility) * nearness)
    for id in hazeless:
        haze[ids == id] = 0
    picture += haze[:, :, None] * (np.asarray(air.haze, np.float32) - picture)
    for glow in air.glows:
        _shine(picture, nearness, canvas, glow)
    picture *= np.asarray([air.exposure * tone for tone in air.tone], np.float32)
    picture *= _vignette(*ids.shape)[:, :, None]
    picture = np.clip(picture, 0, 1.25)
    picture = picture * (1.28 - 0.4 * picture + 0.05 * picture * picture)  # a film's shoulder: highlights don't clip
    grey = dice.field(*ids.shape) + dice.field(*ids.shape) - 1  # two uniforms: a triangle, standard deviation 0.41
    noise = grey[:, :, None] + 0.5 * (dice.field(*picture.shape) - 0.5)
    picture += np.float32(air.noise * 2.2) * noise
    return Scene((np.clip(picture, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8), ids)


def _halved(values: np.ndarray) -> np.ndarray:
    """The mean of each block of 2 x 2, summed in a fixed order."""
    return (values[0::2, 0::2] + values[0::2, 1::2] + values[1::2, 0::2] + values[1::2, 1::2]) * np.float32(0.25)


def _majority(ids: np.ndarray, void: int) -> np.ndarray:
    """The most frequent id of each block of 2 x 2; void where two share it equally: the thin seam between surfaces."""
    a, b, c, d = ids[0::2, 0::2], ids[0::2, 1::2], ids[1::2, 0::2], ids[1::2, 1::2]
    a, b = np.minimum(a, b), np.maximum(a, b)
    c, d = np.minimum(c, d), np.maximum(c, d)
    least, most = np.minimum(a, c), np.maximum(b, d)
    a, b = np.maximum(a, c), np.minimum(b, d)
    second, third = np.minimum(a, b), np.maximum(a, b)
    low, high = least == second, third == most
    tie = np.where(low & ~high, least, np.where(high & ~low, most, np.uint8(void)))
    return np.where(second == third, second, tie).astype(np.uint8)


def _shine(picture: np.ndarray, nearness: np.ndarray, canvas: Canvas, glow: Glow) -> None:
    seen = canvas.project(glow.at)
    if seen is None:
        return
    column, row, depth = (value / OVERSAMPLING for value in seen)
    depth *= OVERSAMPLING
    radius = max(1.0, glow.radius * canvas.camera.focal * picture.shape[1] / depth)
    top, bottom = max(0, int(row - 3 * radius)), min(picture.shape[0], int(row + 3 * radius) + 1)
    left, right = max(0, int(column - 3 * radius)), min(picture.shape[1], int(column + 3 * radius) + 1)
    if top >= bottom or left >= right:
        return
    middle = picture.shape[0], picture.shape[1]
    seen_row, seen_column = min(max(int(row), 0), middle[0] - 1), min(max(int(column), 0), middle[1] - 1)
    if nearness[seen_row, seen_column] > 1.3 / depth + 0.02:
        return  # hidden behind something
    ys = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - row)) / np.float32(radius)
    xs = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - column)) / np.float32(radius)
    square = (ys * ys)[:, None] + xs * xs
    fall = np.maximum(0, 1 / (1 + 3 * square) - np.float32(1 / 28))
    picture[top:bottom, left:right] += fall[:, :, None] * np.asarray(glow.colour, np.float32)


def _vignette(height: int, width: int) -> np.ndarray:
    ys = (np.arange(height, dtype=np.float32) + np.float32(0.5)) / height - np.float32(0.5)
    xs = (np.arange(width, dtype=np.float32) + np.float32(0.5)) / width - np.float32(0.5)
    return 1 - np.float32(0.3) * ((ys * ys)[:, None] + xs * xs)
