"""FixMatch and UniMatch on pixels: the student learns, on strong views, what is confidently seen in the weak one."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from semiseg.methods.cutmix import covered
from semiseg.methods.losses import pixel_mean, resize_logits, table_of
from semiseg.methods.objective import Losses, Objective, Part, Step
from semiseg.methods.ramps import Ramp
from semiseg.methods.strong import StrongView, StrongViews


class FixMatch(Objective):
    """Cross entropy of the student on strong views, with the classes that the weak view shows confidently.

    Where the largest probability of the weak view reaches the threshold, its class is the label of the same pixel in every
    strong view. The loss of an image is the sum over these pixels, divided by all its valid pixels, averaged over strong
    views: it grows with the share of confident pixels (Sohn et al. 2020; on pixels: Yang et al. 2023).

    weight: over time. hard: learn the class; False: the probabilities. weights: of the classes, see `losses.class_weights`.
    feature_drop: probability of dropping a channel of the weak view's z; the student must predict the same classes from what
    is left. 0: no such stream. feature_share: the share of this stream in the loss (UniMatch: 0.5).
    complementary: two strong views see complementary halves of the channels of z, doubled; half of the images see all of
    them (UniMatch V2).
    Other options: names, threshold, quantile, mix, probability, area, aspect: see `StrongViews`.

    The step needs unlabeled images with strong views, partners if images are mixed, and a teacher with names="teacher".
    Encoder passes: the student's on the strong views (and on the weak ones with names="student" or feature_drop), the
    teacher's on weak images and partners. Term: "fixmatch". Diagnostics: "fixmatch_unweighted"; "kept", the share of valid
    pixels that count; "teacher_confidence"; "agreement", the share of the counting pixels whose class the student predicts.
    """

    needs = frozenset({"unlabeled"})

    def __init__(
        self,
        *,
        weight: Ramp | None = None,
        hard: bool = True,
        weights: Sequence[float] | None = None,
        feature_drop: float = 0.0,
        feature_share: float = 0.5,
        complementary: bool = False,
        **views: Any,
    ) -> None:
        super().__init__()
        if not 0 <= feature_drop < 1 or not 0 <= feature_share <= 1:
            raise ValueError(
                f"FixMatch(feature_drop={feature_drop}, feature_share={feature_share}): expected a probability below 1 "
                "and a share in 0..1"
            )
        self.strong = StrongViews(**views)
        self.weight = weight or Ramp(1.0, shape="constant")
        self.hard = hard
        self.weights = weights
        self.feature_drop = feature_drop
        self.feature_share = feature_share if feature_drop else 0.0
        self.complementary = complementary

    def forward(self, step: Step) -> Losses:
        return self.begin(step)()

    def begin(self, step: Step) -> Callable[[], Losses]:
        part = step.part("unlabeled")
        if self.complementary and part.strong is not None and part.strong.shape[1] != 2:
            raise ValueError(f"FixMatch(complementary=True) needs two strong views, found {part.strong.shape[1]}")
        if self.feature_drop:
            step.plan("unlabeled", part.images)
        views_of = self.strong.plan(step)
        return lambda: self._losses(step, part, views_of())

    def _losses(self, step: Step, part: Part, views: Sequence[StrongView]) -> Losses:
        weight = self.weight(step.progress, step.step)
        size = (part.images.shape[2], part.images.shape[3])
        total = torch.zeros(len(part), device=part.images.device)
        kept_share, agreement, confidence = (torch.zeros_like(total) for _ in range(3))
        halves = self._halves(step, views[0].name) if self.complementary else None
        for number, view in enumerate(views):
            logits = step.logits(view.name) if halves is None else _masked(step, view.name, halves[number])
            logits = resize_logits(logits, size)
            total = total + self._loss(logits, view.target, view.kept, view.valid) / len(views)
            counted = view.kept if view.valid is None else view.kept & view.valid
            kept_share += pixel_mean(counted.to(total), valid=view.valid) / len(views)
            same = logits.detach().argmax(1) == view.target.argmax(1)
            agreement += pixel_mean(same.to(total), kept=counted) / len(views)
            confidence += pixel_mean(view.target.amax(1).to(total), valid=view.valid) / len(views)
        if self.feature_drop:
            total = (1 - self.feature_share) * total + self.feature_share * self._of_features(step, part, size)
        loss = part.average(total)
        diagnostics = {
            "fixmatch_unweighted": loss.detach(),
            "kept": part.average(kept_share),
            "agreement": part.average(agreement),
            "teacher_confidence": part.average(confidence),
        }
        if views[0].inside is not None:
            diagnostics["covered"] = part.average(covered(views[0].inside))
        return Losses({"fixmatch": weight * loss}, diagnostics)

    def _of_features(self, step: Step, part: Part, size: tuple[int, int]) -> Tensor:
        """The loss of the stream with dropped channels, [b]: the weak view's own labels, from its own features."""
        z = step.features("unlabeled").deep
        uniform = _uniform(step.random("feature drop"), z.shape[1]).to(z.device)
        mask = (uniform >= self.feature_drop).to(z)[:, :, None, None] / (1 - self.feature_drop)
        target, kept = self.strong.named(step)
        return self._loss(resize_logits(_masked(step, "unlabeled", mask), size), target, kept, part.valid)

    def _loss(self, logits: Tensor, target: Tensor, kept: Tensor, valid: Tensor | None) -> Tensor:
        """The loss of each image, [b]: over kept pixels, divided by all valid ones."""
        classes = target.max(1).indices
        if self.hard:
            losses = F.cross_entropy(logits, classes, reduction="none")
        else:
            losses = -(target * F.log_softmax(logits, 1)).sum(1)
        if self.weights is not None:
            losses = losses * table_of(self.weights, losses)[classes]
        return pixel_mean(losses, kept=kept, valid=valid, over="valid")

    def _halves(self, step: Step, name: str) -> tuple[Tensor, Tensor]:
        """Complementary masks of channels [b, Cz, 1, 1] with values 0 and 2; all 1 for half of the images."""
        z = step.features(name).deep
        uniform = _uniform(step.random("channels"), z.shape[1] + 1).to(z.device)
        masked = uniform[:, :1] < 0.5
        first = torch.where(masked, 2.0 * (uniform[:, 1:] < 0.5), 1.0).to(z)[:, :, None, None]
        return first, torch.where(masked[:, :, None, None], 2 - first, 1.0)


def _masked(step: Step, name: str, mask: Tensor) -> Tensor:
    """The main decoder's logits of planned images from z times a mask."""
    features = step.features(name)
    masked = copy.copy(features)
    masked.deep = features.deep * mask  # pyright: ignore[reportAttributeAccessIssue]  # a copy of whatever encode returned
    return step.decode(masked)


def _uniform(random: Sequence[Generator], count: int) -> Tensor:
    return torch.stack([torch.rand(count, generator=generator, device=generator.device) for generator in random])
