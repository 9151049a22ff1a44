"""Losses and perturbations are computed in float32, also under mixed-precision training."""

import torch
from torch import Tensor


def in_float32(tensor: Tensor) -> Tensor:
    """`tensor` in float32 (float64 stays): losses and adversarial shifts are differences of near equals."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def without_autocast(tensor: Tensor) -> torch.autocast:
    """A context in which operations on `tensor`'s device keep the dtype of their inputs."""
    return torch.autocast(tensor.device.type, enabled=False)
