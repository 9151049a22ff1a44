"""The four things that a perturbation may do to z; `apply` is the plain definition of each.

The first layer W of an auxiliary decoder is linear, without a bias, and never mixes neighbouring cells, so each form
also has a cheaper one: W(m z) = m (W z) for a mask, the scale folded into W for channels, W(z + r) = W z + W r
otherwise.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Operator(Protocol):
    """A perturbation with its random numbers drawn."""

    def apply(self, z: Tensor) -> Tensor:
        """The perturbed features, [b, C, h, w]."""
        ...


@dataclass(frozen=True, eq=False)
class SpatialMask:
    """Keeps cells: mask [b, 1, h, w] of 0 and 1."""

    mask: Tensor

    def apply(self, z: Tensor) -> Tensor:
        return z * self.mask.to(z.dtype)


@dataclass(frozen=True, eq=False)
class ChannelScale:
    """Scales channels: scale [b, C, 1, 1]."""

    scale: Tensor

    def apply(self, z: Tensor) -> Tensor:
        return z * self.scale.to(z.dtype)


@dataclass(frozen=True, eq=False)
class Scale:
    """Multiplicative noise N: z (1 + N), scale = N [b or 1, C, h, w]."""

    scale: Tensor

    def apply(self, z: Tensor) -> Tensor:
        return z * (1 + self.scale)


@dataclass(frozen=True, eq=False)
class Shift:
    """Additive noise: z + shift, [b, C, h, w]. In half precision a small shift would vanish: float32 z is expected."""

    shift: Tensor

    def apply(self, z: Tensor) -> Tensor:
        return z + self.shift
