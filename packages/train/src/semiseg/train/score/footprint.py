"""How much memory a forward pass takes, and the largest tile whose pass fits."""

import weakref
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from semiseg.train.memory import available_memory

SAMPLE = 128  # side of the image that a pass is measured on
CERTAIN = 16_000  # bytes for a pixel that no network here takes: below, nothing is measured
WORKSPACE = 1.5  # convolutions also copy inputs and outputs: 1.13 to 1.40 times live tensors in five networks on a CPU
SHARE = 0.8  # of the available memory that a pass may take
SMALLEST = 128  # side of a tile, at least

_measured: WeakKeyDictionary[nn.Module, dict[str | None, float]] = WeakKeyDictionary()
_failed: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # pixels of the smallest pass that ran out of memory


def bytes_per_pixel(model: nn.Module, domain: str | None) -> float:
    """Peak of live tensors in a forward pass of one image, and workspace, over its pixels; measured once."""
    known = _measured.setdefault(model, {})
    if domain not in known:
        device = next(model.parameters()).device
        image = torch.zeros(1, 3, SAMPLE, SAMPLE, dtype=torch.uint8, device=device)
        with torch.inference_mode(), _Live() as live:
            model(image, domain)
        known[domain] = WORKSPACE * live.peak / SAMPLE**2
    return known[domain]


def ran_out(model: nn.Module, pixels: int) -> None:
    """Remember that a pass of so many pixels did not fit."""
    _failed[model] = min(pixels, _failed.get(model, pixels))


def largest_tile(
    model: nn.Module,
    domain: str | None,
    *,
    sides: list[tuple[int, int]],
    passed: list[tuple[int, int]],
    size: tuple[int, int],
    classes: int,
    flip: bool,
) -> int | None:
    """Side of the largest square tile that fits, a multiple of the stride; None if complete images fit.

    sides: of the image at each scale; passed: of what the network sees of it at once; size: of the result.
    """
    device = next(model.parameters()).device
    budget = SHARE * available_memory(device)
    largest = max(height * width for height, width in passed)
    sums = 0 if passed == sides else 4 * classes * max(height * width for height, width in sides)
    out = size[0] * size[1]
    limit = _failed.get(model, 1 << 62)
    if largest < limit and CERTAIN * largest + sums + (8 * classes + 9) * out < budget:
        return None
    single = len(sides) == 1 and not flip
    each = bytes_per_pixel(model, domain) + 4 * classes * (0 if single else 2)
    whole = each * largest + sums + out * (9 + 4 * classes * (1 if single and size == sides[0] else 2))
    if whole < budget and largest < limit:
        return None
    stride = getattr(model, "stride", 32)
    longest = max(max(pair) for pair in sides)
    side = -(-longest // stride) * stride
    while side > SMALLEST:
        bands = sum(12 * classes * min(side, height) * width for height, width in sides)
        if side * side < limit and (each + 8 * classes) * side * side + bands + out < budget:
            break
        side -= stride
    return max(side, SMALLEST // stride * stride, stride)


class _Live(TorchDispatchMode):
    """Counts the bytes of tensors that operations inside it have made and that are still in use."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.sizes:
                    self.sizes[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._free, storage._cdata)
        self.peak = max(self.peak, self.now)
        return made

    def _free(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)
