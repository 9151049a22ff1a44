"""The mean teacher: an exponential moving average of the model that is being trained."""

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # what every batch norm that keeps statistics is

from semiseg.methods.choices import check_choice

MODES = ("eval", "train")
BUFFERS = ("average", "copy")


class Teacher(nn.Module):
    """A copy of a model, in `.model`, that follows it: w <- d w + (1 - d) w_student after each optimizer step.

    decay: d. warmup: with it d is min(decay, (1 + t) / (10 + t)) at step t = 0, 1, ..., so that random first weights are
    soon forgotten (as in the mean teacher's code; the structured consistency paper gives 0.999 alone).
    mode: "eval" normalises by the averaged running statistics, "train" by each batch's own and has drop-out on.
    buffers: running statistics are an "average" as the weights are, or a "copy" of the student's. A forward pass never
    moves them, in either mode. Whole numbers (batches seen) are copied.

    The paper says neither mode nor buffers. No gradient reaches the copy: its parameters need none, so DDP and
    optimizers leave it alone. As a part of a DDP module its buffers are the first process's at every forward pass; its
    weights are the same on all processes, since the student's are.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        decay: float = 0.999,
        warmup: bool = True,
        mode: str = "eval",
        buffers: str = "average",
    ) -> None:
        super().__init__()
        check_choice("Teacher(mode=...)", mode, MODES)
        check_choice("Teacher(buffers=...)", buffers, BUFFERS)
        if not 0 <= decay < 1:
            raise ValueError(f"Teacher(decay={decay}): expected 0 <= decay < 1")
        self.decay = decay
        self.warmup = warmup
        self.mode = mode
        self.buffered = buffers
        self.model = copy.deepcopy(model).requires_grad_(False)
        for module in self.model.modules():
            if isinstance(module, _NormBase):
                module.momentum = 0.0  # a forward pass in training mode keeps the running statistics
        self.train(self.training)

    def decay_at(self, step: int) -> float:
        """The share of the teacher that stays at a step, counted from 0."""
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, student: nn.Module, step: int) -> None:
        """Follow `student`, of the same architecture; once after each optimizer step, `step` counted from 0."""
        fresh = 1 - self.decay_at(step)
        for mine, its in zip(self.model.parameters(), student.parameters(), strict=True):
            mine.lerp_(its, fresh)
        for mine, its in zip(self.model.buffers(), student.buffers(), strict=True):
            if mine.is_floating_point() and self.buffered == "average":
                mine.lerp_(its, fresh)
            else:
                mine.copy_(its)

    def train(self, mode: bool = True) -> "Teacher":
        super().train(mode)
        self.model.train(mode and self.mode == "train")
        return self
