"""The layers of stacked auxiliary decoders after the first, a tile of pixels at a time: logits and their gradients.

Tiles fit into a core's cache, and buffers are reused, so memory depends neither on the number of decoders nor on the
image.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits per tile and CPU thread: few enough for the caches, enough to hide the interpreter (2^15 takes 1.4 times as long,
# 2^19 slightly longer). A GPU needs large kernels.
CPU_TILE = 2**18
GPU_TILE = 2**24

# visit(tile, decoders, logits, scratch) gets logits [k, C, m], may overwrite them, and writes the gradient with respect
# to them to `scratch`, contiguous and of the same shape; or it returns False, and nothing is back-propagated.
Visit = Callable[[int, Sequence[int], Tensor, Tensor], bool]


class Tail(Protocol):
    """The layers after the first, for any of the K decoders and one image."""

    def tiles(self, image: Tensor) -> list[Tensor]:
        """Values per pixel [..., H, W] as one [..., m] per tile, pixels in this tail's order."""
        ...

    def run(self, decoders: Sequence[int], cells: Tensor, visit: Visit, scale: Tensor | None = None) -> Tensor:
        """Visit every tile of cells [k, C, h w], the first layer's outputs; return the gradient with respect to these.

        scale: if given, the parameters' gradients, times this factor, are added to the sums.
        """
        ...

    def gradients(self) -> list[Tensor]:
        """The summed gradients of the parameters, in the order in which these were given."""
        ...


class SubpixelTail:
    """Stages of 1x1 convolution C -> 4C, ReLU, PixelShuffle(2).

    For x [C, m], a stage is one matrix product to [4C, m], and the same memory read as [C, 4m] is the pixel shuffle: each
    stage puts its sub-pixels in front of the cells. Only targets have to be brought into that order. A row of ones
    below x makes the bias a column of the matrix.

    weights: [K, 4C, C] per stage; biases: [K, 4C] per stage. size: (h, w) of z.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor], size: tuple[int, int], last_relu: bool):
        self.weights = weights
        self.biases = biases
        self.sums = [w.new_zeros(*w.shape[:2], w.shape[2] + 1) for w in weights]
        self.size = size
        self.last_relu = last_relu
        self.classes = weights[0].shape[2]
        count, cells = len(weights[0]), size[0] * size[1]
        logits_per_cell = self.classes * 4 ** len(weights)
        tiles = max(1, round(cells * logits_per_cell / _tile(weights[0])))
        self.width = -(-cells // tiles)  # of equal widths: a narrow last tile is expensive
        self.together = min(count, max(1, _tile(weights[0]) // (logits_per_cell * self.width)))
        sizes = [self.together * (self.classes + 1) * self.width * 4**stage for stage in range(len(weights) + 1)]
        self._memory = [(weights[0].new_empty(size), weights[0].new_empty(size)) for size in sizes]
        self._buffers: _Buffers | None = None

    def tiles(self, image: Tensor) -> list[Tensor]:
        stages, (height, width), lead = len(self.weights), self.size, image.shape[:-2]
        bits = [2] * stages
        # Y = 8y + 4 i1 + 2 i2 + i3 and X = 8x + 4 j1 + 2 j2 + j3 for three stages; returned in order i3 j3 i2 j2 i1 j1 y x.
        values = image.reshape(-1, height, *bits, width, *bits)
        order = [axis for stage in range(stages, 0, -1) for axis in (1 + stage, 2 + stages + stage)]
        values = values.permute(0, *order, 1, 2 + stages).reshape(*lead, 4**stages, height * width)
        return [tile.flatten(-2) for tile in values.split(self.width, -1)]

    def run(self, decoders: Sequence[int], cells: Tensor, visit: Visit, scale: Tensor | None = None) -> Tensor:
        kernels = [
            torch.stack([torch.cat([w[k], b[k][:, None]], 1) for k in decoders])
            for w, b in zip(self.weights, self.biases, strict=True)
        ]
        sums = [torch.zeros_like(kernel) for kernel in kernels]
        gradient = torch.zeros_like(cells)
        parts = [slice(first, first + self.together) for first in range(0, len(decoders), self.together)]
        groups = [(decoders[p], [w[p] for w in kernels], [s[p] for s in sums], cells[p], gradient[p]) for p in parts]
        # groups in the inner loop, so that the target stays in cache
        for tile, start in enumerate(range(0, cells.shape[2], self.width)):
            place = slice(start, start + self.width)
            for group, weights, by_weights, x, by_x in groups:
                x = x[:, :, place]
                buffers = self._buffers_for(len(group), x.shape[2])
                buffers.inputs[0].copy_(x)
                self._forward(weights, buffers)
                logits = buffers.inputs[-1]
                dead = logits <= 0 if self.last_relu else None
                if not visit(tile, group, logits, buffers.gradients[-1]):
                    continue
                if dead is not None:
                    buffers.gradients[-1].masked_fill_(dead, 0)
                self._backward(weights, buffers, None if scale is None else by_weights)
                by_x[:, :, place] = buffers.gradients[0]
        if scale is not None:
            for into, values in zip(self.sums, sums, strict=True):
                for k, value in zip(decoders, values * scale, strict=True):
                    into[k] += value
        return gradient

    def gradients(self) -> list[Tensor]:
        return [total[:, :, :-1] for total in self.sums] + [total[:, :, -1] for total in self.sums]

    def _forward(self, weights: Sequence[Tensor], buffers: "_Buffers") -> None:
        last = len(weights) - 1
        for stage, (weight, x) in enumerate(zip(weights, buffers.with_ones, strict=True)):
            torch.bmm(weight, x, out=buffers.outputs[stage])
            if stage < last or self.last_relu:
                buffers.inputs[stage + 1].relu_()

    def _backward(self, weights: Sequence[Tensor], buffers: "_Buffers", by_weights: list[Tensor] | None) -> None:
        for stage in range(len(weights) - 1, -1, -1):
            by_output = buffers.output_gradients[stage]
            if by_weights is not None:
                by_weights[stage].baddbmm_(by_output, buffers.with_ones[stage].transpose(1, 2))
            below = torch.bmm(weights[stage][:, :, :-1].transpose(1, 2), by_output, out=buffers.gradients[stage])
            if stage:  # the ReLU's backward, in place
                torch.ops.aten.threshold_backward.grad_input(below, buffers.inputs[stage], 0, grad_input=below)

    def _buffers_for(self, count: int, width: int) -> "_Buffers":
        if self._buffers is None or self._buffers.shape != (count, width):
            self._buffers = _Buffers(self._memory, count, self.classes, width)
        return self._buffers


class _Buffers:
    """Views of the same memory for `count` decoders and `width` cells.

    memory: for each stage's input, and for the logits, a buffer of values and one of gradients.
    inputs: [count, C, 4^stage width] per stage, then the logits; with_ones: inputs with their row of ones; outputs: of
    each stage before the shuffle, [count, 4C, 4^stage width]. gradients, output_gradients: with respect to these.
    """

    def __init__(self, memory: Sequence[tuple[Tensor, Tensor]], count: int, classes: int, width: int):
        self.shape = (count, width)
        self.with_ones: list[Tensor] = []
        self.inputs: list[Tensor] = []
        self.gradients: list[Tensor] = []
        for stage, (values, gradients) in enumerate(memory):
            columns = width * 4**stage
            rows = classes + (stage + 1 < len(memory))  # logits are contiguous
            with_ones = values[: count * rows * columns].view(count, rows, columns)
            with_ones[:, classes:] = 1
            self.with_ones.append(with_ones)
            self.inputs.append(with_ones[:, :classes])
            self.gradients.append(gradients[: count * classes * columns].view(count, classes, columns))
        self.with_ones.pop()
        self.outputs = [x.view(count, 4 * classes, -1) for x in self.inputs[1:]]
        self.output_gradients = [x.view(count, 4 * classes, -1) for x in self.gradients[1:]]


class LinearTail:
    """A bias and bilinear upsampling by `stride`. bias: [K, C]; size: (h, w) of z."""

    def __init__(self, bias: Tensor, size: tuple[int, int], stride: int):
        self.bias = bias
        self.sum = torch.zeros_like(bias)
        self.size = size
        self.full_size = (stride * size[0], stride * size[1])
        count, classes = bias.shape
        pixels = self.full_size[0] * self.full_size[1]
        self.width = min(pixels, max(1, _tile(bias) // classes))
        self.together = min(count, max(1, _tile(bias) // (classes * pixels)))
        self._scratch = bias.new_empty(self.together * classes * self.width)

    def tiles(self, image: Tensor) -> list[Tensor]:
        return list(image.flatten(-2).split(self.width, -1))

    def run(self, decoders: Sequence[int], cells: Tensor, visit: Visit, scale: Tensor | None = None) -> Tensor:
        gradient = torch.zeros_like(cells)
        for first in range(0, len(decoders), self.together):
            group = slice(first, first + self.together)
            bias = torch.stack([self.bias[k] for k in decoders[group]])
            with torch.enable_grad():  # its backward needs no activations
                x = (cells[group] + bias[:, :, None]).detach().unflatten(2, self.size).requires_grad_()
                upsampled = F.interpolate(x, size=self.full_size, mode="bilinear", align_corners=False)
            logits = upsampled.detach().flatten(2)
            wanted = False
            for tile, part in enumerate(logits.split(self.width, 2)):
                scratch = self._scratch[: part.numel()].view(part.shape)
                wanted = visit(tile, decoders[group], part, scratch)
                if wanted:
                    part.copy_(scratch)
            if wanted:
                (by_x,) = torch.autograd.grad(upsampled, x, logits.view_as(upsampled))
                gradient[group] = by_x.flatten(2)
        if scale is not None:
            for k, value in zip(decoders, gradient.sum(2) * scale, strict=True):
                self.sum[k] += value
        return gradient

    def gradients(self) -> list[Tensor]:
        return [self.sum]


def _tile(like: Tensor) -> int:
    return CPU_TILE * torch.get_num_threads() if like.device.type == "cpu" else GPU_TILE
