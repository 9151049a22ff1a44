"""Thirty auxiliary decoders at once: losses and gradients in the forward pass, a few decoders at a time.

The loss is a sum over decoders, so the gradient of one can be computed, and its activations freed, before the next; the
backward pass only scales. Until then gradients are float32 (float64 for float64 z), so none underflows in half-precision
training. The reference is the plain loop: `AuxiliaryBank.forward` with `losses.distance`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from semiseg.methods.float32 import without_autocast
from semiseg.methods.gradients import GAIN, add_cross_entropy_gradient_, distance_and_gradient, label_gap, softmax_
from semiseg.methods.losses import IGNORE
from semiseg.methods.operators import ChannelScale, Operator, Scale, Shift, SpatialMask
from semiseg.methods.tails import Tail

# Decoders whose first layers share one matrix product with z; more would use more memory and save no time.
TOGETHER = 8

Tiles = list[list[Tensor]]  # [image][tile], pixels in the tail's order
# shift of z -> gradient of KL(prediction of z, prediction of z + shift) with respect to the shift
ShiftGradient = Callable[[Tensor], Tensor]


@dataclass(eq=False, kw_only=True)
class FusedPass:
    """One pass over some of the decoders: the sum over images of weight times the distance, averaged over these decoders;
    with labels, also the same sum of the cross entropy.

    draw(k, gradient) -> decoder k's operator. new_tail(parameters, size of z) -> the layers after the first.
    target: [b, C, H, W], or tiles of it. classes: [b, H, W], the main decoder's most probable ones, for the agreement.
    weights: [b]. distance, reduction, confidence, over, valid: see `losses.distance`; valid: [b, H, W].
    labels: int64 [b, H, W], 255 = none, or None; label_weights: [b], of the cross entropy. label_factors: of the pixels,
    [b, H, W], None for 1; label_counts: [b], what each image's sum is divided by, None for its labeled pixels.
    mean_of: decoders whose mean prediction is computed along the way.

    Set by `values`: means over decoders, [b]: distances: the distance; entropies: the cross entropy, None without
    labels; agreement: the share of pixels with the main decoder's most probable class. mean: the mean prediction.
    """

    decoders: Sequence[int]
    draw: Callable[[int, ShiftGradient], Operator]
    new_tail: Callable[[Sequence[Tensor], tuple[int, int]], Tail]
    target: Tensor | Tiles
    classes: Tensor | None
    weights: Tensor
    distance: str = "mse"
    reduction: str = "mean"
    confidence: float | None = None
    over: str = "kept"
    valid: Tensor | None = None
    labels: Tensor | None = None
    label_weights: Tensor | None = None
    label_factors: Tensor | None = None
    label_counts: Tensor | None = None
    mean_of: frozenset[int] = frozenset()
    distances: Tensor = field(init=False)
    entropies: Tensor | None = field(init=False)
    agreement: Tensor = field(init=False)
    mean: Tiles = field(init=False)

    def values(self, z: Tensor, first: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """One scalar, or two with labels, in the graph of z [b, Cz, h, w] and of the parameters: first [K, C, Cz], others
        of the tail.

        With two, only the gradient of their sum is computed: back-propagating anything but a multiple of the sum raises
        RuntimeError.
        """
        needed = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (z, first, *others))
        with without_autocast(z):
            if needed:
                return _InForward.apply(self, z, first, *others)  # pyright: ignore[reportReturnType]
            return self.run(z.detach(), first.detach(), [other.detach() for other in others], with_gradients=False)[0]

    @torch.no_grad()
    def run(
        self, z: Tensor, first: Tensor, others: Sequence[Tensor], *, with_gradients: bool
    ) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """The scalars and, if wanted, the gradients of their sum with respect to z and all parameters."""
        self._start(z, first, others, with_gradients)
        masked: list[tuple[int, SpatialMask | ChannelScale]] = []
        for k in self.decoders:
            operator = self.draw(k, partial(self._adversarial_gradient, k))
            if isinstance(operator, SpatialMask | ChannelScale):
                masked.append((k, operator))
            elif isinstance(operator, Scale | Shift):
                self._noisy(k, operator)
            else:
                self._by_autograd(k, operator)
            del operator  # may be as large as z; free it before the next is drawn
            if len(masked) == TOGETHER or (masked and k == self.decoders[-1]):
                self._masked([k for k, _ in masked], [operator for _, operator in masked])
                masked = []
        values = [(self._factors * self.distances).sum()]
        if self.entropies is not None:
            values.append((self._label_factors * self.entropies).sum())
            self.entropies /= self._labeled_count
        self.distances /= self._counted
        self.agreement /= self._compared
        if not with_gradients:
            return tuple(values), []
        return tuple(values), [self._z_gradient.view_as(z), self._first_gradient, *self._tail.gradients()]

    def _start(self, z: Tensor, first: Tensor, others: Sequence[Tensor], with_gradients: bool) -> None:
        self._z = z
        self._cells = z.flatten(2)
        self._features = torch.empty_like(self._cells[0])  # buffer for the noisy features of an image
        self._first = first
        self._tail = self.new_tail(others, (z.shape[2], z.shape[3]))
        self._with_gradients = with_gradients
        self._z_gradient = torch.zeros_like(self._cells) if with_gradients else z
        self._first_gradient = torch.zeros_like(first) if with_gradients else first
        target = self.target
        self._target = [self._tail.tiles(p) for p in target.to(z.dtype)] if isinstance(target, Tensor) else target
        self._classes = None if self.classes is None else [self._tail.tiles(image) for image in self.classes]
        if self._classes is not None:
            # If all logits tie (a masked cell before the first update), the sum of exponentials is the number of classes,
            # and class 0 counts as the most probable one; any other class needs a smaller sum.
            tied = first.shape[1]
            self._below = [[torch.where(t == 0, math.inf, tied).to(z) for t in tiles] for tiles in self._classes]
        pixels: Tensor | int = sum(tile.shape[-1] for tile in self._target[0])
        self._valid = self._kept = None
        if self.valid is not None:
            self._valid = self._kept = [self._tail.tiles(image) for image in self.valid.to(z.dtype)]
            pixels = _counts(self._valid)
        counted = pixels
        if self.confidence is not None:
            self._kept = [[(t.amax(0) > self.confidence).to(t.dtype) for t in tiles] for tiles in self._target]
            for confident, valid in zip(self._kept, self._valid or [], strict=bool(self._valid)):
                for own, other in zip(confident, valid, strict=True):
                    own *= other
            counted = _counts(self._kept) if self.over == "kept" else pixels
        per_pixel = first.shape[1] if self.reduction == "mean" else 1
        self._counted = per_pixel * len(self.decoders) * counted
        self._factors = self.weights.to(z) / self._counted
        self.distances = z.new_zeros(len(z))
        self._start_labels(z)
        self._compared = pixels * len(self.decoders)
        self.agreement = z.new_zeros(len(z))
        self._distances, self._agreements = self.distances.unbind(), self.agreement.unbind()
        self.mean = [[torch.zeros_like(t) for t in tiles] for tiles in self._target] if self.mean_of else []

    def _start_labels(self, z: Tensor) -> None:
        self.entropies = None
        if self.labels is None or self.label_weights is None:
            return
        labeled = self.labels != IGNORE
        self._labels = [self._tail.tiles(image) for image in self.labels.where(labeled, 0)]
        factors = labeled.to(z.dtype) if self.label_factors is None else labeled * self.label_factors.to(z.dtype)
        self._labeled = [self._tail.tiles(image) for image in factors]
        counts = labeled.sum((1, 2)) if self.label_counts is None else self.label_counts
        self._labeled_count = len(self.decoders) * counts.clamp(min=1)
        self._label_factors = self.label_weights.to(z) / self._labeled_count
        self.entropies = z.new_zeros(len(z))

    def _masked(self, decoders: list[int], operators: list[SpatialMask | ChannelScale]) -> None:
        """One matrix product for all: W (m z) = m (W z), and scaling channels of z is scaling columns of W."""
        count, channels = self._first.shape[1:]
        masks = self._z.new_ones(len(decoders), len(self._z), 1, self._cells.shape[2])
        scales = self._z.new_ones(len(decoders), len(self._z), 1, channels)
        for operator, mask, scale in zip(operators, masks, scales, strict=True):
            if isinstance(operator, SpatialMask):
                mask.copy_(operator.mask.flatten(2))
            else:
                scale.copy_(operator.scale.flatten(2).transpose(1, 2))
        kernels = torch.stack([self._first[k] for k in decoders])
        for image, cells in enumerate(self._cells):
            scaled = (kernels * scales[:, image]).flatten(0, 1)
            outputs = (scaled @ cells).unflatten(0, (-1, count)).mul_(masks[:, image])
            gradient = self._through_tail(image, decoders, outputs)
            if gradient is not None:
                gradient = gradient.mul_(masks[:, image]).flatten(0, 1)
                self._z_gradient[image].addmm_(scaled.T, gradient)
                by_kernels = (gradient @ cells.T).unflatten(0, (-1, count)).mul_(scales[:, image])
                for k, value in zip(decoders, by_kernels, strict=True):
                    self._first_gradient[k] += value

    def _noisy(self, k: int, operator: Scale | Shift) -> None:
        """One product with W per decoder, an image at a time, in the same buffer."""
        weight = self._first[k]
        noise = (operator.scale if isinstance(operator, Scale) else operator.shift).expand_as(self._z)
        for image, cells in enumerate(self._cells):
            change = noise[image].flatten(1)
            if isinstance(operator, Scale):
                change = 1 + change
                moved = torch.mul(cells, change, out=self._features)
            else:
                moved = torch.add(cells, change, out=self._features)
            gradient = self._through_tail(image, [k], (weight @ moved)[None])
            if gradient is not None:
                self._first_gradient[k].addmm_(gradient[0], moved.T)
                if isinstance(operator, Scale):
                    self._z_gradient[image].addcmul_(torch.mm(weight.T, gradient[0], out=moved), change)
                else:
                    self._z_gradient[image].addmm_(weight.T, gradient[0])

    def _by_autograd(self, k: int, operator: Operator) -> None:
        """Any other operator: one product with W, and its derivative by autograd."""
        with torch.enable_grad():
            z = self._z.detach().requires_grad_(self._with_gradients)
            moved = operator.apply(z)
        gradients = torch.empty_like(self._cells) if self._with_gradients else None
        for image, cells in enumerate(moved.detach().flatten(2)):
            gradient = self._through_tail(image, [k], (self._first[k] @ cells)[None])
            if gradient is not None and gradients is not None:
                self._first_gradient[k].addmm_(gradient[0], cells.T)
                torch.mm(self._first[k].T, gradient[0], out=gradients[image])
        if gradients is not None and moved.requires_grad:
            (gradient,) = torch.autograd.grad(moved, z, gradients.view_as(moved))
            self._z_gradient += gradient.flatten(2)

    def _through_tail(self, image: int, decoders: list[int], outputs: Tensor) -> Tensor | None:
        """Evaluate one image from the first layers' outputs [k, C, h w]; the gradient with respect to these."""
        factor = GAIN[self.distance] * self._factors[image]
        if self.entropies is not None:  # two gradients, each already multiplied by its factor
            factor = torch.ones_like(factor)
        visit = partial(self._compare, image)
        gradient = self._tail.run(decoders, outputs, visit, factor if self._with_gradients else None)
        return gradient.mul_(factor) if self._with_gradients else None

    def _compare(self, image: int, tile: int, decoders: Sequence[int], logits: Tensor, scratch: Tensor) -> bool:
        largest = logits.amax(1, keepdim=True)
        classes = None if self._classes is None else self._classes[image][tile]
        at_main = None if classes is None else logits.gather(1, classes.expand(len(logits), 1, -1))
        labels = None if self.entropies is None else self._labels[image][tile]
        gaps = None if labels is None else label_gap(logits, largest, labels)
        p, total, log_p = softmax_(logits, largest, logarithms=self.distance != "mse")
        if at_main is not None:
            # argmax would cost ten times the rest; comparisons in floats cost a quarter of those in bools.
            same = torch.eq(at_main, largest, out=at_main)
            untied = torch.lt(total, self._below[image][tile], out=largest)
            if self._valid is not None:
                untied *= self._valid[image][tile]
            self._agreements[image].add_(torch.dot(same.view(-1), untied.view(-1)))
        for k, prediction in zip(decoders, p, strict=True):
            if k in self.mean_of:
                self.mean[image][tile].add_(prediction, alpha=1 / len(self.mean_of))
        kept = None if self._kept is None else self._kept[image][tile]
        target = self._target[image][tile]
        value = distance_and_gradient(
            self.distance, p, log_p, target, kept, scratch, with_gradient=self._with_gradients
        )
        self._distances[image].add_(value)
        if self.entropies is not None and labels is not None and gaps is not None:
            labeled = self._labeled[image][tile]
            self.entropies[image] += gaps.add_(total.log()).mul_(labeled).sum()
            if self._with_gradients:
                scratch *= GAIN[self.distance] * self._factors[image]
                add_cross_entropy_gradient_(scratch, p, labels, labeled * self._label_factors[image])
        return self._with_gradients

    def _adversarial_gradient(self, k: int, shift: Tensor) -> Tensor:
        gradients = torch.empty_like(shift)
        for image, (cells, step) in enumerate(zip(self._cells, shift.flatten(2), strict=True)):
            clean: list[Tensor] = []

            def predict(tile: int, _: Sequence[int], logits: Tensor, scratch: Tensor, clean=clean) -> bool:
                clean.append(softmax_(logits, logits.amax(1, keepdim=True))[0].clone())
                return False

            def compare(tile: int, _: Sequence[int], logits: Tensor, scratch: Tensor, clean=clean) -> bool:
                torch.sub(softmax_(logits, logits.amax(1, keepdim=True))[0], clean[tile], out=scratch)
                return True

            outputs = (self._first[k] @ cells)[None]
            self._tail.run([k], outputs, predict)
            outputs += self._first[k] @ step
            gradient = self._tail.run([k], outputs, compare)
            gradients[image] = (self._first[k].T @ gradient[0]).view_as(gradients[image])
        return gradients


def _counts(tiles: Tiles) -> Tensor:
    """How many pixels of each image count, [b]; at least 1."""
    return torch.stack([torch.cat(own).sum() for own in tiles]).clamp(min=1)


class _InForward(torch.autograd.Function):
    """Computes values and the gradients of their sum together; backward only scales."""

    @staticmethod
    def forward(ctx: Any, fused_pass: FusedPass, z: Tensor, first: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        values, gradients = fused_pass.run(z, first, others, with_gradients=True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*gradients)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *incoming: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        scales = [scale for scale in incoming if scale is not None]
        if len(scales) not in (0, len(incoming)):
            raise RuntimeError(ONE_SUM)
        for scale in scales[1:]:  # asserted on the device, so that the CPU never waits for a GPU
            torch._assert_async(scale == scales[0], ONE_SUM)  # pyright: ignore[reportPrivateImportUsage]
        return None, *(gradient * scales[0] if scales else None for gradient in ctx.saved_tensors)


ONE_SUM = (
    "the consistency loss and the loss on weak labels must be back-propagated as their sum, as in Losses.total, because "
    "their gradients are computed together; change their weights (weight=..., weak=...), or use evaluation='loop'"
)
