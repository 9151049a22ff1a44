"""The four operators by which perturbations change z; `apply` is the definition of each.

The first layer W of an auxiliary decoder is linear, has no bias and never mixes neighbouring cells, so each operator has
a cheaper form: W(m z) = m (W z) for a mask; scaled columns of W for scaled channels; W(z + r) = W z + W r for noise.
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
    """Masks cells: mask [b, 1, h, w], 1 = keep, 0 = drop."""

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
    """Additive noise: z + shift, [b, C, h, w]. z should be float32: in half precision a small shift would vanish."""

    shift: Tensor

    def apply(self, z: Tensor) -> Tensor:
        return z + self.shift
