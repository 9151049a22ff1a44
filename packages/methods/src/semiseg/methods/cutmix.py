"""CutMix: draw random boxes, and paste them from one image into another. A later box covers the earlier ones."""

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Generator, Tensor

from semiseg.methods.choices import check_choice

SIZES = ("uniform", "equal")
AREAS = ("nominal", "covered")


def draw_boxes(
    random: Sequence[Generator],
    size: tuple[int, int],
    *,
    count: int = 32,
    area: float = 0.5,
    area_of: str = "nominal",
    sizes: str = "uniform",
    aspect: float = 2.0,
    device: torch.device | None = None,
) -> Tensor:
    """Which box each pixel of each image belongs to, uint8 [number of generators, *size]: 1..count, 0 for none.

    A pixel in several boxes belongs to the one with the largest number, which is pasted last. Boxes lie completely
    inside the image, at uniformly distributed positions. Random numbers are drawn on the generators' device; the result
    is on `device` (default: the generators').
    area: of all boxes together as a share of the image. area_of: "nominal" is the sum of the boxes' areas, so overlaps
    reduce the covered share (32 boxes of nominal 0.5 cover 0.38); "covered" is the share covered on average.
    sizes: areas of the boxes in one image, "equal" or in proportion to "uniform" random numbers.
    aspect: a box's height over its width, each as a share of the image's, is log-uniform in 1/aspect .. aspect, but
    such that the box fits into the image.

    The structured consistency paper (section 3.1) says 32 boxes "with random size and position", "approximately half"
    of the image in total, and leaves the rest open. One box with unbounded aspect is that of French et al. 2020.
    """
    check_choice("draw_boxes(sizes=...)", sizes, SIZES)
    check_choice("draw_boxes(area_of=...)", area_of, AREAS)
    if not 1 <= count <= 255 or not 0 < area <= 1 or aspect < 1:
        raise ValueError(
            f"draw_boxes(count={count}, area={area}, aspect={aspect}): expected 1..255 boxes, an area in 0..1, aspect >= 1"
        )
    drawn = torch.stack([torch.rand(count, 4, generator=g, device=g.device) for g in random])
    total = area if area_of == "nominal" else nominal_area(count, area, sizes, aspect)
    return _box_map(drawn.to(device or drawn.device), size, total, sizes, aspect)


def draw_box(
    random: Sequence[Generator],
    size: tuple[int, int],
    *,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: float = 10 / 3,
    device: torch.device | None = None,
) -> Tensor:
    """One box in each image, or none with 1 - probability: uint8 [number of generators, *size], 1 inside.

    area: range of the box's share of the image, drawn uniformly. aspect, positions: as in `draw_boxes`. FixMatch and UniMatch
    on pixels mix like this.
    """
    if not 0 < area[0] <= area[1] <= 1 or not 0 <= probability <= 1 or aspect < 1:
        raise ValueError(
            f"draw_box(probability={probability}, area={area}, aspect={aspect}): expected a probability in 0..1, a range of "
            "areas in 0..1, aspect >= 1"
        )
    drawn = torch.stack([torch.rand(5, generator=g, device=g.device) for g in random]).to(device or random[0].device)
    share = area[0] + (area[1] - area[0]) * drawn[:, :1]
    box = _box_map(drawn[:, None, :4], size, share, "equal", aspect)
    return box * (drawn[:, 4] < probability)[:, None, None]


def draw_classes(random: Sequence[Generator], classes: Tensor, *, probability: float = 0.5) -> Tensor:
    """The pixels of half of the classes in each image (rounded up), or of none with 1 - probability: uint8 [b, h, w].

    classes: int64 [b, h, w]. ClassMix: Olsson et al. 2021.
    """
    chosen = torch.zeros_like(classes, dtype=torch.uint8)
    for image, ids, generator in zip(chosen, classes, random, strict=True):
        order = torch.randperm(256, generator=generator, device=generator.device).to(ids.device)
        drawn = torch.rand((), generator=generator, device=generator.device).to(ids.device)
        present = torch.zeros(256, dtype=torch.bool, device=ids.device).scatter_(0, ids.flatten(), True)
        rank = torch.where(present, order, 256).argsort().argsort()  # of the classes present, in random order
        taken = present & (2 * rank < present.sum()) & (drawn < probability)
        image.copy_(taken[ids])
    return chosen


def paste(image: Tensor, partner: Tensor, boxes: Tensor) -> Tensor:
    """`image` [b, c, h, w] outside the boxes, `partner` inside them, at the same place. boxes: [b, h, w]."""
    return torch.where((boxes > 0)[:, None], partner, image)


def covered(boxes: Tensor) -> Tensor:
    """Share of each image that its boxes cover, float32 [b]."""
    return (boxes > 0).float().mean((1, 2))


@cache
def nominal_area(count: int, share: float, sizes: str = "uniform", aspect: float = 2.0) -> float:
    """The nominal total area, as a share of the image, at which `count` boxes cover `share` of it on average.

    Found by bisection on 512 fixed maps of boxes, so that all processes agree; accurate to 0.01.
    """
    drawn = torch.rand(512, count, 4, generator=torch.Generator().manual_seed(count))
    low, high = share, float(count)
    for _ in range(16):
        middle = (low + high) / 2
        reached = float(covered(_box_map(drawn, (64, 64), middle, sizes, aspect)).mean())
        low, high = (middle, high) if reached < share else (low, middle)
    return (low + high) / 2


def _box_map(drawn: Tensor, size: tuple[int, int], total: float | Tensor, sizes: str, aspect: float) -> Tensor:
    """The map of boxes from uniform random numbers [b, count, 4]: area, aspect, row and column of each box.

    total: area of all boxes together as a share of the image, one number or [b, 1].
    """
    parts, aspects, at_y, at_x = drawn.unbind(2)
    if sizes == "equal":
        parts = torch.ones_like(parts)
    areas = (total * parts / parts.sum(1, keepdim=True).clamp_min(1e-6)).clamp(1e-6, 1)
    uneven = (-areas.log()).clamp(max=math.log(aspect))  # beyond -log(area) a box would exceed the image
    shape = ((2 * aspects - 1) * uneven / 2).exp()
    rows = _inside(areas.sqrt() * shape, at_y, size[0])
    columns = _inside(areas.sqrt() / shape, at_x, size[1])
    boxes = torch.zeros(len(drawn), *size, dtype=torch.uint8, device=drawn.device)
    for number in range(drawn.shape[1]):
        box = torch.minimum(rows[:, number, :, None], columns[:, number, None, :])
        torch.maximum(boxes, box, out=boxes)
    return boxes


def _inside(share: Tensor, at: Tensor, pixels: int) -> Tensor:
    """Each box's number at the rows (or columns) whose centres it contains, else 0: uint8 [b, count, pixels].

    share: the box's extent along this axis; at: its position, from the first to the last that fits; both [b, count] in
    0..1.
    """
    length = share * pixels
    start = (at * (pixels - length))[..., None]
    centre = torch.arange(pixels, device=share.device) + 0.5
    number = torch.arange(1, share.shape[1] + 1, dtype=torch.uint8, device=share.device)[:, None]
    return number * ((centre >= start) & (centre < start + length[..., None]))
