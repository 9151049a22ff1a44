"""What surfaces look like: shaders from (u, v, depth) in metres to RGB. Patterns fade with distance instead of flickering."""

import math
from functools import lru_cache

import numpy as np

from semiseg.data import generator
from semiseg.datasets.synthetic.dice import Colour, Dice
from semiseg.datasets.synthetic.raster import Cut, Shader

SIDE = 128  # texels of a noise tile


@lru_cache(maxsize=1)
def noise_tiles() -> tuple[np.ndarray, np.ndarray]:
    """Two tiles of noise in about -1..1, flat [SIDE * SIDE]: fine grain, and clouds of several sizes. They tile."""
    random = generator("semiseg.synthetic", "noise")
    grain = random.random((SIDE, SIDE)).astype(np.float32) * 2 - 1
    clouds = np.zeros((SIDE, SIDE), np.float32)
    for cells, strength in ((4, 0.9), (8, 0.6), (16, 0.4), (32, 0.25), (64, 0.15)):
        drawn = random.random((cells, cells))
        middle = math.fsum(drawn.ravel().tolist()) / drawn.size  # rounded once: numpy's sums differ between machines
        coarse = ((drawn - middle) * 2).astype(np.float32)
        place = np.arange(SIDE, dtype=np.float32) * np.float32(cells / SIDE)
        low = place.astype(np.int64)
        share = place - low
        share = share * share * (3 - 2 * share)
        high = (low + 1) % cells
        rows = coarse[low] * (1 - share)[:, None] + coarse[high] * share[:, None]
        clouds += np.float32(strength) * (rows[:, low] * (1 - share) + rows[:, high] * share)
    return grain.reshape(-1), clouds.reshape(-1)


def grain(u: np.ndarray, v: np.ndarray, per_metre: float) -> np.ndarray:
    """Fine noise in -1..1 at (u, v) metres."""
    return _look_up(noise_tiles()[0], u, v, per_metre, per_metre)


def clouds(u: np.ndarray, v: np.ndarray, per_metre: float, stretch: float = 1.0) -> np.ndarray:
    """Soft noise in about -1..1; `stretch` draws it out along u."""
    return _look_up(noise_tiles()[1], u, v, per_metre / stretch, per_metre)


def scatter(i: np.ndarray, j: np.ndarray, seed: int) -> np.ndarray:
    """A number in 0..1 for each cell (i, j), by an integer hash: which window is lit, which board is darker."""
    mixed = (i.astype(np.int64) * 73856093) ^ (j.astype(np.int64) * 19349663) ^ (seed * 83492791)
    mixed = (mixed ^ (mixed >> 13)) * 1274126177
    return ((mixed >> 16) & 1023).astype(np.float32) / 1023


def mottled(
    colour: Colour, amount: float = 0.1, per_metre: float = 12.0, *, rough: float = 0.05, reach: float = 20.0
) -> Shader:
    """Plaster, tar, cloth: one colour with soft patches and grain that vanish beyond `reach` metres."""
    base = np.asarray(colour, np.float32)

    def shade(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        fade = np.minimum(1.0, np.float32(reach) / depth)
        level = 1 + fade * (amount * clouds(u, v, per_metre) + rough * grain(u, v, per_metre * 5))
        return level[:, None] * base

    return shade


def boards(dice: Dice, colour: Colour, width: float = 0.14, length: float = 1.6, *, turned: bool = False) -> Shader:
    """Wooden boards with grain, different shades and dark joints."""
    base, seed = np.asarray(colour, np.float32), dice.integer(0, 1 << 20)
    contrast = dice.uniform(0.15, 0.4)

    def shade(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        if turned:
            u, v = v, u
        row = np.floor(v / width)
        shift = u / length + row * np.float32(0.37)
        column = np.floor(shift)
        fade = np.minimum(1.0, 5.0 / depth)
        level = 1 + contrast * (scatter(column, row, seed) - 0.5) + 0.12 * clouds(u, v + row, 30.0, 8.0)
        joint = ((v / width - row) < 0.1) | ((shift - column) < 0.015)
        return (level * (1 - 0.35 * fade * joint))[:, None] * base

    return shade


def tiles(dice: Dice, colour: Colour, other: Colour, size: float, *, joint: float = 0.04) -> Shader:
    """Square tiles in a chequer of two colours with joints."""
    first, second, seed = np.asarray(colour, np.float32), np.asarray(other, np.float32), dice.integer(0, 1 << 20)

    def shade(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        i, j = np.floor(u / size), np.floor(v / size)
        fu, fv = u / size - i, v / size - j
        fade = np.minimum(1.0, 25.0 * size / depth)
        odd = ((i + j).astype(np.int64) & 1).astype(np.float32)
        level = 1 + 0.1 * (scatter(i, j, seed) - 0.5) + 0.05 * clouds(u, v, 20.0)
        level = level * (1 - 0.3 * fade * ((fu < joint) | (fv < joint)))
        return level[:, None] * (first + odd[:, None] * (second - first))

    return shade


def stripes(colour: Colour, other: Colour, width: float, *, share: float = 0.5) -> Shader:
    """Upright stripes: wallpaper, curtains, a chair's slats."""
    first, second = np.asarray(colour, np.float32), np.asarray(other, np.float32)

    def shade(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        place = u / width - np.floor(u / width)
        return (1 + 0.04 * clouds(u, v, 10.0))[:, None] * np.where((place < share)[:, None], first, second)

    return shade


def facade(
    dice: Dice,
    wall: Colour,
    trim: Colour,
    size: tuple[float, float],
    *,
    lit: float = 0.0,
    lamp: float = 1.0,
    shops: bool = False,
) -> Shader:
    """The front of a house of size (width, height): storeys of framed windows over a plinth or shops, under a cornice.

    `lit` is the share of windows with a lamp inside, `lamp` how bright that is before the scene's own light.
    """
    width, height = size
    storey = dice.uniform(2.7, 3.4)
    ground = dice.uniform(3.0, 3.8) if shops else dice.uniform(0.5, 1.0)
    storeys = max(1.0, float(int((height - ground - 0.3) / storey)))
    storey = max(2.0, (height - ground - 0.5) / storeys)
    cells = max(1, int(width / dice.uniform(1.6, 3.0)))
    cell = width / cells
    half_u, half_v = dice.uniform(0.2, 0.38), dice.uniform(0.22, 0.36)
    seed, bricks = dice.integer(0, 1 << 20), dice.chance(0.35)
    glass = np.asarray(dice.tint(dice.pick(((0.22, 0.28, 0.36), (0.35, 0.45, 0.55), (0.16, 0.18, 0.22)))), np.float32)
    warm = np.asarray((1.0, 0.78, 0.42), np.float32) * np.float32(lamp)
    awning = np.asarray(
        dice.tint(dice.pick(((0.7, 0.25, 0.2), (0.2, 0.4, 0.35), (0.85, 0.75, 0.5), (0.25, 0.3, 0.5)))), np.float32
    )
    base, edge = np.asarray(wall, np.float32), np.asarray(trim, np.float32)

    def shade(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        fade = np.minimum(1.0, 14.0 / depth)
        level = 1 + 0.08 * clouds(u, v, 3.0) + 0.04 * fade * grain(u, v, 20.0)
        if bricks:
            course = np.floor(v / 0.2)
            along = u / 0.45 + 0.5 * (course.astype(np.int64) & 1)
            level -= fade * (0.14 * ((v / 0.2 - course) < 0.2) + 0.1 * ((along - np.floor(along)) < 0.08))
        rgb = level[:, None] * base
        i, j = np.floor(u / cell), np.floor((v - ground) / storey)
        fu, fv = abs(u / cell - i - 0.5), (v - ground) / storey - j - 0.5
        floors = (v > ground) & (v < height - 0.4)
        frame = floors & (fu < half_u + 0.05) & (abs(fv) < half_v + 0.05)
        pane = floors & (fu < half_u) & (abs(fv) < half_v) & (fu > 0.025)
        rgb[frame] = edge
        chosen = scatter(i, j, seed)[pane]
        reflection = (0.75 + 0.5 * (fv[pane] / half_v * 0.5 + 0.5) + 0.3 * (chosen - 0.5))[:, None] * glass
        rgb[pane] = np.where((chosen < lit)[:, None], (0.7 + 0.6 * chosen)[:, None] * warm, reflection)
        rgb[(v > height - 0.35) | ((v > ground - 0.15) & (v < ground))] = edge
        if shops:
            wide = abs(u / (2 * cell) - np.floor(u / (2 * cell)) - 0.5)
            window = (v > 0.5) & (v < ground - 0.75) & (wide < 0.42)
            rgb[window] = warm if lit > 0.3 else glass * 0.8
            canopy = (v > ground - 0.75) & (v < ground - 0.15)
            band = np.floor(u / 0.4).astype(np.int64) & 1
            rgb[canopy] = np.where((band[canopy] == 1)[:, None], awning, np.float32(0.92) * edge)
        return rgb

    return shade


def leaves(colour: Colour, radius: float, *, seed: float) -> tuple[Shader, Cut]:
    """A ball of leaves on a square of side 2 * radius, lit from above, with a ragged edge."""
    base = np.asarray(colour, np.float32)

    def ball(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return u / radius - 1, v / radius - 1

    def shade(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        across, up = ball(u, v)
        fade = np.minimum(1.0, 14.0 / depth)
        clumps = clouds(u + seed, v + seed, 26.0 / max(0.5, radius)) + 0.35 * grain(u, v + seed, 9.0)
        return (0.86 + 0.3 * up - 0.14 * across + 0.3 * fade * clumps)[:, None] * base

    def there(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        across, up = ball(u, v)
        return across * across + up * up < 0.9 + 0.35 * clouds(u + seed, v - seed, 40.0 / max(0.5, radius))

    return shade, there


def soft_shadow(u_half: float, v_half: float, level: float) -> Cut:
    """How much light is left under something that stands on a rectangle of (2 u_half, 2 v_half): least in its middle."""

    def light(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        across, along = u / u_half - 1, v / v_half - 1
        distance = np.minimum(1.0, across * across + along * along)
        return level + (1 - level) * distance * distance

    return light


def _look_up(tile: np.ndarray, u: np.ndarray, v: np.ndarray, per_u: float, per_v: float) -> np.ndarray:
    column = (u * np.float32(per_u) + np.float32(4096)).astype(np.int32) & (SIDE - 1)
    row = (v * np.float32(per_v) + np.float32(4096)).astype(np.int32) & (SIDE - 1)
    return tile.take(row * SIDE + column)
