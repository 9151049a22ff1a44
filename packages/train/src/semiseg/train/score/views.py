"""Prediction of one image: in one pass, or averaged over several scales, a horizontal flip and overlapping tiles."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from semiseg.models import Segmenter

PIXELS_AT_ONCE = 1 << 20  # of a batch of tiles: four of 512x512, one of 1024x1024


@dataclass(frozen=True, kw_only=True)
class Views:
    """The views of an image whose probabilities are averaged. The default is one view: the complete image as it is.

    scales   factors of the image's height and width
    flip     average with the horizontally flipped image
    tile     (height, width) in pixels of the tiles that an image is cut into at each scale; None: no tiles
    overlap  minimum overlap between adjacent tiles, as a fraction of the tile's side, in [0, 1)
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    tile: tuple[int, int] | None = None
    overlap: float = 1 / 3


SINGLE_VIEW = Views()


def predict_ids(
    model: Segmenter, image: Tensor, *, domain: str | None, size: tuple[int, int], views: Views = SINGLE_VIEW
) -> Tensor:
    """Class ids uint8 of `size` (height, width) for one image uint8 [3, h, w].

    A single view resizes logits, then takes the largest; several views average probabilities.
    """
    if views != SINGLE_VIEW:
        return probabilities(model, image, domain=domain, size=size, views=views).argmax(0).to(torch.uint8)
    logits = model(image[None], domain).float()
    return _resized(logits, size)[0].argmax(0).to(torch.uint8)


def probabilities(
    model: Segmenter, image: Tensor, *, domain: str | None, size: tuple[int, int], views: Views = SINGLE_VIEW
) -> Tensor:
    """The mean over all views, float32 [C, *size], of one image uint8 [3, h, w].

    At each scale, each pixel is averaged over the tiles that contain it; the result is resized (bilinear,
    align_corners=False) and added up. The sums take 4 C H W (1 + the largest scale squared) bytes, and a group of tiles
    the rest: with 19 classes, flip and tiles of 1024x1024, 0.6 GB for 2048x1024 at scale 1 and 1.4 GB at 0.5, 1 and 2,
    measured without the memory of the network itself.
    """
    total: Tensor | None = None
    for scale in views.scales:
        height, width = (max(1, round(side * scale)) for side in image.shape[-2:])
        scaled = image
        if (height, width) != tuple(image.shape[-2:]):
            scaled = tv.resize(image, [height, width], antialias=True)
        seen = _resized(_over_tiles(model, scaled, domain, views)[None], size)[0]
        total = seen if total is None else total.add_(seen)
    assert total is not None, "no scale"
    return total.div_(len(views.scales))


def tile_starts(length: int, side: int, overlap: float) -> list[int]:
    """Where tiles of `side` pixels start along `length`: as few as possible, evenly spaced from 0 to length - side."""
    step = max(1, int(side * (1 - overlap)))
    count = ceil((length - side) / step) + 1
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]


def _over_tiles(model: Segmenter, image: Tensor, domain: str | None, views: Views) -> Tensor:
    """Probabilities float32 [C, h, w]: the sum over tiles, divided by the number of tiles that contain a pixel."""
    height, width = image.shape[-2:]
    tall, wide = (height, width) if views.tile is None else (min(views.tile[0], height), min(views.tile[1], width))
    rows, columns = tile_starts(height, tall, views.overlap), tile_starts(width, wide, views.overlap)
    corners = [(y, x) for y in rows for x in columns]
    if len(corners) == 1:
        return _flipped(model, image[None], domain, views.flip)[0]
    total: Tensor | None = None
    for group in _groups(corners, max(1, PIXELS_AT_ONCE // (tall * wide))):
        tiles = torch.stack([image[:, y : y + tall, x : x + wide] for y, x in group])
        for (y, x), seen in zip(group, _flipped(model, tiles, domain, views.flip), strict=True):
            total = seen.new_zeros(len(seen), height, width) if total is None else total
            total[:, y : y + tall, x : x + wide] += seen
    assert total is not None
    covered = _covered(height, rows, tall)[:, None] * _covered(width, columns, wide)
    return total.div_(covered.to(total))


def _flipped(model: Segmenter, images: Tensor, domain: str | None, flip: bool) -> Tensor:
    """Probabilities float32 [b, C, h, w]; with `flip`, averaged with those of the flipped images."""
    seen = model(images, domain).float().softmax(1)
    if flip:
        seen = seen.add_(model(images.flip(-1), domain).float().softmax(1).flip(-1)).div_(2)
    return seen


def _covered(length: int, starts: list[int], side: int) -> Tensor:
    """How many tiles contain each position along one side, [length]."""
    counts = torch.zeros(length, dtype=torch.int64)
    for start in starts:
        counts[start : start + side] += 1
    return counts


def _groups(corners: list[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    for i in range(0, len(corners), size):
        yield corners[i : i + size]


def _resized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(planes.shape[-2:]) == tuple(size):
        return planes
    return F.interpolate(planes, size, mode="bilinear", align_corners=False)
