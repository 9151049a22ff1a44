"""What stands along a street: lamps, traffic lights and signs, trees, hedges, bins."""

from collections.abc import Sequence

from semiseg.datasets.synthetic.dice import Colour, Dice
from semiseg.datasets.synthetic.geometry import DISC, Point
from semiseg.datasets.synthetic.materials import leaves, mottled
from semiseg.datasets.synthetic.outdoors import Hour
from semiseg.datasets.synthetic.raster import Canvas, Pose
from semiseg.datasets.synthetic.scene import Air, Glow
from semiseg.datasets.synthetic.traffic import DETAIL


def pole(dice: Dice, canvas: Canvas, foot: Point, id: int, hour: Hour, air: Air, tall: float, side: float) -> None:
    """A street lamp, a traffic light or a sign; lamps shine from dusk on."""
    kind = dice.pick(("lamp", "lamp", "light", "sign"))
    metal = dice.tint(dice.pick(((0.30, 0.31, 0.33), (0.55, 0.56, 0.57), (0.20, 0.27, 0.24), (0.48, 0.40, 0.33))))
    pose = canvas.facing(foot)

    def part(colour: Colour, layer: int, *outline: tuple[float, float], glows: bool = False) -> None:
        canvas.fill([pose.point(r, h, -0.02 * layer) for r, h in outline], colour, id, glows=glows)

    high = tall if kind == "lamp" else dice.uniform(2.6, 3.3)
    thick = 0.085 if kind == "lamp" else 0.06
    part(metal, 0, (-thick, 0.0), (thick, 0.0), (thick * 0.7, high), (-thick * 0.7, high))
    part(
        (metal[0] * 0.7, metal[1] * 0.7, metal[2] * 0.7),
        1,
        (thick * 0.1, 0.0),
        (thick, 0.0),
        (thick * 0.7, high),
        (thick * 0.1, high),
    )
    if kind == "lamp":
        inward = -side
        part(metal, 0, (0.0, high - 0.1), (inward * 1.3, high + 0.12), (inward * 1.3, high + 0.2), (0.0, high + 0.04))
        on = hour.kind in ("dusk", "night")
        lamp = (1.0, 0.86, 0.56) if on else (0.8, 0.8, 0.78)
        part(
            lamp,
            1,
            (inward * 0.95, high + 0.0),
            (inward * 1.65, high + 0.06),
            (inward * 1.65, high + 0.2),
            (inward * 0.95, high + 0.2),
            glows=on,
        )
        if on:
            level = 0.55 if hour.kind == "dusk" else 0.9
            air.glows.append(Glow(pose.point(inward * 1.3, high, 0.0), 0.7, (level, level * 0.8, level * 0.45)))
    elif kind == "light":
        part((0.1, 0.1, 0.11), 2, (-0.2, high - 0.95), (0.2, high - 0.95), (0.2, high), (-0.2, high))
        shown = dice.integer(0, 2)
        for i, colour in enumerate(((0.95, 0.2, 0.15), (0.95, 0.7, 0.15), (0.2, 0.85, 0.4))):
            level = 1.0 if i == shown else 0.25
            disc = [(r * 0.11, high - 0.18 - 0.29 * i + h * 0.11) for r, h in DISC]
            part((colour[0] * level, colour[1] * level, colour[2] * level), 3, *disc, glows=i == shown)
    else:
        face = dice.pick(((0.82, 0.15, 0.14), (0.15, 0.32, 0.66), (0.9, 0.88, 0.84), (0.9, 0.7, 0.15)))
        size = dice.uniform(0.3, 0.42)
        shape = dice.pick(
            (DISC, ((-1.0, -0.8), (1.0, -0.8), (0.0, 1.0)), ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)))
        )
        part(face, 2, *((r * size, high - 0.2 + h * size) for r, h in shape))
        part((0.92, 0.92, 0.9), 3, *((r * size * 0.55, high - 0.2 + h * size * 0.5) for r, h in shape))


def tree(dice: Dice, canvas: Canvas, foot: Point, id: int, greens: Sequence[Colour], *, scale: float = 1.0) -> float:
    """A trunk and a crown of leafy balls. The crown's radius."""
    radius, trunk = dice.uniform(1.0, 1.9) * scale, dice.uniform(1.7, 2.9) * scale
    bark = dice.tint((0.32, 0.25, 0.19), 0.1)
    green = dice.tint(dice.pick(greens), 0.08)
    pose = canvas.facing(foot)
    thick = radius * 0.09
    canvas.fill(
        [
            pose.point(r, h, 0.0)
            for r, h in ((-thick, 0.0), (thick, 0.0), (thick * 0.7, trunk + radius), (-thick * 0.7, trunk + radius))
        ],
        mottled(bark, 0.25, 9.0),
        id,
    )
    sunny = canvas.light.towards
    normal = (sunny[0] * 0.6, 0.6, sunny[2] * 0.6)
    places = [
        (0.0, 0.65, 0.0, 0.75),
        (-0.55, 0.35, 0.1, 0.6),
        (0.55, 0.4, -0.1, 0.6),
        (dice.uniform(-0.3, 0.3), 1.15, 0.2, 0.6),
    ]
    seen = canvas.project(foot)
    far = seen is None or seen[2] > 3 * DETAIL
    for right, up, layer, size in places[1:3] if far else places:
        ball = size * radius * dice.uniform(0.85, 1.15)
        middle = (right * radius, trunk + up * radius)
        square = [
            pose.point(middle[0] + a * ball, middle[1] + b * ball, -0.1 - layer)
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        ]
        shade, there = leaves(dice.tint(green, 0.05), ball, seed=dice.uniform(0, 30))
        canvas.fill(square, shade, id, normal=normal, cut=there)
    return radius


def hedge(dice: Dice, canvas: Canvas, pose: Pose, id: int, green: Colour, length: float) -> None:
    """A clipped hedge along the pose's forward."""
    leaf = mottled(dice.tint(green, 0.08), 0.28, 8.0, rough=0.22)
    canvas.box(pose, (0.7, dice.uniform(0.7, 1.5), length), id, leaf)


def bin_on_pavement(dice: Dice, canvas: Canvas, foot: Point, id: int) -> None:
    """A bin or a box: something of no class."""
    colour = dice.tint(dice.pick(((0.2, 0.3, 0.25), (0.5, 0.3, 0.2), (0.25, 0.26, 0.3), (0.75, 0.6, 0.2))))
    size = dice.uniform(0.4, 0.65)
    canvas.box(
        Pose(foot),
        (size, size * dice.uniform(1.3, 1.8), size),
        id,
        mottled(colour, 0.1, 9.0),
        top=(colour[0] * 0.6, colour[1] * 0.6, colour[2] * 0.6),
    )
