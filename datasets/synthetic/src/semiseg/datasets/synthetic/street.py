"""A street: sky, houses on both sides, a road with cars, pavements with people, poles and trees, at any hour and weather."""

import numpy as np

from semiseg.datasets.synthetic.dice import Colour, Dice
from semiseg.datasets.synthetic.materials import clouds, facade, mottled, soft_shadow
from semiseg.datasets.synthetic.outdoors import (
    BUILDING,
    CAR,
    FAR,
    GREENS,
    KERB,
    PERSON,
    POLE,
    SKY,
    VEGETATION,
    VOID,
    WALLS,
    Hour,
    Layout,
    choose_hour,
    flat_strip,
    lay_ground,
    paint_bonnet,
    paint_sky,
)
from semiseg.datasets.synthetic.raster import Camera, Canvas, Pose, Shader
from semiseg.datasets.synthetic.roadside import bin_on_pavement, hedge, pole, tree
from semiseg.datasets.synthetic.scene import OVERSAMPLING, Air, Scene, develop
from semiseg.datasets.synthetic.traffic import car, person


def street(dice: Dice, width: int, height: int) -> Scene:
    """One street scene of the given size in pixels; all of it follows from the dice."""
    hour, air = choose_hour(dice)
    layout = Layout(
        half_road=dice.uniform(2.8, 4.6),
        pavement=dice.uniform(1.8, 3.8),
        walls=dice.pick(WALLS),
        greens=(dice.pick(GREENS), dice.pick(GREENS)),
    )
    on_foot = dice.chance(0.25)
    reach = layout.half_road * 0.7 if not on_foot else layout.half_road + layout.pavement * 0.5
    eye = (
        dice.sign() * reach * dice.uniform(0.2, 1.0),
        dice.uniform(1.3, 1.8) if on_foot else dice.uniform(1.4, 3.4),
        0.0,
    )
    camera = Camera(
        eye=eye, turn=dice.uniform(-0.16, 0.16), focal=dice.uniform(0.62, 1.05), horizon=dice.uniform(0.36, 0.56)
    )
    canvas = Canvas(width * OVERSAMPLING, height * OVERSAMPLING, camera, hour.light)
    shadows: list[tuple[Pose, float, float]] = []
    _traffic(dice, canvas, layout, hour, air, shadows)
    _street_life(dice, canvas, layout, hour, air, shadows)
    for side in (-1.0, 1.0):
        _houses(dice, canvas, layout, hour, side)
    lay_ground(dice, canvas, layout)
    _end(dice, canvas, layout, hour)
    _shadows(dice, canvas, layout, hour, shadows)
    paint_sky(dice, canvas, hour)
    if not on_foot and dice.chance(0.15):
        paint_bonnet(dice, canvas)
    return develop(canvas, air, dice, void=VOID, hazeless=(SKY,))


def _traffic(
    dice: Dice, canvas: Canvas, layout: Layout, hour: Hour, air: Air, shadows: list[tuple[Pose, float, float]]
) -> None:
    """Cars driving in two lanes, parked at the kerbs, and now and then one crossing."""
    lane = layout.half_road * 0.45
    parked = (dice.chance(0.5), dice.chance(0.5))
    places: list[tuple[float, float, float]] = []
    for side, parks in zip((-1.0, 1.0), parked, strict=True):
        z = dice.uniform(4, 16)
        while z < 56:
            if parks and dice.chance(0.6):
                places.append((side * (layout.half_road - 1.05), z, 0.0 if dice.chance(0.7) else 1e6))
            z += dice.uniform(5.6, 9.0)
    if not all(parked) or dice.chance(0.5):
        for side in (-1.0, 1.0):
            z = dice.uniform(7, 34)
            while z < 80 and dice.chance(0.75):
                drift = 0.0 if not parked[side > 0] else -side * 0.9
                places.append((side * lane + drift, z, 0.0 if side > 0 else 1e6))
                z += dice.uniform(9, 40)
    if dice.chance(0.12):
        places = [place for place in places if place[1] > 16]
        places.append((dice.uniform(-3, 3), dice.uniform(7.5, 11), dice.sign()))
    taken: list[tuple[float, float]] = []
    for x, z, turn in sorted(places, key=lambda place: place[1]):
        near_eye = abs(x - canvas.camera.eye[0]) < 1.6 and z < 7.0
        if near_eye or any(abs(x - a) < 2.1 and abs(z - b) < 5.4 for a, b in taken):
            continue
        taken.append((x, z))
        pose = Pose((x, 0.0, z), turn + dice.uniform(-0.015, 0.015) if abs(turn) < 10 else turn)
        length, across = car(dice, canvas, pose, CAR, hour, layout.walls, air)
        shadows.append((pose, across * 0.62, length * 0.54))


def _street_life(
    dice: Dice, canvas: Canvas, layout: Layout, hour: Hour, air: Air, shadows: list[tuple[Pose, float, float]]
) -> None:
    """People, lamps, signs, trees and bins along the pavements; a few people on the road."""
    spacing, tall = dice.uniform(11, 26), dice.uniform(4.5, 7.5)
    wooded = dice.pick((0.0, 0.25, 0.5, 0.85))
    for side in (-1.0, 1.0):
        z = dice.uniform(4, 14)
        while z < 62:
            at = (side * (layout.half_road + dice.uniform(0.3, 0.6)), KERB, z)
            if dice.chance(wooded):
                radius = tree(dice, canvas, at, VEGETATION, layout.greens)
                shadows.append((Pose(at), radius * 0.9, radius * 0.9))
            if dice.chance(0.7):
                pole(dice, canvas, (at[0], KERB, z + 2.5), POLE, hour, air, tall, side)
                shadows.append((Pose((at[0], KERB, z + 2.5)), 0.3, 0.3))
            if dice.chance(0.18):
                bin_on_pavement(dice, canvas, (side * (layout.half_road + 0.7), KERB, z + 1.2), VOID)
            z += spacing * dice.uniform(0.8, 1.25)
    for _ in range(dice.pick((1, 2, 3, 4, 6))):
        z = dice.uniform(4.5, 14) if dice.chance(0.4) else dice.uniform(8, 40)
        walks = not dice.chance(0.15)
        x = (
            dice.sign() * dice.uniform(layout.half_road + 0.7, layout.edge - 0.4)
            if walks
            else dice.uniform(-1, 1) * layout.half_road
        )
        if abs(x - canvas.camera.eye[0]) < 0.8 and z < 6:
            continue
        at = (x, KERB if walks else 0.0, z)
        person(dice, canvas, at, PERSON, layout.walls)
        shadows.append((Pose(at), 0.45, 0.35))


def _houses(dice: Dice, canvas: Canvas, layout: Layout, hour: Hour, side: float) -> None:
    """A row of houses, nearest first, with gaps where trees or hedges stand."""
    low, high = dice.pick(((4.5, 7.5), (6.0, 12.0), (9.0, 20.0)))
    garden = dice.uniform(1.5, 4.0) if high < 9 and dice.chance(0.7) else 0.0
    gaps, pitched = dice.uniform(0.05, 0.35), dice.chance(0.85 if high < 9 else 0.3)
    roof = dice.tint(dice.pick(((0.52, 0.28, 0.20), (0.32, 0.32, 0.36), (0.42, 0.34, 0.28))))
    green = layout.greens[0]
    z = dice.uniform(-4, 3)
    while z < FAR:
        length = dice.uniform(6, 15)
        front = side * (layout.edge + garden)
        if dice.chance(gaps):
            hedge(dice, canvas, Pose((side * (layout.edge + 0.5), 0.0, z + length / 2)), VEGETATION, green, length)
            for _ in range(2):
                tree(
                    dice,
                    canvas,
                    (side * (layout.edge + dice.uniform(2.5, 6)), 0.0, z + dice.uniform(1, length)),
                    VEGETATION,
                    layout.greens,
                )
            z += length
            continue
        tall, deep = dice.uniform(low, high), 10.0
        wall = dice.tint(dice.pick(layout.walls))
        trim = dice.tint(dice.pick(((0.92, 0.90, 0.85), wall, (0.4, 0.36, 0.34))))
        pattern = facade(
            dice,
            wall,
            trim,
            (length, tall),
            lit=hour.lit,
            lamp=1.5 / max(hour.light.ambient),
            shops=garden == 0 and dice.chance(0.45),
        )
        end = (
            facade(dice, wall, wall, (deep, tall), lit=hour.lit, lamp=1.5 / max(hour.light.ambient))
            if dice.chance(0.5)
            else mottled(wall, 0.08, 3.0)
        )
        a, b = z, z + length
        back = front + side * deep
        corners = [(front, 0.0, a), (front, 0.0, b), (front, tall, b), (front, tall, a)]
        canvas.fill(corners, pattern, BUILDING)
        canvas.fill([(front, 0.0, a), (back, 0.0, a), (back, tall, a), (front, tall, a)], end, BUILDING)
        if pitched:
            _pitched_roof(canvas, front, back, a, b, tall, dice.uniform(1.8, 3.2), roof, wall)
        if garden:
            hedge(
                dice,
                canvas,
                Pose((side * (layout.edge + 0.3), 0.0, z + length / 2)),
                VEGETATION,
                green,
                length * dice.uniform(0.5, 0.9),
            )
        z += length


def _pitched_roof(
    canvas: Canvas, front: float, back: float, a: float, b: float, eaves: float, rise: float, roof: Colour, wall: Colour
) -> None:
    ridge, top, over = (front + back) / 2, eaves + rise, 0.35 if back < front else -0.35
    canvas.fill(
        [(front + over, eaves - 0.1, a), (front + over, eaves - 0.1, b), (ridge, top, b), (ridge, top, a)],
        _roof_tiles(roof),
        BUILDING,
    )
    canvas.fill([(front, eaves, a), (back, eaves, a), (ridge, top, a)], mottled(wall, 0.08, 3.0), BUILDING)


def _roof_tiles(colour: Colour) -> Shader:
    base = np.asarray(colour, np.float32)

    def shade(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        row = v / 0.35 - np.floor(v / 0.35)
        fade = np.minimum(1.0, 12.0 / depth)
        return (1 + 0.1 * clouds(u, v, 6.0) + 0.2 * fade * (row - 0.5))[:, None] * base

    return shade


def _end(dice: Dice, canvas: Canvas, layout: Layout, hour: Hour) -> None:
    """What closes the street far away: a house across, or trees."""
    if dice.chance(0.5):
        wall, tall = dice.tint(dice.pick(layout.walls)), dice.uniform(7, 16)
        corners = [(-70.0, 0.0, FAR), (70.0, 0.0, FAR), (70.0, tall, FAR), (-70.0, tall, FAR)]
        canvas.fill(
            corners, facade(dice, wall, wall, (140.0, tall), lit=hour.lit, lamp=1.5 / max(hour.light.ambient)), BUILDING
        )
        return
    x = -60.0
    while x < 60.0:
        tree(dice, canvas, (x, 0.0, FAR - 4), VEGETATION, layout.greens, scale=2.2)
        x += dice.uniform(7, 13)


def _shadows(dice: Dice, canvas: Canvas, layout: Layout, hour: Hour, shadows: list[tuple[Pose, float, float]]) -> None:
    """Soft darkness under what stands on the ground; in sun and at dusk, the houses' long shadow over one side."""
    for pose, across, along in shadows:
        corners = [pose.point(r * across, 0.0, f * along) for r, f in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        canvas.darken(corners, soft_shadow(across, along, 0.35 if hour.kind in ("sun", "cloud") else 0.5))
    if hour.kind in ("sun", "dusk"):
        side = 1.0 if hour.light.towards[0] > 0 else -1.0
        reach = side * (layout.edge - dice.uniform(0.4, 1.6) * layout.edge)
        level = 0.62 if hour.kind == "sun" else 0.7
        canvas.darken(flat_strip(side * layout.half_road, reach, 0.0, -2.0), level, tolerance=0.004)
        canvas.darken(flat_strip(side * layout.half_road, side * layout.edge, KERB, -2.0), level, tolerance=0.004)
