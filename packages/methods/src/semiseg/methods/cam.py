"""Class activation maps (CAM): where in an image an image classifier sees each class (Zhou et al., CVPR 2016)."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.methods.float32 import in_float32

SCALES = (1.0, 0.5, 1.5, 2.0)  # of CCT's authors


def class_activations(features: Tensor, weight: Tensor) -> Tensor:
    """The classifier's score of each class at each position, [b, C, h, w], without bias and ReLU.

    features: [b, D, h, w], before the classifier's global average pooling. weight: [C, D], of its linear layer.
    """
    return torch.einsum("bdhw,cd->bchw", features, weight)


@torch.no_grad()
def class_activation_maps(
    images: Tensor,
    tags: Tensor,
    activate: Callable[[Tensor], Tensor],
    *,
    scales: Sequence[float] = SCALES,
    flip: bool = True,
) -> Tensor:
    """Activation maps of the tagged classes in 0..1 at the images' size, float32 [b, C, H, W] (CCT section 3.3).

    For each scale, and also flipped horizontally if `flip`: activations, ReLU, resized to the image, summed. Maps of
    untagged classes are 0; the others are divided by their maximum (a map without any activation stays 0).
    images: [b, 3, H, W] as `activate` expects them. tags: [b, C], true where an image contains a class. activate: images of
    any size -> `class_activations`, [b, C, h, w].
    """
    size = images.shape[-2:]
    total = torch.zeros(*tags.shape, *size, device=images.device)
    for scale in scales:
        scaled = F.interpolate(
            images, [max(round(side * scale), 1) for side in size], mode="bilinear", antialias=scale < 1
        )
        maps = in_float32(activate(scaled)).relu()
        if flip:
            maps = maps + in_float32(activate(scaled.flip(-1))).relu().flip(-1)
        if maps.shape[:2] != tags.shape:
            raise ValueError(
                f"activations of shape {list(maps.shape)} for tags {list(tags.shape)}: expected [b, C, h, w]"
            )
        total += F.interpolate(maps, size, mode="bilinear")
    total *= tags[..., None, None].to(total.device)
    return total / total.amax((2, 3), keepdim=True).clamp(min=torch.finfo(total.dtype).tiny)
