"""Auxiliary decoders evaluated together: loss and gradients a few at a time in forward, with nothing kept.

The loss is a sum over decoders, so each one's gradient can be had, and its activations dropped, before the next; the
backward pass only scales. Gradients are float32 (float64 for float64 z) until then, so no half precision training loses
them to underflow. The plain loop, `AuxiliaryBank.forward` with `losses.distance`, is the definition of everything here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from semiseg.methods.losses import IGNORE
from semiseg.methods.operators import ChannelScale, Operator, Scale, Shift, SpatialMask
from semiseg.methods.precision import without_autocast
from semiseg.methods.slopes import GAIN, add_slope_of_labels_, distance_and_slope, softmax_, surprise
from semiseg.methods.tails import Tail

# Decoders whose first layers share one matrix product with z; more would cost memory and save no time.
TOGETHER = 8

Tiles = list[list[Tensor]]  # for each image, for each of a tail's tiles, in its order of pixels
Slope = Callable[[Tensor], Tensor]  # shift of z -> gradient by it of KL(prediction of z, prediction of z + shift)


@dataclass(eq=False, kw_only=True)
class Sweep:
    """One pass over some of the decoders: sum over images of weight * mean over these decoders of a distance, and, where
    there are labels, another such sum of the cross entropy with them.

    draw(k, slope) -> decoder k's operator. new_tail(parameters, size of z) -> the layers behind the first.
    target: [b, C, H, W], or tiles of it. classes: [b, H, W], the main prediction's, to count agreement with.
    weights: [b]. distance, reduction, confidence: see `losses.distance`.
    labels: int64 [b, H, W], 255 = none, or None; label_weights: [b], of the cross entropy's sum.
    mean_of: of these decoders the mean prediction is found on the way.

    After `values` has run: distances, entropies, agreement, each [b] and a mean over decoders: the distance, the cross
    entropy (None without labels), the share of pixels in which the most probable class is the main one's; and mean, the
    predictions' mean.
    """

    decoders: Sequence[int]
    draw: Callable[[int, Slope], Operator]
    new_tail: Callable[[Sequence[Tensor], tuple[int, int]], Tail]
    target: Tensor | Tiles
    classes: Tensor | None
    weights: Tensor
    distance: str = "mse"
    reduction: str = "mean"
    confidence: float | None = None
    labels: Tensor | None = None
    label_weights: Tensor | None = None
    mean_of: frozenset[int] = frozenset()
    distances: Tensor = field(init=False)
    entropies: Tensor | None = field(init=False)
    agreement: Tensor = field(init=False)
    mean: Tiles = field(init=False)

    def values(self, z: Tensor, first: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """One scalar, or two with labels, in the graph of z [b, Cz, h, w] and of the parameters: first [K, C, Cz] and
        those of the tail.

        Of two, gradients are found of the sum alone: what is back-propagated must be a multiple of it (RuntimeError).
        """
        needed = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (z, first, *others))
        with without_autocast(z):
            if needed:
                return _InForward.apply(self, z, first, *others)  # pyright: ignore[reportReturnType]
            return self.run(z.detach(), first.detach(), [other.detach() for other in others], slope=False)[0]

    @torch.no_grad()
    def run(
        self, z: Tensor, first: Tensor, others: Sequence[Tensor], *, slope: bool
    ) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """The scalars, and with `slope` the gradients of their sum by z and all parameters."""
        self._start(z, first, others, slope)
        light: list[tuple[int, SpatialMask | ChannelScale]] = []
        for k in self.decoders:
            operator = self.draw(k, partial(self._adversarial_slope, k))
            if isinstance(operator, SpatialMask | ChannelScale):
                light.append((k, operator))
            elif isinstance(operator, Scale | Shift):
                self._noisy(k, operator)
            else:
                self._moved(k, operator)
            del operator  # noise as large as z, while the next is drawn
            if len(light) == TOGETHER or (light and k == self.decoders[-1]):
                self._masked([k for k, _ in light], [operator for _, operator in light])
                light = []
        values = [(self._factors * self.distances).sum()]
        if self.entropies is not None:
            values.append((self._label_factors * self.entropies).sum())
            self.entropies /= self._labeled
        self.distances /= self._counted
        self.agreement /= self._judged
        return tuple(values), [self._z_slope.view_as(z), self._first_slope, *self._tail.gradients()] if slope else []

    def _start(self, z: Tensor, first: Tensor, others: Sequence[Tensor], slope: bool) -> None:
        self._z = z
        self._cells = z.flatten(2)
        self._features = torch.empty_like(self._cells[0])  # room for noisy ones
        self._first = first
        self._tail = self.new_tail(others, (z.shape[2], z.shape[3]))
        self._with_slope = slope
        self._z_slope = torch.zeros_like(self._cells) if slope else z
        self._first_slope = torch.zeros_like(first) if slope else first
        target = self.target
        self._target = [self._tail.tiles(p) for p in target.to(z.dtype)] if isinstance(target, Tensor) else target
        self._classes = None if self.classes is None else [self._tail.tiles(image) for image in self.classes]
        if self._classes is not None:
            # Where all logits tie (a masked cell before the first update), the sum of exponentials is the number of
            # classes, and class 0 counts as the most probable; any other has to have a smaller sum.
            tied = first.shape[1]
            self._below = [[torch.where(t == 0, math.inf, tied).to(z) for t in tiles] for tiles in self._classes]
        self._kept = None
        pixels = sum(tile.shape[-1] for tile in self._target[0])
        counted: Tensor | int = pixels
        if self.confidence is not None:
            self._kept = [[(t.amax(0) > self.confidence).to(t.dtype) for t in tiles] for tiles in self._target]
            counted = torch.stack([torch.cat(tiles).sum() for tiles in self._kept]).clamp(min=1)
        per_pixel = first.shape[1] if self.reduction == "mean" else 1
        self._counted = per_pixel * len(self.decoders) * counted
        self._factors = self.weights.to(z) / self._counted
        self.distances = z.new_zeros(len(z))
        self._start_labels(z)
        self._judged = pixels * len(self.decoders)
        self.agreement = z.new_zeros(len(z))
        self._distances, self._agreements = self.distances.unbind(), self.agreement.unbind()
        self.mean = [[torch.zeros_like(t) for t in tiles] for tiles in self._target] if self.mean_of else []

    def _start_labels(self, z: Tensor) -> None:
        self.entropies = None
        if self.labels is None or self.label_weights is None:
            return
        there = self.labels != IGNORE
        self._labels = [self._tail.tiles(image) for image in self.labels.where(there, 0)]
        self._there = [self._tail.tiles(image) for image in there.to(z.dtype)]
        self._labeled = len(self.decoders) * there.sum((1, 2)).clamp(min=1)
        self._label_factors = self.label_weights.to(z) / self._labeled
        self.entropies = z.new_zeros(len(z))

    def _masked(self, decoders: list[int], operators: list[SpatialMask | ChannelScale]) -> None:
        """W (m z) = m (W z), and a factor for each channel is one for each column of W: one matrix product for all."""
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
            slope = self._behind(image, decoders, outputs)
            if slope is not None:
                slope = slope.mul_(masks[:, image]).flatten(0, 1)
                self._z_slope[image].addmm_(scaled.T, slope)
                by_kernels = (slope @ cells.T).unflatten(0, (-1, count)).mul_(scales[:, image])
                for k, value in zip(decoders, by_kernels, strict=True):
                    self._first_slope[k] += value

    def _noisy(self, k: int, operator: Scale | Shift) -> None:
        """A product with W for each decoder, an image at a time, in the same memory."""
        weight = self._first[k]
        noise = (operator.scale if isinstance(operator, Scale) else operator.shift).expand_as(self._z)
        for image, cells in enumerate(self._cells):
            here = noise[image].flatten(1)
            if isinstance(operator, Scale):
                here = 1 + here
                moved = torch.mul(cells, here, out=self._features)
            else:
                moved = torch.add(cells, here, out=self._features)
            slope = self._behind(image, [k], (weight @ moved)[None])
            if slope is not None:
                self._first_slope[k].addmm_(slope[0], moved.T)
                if isinstance(operator, Scale):
                    self._z_slope[image].addcmul_(torch.mm(weight.T, slope[0], out=moved), here)
                else:
                    self._z_slope[image].addmm_(weight.T, slope[0])

    def _moved(self, k: int, operator: Operator) -> None:
        """Any operator at all: its own product with W, and its own derivative, by autograd."""
        with torch.enable_grad():
            z = self._z.detach().requires_grad_(self._with_slope)
            moved = operator.apply(z)
        slopes = torch.empty_like(self._cells) if self._with_slope else None
        for image, cells in enumerate(moved.detach().flatten(2)):
            slope = self._behind(image, [k], (self._first[k] @ cells)[None])
            if slope is not None and slopes is not None:
                self._first_slope[k].addmm_(slope[0], cells.T)
                torch.mm(self._first[k].T, slope[0], out=slopes[image])
        if slopes is not None and moved.requires_grad:
            (slope,) = torch.autograd.grad(moved, z, slopes.view_as(moved))
            self._z_slope += slope.flatten(2)

    def _behind(self, image: int, decoders: list[int], outputs: Tensor) -> Tensor | None:
        """Evaluate one image from the first layers' outputs [k, C, h w] on; the gradient by them."""
        factor = GAIN[self.distance] * self._factors[image]
        if self.entropies is not None:  # two kinds of slope, each with its own factor already
            factor = torch.ones_like(factor)
        visit = partial(self._compare, image)
        slope = self._tail.run(decoders, outputs, visit, factor if self._with_slope else None)
        return slope.mul_(factor) if self._with_slope else None

    def _compare(self, image: int, tile: int, decoders: Sequence[int], logits: Tensor, scratch: Tensor) -> bool:
        largest = logits.amax(1, keepdim=True)
        classes = None if self._classes is None else self._classes[image][tile]
        at_main = None if classes is None else logits.gather(1, classes.expand(len(logits), 1, -1))
        labels = None if self.entropies is None else self._labels[image][tile]
        surprised = None if labels is None else surprise(logits, largest, labels)
        p, total, log_p = softmax_(logits, largest, logarithms=self.distance != "mse")
        if at_main is not None:
            # argmax without its cost, ten times the rest's, and comparisons in floats, a quarter of the cost of bools.
            same = torch.eq(at_main, largest, out=at_main)
            untied = torch.lt(total, self._below[image][tile], out=largest)
            self._agreements[image].add_(torch.dot(same.view(-1), untied.view(-1)))
        for k, prediction in zip(decoders, p, strict=True):
            if k in self.mean_of:
                self.mean[image][tile].add_(prediction, alpha=1 / len(self.mean_of))
        kept = None if self._kept is None else self._kept[image][tile]
        target = self._target[image][tile]
        value = distance_and_slope(self.distance, p, log_p, target, kept, scratch, slope=self._with_slope)
        self._distances[image].add_(value)
        if self.entropies is not None and labels is not None and surprised is not None:
            there = self._there[image][tile]
            self.entropies[image] += surprised.add_(total.log()).mul_(there).sum()
            if self._with_slope:
                scratch *= GAIN[self.distance] * self._factors[image]
                add_slope_of_labels_(scratch, p, labels, there * self._label_factors[image])
        return self._with_slope

    def _adversarial_slope(self, k: int, shift: Tensor) -> Tensor:
        slopes = torch.empty_like(shift)
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
            slope = self._tail.run([k], outputs, compare)
            slopes[image] = (self._first[k].T @ slope[0]).view_as(slopes[image])
        return slopes


class _InForward(torch.autograd.Function):
    """Finds values and the gradients of their sum at once; backward scales."""

    @staticmethod
    def forward(ctx: Any, sweep: Sweep, z: Tensor, first: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        values, gradients = sweep.run(z, first, others, slope=True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*gradients)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *incoming: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        scales = [scale for scale in incoming if scale is not None]
        if len(scales) not in (0, len(incoming)):
            raise RuntimeError(ONE_SUM)
        for scale in scales[1:]:  # asserted where it is computed: on a GPU nothing waits
            torch._assert_async(scale == scales[0], ONE_SUM)  # pyright: ignore[reportPrivateImportUsage]
        return None, *(gradient * scales[0] if scales else None for gradient in ctx.saved_tensors)


ONE_SUM = (
    "the consistency and the loss on weak labels are back-propagated as their sum, as in Losses.total: their gradients were "
    "found together; change their weights instead (weight=..., weak=...), or take evaluation='loop'"
)
