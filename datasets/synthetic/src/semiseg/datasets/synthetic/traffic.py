"""What moves in a street: cars and people."""

from collections.abc import Sequence

from semiseg.datasets.synthetic.dice import Colour, Dice
from semiseg.datasets.synthetic.geometry import DISC, Point
from semiseg.datasets.synthetic.outdoors import Hour
from semiseg.datasets.synthetic.raster import Canvas, Pose
from semiseg.datasets.synthetic.scene import Air, Glow

DETAIL = 26.0  # metres beyond which small parts are left out
SKINS: tuple[Colour, ...] = ((0.92, 0.74, 0.62), (0.78, 0.56, 0.42), (0.52, 0.36, 0.26), (0.36, 0.25, 0.19))
CLOTHES: tuple[Colour, ...] = (
    (0.75, 0.20, 0.18), (0.18, 0.28, 0.50), (0.14, 0.14, 0.17), (0.85, 0.83, 0.78), (0.30, 0.42, 0.28), (0.85, 0.65, 0.22),
    (0.45, 0.43, 0.42), (0.55, 0.35, 0.50), (0.40, 0.30, 0.24),
)  # fmt: skip
PAINTS: tuple[Colour, ...] = (
    (0.86, 0.87, 0.88), (0.13, 0.14, 0.16), (0.52, 0.54, 0.57), (0.68, 0.14, 0.14), (0.16, 0.27, 0.48), (0.24, 0.36, 0.30),
    (0.78, 0.66, 0.40),
)  # fmt: skip


def car(
    dice: Dice, canvas: Canvas, pose: Pose, id: int, hour: Hour, walls: Sequence[Colour], air: Air
) -> tuple[float, float]:
    """A car, hatch, estate or van driving along the pose's forward; some wear a colour of the houses. Its length and width."""
    kind = dice.pick(("hatch", "saloon", "estate", "van"))
    length = {"hatch": 3.8, "saloon": 4.5, "estate": 4.5, "van": 5.0}[kind] * dice.uniform(0.95, 1.05)
    across, sill, belt = dice.uniform(1.68, 1.82), 0.24, dice.uniform(0.82, 0.92)
    roof = 2.1 if kind == "van" else dice.uniform(1.38, 1.52)
    paint = dice.tint(dice.pick(walls) if dice.chance(0.45) else dice.pick(PAINTS))
    glass = dice.tint((0.16, 0.2, 0.25), 0.1)
    dark = (0.09, 0.09, 0.1)
    half = length / 2
    seen = canvas.project(pose.origin)
    near = seen is not None and seen[2] < DETAIL
    body = (
        (-half, sill),
        (half, sill),
        (half, 0.62),
        (half - 0.12, belt - 0.12),
        (half - 1.0, belt),
        (-half + 0.05, belt),
    )
    if kind == "van":
        body = (
            (-half, sill),
            (half, sill),
            (half, 0.75),
            (half - 0.15, belt),
            (half - 0.3, belt + 0.1),
            (-half, belt + 0.1),
        )
    canvas.extrude(body, across, pose, id, side=paint, edges=[None, paint, paint, paint, paint, paint])
    base = body[5][1]
    rear_top, rear = {"hatch": (-half + 0.5, -half + 0.1), "saloon": (-half + 1.35, -half + 0.75),
                      "estate": (-half + 0.3, -half + 0.06), "van": (-half + 0.04, -half)}[kind]  # fmt: skip
    front, front_top = (half - 0.35, half - 1.05) if kind == "van" else (half - 1.15, half - 1.85)
    cabin = ((rear, base), (front, base), (front_top, roof), (rear_top, roof))
    rear_glass = paint if kind == "van" else glass
    canvas.extrude(cabin, across * 0.9, pose, id, side=paint, edges=[None, glass, paint, rear_glass])
    if near:
        _windows(canvas, pose, id, cabin, across * 0.9, glass, blind=kind == "van")
    if seen is not None and seen[2] < 2 * DETAIL:
        for out in (-1.0, 1.0):
            for along in (-half + 0.75, half - 0.8):
                _wheel(canvas, pose, id, out * (across / 2 + 0.012), along, dark, near)
        _lamps(canvas, pose, id, half, across, hour, air)
    if near:
        for end in (half + 0.012, -half - 0.012):
            _end_panel(canvas, pose, id, end, (-across / 2, across / 2), (sill, 0.42), dark)
            _end_panel(canvas, pose, id, end * 1.004, (-0.25, 0.25), (0.42, 0.53), (0.85, 0.85, 0.78))
    return length, across


def _windows(
    canvas: Canvas,
    pose: Pose,
    id: int,
    cabin: Sequence[tuple[float, float]],
    across: float,
    glass: Colour,
    *,
    blind: bool,
) -> None:
    """Panes on the cabin's sides, two with a pillar between; a van has only the front one."""
    (rear, base), (front, _), (front_top, roof), (rear_top, _) = cabin
    low, high, middle = base + 0.06, roof - 0.1, (front + rear) / 2 + 0.05
    panes = (
        [(middle + 0.05, front - 0.14, front_top - 0.06)]
        if not blind
        else [(front - 0.9, front - 0.14, front_top - 0.06)]
    )
    if not blind:
        panes.append((middle - 0.05, rear + 0.16, rear_top + 0.14))
    for inner, low_end, high_end in panes:
        for out in (-1.0, 1.0):
            r = out * (across / 2 + 0.01)
            corners = [pose.point(r, h, f) for f, h in ((inner, low), (low_end, low), (high_end, high), (inner, high))]
            forwards = low_end > inner
            canvas.fill(corners if (out > 0) == forwards else corners[::-1], glass, id, one_sided=True)


def _wheel(canvas: Canvas, pose: Pose, id: int, right: float, along: float, tyre: Colour, near: bool) -> None:
    rims = ((0.33, tyre), (0.2, (0.55, 0.56, 0.58))) if near else ((0.33, tyre),)
    for step, (radius, colour) in enumerate(rims):
        out = right + (0.006 * step if right > 0 else -0.006 * step)
        corners = [pose.point(out, 0.33 + radius * h, along + radius * f) for f, h in DISC]
        canvas.fill(corners if right > 0 else corners[::-1], colour, id, one_sided=True)


def _lamps(canvas: Canvas, pose: Pose, id: int, half: float, across: float, hour: Hour, air: Air) -> None:
    on = hour.kind in ("dusk", "fog", "night")
    for end, colour in ((half + 0.014, (1.0, 0.96, 0.82)), (-half - 0.014, (0.9, 0.12, 0.1))):
        dull = colour if on else (colour[0] * 0.75, colour[1] * 0.75, colour[2] * 0.75)
        for out in (-1.0, 1.0):
            middle = out * (across / 2 - 0.24)
            _end_panel(canvas, pose, id, end, (middle - 0.19, middle + 0.19), (0.58, 0.74), dull, glows=on)
            lamp = pose.point(middle, 0.66, end)
            to_eye = (canvas.camera.eye[0] - lamp[0]) * (lamp[0] - pose.origin[0]) + (
                canvas.camera.eye[2] - lamp[2]
            ) * (lamp[2] - pose.origin[2])
            if on and to_eye > 0:
                strength = 0.9 if end > 0 else 0.35
                air.glows.append(Glow(lamp, 0.24, (colour[0] * strength, colour[1] * strength, colour[2] * strength)))


def _end_panel(
    canvas: Canvas, pose: Pose, id: int, forward: float, rights: tuple[float, float], ups: tuple[float, float], colour: Colour,
    *, glows: bool = False,
) -> None:  # fmt: skip
    """An upright rectangle on a car's front (forward > 0) or rear, seen only from outside."""
    corners = [
        pose.point(r, h, forward)
        for r, h in ((rights[0], ups[0]), (rights[1], ups[0]), (rights[1], ups[1]), (rights[0], ups[1]))
    ]
    canvas.fill(corners[::-1] if forward > 0 else corners, colour, id, one_sided=True, glows=glows)


def person(dice: Dice, canvas: Canvas, foot: Point, id: int, walls: Sequence[Colour]) -> None:
    """Somebody walking or standing, drawn flat towards the camera: legs, coat, arms, head, hair, perhaps a bag."""
    tall = dice.uniform(1.05, 1.35) if dice.chance(0.15) else dice.uniform(1.55, 1.9)
    pose = canvas.facing(foot)
    coat = dice.tint(dice.pick(walls) if dice.chance(0.35) else dice.pick(CLOTHES))
    trousers = dice.tint(dice.pick(CLOTHES), 0.1)
    skin, hair = (
        dice.tint(dice.pick(SKINS)),
        dice.tint(dice.pick(((0.12, 0.09, 0.07), (0.4, 0.28, 0.16), (0.7, 0.6, 0.4), (0.6, 0.6, 0.6)))),
    )
    stride, build = dice.uniform(0.02, 0.17), dice.uniform(0.85, 1.2)
    skirt, bag, side = dice.chance(0.25), dice.chance(0.3), dice.sign()
    to_sun = canvas.light.towards
    normal = (to_sun[0] * 0.5, 0.5, to_sun[2] * 0.5)

    seen = canvas.project(foot)
    if seen is None:
        return
    near = seen[2] < DETAIL

    def part(colour: Colour, layer: int, *outline: tuple[float, float], small: bool = False) -> None:
        if near or not small:
            corners = [pose.point(r * build * tall, h * tall, -0.01 * layer) for r, h in outline]
            canvas.fill(corners, colour, id, normal=normal)

    shoe, shade = (0.12, 0.1, 0.1), (trousers[0] * 0.8, trousers[1] * 0.8, trousers[2] * 0.8)
    for out, colour in ((stride, trousers), (-stride, shade)):
        part(colour, 0, (out - 0.035, 0.03), (out + 0.035, 0.03), (0.075, 0.5), (-0.075, 0.5))
        part(shoe, 1, (out - 0.045, 0.0), (out + 0.05, 0.0), (out + 0.045, 0.035), (out - 0.04, 0.035), small=True)
    hem = 0.3 if skirt else 0.46
    part(coat, 2, (-0.10 if skirt else -0.085, hem), (0.10 if skirt else 0.085, hem), (0.12, 0.81), (-0.12, 0.81))
    swing = stride * 0.7
    dim = (coat[0] * 0.82, coat[1] * 0.82, coat[2] * 0.82)
    for out in (-1.0, 1.0):
        hand = out * (0.13 + swing)
        part(dim, 3, (hand - 0.025, 0.48), (hand + 0.025, 0.48), (out * 0.115 + 0.03, 0.8), (out * 0.115 - 0.03, 0.8))
        part(
            skin, 3, (hand - 0.022, 0.44), (hand + 0.022, 0.44), (hand + 0.022, 0.48), (hand - 0.022, 0.48), small=True
        )
    part(skin, 3, (-0.025, 0.79), (0.025, 0.79), (0.025, 0.86), (-0.025, 0.86), small=True)
    part(skin, 4, *((r * 0.058, 0.91 + h * 0.075) for r, h in DISC))
    part(hair, 5, *((r * 0.064 - 0.008 * side, 0.945 + h * 0.05) for r, h in DISC))
    if bag:
        part(
            dice.tint(dice.pick(CLOTHES)),
            6,
            (side * 0.17 - 0.06, 0.4),
            (side * 0.17 + 0.06, 0.4),
            (side * 0.17 + 0.05, 0.52),
            (side * 0.17 - 0.05, 0.52),
        )
