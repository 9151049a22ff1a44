"""A small z-buffered renderer: flat convex polygons in space, drawn in colour and as class ids at once.

Metres; x right, y up, z into the picture. Vertices are plain Python floats and pixels are float32 arrays that meet only
`+ - * /`, comparisons and look-ups: these are exact in IEEE arithmetic, so a scene has the same pixels on every platform.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from semiseg.datasets.synthetic.dice import Colour
from semiseg.datasets.synthetic.geometry import NEAR, Point, clipped, cross, dot, minus, spans, unit

Shader = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # (u, v, depth) in metres, [n] each -> RGB [n, 3]
Material = Colour | Shader
Cut = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (u, v) -> True where the surface is there


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pin-hole camera that turns about the vertical; it looks up or down by shifting its film, so verticals stay upright."""

    eye: Point
    turn: float  # tangent of half the angle to the right of +z
    focal: float  # in widths of the picture
    horizon: float  # 0 top of the picture, 1 bottom

    @property
    def forward(self) -> Point:
        scale = 1.0 / (1.0 + self.turn * self.turn)
        return 2.0 * self.turn * scale, 0.0, (1.0 - self.turn * self.turn) * scale

    @property
    def right(self) -> Point:
        sine, _, cosine = self.forward
        return cosine, 0.0, -sine


@dataclass(frozen=True, kw_only=True)
class Light:
    """One far light and the light of all around; colours multiply, 1 = as the material is."""

    towards: Point  # unit vector to the sun
    sun: Colour
    ambient: Colour

    def on(self, normal: Point) -> Colour:
        """The light on a face: less ambient light from below, sunlight by Lambert's cosine."""
        facing = max(0.0, dot(normal, self.towards))
        around = 0.85 + 0.15 * normal[1]
        red, green, blue = (a * around + s * facing for a, s in zip(self.ambient, self.sun, strict=True))
        return red, green, blue


@dataclass(frozen=True)
class Pose:
    """A local frame standing upright at `origin`; `turn` as for a camera."""

    origin: Point
    turn: float = 0.0

    def point(self, right: float, up: float, forward: float) -> Point:
        scale = 1.0 / (1.0 + self.turn * self.turn)
        sine, cosine = 2.0 * self.turn * scale, (1.0 - self.turn * self.turn) * scale
        x, y, z = self.origin
        return x + cosine * right + sine * forward, y + up, z - sine * right + cosine * forward

    def shifted(self, right: float, up: float, forward: float) -> "Pose":
        return Pose(self.point(right, up, forward), self.turn)


class Canvas:
    """Colour [h, w, 3] in 0..1, class id [h, w] and nearness 1/depth [h, w] (0: nothing drawn yet) of one picture."""

    def __init__(self, width: int, height: int, camera: Camera, light: Light) -> None:
        self.width, self.height, self.camera, self.light = width, height, camera, light
        self.colour = np.zeros((height, width, 3), np.float32)
        self.ids = np.zeros((height, width), np.uint8)
        self.nearness = np.zeros((height, width), np.float32)
        self._flat_colour = self.colour.reshape(-1, 3)
        self._index = np.arange(height * width, dtype=np.int32).reshape(height, width)
        self._xs = np.arange(width, dtype=np.float32) + np.float32(0.5)
        self._ys = np.arange(height, dtype=np.float32) + np.float32(0.5)
        self._column = np.tile(self._xs, height)
        self._row = np.repeat(self._ys, width)
        self._focal = camera.focal * width
        self._centre = (width * 0.5, height * camera.horizon)
        self._right, self._forward = camera.right, camera.forward

    def fill(
        self,
        vertices: Sequence[Point],
        material: Material,
        id: int,
        *,
        normal: Point | None = None,
        glows: bool = False,
        one_sided: bool = False,
        cut: Cut | None = None,
    ) -> None:
        """Draws a flat convex polygon where nothing nearer is.

        Shaders get (u, v) in metres from the first vertex: u along the first edge, v across it towards the rest. Seen from
        its front a polygon's vertices run anticlockwise; `one_sided` draws nothing of it from behind. `normal` overrides
        the face's own for the light (leaves, people); `glows` leaves the light out.
        """
        covered = self._cover(vertices, one_sided)
        if covered is None:
            return
        rows, columns, inside, nearness = covered
        hit = inside & (nearness > self.nearness[rows, columns])
        flat = self._index[rows, columns][hit]
        if flat.size == 0:
            return
        near = nearness[hit]
        light = (1.0, 1.0, 1.0) if glows else self.light.on(normal or self._outward(vertices))
        if callable(material) or cut is not None:
            u, v = self._surface(vertices, flat, near)
            if cut is not None:
                keep = cut(u, v)
                flat, near, u, v = flat[keep], near[keep], u[keep], v[keep]
            colour = material(u, v, 1.0 / near) if callable(material) else np.asarray(material, np.float32)
            self._flat_colour[flat] = colour * np.asarray(light, np.float32)
        else:
            self._flat_colour[flat] = [c * level for c, level in zip(material, light, strict=True)]
        self.ids.reshape(-1)[flat] = id
        self.nearness.reshape(-1)[flat] = near

    def darken(self, vertices: Sequence[Point], level: float | Cut, *, tolerance: float = 0.02) -> None:
        """Multiplies what was drawn in the polygon's own plane by `level`, a number or a function of (u, v): a shadow."""
        covered = self._cover(vertices, one_sided=False)
        if covered is None:
            return
        rows, columns, inside, nearness = covered
        there = self.nearness[rows, columns]
        hit = inside & (abs(there - nearness) <= tolerance * nearness)
        flat = self._index[rows, columns][hit]
        if flat.size == 0:
            return
        if callable(level):
            u, v = self._surface(vertices, flat, nearness[hit])
            self._flat_colour[flat] *= level(u, v)[:, None]
        else:
            self._flat_colour[flat] *= np.float32(level)

    def extrude(
        self,
        outline: Sequence[tuple[float, float]],
        width: float,
        pose: Pose,
        id: int,
        *,
        side: Material | None,
        edges: Sequence[Material | None],
    ) -> None:
        """Draws a prism: a convex outline of (forward, up), anticlockwise seen from the right, `width` metres across.

        `edges[i]` is the material of the face from outline[i] to outline[i + 1]; None leaves a face out.
        """
        half = width / 2
        right = [pose.point(half, up, forward) for forward, up in outline]
        left = [pose.point(-half, up, forward) for forward, up in outline]
        if side is not None:
            self.fill(right, side, id, one_sided=True)
            self.fill(left[::-1], side, id, one_sided=True)
        for i, material in enumerate(edges):
            if material is not None:
                j = (i + 1) % len(outline)
                self.fill((right[j], right[i], left[i], left[j]), material, id, one_sided=True)

    def box(
        self, pose: Pose, size: Point, id: int, material: Material, *, top: Material | None = None, base: bool = False
    ) -> None:
        """Draws an upright box of size (across, up, along) standing at the pose; `base` draws its underside too."""
        across, up, along = size[0] / 2, size[1], size[2] / 2
        corners = ((-across, -along), (across, -along), (across, along), (-across, along))
        low = [pose.point(r, 0.0, f) for r, f in corners]
        high = [pose.point(r, up, f) for r, f in corners]
        for i in range(4):
            j = (i + 1) % 4
            self.fill((low[i], low[j], high[j], high[i]), material, id, one_sided=True)
        if pose.origin[1] + up < self.camera.eye[1]:
            self.fill(high, top or material, id, one_sided=True)
        if base:
            self.fill(low[::-1], material, id, one_sided=True)

    def facing(self, foot: Point) -> Pose:
        """A pose at `foot` whose plane faces the camera: for what is drawn flat (leaves, people)."""
        return Pose(foot, self.camera.turn)

    def empty(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Flat indices of the pixels where nothing is drawn yet, with their rays' slopes to the right and up."""
        flat = np.flatnonzero(self.nearness == 0)
        across = (self._column[flat] - np.float32(self._centre[0])) / np.float32(self._focal)
        up = (np.float32(self._centre[1]) - self._row[flat]) / np.float32(self._focal)
        return flat, across, up

    def paint(self, flat: np.ndarray, colour: np.ndarray, id: int) -> None:
        """Colours pixels by flat index, without depth."""
        self._flat_colour[flat] = colour
        self.ids.reshape(-1)[flat] = id

    def project(self, point: Point) -> tuple[float, float, float] | None:
        """Column, row and depth of a point, or None behind the camera."""
        right, up, forward = self._to_camera(point)
        if forward < NEAR:
            return None
        scale = self._focal / forward
        return self._centre[0] + right * scale, self._centre[1] - up * scale, forward

    def _to_camera(self, point: Point) -> Point:
        eye, right, forward = self.camera.eye, self._right, self._forward
        x, z = point[0] - eye[0], point[2] - eye[2]
        return x * right[0] + z * right[2], point[1] - eye[1], x * forward[0] + z * forward[2]

    def _cover(self, vertices: Sequence[Point], one_sided: bool) -> tuple[slice, slice, np.ndarray, np.ndarray] | None:
        """The rows and columns around a polygon, which of their pixels it covers, and 1/depth of its plane there."""
        seen = clipped([self._to_camera(vertex) for vertex in vertices])
        if len(seen) < 3:
            return None
        cx, cy, focal = *self._centre, self._focal
        flat = [(cx + focal * x / z, cy - focal * y / z) for x, y, z in seen]
        area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(flat, flat[1:] + flat[:1], strict=True)) / 2
        if abs(area) < 0.2 or (one_sided and area > 0):  # rows run downwards, so anticlockwise comes out negative
            return None
        across, down = zip(*flat, strict=True)
        left, right = max(0, math.floor(min(across))), min(self.width, math.ceil(max(across)))
        top, bottom = max(0, math.floor(min(down))), min(self.height, math.ceil(max(down)))
        if left >= right or top >= bottom:
            return None
        nx, ny, nz = cross(minus(seen[1], seen[0]), minus(seen[2], seen[0]))
        distance = dot((nx, ny, nz), seen[0])
        if distance == 0:
            return None
        xs, ys = self._xs[left:right], self._ys[top:bottom]
        begins, ends = spans(flat, ys)
        inside = (xs >= begins[:, None]) & (xs < ends[:, None])
        per_x, per_y = nx / focal / distance, -ny / focal / distance
        constant = nz / distance - per_x * cx - per_y * cy
        nearness = (xs * np.float32(per_x))[None, :] + (ys * np.float32(per_y) + np.float32(constant))[:, None]
        inside &= nearness > 0
        return slice(top, bottom), slice(left, right), inside, nearness

    def _surface(self, vertices: Sequence[Point], flat: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(u, v) in metres of the hit pixels: their rays, cut by the plane, along the polygon's own two axes."""
        first = vertices[0]
        along = unit(minus(vertices[1], first))
        towards = minus(vertices[-1], first)
        slope = dot(towards, along)
        across = unit((towards[0] - slope * along[0], towards[1] - slope * along[1], towards[2] - slope * along[2]))
        x, y = self._column[flat], self._row[flat]
        from_first = minus(self.camera.eye, first)
        found = []
        for axis in (along, across):
            per_x = dot(axis, self.camera.right) / self._focal
            per_y = -axis[1] / self._focal
            constant = dot(axis, self.camera.forward) - per_x * self._centre[0] - per_y * self._centre[1]
            ray = x * np.float32(per_x) + y * np.float32(per_y) + np.float32(constant)
            found.append(ray / near + np.float32(dot(from_first, axis)))
        return found[0], found[1]

    def _outward(self, vertices: Sequence[Point]) -> Point:
        """The unit normal on the side of the polygon that the camera sees."""
        normal = unit(cross(minus(vertices[1], vertices[0]), minus(vertices[2], vertices[1])))
        if dot(normal, minus(self.camera.eye, vertices[0])) < 0:
            return -normal[0], -normal[1], -normal[2]
        return normal
