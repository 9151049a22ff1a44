"""The renderer against plain geometry: what a ray hits, where a point lands, what a block of pixels becomes."""

from collections import Counter

import numpy as np
import pytest

from semiseg.data import generator
from semiseg.datasets.synthetic.geometry import Point, cross, dot, minus, unit
from semiseg.datasets.synthetic.materials import noise_tiles
from semiseg.datasets.synthetic.raster import Camera, Canvas, Light, Pose
from semiseg.datasets.synthetic.scene import _halved, _majority

LIGHT = Light(towards=(0.0, 1.0, 0.0), sun=(0.0, 0.0, 0.0), ambient=(1.0, 1.0, 1.0))
VOID = 9


@pytest.mark.parametrize("seed", range(8))
def test_the_nearest_triangle_wins_as_by_casting_a_ray_through_each_pixel(seed: int) -> None:
    random = generator("test raster", seed)
    camera = Camera(eye=(0.3, 1.5, -1.0), turn=random.random() - 0.5, focal=0.8, horizon=0.4)
    canvas = Canvas(48, 36, camera, LIGHT)
    triangles: list[list[Point]] = []
    for _ in range(6):
        corners = random.random((3, 3)) * (8, 5, 12) - (4, 1, 2)  # some reach behind the camera
        triangles.append([(float(x), float(y), float(z)) for x, y, z in corners])
        canvas.fill(triangles[-1], (0.5, 0.5, 0.5), len(triangles))
    expected = np.zeros((36, 48), int)
    for row in range(36):
        for column in range(48):
            expected[row, column] = _hit(camera, triangles, (column + 0.5, row + 0.5), 48, 36)
    assert (expected != 0).mean() > 0.05
    assert (canvas.ids != expected).mean() < 0.01  # pixels on an edge may fall either way


def test_a_point_lands_where_a_spot_around_it_is_drawn() -> None:
    camera = Camera(eye=(1.0, 2.0, 0.5), turn=0.2, focal=0.7, horizon=0.45)
    canvas = Canvas(64, 48, camera, LIGHT)
    pose = canvas.facing((3.0, 1.0, 7.0))
    spot = [pose.point(r * 0.4, h * 0.4, 0.0) for r, h in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    canvas.fill(spot, (1.0, 0.0, 0.0), 1)
    rows, columns = np.nonzero(canvas.ids)
    seen = canvas.project((3.0, 1.0, 7.0))
    assert seen is not None
    assert abs(columns.mean() + 0.5 - seen[0]) < 0.75
    assert abs(rows.mean() + 0.5 - seen[1]) < 0.75
    assert 1 / canvas.nearness[rows, columns].mean() == pytest.approx(seen[2], rel=1e-3)
    assert canvas.project((-3.0, 1.0, -7.0)) is None


def test_shaders_are_given_metres_on_the_surface() -> None:
    """u and v at each pixel, put back into space, lie on the ray through that pixel."""
    camera = Camera(eye=(0.0, 1.6, 0.0), turn=0.1, focal=0.8, horizon=0.5)
    canvas = Canvas(40, 30, camera, LIGHT)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def remember(u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        found.append((u, v, depth))
        return np.ones((u.size, 3), np.float32)

    corner, along, up = (-2.0, 0.5, 6.0), unit((1.0, 0.0, 0.5)), (0.0, 1.0, 0.0)

    def place(u: float, v: float) -> Point:
        return (
            corner[0] + u * along[0] + v * up[0],
            corner[1] + u * along[1] + v * up[1],
            corner[2] + u * along[2] + v * up[2],
        )

    canvas.fill([place(0, 0), place(3, 0), place(3, 2), place(0, 2)], remember, 1)
    (u, v, depth), (rows, columns) = found[0], np.nonzero(canvas.ids)
    assert u.min() > -0.01 and u.max() < 3.01 and v.min() > -0.01 and v.max() < 2.01
    for i in range(0, u.size, 7):
        seen = canvas.project(place(float(u[i]), float(v[i])))
        assert seen == pytest.approx((columns[i] + 0.5, rows[i] + 0.5, depth[i]), abs=0.01)


def test_one_sided_faces_are_seen_from_their_front_only() -> None:
    camera = Camera(eye=(0.0, 1.0, 0.0), turn=0.0, focal=0.8, horizon=0.5)
    square: list[Point] = [(-1.0, 0.0, 5.0), (1.0, 0.0, 5.0), (1.0, 2.0, 5.0), (-1.0, 2.0, 5.0)]
    for corners, pixels in ((square, True), (square[::-1], False)):
        canvas = Canvas(40, 30, camera, LIGHT)
        canvas.fill(corners, (1.0, 1.0, 1.0), 1, one_sided=True)
        assert canvas.ids.any() == pixels


def test_a_box_hides_what_is_inside_it_from_every_side() -> None:
    for turn in (-2.0, -0.6, 0.0, 0.3, 1.5):
        canvas = Canvas(40, 30, Camera(eye=(0.0, 1.8, 0.0), turn=0.0, focal=0.8, horizon=0.4), LIGHT)
        inside = Pose((0.0, 0.0, 5.0), turn)
        canvas.box(inside.shifted(0.0, 0.1, 0.0), (0.8, 0.8, 0.8), 2, (0.0, 0.0, 0.0))
        assert (canvas.ids == 2).any()
        canvas.box(inside, (1.0, 1.0, 1.0), 1, (1.0, 1.0, 1.0))
        assert (canvas.ids == 1).any()
        assert not (canvas.ids == 2).any()


def test_a_shadow_falls_on_its_own_plane_only() -> None:
    canvas = Canvas(40, 30, Camera(eye=(0.0, 1.8, 0.0), turn=0.0, focal=0.8, horizon=0.3), LIGHT)
    ground: list[Point] = [(-9.0, 0.0, 1.0), (9.0, 0.0, 1.0), (9.0, 0.0, 20.0), (-9.0, 0.0, 20.0)]
    canvas.fill(ground, (0.8, 0.8, 0.8), 1)
    canvas.box(Pose((0.0, 0.0, 5.0)), (1.0, 1.0, 1.0), 2, (0.6, 0.6, 0.6))
    before = canvas.colour.copy()
    canvas.darken([(-2.0, 0.0, 3.5), (2.0, 0.0, 3.5), (2.0, 0.0, 7.0), (-2.0, 0.0, 7.0)], 0.5)
    changed = (canvas.colour != before).any(axis=2)
    assert changed.any()
    assert (canvas.ids[changed] == 1).mean() > 0.97  # the box's foot touches the ground
    assert np.allclose(canvas.colour[changed], before[changed] / 2)


def test_a_pixels_label_is_the_majority_of_its_block() -> None:
    ids = generator("test majority").integers(0, 4, (60, 80)).astype(np.uint8)
    expected = np.zeros((30, 40), int)
    for row in range(30):
        for column in range(40):
            counts = Counter(ids[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].ravel().tolist()).most_common()
            tied = len(counts) > 1 and counts[0][1] == counts[1][1]
            expected[row, column] = VOID if tied else counts[0][0]
    assert np.array_equal(_majority(ids, VOID), expected)


def test_a_pixels_colour_is_the_mean_of_its_block() -> None:
    colour = generator("test mean").random((8, 6, 3)).astype(np.float32)
    assert np.allclose(_halved(colour), colour.reshape(4, 2, 3, 2, 3).mean(axis=(1, 3)), atol=1e-6)


def test_noise_is_centred_and_repeats_without_a_seam() -> None:
    for tile in noise_tiles():
        square = tile.reshape(128, 128)
        assert abs(square.mean()) < 0.02
        assert 0.2 < square.std() < 0.8
    clouds = noise_tiles()[1].reshape(128, 128)
    inner = abs(np.diff(clouds, axis=0)).mean()
    assert abs(clouds[0] - clouds[-1]).mean() < 2 * inner


def _hit(camera: Camera, triangles: list[list[Point]], pixel: tuple[float, float], width: int, height: int) -> int:
    """The number of the triangle that a ray meets first, by Möller and Trumbore's test; 0 for none."""
    across = (pixel[0] - width / 2) / (camera.focal * width)
    up = (height * camera.horizon - pixel[1]) / (camera.focal * width)
    right, forward = camera.right, camera.forward
    ray = (forward[0] + across * right[0], up, forward[2] + across * right[2])
    best, found = np.inf, 0
    for number, (a, b, c) in enumerate(triangles, start=1):
        first, second = minus(b, a), minus(c, a)
        normal = cross(ray, second)
        area = dot(first, normal)
        if abs(area) < 1e-12:
            continue
        offset = minus(camera.eye, a)
        u = dot(offset, normal) / area
        other = cross(offset, first)
        v, distance = dot(ray, other) / area, dot(second, other) / area
        if u >= 0 and v >= 0 and u + v <= 1 and 0.15 < distance < best:
            best, found = distance, number
    return found
