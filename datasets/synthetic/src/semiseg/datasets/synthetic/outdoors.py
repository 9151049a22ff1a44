"""The open air of a street: its layout, hour and weather, ground and sky, and the bonnet of the car the camera rides in."""

from dataclasses import dataclass

import numpy as np

from semiseg.datasets.synthetic.dice import Colour, Dice
from semiseg.datasets.synthetic.geometry import Point, unit
from semiseg.datasets.synthetic.materials import clouds, grain, mottled
from semiseg.datasets.synthetic.raster import Canvas, Light, Shader
from semiseg.datasets.synthetic.scene import Air

SKY, ROAD, PAVEMENT, BUILDING, VEGETATION, POLE, CAR, PERSON, VOID = range(9)
FAR = 110.0  # metres to the end of the street
KERB = 0.13

WALLS: tuple[tuple[Colour, ...], ...] = (  # façades that stand together; cars and clothes borrow from them
    ((0.80, 0.62, 0.45), (0.86, 0.78, 0.62), (0.68, 0.42, 0.34), (0.90, 0.86, 0.76)),
    ((0.62, 0.33, 0.26), (0.52, 0.28, 0.24), (0.72, 0.50, 0.38), (0.45, 0.34, 0.30)),
    ((0.58, 0.60, 0.62), (0.72, 0.73, 0.72), (0.45, 0.48, 0.52), (0.80, 0.78, 0.74)),
    ((0.55, 0.66, 0.72), (0.86, 0.70, 0.66), (0.90, 0.86, 0.66), (0.66, 0.74, 0.62)),
    ((0.93, 0.92, 0.88), (0.84, 0.86, 0.88), (0.78, 0.70, 0.60), (0.66, 0.70, 0.76)),
)
GREENS: tuple[Colour, ...] = (
    (0.28, 0.46, 0.18), (0.20, 0.38, 0.18), (0.40, 0.50, 0.20), (0.62, 0.50, 0.18), (0.66, 0.36, 0.16), (0.30, 0.40, 0.28),
)  # fmt: skip


@dataclass(frozen=True)
class Hour:
    """The hour and weather of a street: its light, its sky from the top down to the horizon, the share of lit windows."""

    kind: str
    light: Light
    top: Colour
    low: Colour
    lit: float


@dataclass(frozen=True)
class Layout:
    """The lie of a street: half the road, the pavement, the walls that face it, and who may stand where (metres)."""

    half_road: float
    pavement: float
    walls: tuple[Colour, ...]
    greens: tuple[Colour, ...]

    @property
    def edge(self) -> float:
        return self.half_road + self.pavement


def choose_hour(dice: Dice) -> tuple[Hour, Air]:
    """An hour and weather, and the air that goes with them."""
    kind = dice.pick(("sun", "sun", "cloud", "cloud", "dusk", "dusk", "fog", "night"))
    side = dice.sign()
    if kind == "sun":
        top, low = dice.tint((0.30, 0.52, 0.82)), dice.tint((0.74, 0.84, 0.92))
        towards = unit((side * dice.uniform(0.3, 1.0), dice.uniform(0.6, 1.4), dice.uniform(-0.9, 0.5)))
        light = Light(towards=towards, sun=dice.tint((0.72, 0.66, 0.54)), ambient=dice.tint((0.60, 0.64, 0.72)))
        return Hour(kind, light, top, low, lit=0.0), Air(haze=low, visibility=dice.uniform(250, 700), noise=0.008)
    if kind == "cloud":
        level = dice.uniform(0.62, 0.86)
        top, low = (
            dice.tint((level * 0.9, level * 0.93, level), 0.03),
            dice.tint((level * 1.05, level * 1.05, level * 1.06), 0.03),
        )
        light = Light(towards=(0.0, 1.0, 0.0), sun=(0.1, 0.1, 0.1), ambient=dice.tint((0.80, 0.82, 0.86)))
        return Hour(kind, light, top, low, lit=0.05), Air(haze=low, visibility=dice.uniform(120, 400), noise=0.013)
    if kind == "dusk":
        top, low = dice.tint((0.36, 0.36, 0.58)), dice.tint((0.98, 0.66, 0.42))
        towards = unit((side * 1.0, dice.uniform(0.15, 0.4), dice.uniform(-0.6, 0.4)))
        light = Light(towards=towards, sun=dice.tint((0.74, 0.42, 0.22)), ambient=dice.tint((0.52, 0.47, 0.54)))
        return Hour(kind, light, top, low, lit=dice.uniform(0.1, 0.4)), Air(
            haze=low, visibility=dice.uniform(150, 350), noise=0.013
        )
    if kind == "fog":
        grey = dice.tint((0.76, 0.78, 0.80), 0.05)
        light = Light(towards=(0.0, 1.0, 0.0), sun=(0.06, 0.06, 0.06), ambient=dice.tint((0.68, 0.7, 0.72)))
        return Hour(kind, light, grey, grey, lit=0.15), Air(haze=grey, visibility=dice.uniform(16, 45), noise=0.011)
    top, low = dice.tint((0.05, 0.07, 0.16)), dice.tint((0.17, 0.17, 0.28))
    light = Light(towards=unit((side, 1.0, -0.3)), sun=(0.06, 0.07, 0.1), ambient=dice.tint((0.32, 0.33, 0.42)))
    return Hour(kind, light, top, low, lit=dice.uniform(0.25, 0.6)), Air(
        haze=low, visibility=dice.uniform(90, 250), noise=0.022
    )


def lay_ground(dice: Dice, canvas: Canvas, layout: Layout) -> None:
    """Road with its markings, kerbs, pavements, and what lies behind the houses."""
    tar = dice.tint(dice.pick(((0.32, 0.32, 0.34), (0.42, 0.41, 0.40), (0.36, 0.33, 0.31), (0.5, 0.49, 0.48))))
    slab = dice.tint(dice.pick(((0.60, 0.58, 0.55), (0.52, 0.52, 0.54), (0.66, 0.56, 0.48), (0.44, 0.43, 0.42))))
    half, edge, near = layout.half_road, layout.edge, -2.0
    canvas.fill(
        [(-half, 0.0, near), (half, 0.0, near), (half, 0.0, FAR), (-half, 0.0, FAR)], _road(dice, tar, half), ROAD
    )
    verge = dice.chance(0.3)
    for side in (-1.0, 1.0):
        inner, outer = side * half, side * edge
        canvas.fill(
            [(inner, 0.0, near), (inner, 0.0, FAR), (inner, KERB, FAR), (inner, KERB, near)],
            mottled((0.66, 0.65, 0.62), 0.1, 4.0),
            PAVEMENT,
        )
        if verge:
            strip = inner + side * 0.9
            canvas.fill(
                flat_strip(inner + side * 0.15, strip, KERB + 0.005, near), _grass(layout.greens[0]), VEGETATION
            )
        canvas.fill(flat_strip(inner, outer, KERB, near), _paving(dice, slab), PAVEMENT)
        behind = _grass(layout.greens[0]) if dice.chance(0.6) else None
        canvas.fill(
            flat_strip(outer, side * 60, 0.0, near), behind or _paving(dice, slab), VEGETATION if behind else PAVEMENT
        )


def flat_strip(x: float, other: float, y: float, near: float) -> list[Point]:
    return [(x, y, near), (other, y, near), (other, y, FAR), (x, y, FAR)]


def _road(dice: Dice, tar: Colour, half: float) -> Shader:
    base, paint = np.asarray(tar, np.float32), np.asarray((0.86, 0.86, 0.82), np.float32)
    centre, edges, worn = dice.pick(("dashes", "dashes", "line", "none")), dice.chance(0.4), dice.uniform(0.5, 1.0)
    zebra = dice.uniform(8, 30) if dice.chance(0.3) else -100.0
    patch = dice.uniform(5, 40)

    def shade(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        fade = np.minimum(1.0, 9.0 / depth)
        level = 1 + 0.1 * clouds(v, u, 4.0, 3.0) + 0.1 * fade * grain(u, v, 18.0)
        level -= 0.12 * ((abs(u - half * 0.7) < 0.9) & (abs(v - patch) < 3.0))
        rgb = level[:, None] * base
        x, along = u - half, v - 2.0
        marks = np.zeros(u.shape, bool)
        if centre != "none":
            dashed = (along / 6 - np.floor(along / 6)) < 0.5 if centre == "dashes" else True
            marks |= (abs(x) < 0.07) & dashed
        if edges:
            marks |= abs(abs(x) - half + 0.35) < 0.06
        bars = (x / 0.9 - np.floor(x / 0.9)) < 0.5
        marks = np.where(abs(along - zebra) < 1.6, bars, marks)
        share = np.float32(worn) * np.minimum(1.0, 0.85 + 0.3 * clouds(u, v, 12.0))[marks, None]
        rgb[marks] += share * (paint - rgb[marks])
        return rgb

    return shade


def _paving(dice: Dice, slab: Colour) -> Shader:
    base, size = np.asarray(slab, np.float32), dice.pick((0.5, 0.7, 1.0))

    def shade(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        fade = np.minimum(1.0, 8.0 * size / depth)
        joint = ((u / size - np.floor(u / size)) < 0.06) | ((v / size - np.floor(v / size)) < 0.06)
        return (1 + 0.1 * clouds(u, v, 5.0) + 0.06 * fade * grain(u, v, 14.0) - 0.22 * fade * joint)[:, None] * base

    return shade


def _grass(green: Colour) -> Shader:
    return mottled((green[0] * 1.1, green[1] * 1.1, green[2] * 0.9), 0.16, 5.0, rough=0.16)


def paint_sky(dice: Dice, canvas: Canvas, hour: Hour) -> None:
    flat, across, up = canvas.empty()
    if flat.size == 0:
        return
    rise = np.clip(up * np.float32(1.6), 0, 1)
    rise = rise * (2 - rise)
    low, top = np.asarray(hour.low, np.float32), np.asarray(hour.top, np.float32)
    colour = low + rise[:, None] * (top - low)
    shift, amount = dice.uniform(0, 60), dice.uniform(0.2, 1.0)
    if hour.kind != "fog":
        slope = 1 / (np.maximum(up, 0) + np.float32(0.12))
        cover = clouds(across * slope * 3 + shift, slope * 5, 4.0, 1.5) + np.float32(dice.uniform(-0.4, 0.3))
        cover = np.clip(cover * 1.6, 0, 1) * np.float32(amount)
        cloud = np.asarray([0.25 + 0.75 * c if hour.kind != "night" else c * 1.3 + 0.03 for c in hour.low], np.float32)
        if hour.kind == "cloud":
            cloud = cloud * np.float32(0.88)
        colour += cover[:, None] * (cloud - colour)
    canvas.paint(flat, colour, SKY)


def paint_bonnet(dice: Dice, canvas: Canvas) -> None:
    """The camera's own car at the lower edge: of no class."""
    height, width = canvas.ids.shape
    rows = int(height * dice.uniform(0.05, 0.1))
    xs = (np.arange(width, dtype=np.float32) + np.float32(0.5)) / width * 2 - 1
    ys = np.arange(height - rows, height, dtype=np.float32)
    line = height - rows * (1 - np.float32(0.7) * xs * xs)
    inside = ys[:, None] > line
    flat = (np.arange(height - rows, height)[:, None] * width + np.arange(width))[inside]
    paint = np.asarray(dice.tint((0.22, 0.23, 0.26)), np.float32)
    sheen = 0.7 + 0.6 * (np.broadcast_to(ys[:, None], inside.shape)[inside] - line[flat % width]) / rows
    canvas.paint(flat, sheen[:, None] * paint, VOID)
    canvas.nearness.reshape(-1)[flat] = 1.0
