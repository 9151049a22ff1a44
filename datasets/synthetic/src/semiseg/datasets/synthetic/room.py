"""A furnished room: windows, pictures, shelves, tables, chairs and lamps in their shell, by day or lamplight."""

from semiseg.datasets.synthetic.dice import Colour, Dice
from semiseg.datasets.synthetic.furniture import (
    WOODS,
    armchair,
    chair,
    clutter,
    lamp,
    on_the_table,
    picture,
    shelf,
    table,
    window,
)
from semiseg.datasets.synthetic.geometry import Point, unit
from semiseg.datasets.synthetic.materials import soft_shadow
from semiseg.datasets.synthetic.raster import Camera, Canvas, Light, Pose
from semiseg.datasets.synthetic.scene import OVERSAMPLING, Air, Scene, develop
from semiseg.datasets.synthetic.shell import (
    CHAIR,
    LAMP,
    PAPERS,
    PICTURE,
    SHELF,
    TABLE,
    VOID,
    WINDOW,
    Shell,
    build_shell,
)


def room(dice: Dice, width: int, height: int) -> Scene:
    """One room of the given size in pixels; all of it follows from the dice."""
    shell = Shell(dice.uniform(3.8, 6.0), dice.uniform(4.2, 6.5), dice.uniform(2.4, 3.0))
    evening = dice.chance(0.35)
    light, air = _light(dice, evening)
    eye = (
        dice.uniform(-0.36, 0.36) * shell.width,
        dice.uniform(1.05, 1.75),
        -shell.depth / 2 + dice.uniform(0.25, 0.7),
    )
    aim = (0.0 - eye[0]) / shell.depth  # towards the middle of the far wall, and off it
    camera = Camera(
        eye=eye,
        turn=aim * 0.5 + dice.uniform(-0.24, 0.24),
        focal=dice.uniform(0.56, 0.86),
        horizon=dice.uniform(0.32, 0.50),
    )
    canvas = Canvas(width * OVERSAMPLING, height * OVERSAMPLING, camera, light)
    shell.taken.append((eye[0], eye[2], 0.9))
    wood = dice.tint(dice.pick(WOODS))
    wallpaper = dice.tint(dice.pick(PAPERS))
    accents = (dice.pick(PAPERS), wood, wallpaper, dice.pick(WOODS))
    _dining(dice, canvas, shell, wood, accents)
    _along_the_walls(dice, canvas, shell, wood, accents, evening, air)
    _loose(dice, canvas, shell, accents, evening, air)
    build_shell(dice, canvas, shell, wallpaper, wood)
    _shade(dice, canvas, shell, evening)
    return develop(canvas, air, dice, void=VOID)


def _light(dice: Dice, evening: bool) -> tuple[Light, Air]:
    towards = unit((dice.sign() * dice.uniform(0.5, 1.0), dice.uniform(0.7, 1.4), dice.uniform(-0.8, 0.2)))
    if evening:
        light = Light(towards=towards, sun=dice.tint((0.24, 0.18, 0.11)), ambient=dice.tint((0.66, 0.56, 0.43), 0.08))
        return light, Air(noise=dice.uniform(0.008, 0.018), exposure=dice.uniform(0.9, 1.15), tone=(1.03, 1.0, 0.95))
    light = Light(towards=towards, sun=dice.tint((0.34, 0.32, 0.28)), ambient=dice.tint((0.62, 0.63, 0.65), 0.06))
    return light, Air(noise=dice.uniform(0.005, 0.014), exposure=dice.uniform(0.85, 1.15))


def _dining(dice: Dice, canvas: Canvas, shell: Shell, wood: Colour, accents: tuple[Colour, ...]) -> None:
    """A table with its chairs, somewhere in the middle."""
    if not dice.chance(0.85):
        return
    round_top = dice.chance(0.3)
    across, along = dice.uniform(0.9, 1.3), dice.uniform(0.9, 1.9)
    if round_top:
        along = across
    x = dice.uniform(-0.22, 0.22) * shell.width
    z = dice.uniform(-0.05, 0.28) * shell.depth
    pose = Pose((x, 0.0, z), dice.uniform(-0.5, 0.5))
    top = dice.tint(dice.pick(accents) if dice.chance(0.5) else wood)
    high = dice.uniform(0.70, 0.78) if dice.chance(0.8) else 0.45
    table(dice, canvas, pose, TABLE, top, (across, high, along), round_top=round_top)
    on_the_table(dice, canvas, pose, VOID, (across, high, along))
    shell.taken.append((x, z, max(across, along) * 0.5))
    shell.shadows.append((pose, across * 0.62, along * 0.62))
    seat = dice.tint(dice.pick(accents), 0.08)
    style = dice.pick(("slats", "panel", "stool"))
    beside = across / 2 + 0.28
    for right, forward, turn in (
        (beside, along * 0.2, -1.0), (-beside, along * 0.2, 1.0), (beside, -along * 0.28, -1.0),
        (-beside, -along * 0.28, 1.0), (0.0, along / 2 + 0.3, 1e6), (0.0, -along / 2 - 0.3, 0.0),
    ):  # fmt: skip
        if dice.chance(0.4) or (along < 1.3 and forward < 0 and right != 0):
            continue
        at = pose.point(right + dice.uniform(-0.08, 0.08), 0.0, forward + dice.uniform(-0.08, 0.12))
        turned = Pose(at, _added(pose.turn, turn) + dice.uniform(-0.12, 0.12))
        if abs(at[0]) < shell.width / 2 - 0.3 and abs(at[2] - canvas.camera.eye[2]) > 0.9:
            chair(dice, canvas, turned, CHAIR, seat, style)
            shell.shadows.append((turned, 0.32, 0.32))


def _added(a: float, b: float) -> float:
    """The half-angle tangent of the sum of two angles."""
    return (a + b) / (1 - a * b) if abs(1 - a * b) > 1e-6 else 1e6


def _along_the_walls(
    dice: Dice, canvas: Canvas, shell: Shell, wood: Colour, accents: tuple[Colour, ...], evening: bool, air: Air
) -> None:
    """What hangs on the far and side walls and stands before them, slot by slot."""
    half_x, half_z = shell.width / 2, shell.depth / 2
    walls = ((0.0, half_z, 1e6, shell.width), (-half_x, 0.0, 1.0, shell.depth), (half_x, 0.0, -1.0, shell.depth))
    for x, z, turn, length in walls:
        wall = Pose((x, 0.0, z), turn)  # forward points into the room
        slots = max(2, int(length / 1.6))
        for i in range(slots):
            middle = ((i + 0.5) / slots - 0.5) * length + dice.uniform(-0.1, 0.1)
            kind = dice.pick(
                (
                    "window",
                    "window",
                    "picture",
                    "pictures",
                    "shelf",
                    "shelf",
                    "sideboard",
                    "sideboard",
                    "armchair",
                    "empty",
                )
            )
            size = length / slots - 0.2
            at = wall.shifted(middle, 0.0, 0.0)
            stands = wall.point(middle, 0.0, 0.3)
            if kind == "window":
                window(
                    dice,
                    canvas,
                    at,
                    WINDOW,
                    (min(size, dice.uniform(0.9, 1.5)), dice.uniform(1.0, 1.5)),
                    shell.height,
                    evening,
                )
            elif kind == "picture":
                picture(
                    dice,
                    canvas,
                    at,
                    PICTURE,
                    (min(size, dice.uniform(0.5, 1.1)), dice.uniform(0.4, 0.8)),
                    dice.uniform(1.4, 1.8),
                )
            elif kind == "pictures":
                for across in (-0.32, 0.32):
                    picture(
                        dice,
                        canvas,
                        at.shifted(across, 0, 0),
                        PICTURE,
                        (dice.uniform(0.3, 0.5), dice.uniform(0.35, 0.6)),
                        dice.uniform(1.45, 1.75),
                    )
            elif kind in ("shelf", "sideboard") and shell.claim(stands[0], stands[2], 0.5):
                tall = dice.uniform(1.5, 2.2) if kind == "shelf" else dice.uniform(0.7, 1.0)
                wide, deep = min(size, dice.uniform(0.8, 1.5)), dice.uniform(0.3, 0.42)
                body = dice.tint(dice.pick((wood, *accents)))
                standing = at.shifted(0.0, 0.0, deep / 2 + 0.01)
                shelf(
                    dice, canvas, standing, SHELF, body, (wide, tall, deep), books=kind == "shelf" or dice.chance(0.3)
                )
                shell.shadows.append((standing, wide * 0.6, deep * 0.9))
                if kind == "sideboard" and dice.chance(0.5):
                    lamp(
                        dice,
                        canvas,
                        standing.shifted(dice.uniform(-0.2, 0.2), tall, 0.0),
                        LAMP,
                        "table",
                        evening,
                        air,
                        shell.height,
                    )
            elif kind == "armchair" and shell.claim(*_floor_point(wall.point(middle, 0.0, 0.55)), 0.55):
                seat = at.shifted(0.0, 0.0, 0.5)
                armchair(dice, canvas, seat, CHAIR, dice.tint(dice.pick(accents), 0.1))
                shell.shadows.append((seat, 0.55, 0.55))


def _floor_point(point: Point) -> tuple[float, float]:
    return point[0], point[2]


def _loose(dice: Dice, canvas: Canvas, shell: Shell, accents: tuple[Colour, ...], evening: bool, air: Air) -> None:
    """Standing and hanging lamps, a stray chair or low table, and things of no class on the floor."""
    half_x, half_z = shell.width / 2, shell.depth / 2
    for _ in range(dice.pick((0, 1, 1, 2))):
        x, z = dice.sign() * (half_x - dice.uniform(0.3, 0.5)), dice.uniform(-0.1, 0.94) * half_z
        if shell.claim(x, z, 0.25):
            lamp(dice, canvas, Pose((x, 0.0, z)), LAMP, "floor", evening, air, shell.height)
            shell.shadows.append((Pose((x, 0.0, z)), 0.25, 0.25))
    if dice.chance(0.5):
        x, z = dice.uniform(-0.3, 0.3) * shell.width, dice.uniform(0.0, 0.3) * shell.depth
        lamp(dice, canvas, Pose((x, 0.0, z)), LAMP, "hanging", evening, air, shell.height)
    for _ in range(dice.pick((0, 1, 2))):
        x, z = dice.uniform(-0.4, 0.4) * shell.width, dice.uniform(-0.2, 0.42) * shell.depth
        if shell.claim(x, z, 0.4):
            turned = Pose((x, 0.0, z), dice.uniform(-1, 1) * 3)
            if dice.chance(0.5):
                chair(
                    dice, canvas, turned, CHAIR, dice.tint(dice.pick(accents)), dice.pick(("slats", "panel", "stool"))
                )
            else:
                table(
                    dice,
                    canvas,
                    turned,
                    TABLE,
                    dice.tint(dice.pick(accents)),
                    (0.5, 0.45, 0.5),
                    round_top=dice.chance(0.5),
                )
            shell.shadows.append((turned, 0.35, 0.35))
    for _ in range(dice.pick((0, 0, 1, 2))):
        x, z = dice.uniform(-0.42, 0.42) * shell.width, dice.uniform(-0.25, 0.42) * shell.depth
        if shell.claim(x, z, 0.25):
            clutter(dice, canvas, Pose((x, 0.0, z), dice.uniform(-1, 1)), VOID)
            shell.shadows.append((Pose((x, 0.0, z)), 0.26, 0.26))


def _shade(dice: Dice, canvas: Canvas, shell: Shell, evening: bool) -> None:
    """Soft darkness under the furniture, and by day a patch of sun on the floor."""
    for pose, across, along in shell.shadows:
        corners = [pose.point(r * across, 0.0, f * along) for r, f in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        canvas.darken([(x, 0.004, z) for x, _, z in corners], soft_shadow(across, along, 0.5))
    if not evening and dice.chance(0.5):
        x, z, slant = (
            dice.uniform(-0.3, 0.3) * shell.width,
            dice.uniform(-0.2, 0.2) * shell.depth,
            dice.uniform(-0.8, 0.8),
        )
        for i in (0, 1):
            a = x + i * 0.62
            corners: list[Point] = [
                (a, 0.0, z),
                (a + 0.55, 0.0, z),
                (a + 0.55 + slant, 0.0, z + 1.1),
                (a + slant, 0.0, z + 1.1),
            ]
            canvas.darken(corners, 1.45, tolerance=0.004)
