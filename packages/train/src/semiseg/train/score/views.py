"""Prediction of one image: in one pass, or averaged over several scales, a horizontal flip and overlapping tiles."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Any
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from semiseg.data import SemisegError
from semiseg.models import Segmenter
from semiseg.train.memory import available_memory, is_out_of_memory
from semiseg.train.score.footprint import SMALLEST, largest_tile, ran_out
from semiseg.train.score.strips import ids_in_strips

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
_told: WeakSet[Segmenter] = WeakSet()


def predict_ids(
    model: Segmenter, image: Tensor, *, domain: str | None, size: tuple[int, int], views: Views = SINGLE_VIEW
) -> Tensor:
    """Class ids uint8 of `size` (height, width) for one image uint8 [3, h, w].

    A single view resizes logits, then takes the largest; several views average probabilities. An image that does not fit
    into the available memory is predicted in tiles, which are averaged; a line on stderr says so once.
    Raises SemisegError if no tile fits, or if the network computes NaN or infinity.
    """
    size = (size[0], size[1])
    sides = [_scaled_size(image, scale) for scale in views.scales]
    classes = model.classes[domain or next(iter(model.classes))] if hasattr(model, "classes") else 255
    limits: dict[str, Any] = {"size": size, "classes": classes, "flip": views.flip}
    passed = sides if views.tile is None else [_tile_size(views.tile, side) for side in sides]
    side = largest_tile(model, domain, sides=sides, passed=passed, **limits)
    pixels = max(height * width for height, width in passed)
    if side is None:
        try:
            return _ids_at_once(model, image, domain, size, views)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        ran_out(model, pixels)
        side = _halved(model, max(max(pair) for pair in passed))
    while True:
        tile = views.tile or (side, side)
        try:
            ids = _ids_in_tiles(model, image, domain, size, replace(views, tile=tile))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            _say_once(model, image, side, chosen=views.tile is not None)
            return ids
        gigabytes = available_memory(next(model.parameters()).device) / 1e9
        if views.tile is not None or side <= SMALLEST:
            raise SemisegError(
                f"tiles of {tile[0]}x{tile[1]} do not fit into the {gigabytes:.1f} GB of memory available; give smaller ones "
                f"(--tile {max(32, tile[0] // 2)} {max(32, tile[1] // 2)}), or free memory"
            )
        ran_out(model, side * side)
        side = _halved(model, side)


def _ids_at_once(model: Segmenter, image: Tensor, domain: str | None, size: tuple[int, int], views: Views) -> Tensor:
    if views != SINGLE_VIEW:
        return probabilities(model, image, domain=domain, size=size, views=views).argmax(0).to(torch.uint8)
    logits = _finite(model(image[None], domain)).float()
    return _resized(logits, size)[0].argmax(0).to(torch.uint8)


def _ids_in_tiles(model: Segmenter, image: Tensor, domain: str | None, size: tuple[int, int], views: Views) -> Tensor:
    """The same ids with less memory around the network, one tile at a time, up to rounding."""
    assert views.tile is not None
    height, width = image.shape[-2:]
    alone = replace(views, tile=None) == SINGLE_VIEW and views.tile[0] >= height and views.tile[1] >= width

    def passes(tiles: Tensor) -> Tensor:
        if alone:  # as `_ids_at_once`, which resizes logits
            return _finite(model(tiles, domain)).float()
        return _flipped(model, tiles, domain, views.flip)

    scaled = [_scaled(image, scale) for scale in views.scales]
    return ids_in_strips(
        scaled, passes, size=size, tile=views.tile, starts=lambda length, side: tile_starts(length, side, views.overlap)
    )


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
        seen = _resized(_over_tiles(model, _scaled(image, scale), domain, views)[None], size)[0]
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
    seen = _finite(model(images, domain)).float().softmax(1)
    if flip:
        seen = seen.add_(_finite(model(images.flip(-1), domain)).float().softmax(1).flip(-1)).div_(2)
    return seen


def _finite(logits: Tensor) -> Tensor:
    """The logits. Raises SemisegError for NaN and infinity: their classes would mean nothing."""
    if not bool(torch.stack(torch.aminmax(logits)).isfinite().all()):
        raise SemisegError(
            "the network computes NaN or infinite logits for this image, so its classes would be meaningless; use an earlier "
            "checkpoint (--best), or train again with a lower learning rate"
        )
    return logits


def _scaled_size(image: Tensor, scale: float) -> tuple[int, int]:
    height, width = (max(1, round(side * scale)) for side in image.shape[-2:])
    return height, width


def _scaled(image: Tensor, scale: float) -> Tensor:
    size = _scaled_size(image, scale)
    return image if size == tuple(image.shape[-2:]) else tv.resize(image, list(size), antialias=True)


def _tile_size(tile: tuple[int, int], side: tuple[int, int]) -> tuple[int, int]:
    return min(tile[0], side[0]), min(tile[1], side[1])


def _halved(model: Segmenter, side: int) -> int:
    """About half of a side, a multiple of the stride, but no less than the smallest tile."""
    stride = getattr(model, "stride", 32)
    return max(side // 2 // stride * stride, min(side, SMALLEST))


def _say_once(model: Segmenter, image: Tensor, side: int, *, chosen: bool) -> None:
    """Tell on stderr, once for a model, that images are predicted in tiles. Rank 0 alone."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    if chosen or rank or model in _told or max(image.shape[-2:]) <= side:
        return
    _told.add(model)
    told = f"images larger than {side}x{side} are predicted in tiles of {side}x{side}, which fit into memory"
    print(f"{told}; choose others with --tile HEIGHT WIDTH", file=sys.stderr, flush=True)


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
