"""Training on labeled images."""

import inspect
from typing import Any

import torch
from torch import Tensor

from semiseg.methods.choices import check_choice
from semiseg.methods.losses import IGNORE, bootstrapped_cross_entropy, cross_entropy, resize_logits
from semiseg.methods.objective import Losses, Objective, Step

LOSSES = ("cross_entropy", "bootstrapped")


class Supervised(Objective):
    """The supervised loss of the main decoder on the labeled images (CCT Eq. 1 and 4).

    loss: "cross_entropy" or "bootstrapped" (ab-CE); options: keywords of `bootstrapped_cross_entropy` (until, highest,
    minimum, over, pool). Reports the term "supervised" and the diagnostic "accuracy", the mean over images of the share of
    valid pixels whose most probable class is right.
    """

    needs = frozenset({"labeled"})

    def __init__(self, loss: str = "cross_entropy", **options: Any) -> None:
        super().__init__()
        check_choice("Supervised(loss=...)", loss, LOSSES)
        keywords = inspect.signature(bootstrapped_cross_entropy).parameters.values()
        known = [p.name for p in keywords if p.kind is p.KEYWORD_ONLY] if loss == "bootstrapped" else []
        for option in options:
            check_choice(f"option of Supervised(loss={loss!r})", option, known)
        self.loss = loss
        self.options = options

    def forward(self, step: Step) -> Losses:
        part = step.part("labeled")
        if part.masks is None:
            raise ValueError("the labeled part has no masks: expected class ids [b, h, w], Part(images, masks)")
        logits = step.logits("labeled")
        if self.loss == "bootstrapped":
            per_image = bootstrapped_cross_entropy(logits, part.masks, step.progress, **self.options)
        else:
            per_image = cross_entropy(logits, part.masks)
        accuracy = part.average(_accuracy(logits.detach(), part.masks))
        return Losses({"supervised": part.average(per_image)}, {"accuracy": accuracy})


@torch.no_grad()
def _accuracy(logits: Tensor, masks: Tensor) -> Tensor:
    """Share of each image's valid pixels that are right, [b]."""
    predicted = resize_logits(logits, (masks.shape[1], masks.shape[2])).argmax(1)
    return (predicted == masks).sum((1, 2)) / (masks != IGNORE).sum((1, 2)).clamp(min=1)  # no class has the ignored id
