"""Class ids of an image too large for one pass: tiles from top to bottom, of which only a band of rows is kept."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 64  # of the result at once

Passes = Callable[[Tensor], Tensor]  # a batch of tiles uint8 [1, 3, h, w] -> planes float32 [1, C, h, w]


def ids_in_strips(
    images: list[Tensor],
    passes: Passes,
    *,
    size: tuple[int, int],
    tile: tuple[int, int],
    starts: Callable[[int, int], list[int]],
) -> Tensor:
    """Class ids uint8 of `size`: the largest of the mean over `images` (one image uint8 [3, h, w] at several scales).

    Each pixel is averaged over the tiles that contain it, and the result resized as `F.interpolate` does (bilinear,
    align_corners=False). Takes the memory of one pass and of a band of rows as high as two tiles, at each scale.
    """
    bands = [_Band(_rows(image, passes, tile, starts), image.shape[-2]) for image in images]
    ids = torch.empty(size, dtype=torch.uint8, device=images[0].device)
    for top in range(0, size[0], ROWS):
        bottom = min(top + ROWS, size[0])
        total = bands[0].resized(top, bottom, size)
        for band in bands[1:]:
            total = total + band.resized(top, bottom, size)
        ids[top:bottom] = total.argmax(0)
    return ids


def _rows(
    image: Tensor, passes: Passes, tile: tuple[int, int], starts: Callable[[int, int], list[int]]
) -> Iterator[Tensor]:
    """Planes [C, n, w] from top to bottom, each as soon as no further tile contains its rows."""
    height, width = image.shape[-2:]
    tall, wide = min(tile[0], height), min(tile[1], width)
    downwards, across = starts(height, tall), starts(width, wide)
    kept: Tensor | None = None
    for place, y in enumerate(downwards):
        sums: Tensor | None = None
        for x in across:
            seen = passes(image[None, :, y : y + tall, x : x + wide])[0]
            if len(across) == 1:
                sums = seen
                break
            sums = seen.new_zeros(len(seen), tall, width) if sums is None else sums
            sums[..., x : x + wide] += seen
        assert sums is not None
        if kept is not None and kept.shape[1]:
            sums[:, : kept.shape[1]] += kept
        done = (downwards[place + 1] if place + 1 < len(downwards) else height) - y
        counts = _covered(width, across, wide) * _covered(height, downwards, tall)[y : y + done, None]
        kept = sums[:, done:].clone()
        yield sums[:, :done].div_(counts.to(sums))


class _Band:
    """The rows of a plane that are needed now, from those that come from top to bottom."""

    def __init__(self, rows: Iterator[Tensor], height: int) -> None:
        self.rows, self.height, self.first = rows, height, 0
        self.held: Tensor | None = None

    def resized(self, top: int, bottom: int, size: tuple[int, int]) -> Tensor:
        """Rows top..bottom of the planes resized to `size`, [C, bottom - top, width]."""
        places = (torch.arange(top, bottom, dtype=torch.float64) + 0.5) * self.height / size[0] - 0.5
        places = places.clamp(0, self.height - 1)
        above = places.floor().long()
        below = (above + 1).clamp(max=self.height - 1)
        planes = self._between(int(above[0]), int(below[-1]) + 1)
        if self.height != size[0]:
            share = (places - above).to(planes)[:, None]
            first = int(above[0])
            upper = planes.index_select(1, (above - first).to(planes.device))
            planes = upper.lerp(planes.index_select(1, (below - first).to(planes.device)), share)
        else:
            planes = planes[:, : bottom - top]
        if planes.shape[-1] == size[1]:
            return planes
        return F.interpolate(planes[None], (bottom - top, size[1]), mode="bilinear", align_corners=False)[0]

    def _between(self, first: int, last: int) -> Tensor:
        """Rows first..last; those before are dropped."""
        while self.held is None or self.first + self.held.shape[1] < last:
            more = next(self.rows)
            if self.held is None or self.first + self.held.shape[1] <= first:
                self.first += 0 if self.held is None else self.held.shape[1]
                self.held = more
            else:
                self.held = torch.cat([self.held[:, first - self.first :], more], 1)
                self.first = first
        return self.held[:, first - self.first : last - self.first]


def _covered(length: int, starts: list[int], side: int) -> Tensor:
    """How many tiles contain each position along one side, [length]."""
    counts = torch.zeros(length, dtype=torch.int64)
    for start in starts:
        counts[start : start + side] += 1
    return counts
