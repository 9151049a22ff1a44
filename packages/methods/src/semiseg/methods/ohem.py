"""Online hard example mining: only the pixels that are not known well yet."""

import math

from torch import Tensor

from semiseg.methods.losses import pixel_losses


def hard_cross_entropy(logits: Tensor, masks: Tensor, *, threshold: float = 0.7, least: float = 0.0625) -> Tensor:
    """Cross entropy of each image, [b]: the mean over those valid pixels whose true class has at most `threshold`.

    At least the share `least` of an image's valid pixels is kept, the least probable ones; equal ones at that bound
    are all kept. logits: [b, C, h, w], resized bilinearly (align_corners=True) to the masks' size. masks: [b, H, W].
    Online hard example mining after Shrivastava et al. 2016, by image, so that it does not depend on the batch.
    """
    losses, valid = pixel_losses(logits, masks)
    count = valid.sum((1, 2))
    hardest = losses.detach().masked_fill(~valid, -math.inf).flatten(1).sort(1, descending=True).values
    place = ((count * least).ceil().long() - 1).clamp(min=0)
    bound = hardest.gather(1, place[:, None])[:, :, None].clamp(max=-math.log(threshold))
    kept = valid & (losses >= bound)
    return losses.masked_fill(~kept, 0).sum((1, 2)) / kept.sum((1, 2)).clamp(min=1)
