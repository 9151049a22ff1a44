"""What ranks share in a step: means of logged values, running statistics."""

import torch
from torch import Tensor

from semiseg.data import SemisegError


def reduced(named: dict[str, Tensor], world: int) -> dict[str, float]:
    """Values of the global batch as numbers, from each rank's. All ranks call this."""
    stacked = torch.stack([value.float() for value in named.values()])
    if world > 1:
        torch.distributed.all_reduce(stacked)
        stacked /= world
    return dict(zip(named, stacked.tolist(), strict=True))


def same_on_all_ranks(value: int, what: str, device: torch.device, world: int) -> None:
    """SemisegError, on all ranks, unless all have the same value. All ranks call this."""
    if world > 1:
        ends = torch.tensor([value, -value], device=device)
        torch.distributed.all_reduce(ends, torch.distributed.ReduceOp.MAX)
        most, least = ends[0].item(), -ends[1].item()
        if most != least:
            raise SemisegError(
                f"{what} differs between processes ({least} and {most}): they must all see one folder, undamaged; check "
                "that it is on storage that all machines share"
            )


def share_buffers(module: torch.nn.Module, world: int) -> None:
    """Give every rank the first one's buffers (running statistics differ until then). All ranks call this."""
    if world > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)
