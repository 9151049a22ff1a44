"""What ranks share in a step: means of logged values, running statistics."""

import torch
from torch import Tensor


def reduced(named: dict[str, Tensor], world: int) -> dict[str, float]:
    """Values of the global batch as numbers, from each rank's. All ranks call this."""
    stacked = torch.stack([value.float() for value in named.values()])
    if world > 1:
        torch.distributed.all_reduce(stacked)
        stacked /= world
    return dict(zip(named, stacked.tolist(), strict=True))


def share_buffers(module: torch.nn.Module, world: int) -> None:
    """Give every rank the first one's buffers (running statistics differ until then). All ranks call this."""
    if world > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)
