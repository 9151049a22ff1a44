"""One optimizer update: what happens between a batch and better weights.

Nothing in it waits for a GPU, except the structure loss, which needs to know how many pixels each box has.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn

from semiseg.data import SemisegError, key64
from semiseg.methods import Losses
from semiseg.train.step.batches import Batch, micro_steps

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.optim import Optimizer


@contextmanager
def in_memory() -> Iterator[None]:
    """A GPU whose memory is full becomes one SemisegError with the remedy."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        where = torch.cuda.get_device_name() if torch.cuda.is_available() else "this device"
        raise SemisegError(
            f"this recipe does not fit into the memory of {where}; lower batch_size or augment.crop, or raise accumulate "
            f"({str(error).splitlines()[0]})"
        ) from error


def update(
    accelerator: "Accelerator",
    learner: nn.Module,
    optimizer: "Optimizer",
    batch: Batch,
    *,
    step: int,
    steps: int,
    seed: int = 0,
    accumulate: int = 1,
    clip: float | None = None,
) -> Losses:
    """Take step number `step` of `steps` on this rank's batch, in `accumulate` micro-steps. All ranks call this.

    `learner` and `optimizer` are as `accelerator.prepare` gave them; clip: the largest norm of all gradients together.
    Returns the losses, detached, summed over micro-steps.
    """
    rank = accelerator.process_index
    total = Losses()
    for index, micro in enumerate(micro_steps(batch, accumulate), start=1):
        torch.manual_seed(key64(seed, "forward", step, index, rank))  # drop-out inside an encoder
        micro = {
            domain: {role: samples.to(accelerator.device) for role, samples in roles.items()}
            for domain, roles in micro.items()
        }
        with nullcontext() if index == accumulate else accelerator.no_sync(learner):
            with accelerator.autocast():
                losses: Losses = learner(micro, step=step, steps=steps)
            accelerator.backward(losses.total)  # images weigh world / batch already: nothing left to divide by
        for sums, values in ((total.terms, losses.terms), (total.diagnostics, losses.diagnostics)):
            for name, value in values.items():
                sums[name] = sums[name] + value.detach() if name in sums else value.detach()
    if clip is not None:
        accelerator.clip_grad_norm_(learner.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total
