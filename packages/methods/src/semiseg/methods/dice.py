"""The Dice loss: one minus the overlap of prediction and mask, class by class, so that small classes count as large ones."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from semiseg.methods.losses import checked, cross_entropy, resize_logits


def dice(logits: Tensor, masks: Tensor) -> Tensor:
    """Soft Dice loss of each image, [b]: the mean over its classes of 1 - 2 sum(p g) / (sum(p) + sum(g)).

    p: the probability of the class, g: 1 where the mask has it; sums are over the image's valid pixels. Only classes that
    the mask has count: of the others, any prediction at all would cost 1. logits: [b, C, h, w], resized bilinearly
    (align_corners=True) to the masks' size. masks: [b, H, W]. Milletari et al. 2016, without squares.
    """
    masks, valid = checked(logits, masks)
    p = resize_logits(logits, (masks.shape[1], masks.shape[2])).softmax(1) * valid[:, None]
    g = F.one_hot(masks.where(valid, 0), logits.shape[1]).permute(0, 3, 1, 2) * valid[:, None]
    size = g.sum((2, 3))
    overlap = 2 * (p * g).sum((2, 3)) / (p.sum((2, 3)) + size).clamp(min=1e-6)
    present = size > 0
    return ((1 - overlap) * present).sum(1) / present.sum(1).clamp(min=1)


def dice_cross_entropy(
    logits: Tensor, masks: Tensor, *, weight_of_dice: float = 1.0, weights: Sequence[float] | None = None
) -> Tensor:
    """Cross entropy plus `weight_of_dice` times the Dice loss of each image, [b]. weights: of the classes, for the former."""
    return cross_entropy(logits, masks, weights=weights) + weight_of_dice * dice(logits, masks)
