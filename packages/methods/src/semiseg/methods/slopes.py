"""Losses with their gradients by the logits, in place, a tile at a time: what the bank computes instead of a graph.

Shapes: logits [k, C, m] of k decoders, target [C, m], kept [m] (0 leaves a pixel out), all of one float dtype.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

# The gradients below come without this constant factor.
GAIN: Mapping[str, float] = {"mse": 2.0, "kl": 1.0, "js": 0.5}


def softmax_(logits: Tensor, largest: Tensor, *, logarithms: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
    """Turn logits into probabilities in place, given the largest [k, 1, m].

    Also the sums [k, 1, m] of exp(logit - largest), and log-probabilities where asked for.
    """
    logits -= largest
    shifted = logits.clone() if logarithms else None
    total = logits.exp_().sum(1, keepdim=True)
    logits *= total.reciprocal()
    return logits, total, None if shifted is None else shifted.sub_(total.log())


def distance_and_slope(
    kind: str, p: Tensor, log_p: Tensor | None, target: Tensor, kept: Tensor | None, scratch: Tensor, *, slope: bool
) -> Tensor:
    """The distance summed over decoders, classes and pixels; with `slope` its gradient by the logits goes to `scratch`.

    p, log_p: the prediction, [k, C, m]; log_p is needed, and overwritten, by "kl" and "js".
    """
    if kind == "mse":
        difference = torch.sub(p, target, out=scratch)
        if kept is not None:
            difference *= kept
        value = torch.dot(difference.view(-1), difference.view(-1))
        if slope:
            torch.ops.aten._softmax_backward_data.out(difference, p, 1, p.dtype, grad_input=scratch)
        return value
    assert log_p is not None
    log_target = target.clamp_min(torch.finfo(target.dtype).tiny).log()
    if kind == "kl":
        log_ratio = torch.sub(log_target, log_p, out=log_p).mul_(target)
        value = _sum(log_ratio, kept)
        if slope:  # through log-softmax: p sum(target) - target
            torch.mul(p, target.sum(0), out=scratch).sub_(target)
    else:
        log_mean = torch.logaddexp(log_target, log_p).sub_(math.log(2))
        weighted = torch.sub(log_p, log_mean, out=scratch).mul_(p)
        value = (_sum((log_target - log_mean).mul_(target), kept) + _sum(weighted, kept)) / 2
        if slope:
            weighted.addcmul_(p, weighted.sum(1, keepdim=True), value=-1)  # p v to p (v - sum p v), v the gradient by p
    if slope and kept is not None:
        scratch *= kept
    return value


def surprise(logits: Tensor, largest: Tensor, labels: Tensor) -> Tensor:
    """What -log p of each pixel's label is, but for the logarithm of the sum that `softmax_` finds: [k, 1, m].

    logits as they come, the largest [k, 1, m], labels int64 [m].
    """
    return largest - logits.gather(1, labels.expand(len(logits), 1, -1))


def add_slope_of_labels_(slope: Tensor, p: Tensor, labels: Tensor, factors: Tensor) -> None:
    """Add to `slope` the gradient by the logits of the sum over pixels of factor * -log p of the label.

    p: the prediction [k, C, m]. labels: int64 [m]. factors: [m], 0 where a pixel has no label.
    """
    slope.addcmul_(p, factors)
    slope.scatter_add_(1, labels.expand(len(p), 1, -1), -factors.expand(len(p), 1, -1))


def _sum(values: Tensor, kept: Tensor | None) -> Tensor:
    return values.sum() if kept is None else (values * kept).sum()
