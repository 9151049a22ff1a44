"""The shell of a room: its size and classes, floor with a rug, walls with their skirting, ceiling."""

from dataclasses import dataclass, field

import numpy as np

from semiseg.datasets.synthetic.dice import Colour, Dice
from semiseg.datasets.synthetic.furniture import WOODS
from semiseg.datasets.synthetic.materials import boards, clouds, mottled, stripes, tiles
from semiseg.datasets.synthetic.raster import Canvas, Pose, Shader

WALL, FLOOR, CEILING, WINDOW, PICTURE, SHELF, TABLE, CHAIR, LAMP, VOID = range(10)

PAPERS: tuple[Colour, ...] = (
    (0.90, 0.87, 0.80), (0.80, 0.84, 0.80), (0.70, 0.78, 0.84), (0.86, 0.72, 0.62), (0.56, 0.64, 0.58), (0.78, 0.62, 0.40),
    (0.48, 0.54, 0.64), (0.88, 0.80, 0.62), (0.62, 0.48, 0.46),
)  # fmt: skip


@dataclass
class Shell:
    """The shell: width (x) and depth (z) around the origin, height, and what already stands on its floor (x, z, radius)."""

    width: float
    depth: float
    height: float
    taken: list[tuple[float, float, float]] = field(default_factory=list)
    shadows: list[tuple[Pose, float, float]] = field(default_factory=list)

    def claim(self, x: float, z: float, radius: float) -> bool:
        """Reserves a place on the floor, if it is free."""
        if any((x - a) * (x - a) + (z - b) * (z - b) < (radius + r) * (radius + r) for a, b, r in self.taken):
            return False
        self.taken.append((x, z, radius))
        return True


def build_shell(dice: Dice, canvas: Canvas, shell: Shell, paper: Colour, wood: Colour) -> None:
    """Floor with a rug, walls with their skirting, ceiling."""
    x, z, high = shell.width / 2, shell.depth / 2, shell.height
    floor = _floor(dice)
    if dice.chance(0.5):
        _rug(dice, canvas, shell)
    canvas.fill([(-x, 0.0, -z), (x, 0.0, -z), (x, 0.0, z), (-x, 0.0, z)], floor, FLOOR)
    white = dice.tint((0.93, 0.92, 0.90), 0.03)
    canvas.fill(
        [(-x, high, -z), (x, high, -z), (x, high, z), (-x, high, z)],
        _near_edges(mottled(white, 0.025, 1.2, rough=0.01), shell.width, shell.depth),
        CEILING,
        normal=(0.0, 0.4, 0.0),
    )
    skirting = white if dice.chance(0.6) else wood
    finish = dice.pick(("plain", "plain", "stripes", "panel", "accent"))
    for i, (ax, az, bx, bz) in enumerate(((-x, z, x, z), (-x, -z, -x, z), (x, z, x, -z), (x, -z, -x, -z))):
        colour = dice.tint(dice.pick(PAPERS)) if finish == "accent" and i == 0 else paper
        length = shell.width if ax != bx else shell.depth
        canvas.fill(
            [(ax, 0.0, az), (bx, 0.0, bz), (bx, high, bz), (ax, high, az)],
            _wall(dice, colour, finish, skirting, length, high),
            WALL,
        )


def _wall(dice: Dice, paper: Colour, finish: str, skirting: Colour, length: float, high: float) -> Shader:
    other = dice.tint(paper, 0.08)
    pattern = stripes(paper, other, 0.24) if finish == "stripes" else mottled(paper, 0.06, 2.0, rough=0.02)
    lower, board = (
        np.asarray((skirting[0] * 0.95, skirting[1] * 0.95, skirting[2] * 0.95), np.float32),
        np.asarray(skirting, np.float32),
    )

    def shade(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        rgb = pattern(u, v, depth)
        if finish == "panel":
            wainscot = v < 0.95
            groove = (u / 0.3 - np.floor(u / 0.3)) < 0.06
            rgb[wainscot] = np.where(groove[wainscot, None], lower * np.float32(0.82), lower)
            rgb[(v > 0.92) & (v < 0.98)] = board
        rgb[v < 0.1] = board
        rgb[(v > 0.095) & (v < 0.112)] *= np.float32(0.75)
        corner = np.minimum(np.minimum(u, length - u), np.minimum(v, high - v))
        return rgb * _corner_dark(corner)[:, None]

    return shade


def _near_edges(pattern: Shader, length: float, other: float) -> Shader:
    def shade(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        corner = np.minimum(np.minimum(u, length - u), np.minimum(v, other - v))
        return pattern(u, v, depth) * _corner_dark(corner)[:, None]

    return shade


def _corner_dark(distance: np.ndarray) -> np.ndarray:
    """Corners get less light: 0.72 in the corner itself, 0.97 a metre away."""
    away = np.maximum(distance, 0) * 3
    return 1 - np.float32(0.28) / (1 + away * away)


def _floor(dice: Dice) -> Shader:
    kind = dice.pick(("boards", "boards", "tiles", "carpet", "chequer"))
    wood = dice.tint(dice.pick(WOODS))
    pale, dark = (
        dice.tint(dice.pick(((0.82, 0.78, 0.72), (0.66, 0.66, 0.64), (0.72, 0.58, 0.46)))),
        dice.tint((0.34, 0.32, 0.32)),
    )
    if kind == "boards":
        return boards(dice, wood, dice.uniform(0.1, 0.2), turned=dice.chance(0.6))
    if kind == "carpet":
        return mottled(dice.tint(dice.pick(PAPERS), 0.1), 0.1, 4.0, rough=0.1, reach=4.0)
    return tiles(dice, pale, dark if kind == "chequer" else pale, dice.uniform(0.25, 0.5))


def _rug(dice: Dice, canvas: Canvas, shell: Shell) -> None:
    """A rug, round or not, with a border and a pattern: floor."""
    x, z = dice.uniform(-0.15, 0.15) * shell.width, dice.uniform(-0.1, 0.25) * shell.depth
    half_u, half_v = dice.uniform(0.7, 1.3), dice.uniform(0.8, 1.6)
    base, edge = (np.asarray(dice.tint(dice.pick(PAPERS), 0.12), np.float32) for _ in range(2))
    pose, circles, repeat = Pose((x, 0.012, z), dice.uniform(-0.2, 0.2)), dice.chance(0.4), dice.uniform(0.15, 0.4)

    def shade(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        across, along = (u - half_u) / half_u, (v - half_v) / half_v
        rim = np.maximum(abs(across), abs(along)) if not circles else across * across + along * along
        i, j = np.floor(u / repeat), np.floor(v / repeat)
        diamond = abs(u / repeat - i - 0.5) + abs(v / repeat - j - 0.5) < 0.3
        worn = 1 + 0.12 * clouds(u, v, 9.0)
        return worn[:, None] * np.where(((rim > 0.82) & (rim < 0.93) | diamond)[:, None], edge, base)

    def there(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        across, along = (u - half_u) / half_u, (v - half_v) / half_v
        return across * across + along * along < 1 if circles else np.ones(u.shape, bool)

    corners = [pose.point(r * half_u, 0.0, f * half_v) for r, f in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    canvas.fill(corners, shade, FLOOR, cut=there)
