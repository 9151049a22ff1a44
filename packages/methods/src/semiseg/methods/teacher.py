"""The EMA teacher (mean teacher): an exponential moving average of the model that is trained."""

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # base class of all norms with running statistics

from semiseg.methods.choices import check_choice

MODES = ("eval", "train")
BUFFERS = ("average", "copy")
RULES = ("warmup", "average", "constant")


class Teacher(nn.Module):
    """A copy of a model, in `.model`, that follows it: w <- d w + (1 - d) w_student after each optimizer step.

    decay: the largest d. rule: d at step t = 0, 1, ...; all but "constant" soon forget the initial weights.
    "warmup": min(decay, (1 + t) / (10 + t)), as in the mean teacher's code (structured consistency states only 0.999).
    "average": min(decay, 1 - 1 / (t + 1)), as in UniMatch V2: the plain average of all weights so far, until d is reached.
    "constant": decay.
    mode: "eval" normalises by the averaged running statistics; "train" by batch statistics, with dropout enabled.
    buffers: running statistics are an "average", like the weights, or a "copy" of the student's. A forward pass never
    changes them, in either mode. Integers (batches seen) are copied.

    The paper states neither mode nor buffers. The copy's parameters need no gradient, so DDP and optimizers ignore it. In
    a DDP module, its buffers are broadcast from the first process at every forward pass; its weights are the same on all
    processes, because the student's are.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        decay: float = 0.999,
        rule: str = "warmup",
        mode: str = "eval",
        buffers: str = "average",
    ) -> None:
        super().__init__()
        check_choice("Teacher(rule=...)", rule, RULES)
        check_choice("Teacher(mode=...)", mode, MODES)
        check_choice("Teacher(buffers=...)", buffers, BUFFERS)
        if not 0 <= decay < 1:
            raise ValueError(f"Teacher(decay={decay}): expected 0 <= decay < 1")
        self.decay = decay
        self.rule = rule
        self.mode = mode
        self.buffered = buffers
        self.model = copy.deepcopy(model).requires_grad_(False)
        for module in self.model.modules():
            if isinstance(module, _NormBase):
                module.momentum = 0.0  # a forward pass in training mode leaves the running statistics unchanged
        self.train(self.training)

    def decay_at(self, step: int) -> float:
        """The decay d at a step, counted from 0."""
        if self.rule == "constant":
            return self.decay
        return min(self.decay, (1 + step) / (10 + step) if self.rule == "warmup" else 1 - 1 / (step + 1))

    @torch.no_grad()
    def update(self, student: nn.Module, step: int) -> None:
        """Average in `student`, of the same architecture; call it once after each optimizer step, counted from 0."""
        share = 1 - self.decay_at(step)
        for own, new in zip(self.model.parameters(), student.parameters(), strict=True):
            own.lerp_(new, share)
        for own, new in zip(self.model.buffers(), student.buffers(), strict=True):
            if own.is_floating_point() and self.buffered == "average":
                own.lerp_(new, share)
            else:
                own.copy_(new)

    def train(self, mode: bool = True) -> "Teacher":
        super().train(mode)
        self.model.train(mode and self.mode == "train")
        return self
