"""Losses with their gradients with respect to the logits, in place, a tile at a time, for `fused`: no graph.

Shapes: logits [k, C, m] of k decoders, target [C, m], kept [m] (0 leaves a pixel out), all of the same float dtype.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

# Constant factors that the gradients of `distance_and_gradient` leave out.
GAIN: Mapping[str, float] = {"mse": 2.0, "kl": 1.0, "js": 0.5}


def softmax_(logits: Tensor, largest: Tensor, *, logarithms: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
    """Turn logits into probabilities in place, given the largest [k, 1, m].

    Also returns the sums [k, 1, m] of exp(logit - largest), and log-probabilities if `logarithms`.
    """
    logits -= largest
    shifted = logits.clone() if logarithms else None
    total = logits.exp_().sum(1, keepdim=True)
    logits *= total.reciprocal()
    return logits, total, None if shifted is None else shifted.sub_(total.log())


def distance_and_gradient(
    kind: str,
    p: Tensor,
    log_p: Tensor | None,
    target: Tensor,
    kept: Tensor | None,
    scratch: Tensor,
    *,
    with_gradient: bool,
) -> Tensor:
    """The distance summed over decoders, classes and pixels; if wanted, its gradient goes to `scratch`, without GAIN.

    p, log_p: the prediction, [k, C, m]; log_p is needed, and overwritten, by "kl" and "js".
    """
    if kind == "mse":
        difference = torch.sub(p, target, out=scratch)
        if kept is not None:
            difference *= kept
        value = torch.dot(difference.view(-1), difference.view(-1))
        if with_gradient:
            torch.ops.aten._softmax_backward_data.out(difference, p, 1, p.dtype, grad_input=scratch)
        return value
    assert log_p is not None
    log_target = target.clamp_min(torch.finfo(target.dtype).tiny).log()
    if kind == "kl":
        log_ratio = torch.sub(log_target, log_p, out=log_p).mul_(target)
        value = _sum(log_ratio, kept)
        if with_gradient:  # through log-softmax: p sum(target) - target
            torch.mul(p, target.sum(0), out=scratch).sub_(target)
    else:
        log_mean = torch.logaddexp(log_target, log_p).sub_(math.log(2))
        weighted = torch.sub(log_p, log_mean, out=scratch).mul_(p)
        value = (_sum((log_target - log_mean).mul_(target), kept) + _sum(weighted, kept)) / 2
        if with_gradient:
            # p v to p (v - sum p v), v the gradient with respect to p
            weighted.addcmul_(p, weighted.sum(1, keepdim=True), value=-1)
    if with_gradient and kept is not None:
        scratch *= kept
    return value


def label_gap(logits: Tensor, largest: Tensor, labels: Tensor) -> Tensor:
    """How far the label's logit is below the largest one, [k, 1, m]: -log p less the logarithm of `softmax_`'s sum.

    logits: unchanged ones. largest: [k, 1, m]. labels: int64 [m].
    """
    return largest - logits.gather(1, labels.expand(len(logits), 1, -1))


def add_cross_entropy_gradient_(gradient: Tensor, p: Tensor, labels: Tensor, factors: Tensor) -> None:
    """Add to `gradient` that of the sum over pixels of factor * -log p of the label.

    p: the prediction [k, C, m]. labels: int64 [m]. factors: [m], 0 where a pixel has no label.
    """
    gradient.addcmul_(p, factors)
    gradient.scatter_add_(1, labels.expand(len(p), 1, -1), -factors.expand(len(p), 1, -1))


def _sum(values: Tensor, kept: Tensor | None) -> Tensor:
    return values.sum() if kept is None else (values * kept).sum()
