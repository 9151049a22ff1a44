"""Boundary label relaxation: near a border, any of the classes around a pixel counts as correct."""

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.methods.losses import checked, resize_logits


def relaxed_cross_entropy(
    logits: Tensor,
    masks: Tensor,
    progress: float = 0.0,
    *,
    window: int = 3,
    until: float = 1.0,
    strict: tuple[int, ...] = (),
    by_frequency: bool = False,
) -> Tensor:
    """Relaxed cross entropy of each image, [b]: the mean over its valid pixels of -log of the sum of p_c over the
    classes c in the window around a pixel (Zhu et al. 2019; structured consistency, Eq. 2).

    logits: [b, C, h, w], resized bilinearly (align_corners=True) to the masks' size. masks: [b, H, W].
    window: side in pixels, odd; 1 is plain cross entropy. until: from this share of the training on, window is 1 (the
    authors' code: epoch 100 of 175, 0.57).
    strict: class ids whose own pixels keep plain cross entropy (the code, on Cityscapes: 5, 6, 7, 11, 12, 17, 18).
    by_frequency: weight a pixel by 1 + (1 - f), f its class's share of the image's valid pixels, averaged over the classes
    in its window; the divisor stays the number of valid pixels.
    Unlike in the authors' code, an image's loss depends on that image alone and is finite for any logits, and an ignored
    pixel neither has a gradient nor adds a class to its neighbours.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"relaxed_cross_entropy(window={window}): expected an odd number of pixels: 1, 3, 5, ...")
    masks, valid = checked(logits, masks)
    classes = logits.shape[1]
    if strict and not 0 <= min(strict) <= max(strict) < classes:
        raise ValueError(f"relaxed_cross_entropy(strict={strict}): expected class ids 0..{classes - 1}")
    log_probabilities = F.log_softmax(resize_logits(logits, (masks.shape[1], masks.shape[2])), 1)
    class_ids = torch.arange(classes, device=masks.device)[:, None, None]
    own = masks[:, None] == class_ids  # [b, C, H, W], none where ignored
    around = _spread(own, window) if progress < until else own
    for class_id in strict:
        around = torch.where(own[:, class_id : class_id + 1], own, around)
    losses = -log_probabilities.masked_fill(~around, -torch.inf).logsumexp(1)  # infinite where no class is around
    count = valid.sum((1, 2)).clamp(min=1)
    if by_frequency:
        weights = 2 - own.sum((2, 3)) / count[:, None]  # [b, C]
        losses = losses * torch.einsum("bchw,bc->bhw", around.to(weights), weights) / around.sum(1).clamp(min=1)
    return losses.masked_fill(~valid, 0).sum((1, 2)) / count


def _spread(present: Tensor, window: int) -> Tensor:
    """Whether each class is present in the window around each pixel, bool [b, C, H, W]; along rows, then columns."""
    reach = window // 2
    for padding in ((reach, reach, 0, 0), (0, 0, reach, reach)):
        padded = F.pad(present, padding)
        height, width = present.shape[2:]
        across = padding[0] > 0
        present = torch.zeros_like(present)
        for shift in range(window):
            present |= padded[..., shift : shift + width] if across else padded[..., shift : shift + height, :]
    return present
