"""A drawing of a few shapes, as SVG that follows a page's colours, and as PNG."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from io import BytesIO
from itertools import pairwise
from math import cos, dist, pi, sin

from PIL import Image, ImageDraw, ImageFont

Point = tuple[float, float]

# After Okabe and Ito, whom colour-blind readers can follow, darkened to 3:1 against white and lightened against black.
LIGHT = {
    "paper": "#ffffff", "ink": "#1c1c1e", "faint": "#5b5b63", "rule": "#dedee3", "band": "#f5f5f7",
    "s0": "#1c1c1e", "s1": "#8a8a92", "s2": "#00549a", "s3": "#2a94cf", "s4": "#00875f", "s5": "#d55e00", "s6": "#b0408f",
}  # fmt: skip
DARK = {
    "paper": "#16171a", "ink": "#ececf0", "faint": "#a5a6b0", "rule": "#34353b", "band": "#1f2024",
    "s0": "#ececf0", "s1": "#8f909a", "s2": "#3590dc", "s3": "#9bd8f7", "s4": "#2dc796", "s5": "#ff8a3c", "s6": "#e58bc9",
}  # fmt: skip
_DASHES: tuple[tuple[float, ...], ...] = ((), (6, 3), (), (6, 3), (2, 3), (), (9, 3, 2, 3))


@dataclass(frozen=True)
class Style:
    """How a series looks: colour (a name of the palette), dashes, and a marker of its own, so that colour is never alone."""

    colour: str
    dash: tuple[float, ...]
    marker: int


def style(number: int) -> Style:
    """Of the series of that number; from the eighth on colours come again, with other markers."""
    return Style(f"s{number % 7}", _DASHES[number % 7], (number + number // 7) % 7)


@dataclass(frozen=True)
class Line:
    points: Sequence[Point]
    colour: str
    width: float = 1.0
    dash: tuple[float, ...] = ()
    opacity: float = 1.0


@dataclass(frozen=True)
class Area:
    points: Sequence[Point]
    colour: str
    opacity: float = 1.0


@dataclass(frozen=True)
class Text:
    """anchor: "start", "middle" or "end" of the text lies at `at`, on its baseline."""

    at: Point
    text: str
    size: float = 12.0
    colour: str = "faint"
    anchor: str = "start"


@dataclass
class Drawing:
    width: float
    height: float
    shapes: list[Line | Area | Text] = field(default_factory=list)

    def mark(
        self, at: Point, marker: int, colour: str, radius: float, *, opacity: float = 1.0, edge: bool = False
    ) -> None:
        """A marker; with an edge of the paper's colour it stands out from what it lies on."""
        if edge:
            self.shapes.append(Area(_marker(at, marker, radius + 1.2), "paper"))
        self.shapes.append(Area(_marker(at, marker, radius), colour, opacity))

    def svg(self, alt: str, *, css_class: str = "") -> str:
        """For a page that defines --paper, --ink, ... ; `alt` is what somebody hears who can't see it, "" for decoration."""
        role = f'role="img" aria-label="{escape(alt)}"' if alt else 'aria-hidden="true"'
        size = f'viewBox="0 0 {self.width:g} {self.height:g}" width="{self.width:g}" height="{self.height:g}"'
        return f'<svg class="{css_class}" {size} {role}>{"".join(map(_element, self.shapes))}</svg>'

    def png(self, *, scale: int = 2) -> bytes:
        """In the light palette, `scale` pixels for each unit of the drawing."""
        fine = scale * 2
        image = Image.new("RGB", (round(self.width * fine), round(self.height * fine)), LIGHT["paper"])
        draw = ImageDraw.Draw(image)
        for shape in self.shapes:
            if isinstance(shape, Text):
                anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
                at = (shape.at[0] * fine, shape.at[1] * fine)
                draw.text(at, shape.text, LIGHT[shape.colour], _font(shape.size * fine), anchor)
                continue
            colour = _mixed(LIGHT[shape.colour], shape.opacity)
            if isinstance(shape, Area):
                draw.polygon([(x * fine, y * fine) for x, y in shape.points], colour)
                continue
            for part in _dashed(shape.points, shape.dash):
                points = [(x * fine, y * fine) for x, y in part]
                draw.line(points, colour, round(shape.width * fine), "curve")
        shrunk = image.resize((round(self.width * scale), round(self.height * scale)), Image.Resampling.BOX)
        file = BytesIO()
        shrunk.quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
        return file.getvalue()


def _element(shape: Line | Area | Text) -> str:
    if isinstance(shape, Text):
        at = f'x="{shape.at[0]:.1f}" y="{shape.at[1]:.1f}" font-size="{shape.size:g}" text-anchor="{shape.anchor}"'
        return f'<text {at} style="fill:var(--{shape.colour})">{escape(shape.text)}</text>'
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in shape.points)
    seen = f";opacity:{shape.opacity:g}" if shape.opacity < 1 else ""
    if isinstance(shape, Area):
        return f'<path d="{path}Z" style="fill:var(--{shape.colour}){seen}"/>'
    dash = f";stroke-dasharray:{' '.join(f'{each:g}' for each in shape.dash)}" if shape.dash else ""
    return f'<path d="{path}" style="fill:none;stroke:var(--{shape.colour});stroke-width:{shape.width:g}{dash}{seen}"/>'


def _marker(at: Point, marker: int, radius: float) -> list[Point]:
    """Circle, square, triangle, diamond, triangle upside down, plus, star; alike in weight."""
    x, y = at
    if marker == 5:
        arm, thin = radius * 1.1, radius * 0.4
        corners = [(-thin, -arm), (thin, -arm), (thin, -thin), (arm, -thin), (arm, thin), (thin, thin)]
        corners += [(-a, -b) for a, b in corners]
        return [(x + a, y + b) for a, b in corners]
    corners_turn_size = {
        0: (24, 0.0, 1.0), 1: (4, pi / 4, 1.2), 2: (3, -pi / 2, 1.3),
        3: (4, 0.0, 1.25), 4: (3, pi / 2, 1.3), 6: (10, -pi / 2, 1.4),
    }  # fmt: skip
    count, turn, size = corners_turn_size[marker]
    radii = [radius * size * (0.45 if marker == 6 and number % 2 else 1) for number in range(count)]
    angles = [turn + 2 * pi * number / count for number in range(count)]
    return [(x + r * cos(angle), y + r * sin(angle)) for r, angle in zip(radii, angles, strict=True)]


def _dashed(points: Sequence[Point], dash: Sequence[float]) -> Iterator[list[Point]]:
    """The drawn pieces of a line."""
    if not dash:
        yield list(points)
        return
    number, left, piece = 0, dash[0], [points[0]]
    for start, end in pairwise(points):
        length, done = dist(start, end), 0.0
        while done < length:
            step = min(left, length - done)
            done, left = done + step, left - step
            at = (start[0] + (end[0] - start[0]) * done / length, start[1] + (end[1] - start[1]) * done / length)
            piece.append(at)
            if left <= 1e-9:
                if number % 2 == 0:
                    yield piece
                number, piece = number + 1, [at]
                left = dash[number % len(dash)]
    if number % 2 == 0 and len(piece) > 1:
        yield piece


def _mixed(colour: str, opacity: float) -> tuple[int, int, int]:
    """A colour over paper, since lines of a plain image can't be seen through."""
    over, under = (bytes.fromhex(each[1:]) for each in (colour, LIGHT["paper"]))
    red, green, blue = (round(opacity * a + (1 - opacity) * b) for a, b in zip(over, under, strict=True))
    return red, green, blue


@cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
