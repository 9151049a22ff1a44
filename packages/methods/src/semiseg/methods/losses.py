"""Losses as pure functions: one value for each image, in float32, so that a batch may be cut in any way.

Masks hold class ids, uint8 or int64, 255 = ignore. An image without a valid pixel counts exactly 0 and gives no
gradient.
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from semiseg.methods.choices import check_choice
from semiseg.methods.precision import full

IGNORE = 255
DISTANCES = ("mse", "kl", "js")
REDUCTIONS = ("mean", "sum")


def cross_entropy(logits: Tensor, masks: Tensor, *, pool: str = "image") -> Tensor:
    """Cross entropy of each image, [b]: the mean over its valid pixels (CCT Eq. 1).

    logits: [b, C, h, w], resized bilinearly (align_corners=True) to the masks' size. masks: [b, H, W].
    pool: "batch" is the authors' form, one mean over the valid pixels of all images: the values are the images' sums over
    the mean number of valid pixels an image, so that their average is it. Processes count together: all ranks must call.
    """
    check_choice("cross_entropy(pool=...)", pool, ("image", "batch"))
    losses, valid = pixel_losses(logits, masks)
    counts = valid.sum((1, 2))
    if pool == "image":
        return losses.sum((1, 2)) / counts.clamp(min=1)
    return losses.sum((1, 2)) / _mean_over_ranks(counts.to(losses)).clamp(min=1e-6)


def bootstrapped_cross_entropy(
    logits: Tensor,
    masks: Tensor,
    progress: float,
    *,
    until: float = 0.4,
    highest: float = 0.9,
    minimum: int = 1,
    over: str = "kept",
    pool: str = "image",
) -> Tensor:
    """Annealed bootstrapped cross entropy (ab-CE) of each image, [b]: leaves out pixels already known well (CCT Eq. 4).

    A pixel is kept where the probability of its true class is strictly below `bootstrapping_threshold(progress)`, and
    in any case the `minimum` least probable pixels of each image.
    over: "kept" divides by the kept pixels (the authors' code), "valid" by all valid ones (Eq. 4 read literally).
    pool: "image" chooses and divides within each image. "batch" is the authors' form: at least minimum * b pixels of
    the whole batch, all of which may lie in one image, and one mean over the batch's pixels; the values returned are
    the images' shares of it times b. It knows this process's batch only, so several processes give another loss than
    one. Unlike the authors' code, equal probabilities at the bound are all kept, so a flat prediction never leaves no
    pixel.
    """
    check_choice("bootstrapped_cross_entropy(over=...)", over, ("kept", "valid"))
    check_choice("bootstrapped_cross_entropy(pool=...)", pool, ("image", "batch"))
    losses, valid = pixel_losses(logits, masks)
    count = len(losses)
    threshold = bootstrapping_threshold(progress, logits.shape[1], until=until, highest=highest)
    groups = 1 if pool == "batch" else count
    true_probability = torch.exp(-losses.detach()).masked_fill(~valid, math.inf).view(groups, -1)
    least = min(minimum * count // groups, true_probability.shape[1])
    bound = (
        true_probability.topk(least, largest=False, sorted=True).values[:, -1:]
        if least
        else -torch.ones(groups, 1).to(losses)
    )
    kept = ((true_probability < threshold) | (true_probability <= bound)).view_as(valid) & valid
    divisor = (kept if over == "kept" else valid).sum((1, 2))
    if pool == "batch":
        divisor = divisor.sum().to(losses) / count
        return (losses * kept).sum((1, 2)) / divisor.clamp(min=1 / count)
    return (losses * kept).sum((1, 2)) / divisor.clamp(min=1)


def bootstrapping_threshold(progress: float, classes: int, *, until: float = 0.4, highest: float = 0.9) -> float:
    """ab-CE's eta: from 1/C at the start towards `highest`, rising until the share `until` of the training.

    eta = 1/C + (highest - 1/C) (1 - exp(-5 t / until)), as in the authors' code; it ends at 0.894 for C = 21.
    """
    share = min(max(progress / until, 0.0), 1.0) if until > 0 else 1.0
    return 1 / classes + (highest - 1 / classes) * (1 - math.exp(-5 * share))


def distance(
    kind: str, target: Tensor, logits: Tensor, *, reduction: str = "mean", confidence: float | None = None
) -> Tensor:
    """Distance of each image's prediction from a target distribution, [b] (CCT Eq. 2).

    kind: "mse", "kl" = KL(target, softmax(logits)) or "js", the Jensen-Shannon divergence, in nats.
    target: probabilities [b, C, h, w], already detached; logits: [b, C, h, w].
    reduction: over classes, "mean" (the authors' code: a weight then depends on C) or "sum" (transfers between label
    spaces); over pixels always the mean.
    confidence: leave out pixels whose target has no probability above it (authors: 0.5). The mean is then over the
    pixels that stay; an image of which none stays counts 0.
    """
    check_choice("distance", kind, DISTANCES)
    check_choice("distance(reduction=...)", reduction, REDUCTIONS)
    if target.shape != logits.shape:
        raise ValueError(f"target {list(target.shape)} and logits {list(logits.shape)} differ in shape")
    target, logits = full(target), full(logits)
    if kind == "mse":
        per_pixel = (logits.softmax(1) - target).square().sum(1)
    else:
        log_q = F.log_softmax(logits, 1)
        log_p = target.clamp_min(torch.finfo(target.dtype).tiny).log()  # p log p = 0 at p = 0
        if kind == "kl":
            per_pixel = (target * (log_p - log_q)).sum(1)
        else:
            log_m = torch.logaddexp(log_p, log_q) - math.log(2)  # from logarithms: finite gradients where q is 0
            per_pixel = (target * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(1) / 2
    if reduction == "mean":
        per_pixel = per_pixel / logits.shape[1]
    if confidence is None:
        return per_pixel.mean((1, 2))
    kept = target.amax(1) > confidence
    return (per_pixel * kept).sum((1, 2)) / kept.sum((1, 2)).clamp(min=1)


def pairwise_variance(outputs: Sequence[Tensor], *, reduction: str = "mean") -> Tensor:
    """Variance of several predictions of the same images around their mean, [b]: the authors' pair-wise term.

    outputs: logits [b, C, h, w] of at least one decoder. The variance divides by their number; `reduction` as in
    `distance`.
    """
    check_choice("pairwise_variance(reduction=...)", reduction, REDUCTIONS)
    probabilities = torch.stack([full(logits).softmax(1) for logits in outputs])
    variance = (probabilities - probabilities.mean(0)).square().mean(0)
    per_pixel = variance.mean(1) if reduction == "mean" else variance.sum(1)
    return per_pixel.mean((1, 2))


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits in float32 at another size: bilinear, align_corners=True; unchanged where the size is the same."""
    logits = full(logits)
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=True)


def _mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of a value an image over the images of all processes; all ranks take part."""
    both = torch.stack([values.sum(), torch.full_like(values[0], len(values))])
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(both)
    return both[0] / both[1]


def pixel_losses(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of each pixel [b, H, W], 0 where ignored, and which pixels are valid."""
    masks, valid = checked(logits, masks)
    logits = resize_logits(logits, (masks.shape[1], masks.shape[2]))
    return F.cross_entropy(logits, masks, ignore_index=IGNORE, reduction="none"), valid


def checked(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Masks as int64 and which of their pixels are valid; ValueError where they don't fit the logits."""
    if masks.ndim != 3 or len(masks) != len(logits):
        raise ValueError(
            f"masks of shape {list(masks.shape)} for logits {list(logits.shape)}: expected [{len(logits)}, H, W]"
        )
    classes = logits.shape[1]
    masks = masks.long()
    valid = masks != IGNORE
    if masks.device.type == "cpu":  # elsewhere the look would cost a synchronisation, and torch's own assertion fires
        wrong = masks[valid & ((masks < 0) | (masks >= classes))]
        if len(wrong):
            raise ValueError(
                f"masks hold class id {int(wrong[0])}; expected 0..{classes - 1}, or {IGNORE} = ignore. "
                "Map the publisher's ids to class ids first"
            )
    return masks, valid
