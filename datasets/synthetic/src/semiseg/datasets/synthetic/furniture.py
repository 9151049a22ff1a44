"""What furnishes a room: windows, pictures, shelves, tables, chairs, lamps, and things of no class."""

import numpy as np

from semiseg.datasets.synthetic.dice import Colour, Dice
from semiseg.datasets.synthetic.geometry import DISC, Point
from semiseg.datasets.synthetic.materials import boards, clouds, mottled, scatter, stripes
from semiseg.datasets.synthetic.raster import Canvas, Pose, Shader
from semiseg.datasets.synthetic.scene import Air, Glow

WOODS: tuple[Colour, ...] = (
    (0.62, 0.44, 0.28), (0.76, 0.60, 0.42), (0.42, 0.28, 0.19), (0.86, 0.76, 0.60), (0.88, 0.86, 0.82), (0.28, 0.24, 0.23),
)  # fmt: skip


def window(
    dice: Dice, canvas: Canvas, wall: Pose, id: int, size: tuple[float, float], ceiling: float, evening: bool
) -> None:
    """A window with its frame and view, and perhaps curtains (which count as window); the wall pose faces the room."""
    wide, tall = size
    sill = min(dice.uniform(0.75, 1.0), ceiling - tall - 0.15)
    low = np.asarray((0.10, 0.12, 0.2) if evening else dice.tint((0.86, 0.92, 0.96), 0.04), np.float32)
    high = np.asarray((0.05, 0.06, 0.12) if evening else dice.tint((0.55, 0.74, 0.92), 0.06), np.float32)
    green = np.asarray((0.05, 0.08, 0.07) if evening else dice.tint((0.36, 0.52, 0.28), 0.1), np.float32)
    frame = np.asarray(dice.tint(dice.pick(((0.94, 0.93, 0.9), (0.5, 0.36, 0.25), (0.25, 0.26, 0.28)))), np.float32)
    columns, rows, hill, shift = dice.integer(1, 3), dice.integer(1, 2), dice.uniform(0.15, 0.5), dice.uniform(0, 30)
    brightness = 0.9 / max(canvas.light.ambient)  # the view is lit by the day, not by the room

    def view(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        up = v / tall
        sky = low + np.clip(up, 0, 1)[:, None] * (high - low)
        land = up < hill + 0.14 * clouds(u + shift, u * 0, 9.0)
        leaf = (1 + 0.35 * clouds(u, v + shift, 26.0))[:, None] * green
        rgb = np.where(land[:, None], leaf, sky) * np.float32(brightness)
        across, along = u / wide * columns, up * rows
        bar_u, bar_v = 0.03 * columns / wide, 0.03 * rows / tall
        fu, fv = across - np.floor(across), along - np.floor(along)
        bars = (fu < bar_u) | (fu > 1 - bar_u) | (fv < bar_v) | (fv > 1 - bar_v)
        rgb[bars] = frame
        return rgb

    canvas.fill(_on_wall(wall, -wide / 2, wide / 2, sill, sill + tall, 0.02), view, id)
    canvas.box(wall.shifted(0.0, sill - 0.05, 0.05), (wide + 0.14, 0.05, 0.12), id, (0.9, 0.89, 0.86))
    if dice.chance(0.5):
        cloth = dice.tint(dice.pick(((0.85, 0.82, 0.76), (0.62, 0.36, 0.32), (0.42, 0.52, 0.58), (0.76, 0.66, 0.44))))
        dark = (cloth[0] * 0.8, cloth[1] * 0.8, cloth[2] * 0.8)
        foot, drawn = (sill - 0.2 if dice.chance(0.5) else 0.06), dice.uniform(0.18, 0.34)
        for side in (-1.0, 1.0):
            a, b = side * (wide / 2 + 0.12), side * (wide / 2 + 0.12 - drawn)
            canvas.fill(
                _on_wall(wall, min(a, b), max(a, b), foot, sill + tall + 0.12, 0.07), stripes(cloth, dark, 0.09), id
            )


def picture(dice: Dice, canvas: Canvas, wall: Pose, id: int, size: tuple[float, float], middle: float) -> None:
    """A framed picture: a landscape, shapes or stripes."""
    wide, tall = size
    frame = np.asarray(dice.tint(dice.pick((*WOODS, (0.1, 0.1, 0.1), (0.75, 0.62, 0.3)))), np.float32)
    inks = [np.asarray(dice.tint(dice.pick(INKS), 0.1), np.float32) for _ in range(3)]
    kind, mat, line = dice.pick(("land", "shapes", "bands", "blobs")), dice.chance(0.5), dice.uniform(0.3, 0.6)
    x, y, radius, shift = dice.uniform(0.3, 0.7), dice.uniform(0.4, 0.7), dice.uniform(0.12, 0.25), dice.uniform(0, 30)

    def art(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        across, up = u / wide, v / tall
        wave = 0.12 * clouds(u + shift, u * 0 + shift, 14.0)
        disc = (across - x) * (across - x) + (up - y) * (up - y) < radius * radius
        if kind == "land":
            second = up < line + wave
        elif kind == "shapes":
            second = across + up * (x - 0.5) * 2 < line
        elif kind == "bands":
            second = (up * 5 - np.floor(up * 5)) < line
        else:
            second = clouds(u + shift, v + shift, 16.0) > 0.2
        rgb = np.where(second[:, None], inks[1], inks[0])
        rgb = np.where((disc & ~(second & (kind == "land")))[:, None], inks[2], rgb)
        edge = np.minimum(np.minimum(u, wide - u), np.minimum(v, tall - v))
        if mat:
            rgb[edge < 0.1] = (0.93, 0.92, 0.88)
        rgb[edge < 0.04] = frame
        return rgb

    canvas.fill(_on_wall(wall, -wide / 2, wide / 2, middle - tall / 2, middle + tall / 2, 0.03), art, id)


def shelf(
    dice: Dice, canvas: Canvas, pose: Pose, id: int, colour: Colour, size: tuple[float, float, float], *, books: bool
) -> None:
    """A book-case with rows of books, or a cupboard with doors, before a wall; the pose's forward is its front."""
    wide, tall, deep = size
    wood = boards(dice, colour, 0.3, 3.0)
    half, front = wide / 2, deep / 2
    canvas.box(pose, size, id, wood)
    face = _books(dice, colour, wide, tall) if books else _doors(dice, colour, wide, tall)
    canvas.fill(_on_wall(pose, -half, half, 0.0, tall, front + 0.004), face, id)
    if tall < 1.2 and dice.chance(0.3):  # a plant or box on top would be of no class: books lying there are the shelf's
        ink = dice.tint(dice.pick(INKS))
        canvas.box(pose.shifted(dice.uniform(-0.2, 0.2), tall, 0.0), (0.24, 0.1, 0.18), id, ink)


def _books(dice: Dice, colour: Colour, wide: float, tall: float) -> Shader:
    base, seed = np.asarray(colour, np.float32), dice.integer(0, 1 << 20)
    inks = np.asarray([dice.tint(dice.pick(INKS), 0.12) for _ in range(7)], np.float32)
    rows = max(1, int(tall / dice.uniform(0.3, 0.4)))
    filled = dice.uniform(0.55, 0.95)

    def shade(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        row = np.floor(v / tall * rows)
        up = v / tall * rows - row
        book = np.floor(u / 0.055)
        chosen, size = scatter(book, row, seed), 0.6 + 0.3 * scatter(book, row, seed + 1)
        spine = (u / 0.055 - book) < 0.14
        rgb = np.broadcast_to(base * np.float32(0.4), (u.size, 3)).copy()
        there = (up > 0.08) & (up < size) & (scatter(np.floor(book / 3), row, seed + 2) < filled)
        level = np.where(spine, np.float32(0.65), np.float32(1.0)) * (0.8 + 0.2 * up)
        shown = inks[(chosen[there] * 6.99).astype(np.int64)]
        rgb[there] = level[there, None] * shown
        rgb[(up < 0.08) | (up > 0.97) | (u < 0.035) | (u > wide - 0.035)] = base
        return rgb

    return shade


def _doors(dice: Dice, colour: Colour, wide: float, tall: float) -> Shader:
    base = np.asarray(colour, np.float32)
    columns, rows = dice.integer(2, 3), dice.integer(1, 3)
    handle = np.asarray(dice.pick(((0.2, 0.19, 0.18), (0.8, 0.72, 0.5))), np.float32)

    def shade(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        across, up = u / wide * columns, v / tall * rows
        fu, fv = across - np.floor(across), up - np.floor(up)
        rgb = (1 + 0.1 * clouds(v, u, 20.0, 6.0))[:, None] * base
        edge = np.minimum(np.minimum(fu, 1 - fu) * wide / columns, np.minimum(fv, 1 - fv) * tall / rows)
        rgb[edge < 0.012] *= np.float32(0.5)
        rgb[(edge > 0.06) & (edge < 0.075)] *= np.float32(0.82)
        rgb[(abs(fu - 0.5) * wide / columns < 0.05) & (abs(fv - 0.8) * tall / rows < 0.014)] = handle
        return rgb

    return shade


def table(
    dice: Dice,
    canvas: Canvas,
    pose: Pose,
    id: int,
    colour: Colour,
    size: tuple[float, float, float],
    *,
    round_top: bool,
) -> None:
    """A table of size (across, up, along): a slab on four legs, or a disc on one."""
    across, high, along = size
    wood = boards(dice, colour, 0.18, 2.5) if dice.chance(0.7) else mottled(colour, 0.05, 4.0)
    thick = dice.uniform(0.03, 0.055)
    dark = (colour[0] * 0.8, colour[1] * 0.8, colour[2] * 0.8)
    if round_top:
        for low, top in ((high - thick, high),):
            rim = [pose.point(r * across / 2, top, f * along / 2) for r, f in DISC]
            under = [pose.point(r * across / 2, low, f * along / 2) for r, f in DISC]
            canvas.fill(rim, wood, id)
            for i in range(12):
                j = (i + 1) % 12
                canvas.fill((under[i], under[j], rim[j], rim[i]), dark, id, one_sided=True)
        canvas.box(pose, (0.09, high - thick, 0.09), id, dark)
        canvas.box(pose, (across * 0.4, 0.03, along * 0.4), id, dark)
        return
    canvas.box(pose.shifted(0.0, high - thick, 0.0), (across, thick, along), id, wood)
    apron = pose.shifted(0.0, high - thick - 0.08, 0.0)
    canvas.box(apron, (across - 0.16, 0.08, along - 0.16), id, dark)
    leg, inset = dice.uniform(0.04, 0.07), dice.uniform(0.03, 0.1)
    for r in (-1.0, 1.0):
        for f in (-1.0, 1.0):
            foot = pose.shifted(r * (across / 2 - inset - leg / 2), 0.0, f * (along / 2 - inset - leg / 2))
            canvas.box(foot, (leg, high - thick, leg), id, dark)


def chair(dice: Dice, canvas: Canvas, pose: Pose, id: int, colour: Colour, style: str) -> None:
    """A chair facing the pose's forward with a slatted or solid back, or a stool."""
    wide, high, thick = 0.42, 0.45, 0.045
    dark = (colour[0] * 0.78, colour[1] * 0.78, colour[2] * 0.78)
    canvas.box(pose.shifted(0.0, high - thick, 0.0), (wide, thick, wide), id, mottled(colour, 0.08, 6.0))
    for r in (-1.0, 1.0):
        for f in (-1.0, 1.0):
            tall = dice.uniform(0.86, 0.9) if f < 0 and style != "stool" else high - thick
            canvas.box(pose.shifted(r * 0.185, 0.0, f * 0.185), (0.04, tall, 0.04), id, dark)
    if style == "panel":
        canvas.box(pose.shifted(0.0, 0.55, -0.185), (0.38, 0.36, 0.03), id, mottled(colour, 0.08, 6.0))
    elif style == "slats":
        for up in (0.56, 0.69, 0.82):
            canvas.box(pose.shifted(0.0, up, -0.185), (0.36, 0.065, 0.025), id, colour)


def armchair(dice: Dice, canvas: Canvas, pose: Pose, id: int, colour: Colour) -> None:
    """An upholstered chair: seat, back, two arms and a cushion."""
    wide = dice.uniform(0.75, 1.0)
    cloth = mottled(colour, 0.1, 5.0, rough=0.06)
    light = (min(1.0, colour[0] * 1.1), min(1.0, colour[1] * 1.1), min(1.0, colour[2] * 1.1))
    canvas.box(pose.shifted(0.0, 0.08, 0.05), (wide - 0.2, 0.34, 0.66), id, mottled(light, 0.1, 5.0))
    canvas.box(pose.shifted(0.0, 0.08, -0.3), (wide, dice.uniform(0.7, 0.85), 0.2), id, cloth)
    for r in (-1.0, 1.0):
        canvas.box(pose.shifted(r * (wide / 2 - 0.07), 0.08, 0.02), (0.15, 0.5, 0.72), id, cloth)
    if dice.chance(0.5):
        cushion = dice.tint(dice.pick(INKS))
        canvas.box(pose.shifted(dice.uniform(-0.1, 0.1), 0.42, -0.13), (0.36, 0.3, 0.12), id, cushion)


def lamp(dice: Dice, canvas: Canvas, pose: Pose, id: int, kind: str, evening: bool, air: Air, ceiling: float) -> None:
    """A lamp that stands on the floor, on furniture, or hangs from the ceiling; lit in the evening, and now and then by day."""
    on = evening or dice.chance(0.15)
    flat = canvas.facing(pose.origin)
    metal = dice.tint(dice.pick(((0.15, 0.14, 0.14), (0.7, 0.6, 0.38), (0.6, 0.6, 0.6), (0.5, 0.36, 0.24))))
    cloth = dice.tint(
        dice.pick(((0.92, 0.86, 0.74), (0.84, 0.84, 0.82), (0.74, 0.44, 0.32), (0.36, 0.48, 0.50), (0.20, 0.20, 0.22)))
    )
    foot, stem, radius, tall = {
        "floor": (0.0, dice.uniform(1.3, 1.6), dice.uniform(0.16, 0.24), 0.26),
        "table": (0.0, dice.uniform(0.2, 0.3), dice.uniform(0.11, 0.16), 0.18),
        "hanging": (ceiling - 0.9, dice.uniform(0.25, 0.45), dice.uniform(0.16, 0.28), 0.2),
    }[kind]
    taper = dice.uniform(0.45, 0.95)
    thin = 0.026
    if kind == "hanging":
        low = ceiling - stem - tall
        canvas.fill(
            [flat.point(r, h, 0.0) for r, h in ((-thin, low), (thin, low), (thin, ceiling), (-thin, ceiling))],
            metal,
            id,
        )
    else:
        low = stem
        canvas.fill(
            [flat.point(r, h, 0.0) for r, h in ((-thin, foot), (thin, foot), (thin, low), (-thin, low))], metal, id
        )
        base = radius * 0.75
        canvas.box(pose, (base, 0.03, base), id, metal)
    glow = (min(1.2, cloth[0] * 0.5 + 0.62), min(1.1, cloth[1] * 0.5 + 0.48), cloth[2] * 0.5 + 0.26)
    shade = _lampshade(glow if on else cloth, radius, tall, on)
    outline = ((-radius, low), (radius, low), (radius * taper, low + tall), (-radius * taper, low + tall))
    canvas.fill([flat.point(r, h, -0.02) for r, h in outline], shade, id, glows=on)
    if on:
        level = dice.uniform(0.35, 0.6)
        air.glows.append(
            Glow(flat.point(0.0, low + tall / 2, -0.02), radius * 2.2, (level, level * 0.78, level * 0.45))
        )


def _lampshade(colour: Colour, radius: float, tall: float, on: bool) -> Shader:
    base = np.asarray(colour, np.float32)

    def shade(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        across = u / radius - 1
        rounded = 1 - np.float32(0.18 if on else 0.4) * across * across
        return (rounded * (1 - 0.15 * v / tall if on else 1))[:, None] * base

    return shade


def on_the_table(dice: Dice, canvas: Canvas, pose: Pose, id: int, size: tuple[float, float, float]) -> None:
    """Plates, a vase, a laptop, a box: things of no class."""
    across, high, along = size
    for _ in range(dice.pick((0, 1, 2, 3))):
        at = pose.shifted(dice.uniform(-0.3, 0.3) * across, high, dice.uniform(-0.3, 0.3) * along)
        colour = dice.tint(dice.pick(INKS))
        if dice.chance(0.5):
            canvas.box(at, (0.1, dice.uniform(0.1, 0.3), 0.1), id, colour)
        else:
            canvas.fill([at.point(r * 0.12, 0.012, f * 0.12) for r, f in DISC], (0.92, 0.91, 0.88), id)


def clutter(dice: Dice, canvas: Canvas, pose: Pose, id: int) -> None:
    """A plant in its pot or a box on the floor: of no class."""
    if dice.chance(0.5):
        size = dice.uniform(0.2, 0.4)
        canvas.box(pose, (size, size * 0.8, size * 1.2), id, mottled(dice.tint((0.7, 0.55, 0.38)), 0.1, 6.0))
        return
    pot = dice.tint(dice.pick(((0.72, 0.42, 0.3), (0.85, 0.84, 0.8), (0.3, 0.34, 0.36))))
    canvas.box(pose, (0.26, 0.26, 0.26), id, pot)
    flat = canvas.facing(pose.origin)
    green = dice.tint((0.28, 0.46, 0.24), 0.12)
    for _ in range(7):
        lean, tall = dice.uniform(-0.4, 0.4), dice.uniform(0.5, 0.9)
        leaf = ((0.0, 0.25), (lean * 0.6 + 0.05, tall * 0.75), (lean, tall), (lean * 0.6 - 0.05, tall * 0.7))
        canvas.fill([flat.point(r, h, -0.02) for r, h in leaf], dice.tint(green, 0.1), id)


def _on_wall(wall: Pose, left: float, right: float, low: float, high: float, out: float) -> list[Point]:
    """The corners of a rectangle hanging `out` metres before a wall, anticlockwise seen from the room."""
    # Seen from the room, the pose's right is on the left hand: the pose looks at the one who looks.
    return [wall.point(r, h, out) for r, h in ((right, low), (left, low), (left, high), (right, high))]


INKS: tuple[Colour, ...] = (
    (0.72, 0.28, 0.22), (0.20, 0.34, 0.50), (0.86, 0.70, 0.34), (0.30, 0.44, 0.34), (0.88, 0.84, 0.76), (0.24, 0.22, 0.24),
    (0.62, 0.44, 0.56), (0.80, 0.56, 0.40), (0.52, 0.66, 0.70),
)  # fmt: skip
