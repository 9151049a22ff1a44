"""Supervised training on labeled images, or on images with pseudo-labels, with any of the losses."""

import inspect
from typing import Any

import torch
from torch import Tensor

from semiseg.methods.choices import check_choice
from semiseg.methods.dice import dice_cross_entropy
from semiseg.methods.losses import (
    IGNORE,
    bootstrapped_cross_entropy,
    cross_entropy,
    hard_cross_entropy,
    resize_logits,
)
from semiseg.methods.objective import Losses, Objective, Step
from semiseg.methods.ramps import Ramp
from semiseg.methods.relaxed import relaxed_cross_entropy

LOSSES = {
    "cross_entropy": cross_entropy,
    "bootstrapped": bootstrapped_cross_entropy,
    "relaxed": relaxed_cross_entropy,
    "ohem": hard_cross_entropy,
    "dice": dice_cross_entropy,
}
NAMES = {"labeled": ("supervised", "accuracy"), "weak": ("self_training", "self_training_accuracy")}  # by part
PROGRESSING = ("bootstrapped", "relaxed")  # losses that depend on the progress of training


class Supervised(Objective):
    """The supervised loss of the main decoder on the labeled images (CCT Eq. 1 and 4), or on those with pseudo-labels.

    loss: "cross_entropy", "bootstrapped" (ab-CE), "relaxed" (at borders), "ohem" (hard pixels only) or "dice" (with cross
    entropy); options: keywords of the function in `LOSSES`. Returns the term
    "supervised" and the diagnostic "accuracy": the share of correctly classified valid pixels, averaged over images.
    part: "labeled", or "weak" for self-training on pseudo-labels, whose term is "self_training", its diagnostic
    "self_training_accuracy". weight: of the loss over time; None for 1.
    """

    def __init__(
        self, loss: str = "cross_entropy", *, part: str = "labeled", weight: Ramp | None = None, **options: Any
    ) -> None:
        super().__init__()
        check_choice("Supervised(part=...)", part, NAMES)
        check_choice("Supervised(loss=...)", loss, LOSSES)
        known = [p.name for p in inspect.signature(LOSSES[loss]).parameters.values() if p.kind is p.KEYWORD_ONLY]
        for option in options:
            check_choice(f"option of Supervised(loss={loss!r})", option, known)
        self.needs = frozenset({part})
        self.part = part
        self.weight = weight
        self.loss = loss
        self.options = options

    def forward(self, step: Step) -> Losses:
        part = step.part(self.part)
        if part.masks is None:
            raise ValueError(
                f"the {self.part} part has no masks: expected class ids [b, h, w]; pass Part(images, masks)"
            )
        logits = step.logits(self.part)
        progress = {"progress": step.progress} if self.loss in PROGRESSING else {}
        per_image = LOSSES[self.loss](logits, part.masks, **progress, **self.options)
        accuracy = part.average(_accuracy(logits.detach(), part.masks))
        weight = 1.0 if self.weight is None else self.weight(step.progress, step.step)
        loss = part.average(per_image)
        term, diagnostic = NAMES[self.part]
        return Losses({term: loss if self.weight is None else weight * loss}, {diagnostic: accuracy})


@torch.no_grad()
def _accuracy(logits: Tensor, masks: Tensor) -> Tensor:
    """Share of each image's valid pixels that are classified correctly, [b]."""
    predicted = resize_logits(logits, (masks.shape[1], masks.shape[2])).max(1).indices
    return (predicted == masks).sum((1, 2)) / (masks != IGNORE).sum((1, 2)).clamp(min=1)  # no class has the ignored id
