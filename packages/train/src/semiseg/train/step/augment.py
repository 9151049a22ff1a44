"""Augmentation of one image and its mask, a pure function of a key."""

from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from semiseg.data import generator


class Augmented(NamedTuple):
    """An augmented image uint8 [3, h, w] and its mask uint8 [h, w] or None.

    valid: bool [h, w], False where the image is padding; None: True everywhere.
    """

    image: Tensor
    mask: Tensor | None
    valid: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Resize, random scale, random crop (padded where the image is smaller), flips, turns, jitter, blur: all optional.

    resize, crop: (height, width) in pixels; scale: range of a factor on both sides; flip, vflip: probability of a horizontal
    and a vertical flip; rotate: probability of a turn by 90, 180 or 270 degrees, of square crops; jitter: strength s
    of brightness, contrast and saturation factors drawn from [1 - s, 1 + s]; blur: range of the standard deviation, in
    pixels, of a Gaussian; fill: the colour of padding, by default the mean of the encoder's pretraining, so that padding
    is zero for the network. Masks are resized by nearest neighbour and padded with 255 (ignore).
    """

    resize: tuple[int, int] | None = None
    scale: tuple[float, float] | None = None
    crop: tuple[int, int] | None = None
    flip: float = 0.0
    vflip: float = 0.0
    rotate: float = 0.0
    jitter: float = 0.0
    blur: tuple[float, float] | None = None
    fill: tuple[int, int, int] = (124, 116, 104)

    def __call__(
        self,
        image: Tensor,
        mask: Tensor | None,
        *,
        key: tuple[str | int, ...],
        anchor: tuple[int, int] | None = None,
    ) -> Augmented:
        """Augment an image uint8 [3, H, W] and its mask uint8 [H, W] or None. `key` decides every random number.

        anchor: a pixel (row, column) of the image as it comes that the crop will contain.
        All numbers are drawn first and in one fixed order, so switching one option does not change what the others draw.
        """
        drawn = generator(*key).random(10).tolist()
        (scale_at, crop_y, crop_x, flip_at, *jitter_at, blur_at), (vflip_at, rotate_at) = drawn[:8], drawn[8:]
        before = image.shape[-2:]
        height, width = self.resize or before
        if self.scale is not None:
            low, high = self.scale
            factor = low + (high - low) * scale_at
            height, width = max(1, round(height * factor)), max(1, round(width * factor))
        image, mask = _resize(image, mask, height, width)
        valid = None
        if self.crop is not None:
            if anchor is not None:
                row, column = (
                    (2 * at + 1) * now // (2 * was)
                    for at, now, was in zip(anchor, (height, width), before, strict=True)
                )
                crop_y = _around(row, height, self.crop[0], crop_y)
                crop_x = _around(column, width, self.crop[1], crop_x)
            image, mask, valid = _crop(image, mask, self.crop, crop_y, crop_x, self.fill)
        if flip_at < self.flip:
            image = image.flip(-1)
            mask, valid = (None if one is None else one.flip(-1) for one in (mask, valid))
        if vflip_at < self.vflip:
            image = image.flip(-2)
            mask, valid = (None if one is None else one.flip(-2) for one in (mask, valid))
        if rotate_at < self.rotate:
            turns = 1 + int(3 * rotate_at / self.rotate)
            image = image.rot90(turns, (-2, -1))
            mask, valid = (None if one is None else one.rot90(turns, (-2, -1)) for one in (mask, valid))
        if self.jitter:
            factors = [1 + self.jitter * (2 * at - 1) for at in jitter_at]
            image = tv.adjust_brightness(image, factors[0])
            image = tv.adjust_contrast(image, factors[1])
            image = tv.adjust_saturation(image, factors[2])
        if self.blur is not None:
            low, high = self.blur
            sigma = low + (high - low) * blur_at
            image = tv.gaussian_blur(image, [2 * ceil(3 * sigma) + 1] * 2, [sigma] * 2)
        return Augmented(image.contiguous(), None if mask is None else mask.contiguous(), valid)


def _resize(image: Tensor, mask: Tensor | None, height: int, width: int) -> tuple[Tensor, Tensor | None]:
    if image.shape[-2:] == (height, width):
        return image, mask
    image = tv.resize(image, [height, width], tv.InterpolationMode.BILINEAR, antialias=True)
    if mask is not None:
        mask = tv.resize(mask[None], [height, width], tv.InterpolationMode.NEAREST_EXACT)[0]
    return image, mask


def _around(anchor: int, length: int, window: int, at: float) -> float:
    """The relative place of a window, among all where it can lie, that is at relative place `at` of those with `anchor`."""
    if window >= length:
        return at
    first, last = max(0, anchor - window + 1), min(length - window, anchor)
    return (first + int(at * (last - first + 1)) + 0.5) / (length - window + 1)


def _crop(
    image: Tensor, mask: Tensor | None, size: tuple[int, int], at_y: float, at_x: float, fill: tuple[int, int, int]
) -> Augmented:
    """Cut a window at relative place (at_y, at_x) of where it can lie; what it misses is padded, at a relative place too."""
    height, width = size
    room_y, room_x = image.shape[-2] - height, image.shape[-1] - width
    top, left = (int(at * (abs(room) + 1)) for at, room in ((at_y, room_y), (at_x, room_x)))
    cut_y = slice(top, top + height) if room_y >= 0 else slice(None)
    cut_x = slice(left, left + width) if room_x >= 0 else slice(None)
    image = image[:, cut_y, cut_x]
    if mask is not None:
        mask = mask[cut_y, cut_x]
    if room_y >= 0 and room_x >= 0:
        return Augmented(image, mask, None)
    into_y = slice(top, top + image.shape[-2]) if room_y < 0 else slice(None)
    into_x = slice(left, left + image.shape[-1]) if room_x < 0 else slice(None)
    canvas = torch.tensor(np.array(fill, dtype=np.uint8))[:, None, None].repeat(1, height, width)
    canvas[:, into_y, into_x] = image
    valid = torch.zeros(height, width, dtype=torch.bool)
    valid[into_y, into_x] = True
    if mask is None:
        return Augmented(canvas, None, valid)
    padded = torch.full((height, width), 255, dtype=mask.dtype)
    padded[into_y, into_x] = mask
    return Augmented(canvas, padded, valid)
