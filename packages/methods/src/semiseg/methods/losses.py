"""Losses as pure functions: cross entropy, annealed bootstrapped (ab-CE) or of hard pixels (OHEM); MSE, KL, JS; variance.

They return one value per image, in float32, so that a batch may be split in any way. Masks contain class ids, uint8 or
int64, 255 = ignore. An image without a valid pixel counts exactly 0 and has no gradient.
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from semiseg.methods.choices import check_choice
from semiseg.methods.float32 import in_float32

IGNORE = 255
DISTANCES = ("mse", "kl", "js")
REDUCTIONS = ("mean", "sum")
OVER = ("kept", "valid")


def class_weights(pixels: Sequence[int], *, power: float = 0.5, cap: float = 20.0) -> list[float]:
    """A weight for each class that grows as its share f of the labeled pixels falls: proportional to f ** -power.

    pixels: labeled pixels of each class, [C]. cap: no class weighs more than this many times the most frequent one; a class
    without pixels weighs as much as that. Scaled so that the mean over the pixels is 1, so that learning rates and the
    weights of other terms keep their meaning. power 0 gives 1 for all; 0.5 is a common compromise, 1 makes classes equal.
    """
    total = sum(pixels)
    if power < 0 or cap < 1 or total <= 0 or min(pixels) < 0:
        raise ValueError(
            f"class_weights({list(pixels)}, power={power}, cap={cap}): expected pixels >= 0, not all 0, power >= 0, cap >= 1"
        )
    shares = [count / total for count in pixels]
    relative = [min(cap, (max(shares) / share) ** power) if share else cap for share in shares]
    if power == 0:
        relative = [1.0] * len(shares)
    mean = sum(weight * share for weight, share in zip(relative, shares, strict=True))
    return [weight / mean for weight in relative]


def cross_entropy(
    logits: Tensor, masks: Tensor, *, pool: str = "image", weights: Sequence[float] | None = None
) -> Tensor:
    """Cross entropy of each image, [b]: the mean over its valid pixels (CCT Eq. 1).

    logits: [b, C, h, w], resized bilinearly (align_corners=True) to the masks' size. masks: [b, H, W].
    pool: "batch" is the authors' form, one mean over the valid pixels of all images: each value is the image's sum over
    the mean number of valid pixels per image, so that their average is that mean. All ranks must call it.
    weights: of the classes, see `class_weights`; a pixel's loss is multiplied by that of its class, and divisors stay.
    """
    check_choice("cross_entropy(pool=...)", pool, ("image", "batch"))
    losses, valid = pixel_losses(logits, masks)
    losses = _weighted(losses, masks, weights)
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
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Annealed bootstrapped cross entropy (ab-CE) of each image, [b]: without well-predicted pixels (CCT Eq. 4).

    A pixel is kept if the probability of its true class is strictly below `bootstrapping_threshold(progress)`, or if it
    is among the `minimum` least probable pixels of its image.
    over: "kept" divides by the kept pixels (the authors' code), "valid" by all valid ones (Eq. 4 read literally).
    pool: "image" selects and divides within each image. "batch" is the authors' form: at least minimum * b pixels of
    the batch, all of which may lie in one image, and one mean over the batch's pixels; the values returned are the
    images' shares of it times b. It uses this process's batch only, so the loss depends on the number of processes.
    weights: of the classes, as in `cross_entropy`; they do not change which pixels are kept.
    Unlike in the authors' code, equal probabilities at the bound are all kept, so a flat prediction keeps all pixels.
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
    losses = _weighted(losses, masks, weights)
    divisor = (kept if over == "kept" else valid).sum((1, 2))
    if pool == "batch":
        divisor = divisor.sum().to(losses) / count
        return (losses * kept).sum((1, 2)) / divisor.clamp(min=1 / count)
    return (losses * kept).sum((1, 2)) / divisor.clamp(min=1)


def bootstrapping_threshold(progress: float, classes: int, *, until: float = 0.4, highest: float = 0.9) -> float:
    """The threshold eta of ab-CE: rises from 1/C towards `highest` until the share `until` of the training.

    eta = 1/C + (highest - 1/C) (1 - exp(-5 t / until)), as in the authors' code; it ends at 0.894 for C = 21.
    """
    share = min(max(progress / until, 0.0), 1.0) if until > 0 else 1.0
    return 1 / classes + (highest - 1 / classes) * (1 - math.exp(-5 * share))


def hard_cross_entropy(logits: Tensor, masks: Tensor, *, threshold: float = 0.7, least: float = 0.0625) -> Tensor:
    """Cross entropy of each image, [b]: the mean over valid pixels whose true class has a probability up to `threshold`.

    At least the share `least` of an image's valid pixels is kept, the least probable ones; equal probabilities at that
    bound are all kept. logits: [b, C, h, w], resized bilinearly (align_corners=True) to the masks' size. masks: [b, H, W].
    Online hard example mining (OHEM) after Shrivastava et al. 2016, per image, so that it does not depend on the batch.
    """
    losses, valid = pixel_losses(logits, masks)
    count = valid.sum((1, 2))
    hardest = losses.detach().masked_fill(~valid, -math.inf).flatten(1).sort(1, descending=True).values
    place = ((count * least).ceil().long() - 1).clamp(min=0)
    bound = hardest.gather(1, place[:, None])[:, :, None].clamp(max=-math.log(threshold))
    kept = valid & (losses >= bound)
    return losses.masked_fill(~kept, 0).sum((1, 2)) / kept.sum((1, 2)).clamp(min=1)


def distance(
    kind: str,
    target: Tensor,
    logits: Tensor,
    *,
    reduction: str = "mean",
    confidence: float | None = None,
    over: str = "kept",
    valid: Tensor | None = None,
) -> Tensor:
    """Distance of each image's prediction from a target distribution, [b] (CCT Eq. 2).

    kind: "mse", "kl" = KL(target, softmax(logits)) or "js", the Jensen-Shannon divergence, in nats.
    target: probabilities [b, C, h, w], already detached; logits: [b, C, h, w].
    reduction: over classes, "mean" (the authors' code: a weight then depends on C) or "sum" (transfers between sets
    of classes); over pixels always the mean.
    confidence: ignore pixels whose target has no probability above it (authors: 0.5). over: divide by the remaining
    pixels, "kept" (the authors' code), or by all "valid" ones; an image without any counts 0.
    valid: bool [b, h, w], False for pixels that never count, such as padding; None: all True.
    """
    check_choice("distance", kind, DISTANCES)
    check_choice("distance(reduction=...)", reduction, REDUCTIONS)
    if target.shape != logits.shape:
        raise ValueError(f"distance: target {list(target.shape)} and logits {list(logits.shape)} differ in shape")
    target, logits = in_float32(target), in_float32(logits)
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
    return pixel_mean(
        per_pixel, kept=None if confidence is None else target.amax(1) > confidence, valid=valid, over=over
    )


def pixel_mean(
    per_pixel: Tensor, *, kept: Tensor | None = None, valid: Tensor | None = None, over: str = "kept"
) -> Tensor:
    """The mean of each image's values, [b], from values [b, h, w] of its pixels.

    Pixels count where both `kept` and `valid`, bool [b, h, w], are True (None: everywhere). over: divide by the "kept"
    ones of the valid pixels, or by all "valid" ones; an image without any counts 0.
    """
    check_choice("pixel_mean(over=...)", over, OVER)
    counted = valid if kept is None else kept if valid is None else kept & valid
    if counted is None:
        return per_pixel.mean((1, 2))
    divisor = counted if over == "kept" else valid
    pixels = per_pixel[0].numel() if divisor is None else divisor.sum((1, 2)).clamp(min=1)
    return (per_pixel * counted).sum((1, 2)) / pixels


def resize_map(values: Tensor, size: tuple[int, int], fill: int) -> Tensor:
    """Class ids or a mask [b, H, W] at the resolution of logits; int64, or bool for a mask.

    Where the logits reach beyond the image (`overhangs`), `fill` is appended; otherwise the pixel at a cell's centre counts.
    """
    if values.shape[1:] == size:
        return values
    if overhangs(size, (values.shape[1], values.shape[2])):
        return F.pad(values, (0, size[1] - values.shape[2], 0, size[0] - values.shape[1]), value=fill)
    resized = F.interpolate(values[:, None].float(), size=size, mode="nearest-exact")[:, 0]
    return resized > 0.5 if values.dtype == torch.bool else resized.long()


def resize_valid(valid: Tensor | None, images: Tensor, size: tuple[int, int]) -> Tensor | None:
    """Where images [b, 3, H, W] are not padding, bool [b, *size] at the resolution of logits; None if everywhere.

    valid: bool [b, H, W], or None for everywhere. Logits that reach beyond the image are not valid there, see `resize_map`.
    """
    if valid is None:
        if not overhangs(size, (images.shape[2], images.shape[3])):
            return None
        valid = torch.ones(len(images), *images.shape[2:], dtype=torch.bool, device=images.device)
    return resize_map(valid, size, fill=False)


def overhangs(logits: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether logits are at an image's resolution, but reach beyond it to the right or below by less than a cell.

    So they do if the image's sides are no multiples of the network's stride (at most 64): they belong to the image's pixels
    from the top left on, and a resize would shift them.
    """
    beyond = [own - side for own, side in zip(logits, image, strict=True)]
    return (
        min(beyond) >= 0
        and max(beyond) > 0
        and all(own < min(64, side) for own, side in zip(beyond, image, strict=True))
    )


def pairwise_variance(outputs: Sequence[Tensor], *, reduction: str = "mean", valid: Tensor | None = None) -> Tensor:
    """Variance of several predictions of the same images, [b]: the authors' pair-wise term.

    outputs: logits [b, C, h, w] of one or more decoders; the variance divides by their number. reduction, valid: as in
    `distance`; the authors' code takes the sum over classes here, and the mean in its distances.
    """
    check_choice("pairwise_variance(reduction=...)", reduction, REDUCTIONS)
    probabilities = torch.stack([in_float32(logits).softmax(1) for logits in outputs])
    variance = (probabilities - probabilities.mean(0)).square().mean(0)
    per_pixel = variance.mean(1) if reduction == "mean" else variance.sum(1)
    return pixel_mean(per_pixel, valid=valid)


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits in float32, resized to `size` (bilinear, align_corners=True), or cropped to it, see `overhangs`."""
    logits = in_float32(logits)
    if logits.shape[-2:] == size:
        return logits
    if overhangs((logits.shape[-2], logits.shape[-1]), size):
        return logits[..., : size[0], : size[1]]
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=True)


def _weighted(losses: Tensor, masks: Tensor, weights: Sequence[float] | None) -> Tensor:
    """Losses of pixels [b, H, W] times the weights of their classes."""
    return losses if weights is None else losses * table_of(weights, losses)[masks.long()]


def table_of(values: Sequence[float], like: Tensor) -> Tensor:
    """One value for each class id, and 0 for other ids, [256], of the type and on the device of `like`."""
    table = torch.zeros(IGNORE + 1, dtype=like.dtype)  # filled on the CPU, then copied at once
    table[: len(values)] = torch.tensor(values, dtype=like.dtype)
    return table.to(like.device, non_blocking=True)


def _mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of one value per image over the images of all processes; all ranks take part."""
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
    """Masks as int64, and which of their pixels are valid; ValueError if masks do not fit the logits."""
    if masks.ndim != 3 or len(masks) != len(logits):
        raise ValueError(
            f"masks of shape {list(masks.shape)} for logits {list(logits.shape)}: expected [{len(logits)}, H, W]"
        )
    classes = logits.shape[1]
    masks = masks.long()
    valid = masks != IGNORE
    if masks.device.type == "cpu":  # on a GPU this check would wait for the device, and torch asserts the same
        wrong = masks[valid & ((masks < 0) | (masks >= classes))]
        if len(wrong):
            raise ValueError(
                f"masks contain class id {int(wrong[0])}; expected 0..{classes - 1}, or {IGNORE} = ignore: "
                "map the data set's ids to class ids first"
            )
    return masks, valid
