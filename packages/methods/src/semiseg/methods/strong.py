"""Strong views and their labels: who names the weak view, which pixels count, what is pasted from a second image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.methods.choices import check_choice
from semiseg.methods.cutmix import draw_box, draw_classes, paste
from semiseg.methods.losses import resize_logits, table_of
from semiseg.methods.objective import Part, Step

NAMES = ("teacher", "student")
MIXES = ("none", "cutmix", "classmix")


@dataclass(frozen=True)
class StrongView:
    """One strong view of a batch. name: of its planned images in the step. target: probabilities [b, C, H, W] of its weak
    view. kept: bool [b, H, W], where they are confident. valid: where nothing is padding, or None. inside: where the partner
    is pasted, uint8 [b, H, W], or None."""

    name: str
    target: Tensor
    kept: Tensor
    valid: Tensor | None
    inside: Tensor | None


@dataclass(frozen=True, kw_only=True)
class StrongViews:
    """How strong views are made and named; all objectives of a step with equal settings share them.

    names: "teacher", the step's moving average, or "student", the model itself, in the pass of the weak view. threshold: least
    probability that counts, or one for each class. quantile: in each image, also keep only this share of the pixels of each
    predicted class, the most confident ones; 1 keeps all.
    mix: paste a part of the partner into each strong view, and its labels with it: "cutmix" a box, "classmix" the pixels of
    half of the classes that are predicted for the partner (Olsson et al. 2021). probability: of mixing an image; area: range
    of a box's share of the image; aspect: its height over its width lies in 1/aspect .. aspect.
    """

    names: str = "teacher"
    threshold: float | Sequence[float] = 0.95
    quantile: float = 1.0
    mix: str = "cutmix"
    probability: float = 0.5
    area: tuple[float, float] = (0.02, 0.4)
    aspect: float = 10 / 3

    def __post_init__(self) -> None:
        check_choice("StrongViews(names=...)", self.names, NAMES)
        check_choice("StrongViews(mix=...)", self.mix, MIXES)
        if not isinstance(self.threshold, int | float):
            object.__setattr__(self, "threshold", tuple(self.threshold))  # hashable, as a key of what a step shares
        thresholds = (self.threshold,) if isinstance(self.threshold, int | float) else self.threshold
        if not all(0 <= value <= 1 for value in thresholds) or not 0 < self.quantile <= 1:
            raise ValueError(f"threshold={self.threshold}, quantile={self.quantile}: expected numbers in 0..1")

    def plan(self, step: Step) -> Callable[[], list[StrongView]]:
        """Plan the student's images; the function returned gives the views, after all objectives have planned theirs."""
        return step.shared(self, lambda: self._plan(step))

    def named(self, step: Step) -> tuple[Tensor, Tensor]:
        """The weak view itself: probabilities [b, C, H, W] and where they are confident, bool [b, H, W]."""
        return step.shared((self, "named"), lambda: self._named(step, step.shared((self, "own"), lambda: None)))

    def _named(self, step: Step, own: Tensor | None) -> tuple[Tensor, Tensor]:
        if own is None:  # named by the student, in the same pass as all else
            own = resize_logits(step.logits("unlabeled").detach(), _size(step.part("unlabeled"))).softmax(1)
        return own, self._kept(own)

    def _plan(self, step: Step) -> Callable[[], list[StrongView]]:
        part = step.part("unlabeled")
        if part.strong is None:
            raise ValueError("the unlabeled part has no strong views; pass Part(images, strong=...)")
        if self.mix != "none" and (part.partners is None or part.partners_strong is None):
            raise ValueError(f"mix={self.mix!r} needs partners; pass Part(images, partners=..., partners_strong=...)")
        if self.names == "student":
            step.plan("unlabeled", part.images)
        own, other = self._predicted(step, part)
        step.shared((self, "own"), lambda: own)
        count = len(step.planned)
        views: list[tuple[str, Tensor | None]] = []
        for view in range(part.strong.shape[1]):
            inside, strong = self._inside(step, part, other, view), part.strong[:, view]
            if inside is not None and part.partners_strong is not None:
                strong = paste(strong, part.partners_strong[:, view], inside)
            name = f"unlabeled, strong {view} ({count})"  # objectives with other settings have other views
            step.plan(name, strong)
            views.append((name, inside))
        found: list[StrongView] = []

        def views_of() -> list[StrongView]:
            if not found:
                found.extend(self._views(step, part, other, views))
            return found

        return views_of

    def _views(
        self, step: Step, part: Part, other: Tensor | None, views: list[tuple[str, Tensor | None]]
    ) -> list[StrongView]:
        own, own_kept = self.named(step)
        other_kept = None if other is None else self._kept(other)
        found = []
        for name, inside in views:
            target, kept, valid = own, own_kept, part.valid
            if inside is not None and other is not None and other_kept is not None:
                target, kept = paste(own, other, inside), torch.where(inside > 0, other_kept, own_kept)
                valid = part.mixed_valid(inside)
            found.append(StrongView(name, target, kept, valid, inside))
        return found

    @torch.no_grad()
    def _predicted(self, step: Step, part: Part) -> tuple[Tensor | None, Tensor | None]:
        """Probabilities [b, C, H, W] of the weak images and of their partners, as far as they are known before encoding."""
        size = _size(part)
        partners = [] if part.partners is None or self.mix == "none" else [part.partners]
        if self.names == "teacher":
            logits = step.teacher(torch.cat([part.images, *partners]))
            own, *other = resize_logits(logits, size).softmax(1).split(len(part))
            return own, other[0] if other else None
        if not partners:
            return None, None
        return None, resize_logits(step.decode(step.encode(partners[0])), size).softmax(1)

    @torch.no_grad()
    def _inside(self, step: Step, part: Part, other: Tensor | None, view: int) -> Tensor | None:
        """Where the partner is pasted into a strong view, uint8 [b, H, W]; None if nowhere."""
        if other is None:
            return None
        random = step.random(f"mix {view}")
        if self.mix == "cutmix":
            box: dict[str, Any] = {"probability": self.probability, "area": self.area, "aspect": self.aspect}
            return draw_box(random, _size(part), device=part.images.device, **box)
        return draw_classes(random, other.argmax(1), probability=self.probability)

    def _kept(self, probabilities: Tensor) -> Tensor:
        """Which pixels are confident enough, bool [b, H, W]."""
        confidence, classes = probabilities.max(1)
        if isinstance(self.threshold, int | float):
            kept = confidence >= self.threshold
        else:
            kept = confidence >= table_of(self.threshold, confidence)[classes]
        if self.quantile < 1:
            kept &= confidence >= _quantiles(confidence, classes, probabilities.shape[1], self.quantile)
        return kept


def _size(part: Part) -> tuple[int, int]:
    return part.images.shape[2], part.images.shape[3]


def _quantiles(confidence: Tensor, classes: Tensor, count: int, share: float) -> Tensor:
    """For each pixel [b, H, W], the least confidence among the `share` most confident pixels of its class in its image."""
    flat, ids = confidence.flatten(1), classes.flatten(1)
    order = flat.sort(dim=1, descending=True, stable=True).indices
    ranked = ids.gather(1, order)
    ranks = F.one_hot(ranked, count).cumsum(1).gather(2, ranked[..., None])[..., 0]  # 1 for the most confident
    totals = F.one_hot(ids, count).sum(1)
    last = (share * totals).ceil().clamp(min=1)
    within = ranks <= last.gather(1, ranked)
    least = torch.full((len(flat), count), torch.inf, dtype=flat.dtype, device=flat.device)
    values = flat.gather(1, order).masked_fill(~within, torch.inf)
    return least.scatter_reduce(1, ranked, values, "amin").gather(1, ids).view_as(confidence)
