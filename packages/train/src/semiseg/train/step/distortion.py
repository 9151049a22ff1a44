"""Strong views: the colours of an image distorted, its geometry kept, as a pure function of a key."""

from dataclasses import dataclass
from itertools import permutations
from math import ceil

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from semiseg.data import generator

_ORDERS = tuple(permutations(range(4)))


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """Colour jitter, grey and blur, each with a probability (FixMatch, UniMatch and others).

    views: how many an image gets, each with separate numbers. jitter: probability of colour jitter: brightness, contrast and
    saturation by factors from [1 - strength, 1 + strength], hue by a share of the colour circle from [-hue, hue], in random
    order. grey: probability of a grey image. blur: probability of a Gaussian blur; sigma: range of its standard deviation in
    pixels.
    """

    views: int = 1
    jitter: float = 0.8
    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.25
    grey: float = 0.2
    blur: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)

    def __call__(self, image: Tensor, *, key: tuple[str | int, ...]) -> Tensor:
        """uint8 [3, h, w] -> uint8 [views, 3, h, w]. `key` decides every random number."""
        return torch.stack([self._view(image, key=(*key, view)) for view in range(self.views)])

    def _view(self, image: Tensor, *, key: tuple[str | int, ...]) -> Tensor:
        jitter_at, order_at, *factors_at, grey_at, blur_at, sigma_at = generator(*key).random(9).tolist()
        if jitter_at < self.jitter:
            strengths = (self.brightness, self.contrast, self.saturation)
            changes = [
                *zip((tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation), strengths, strict=True),
                (tv.adjust_hue, self.hue),
            ]
            for place in _ORDERS[int(order_at * len(_ORDERS))]:
                change, strength = changes[place]
                offset = strength * (2 * factors_at[place] - 1)
                if strength:
                    image = change(image, offset if change is tv.adjust_hue else 1 + offset)
        if grey_at < self.grey:
            image = tv.rgb_to_grayscale(image, num_output_channels=3)
        if blur_at < self.blur:
            low, high = self.sigma
            sigma = low + (high - low) * sigma_at
            image = tv.gaussian_blur(image, [2 * ceil(3 * sigma) + 1] * 2, [sigma] * 2)
        return image.contiguous()
