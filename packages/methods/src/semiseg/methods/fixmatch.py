"""FixMatch and UniMatch on pixels: the student learns, on strong views, what is confidently seen in the weak one."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from semiseg.methods.choices import check_choice
from semiseg.methods.cutmix import covered, draw_box, draw_classes, paste
from semiseg.methods.losses import pixel_mean, resize_logits, table_of
from semiseg.methods.objective import Losses, Objective, Part, Step
from semiseg.methods.ramps import Ramp

NAMES = ("teacher", "student")
MIXES = ("none", "cutmix", "classmix")


class FixMatch(Objective):
    """Cross entropy of the student on strong views, with the classes that the weak view shows confidently.

    The teacher (names="teacher": the step's moving average) or the student itself (names="student", as in FixMatch and
    UniMatch) predicts the weak view; where its largest probability reaches `threshold`, its class is the label of the same
    pixel in every strong view. The loss of an image is the sum over these pixels, divided by all its valid pixels, averaged
    over strong views: it grows with the share of confident pixels (Sohn et al. 2020; on pixels: Yang et al. 2023).

    weight: over time. threshold: in 0..1, or one for each class. quantile: in each image, also keep only this share of the
    pixels of each predicted class, the most confident ones; 1 keeps all. hard: learn the class; False: the probabilities.
    weights: of the classes, see `losses.class_weights`.
    mix: paste a part of the partner into each strong view, and its labels with it: "cutmix" a box, "classmix" the pixels of
    half of the classes that are predicted for the partner (Olsson et al. 2021). probability: of mixing an image; area: range
    of a box's share of the image; aspect: its height over its width lies in 1/aspect .. aspect.
    feature_drop: probability of dropping a channel of the weak view's z; the student must predict the same classes from what
    is left. 0: no such stream. feature_share: the share of this stream in the loss (UniMatch: 0.5).
    complementary: two strong views see complementary halves of the channels of z, doubled; half of the images see all of
    them (UniMatch V2).

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
        names: str = "teacher",
        threshold: float | Sequence[float] = 0.95,
        quantile: float = 1.0,
        hard: bool = True,
        weights: Sequence[float] | None = None,
        mix: str = "cutmix",
        probability: float = 0.5,
        area: tuple[float, float] = (0.02, 0.4),
        aspect: float = 10 / 3,
        feature_drop: float = 0.0,
        feature_share: float = 0.5,
        complementary: bool = False,
    ) -> None:
        super().__init__()
        check_choice("FixMatch(names=...)", names, NAMES)
        check_choice("FixMatch(mix=...)", mix, MIXES)
        thresholds = [threshold] if isinstance(threshold, int | float) else list(threshold)
        if not all(0 <= value <= 1 for value in thresholds) or not 0 < quantile <= 1:
            raise ValueError(f"FixMatch(threshold={threshold}, quantile={quantile}): expected numbers in 0..1")
        if not 0 <= feature_drop < 1 or not 0 <= feature_share <= 1:
            raise ValueError(
                f"FixMatch(feature_drop={feature_drop}, feature_share={feature_share}): expected a probability below 1 "
                "and a share in 0..1"
            )
        self.weight = weight or Ramp(1.0, shape="constant")
        self.names = names
        self.threshold = threshold
        self.quantile = quantile
        self.hard = hard
        self.weights = weights
        self.mix = mix
        self.boxes: dict[str, Any] = {"probability": probability, "area": area, "aspect": aspect}
        self.feature_drop = feature_drop
        self.feature_share = feature_share if feature_drop else 0.0
        self.complementary = complementary

    def forward(self, step: Step) -> Losses:
        return self.begin(step)()

    def begin(self, step: Step) -> Callable[[], Losses]:
        part = step.part("unlabeled")
        if part.strong is None:
            raise ValueError("the unlabeled part has no strong views; pass Part(images, strong=...)")
        if self.complementary and part.strong.shape[1] != 2:
            raise ValueError(f"FixMatch(complementary=True) needs two strong views, found {part.strong.shape[1]}")
        if self.mix != "none" and (part.partners is None or part.partners_strong is None):
            raise ValueError(
                f"FixMatch(mix={self.mix!r}) needs partners; pass Part(images, partners=..., partners_strong=...)"
            )
        if self.names == "student" or self.feature_drop:
            step.plan("unlabeled", part.images)
        own, other = self._predicted(step, part)
        mixes = []
        for view in range(part.strong.shape[1]):
            inside = self._inside(step, part, other, view)
            mixes.append(inside)
            strong = part.strong[:, view]
            if inside is not None and part.partners_strong is not None:
                strong = paste(strong, part.partners_strong[:, view], inside)
            step.plan(_name(view), strong)
        return lambda: self._losses(step, part, own, other, mixes)

    @torch.no_grad()
    def _predicted(self, step: Step, part: Part) -> tuple[Tensor | None, Tensor | None]:
        """Probabilities [b, C, H, W] of the weak images and of their partners, as far as they are known before encoding."""
        size = (part.images.shape[2], part.images.shape[3])
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
        size = (part.images.shape[2], part.images.shape[3])
        random = step.random(f"mix {view}")
        if self.mix == "cutmix":
            return draw_box(random, size, device=part.images.device, **self.boxes)
        return draw_classes(random, other.argmax(1), probability=self.boxes["probability"])

    def _losses(
        self, step: Step, part: Part, own: Tensor | None, other: Tensor | None, mixes: Sequence[Tensor | None]
    ) -> Losses:
        weight = self.weight(step.progress, step.step)
        if own is None:  # named by the student, in the same pass as all else
            size = (part.images.shape[2], part.images.shape[3])
            own = resize_logits(step.logits("unlabeled").detach(), size).softmax(1)
        own_kept, other_kept = self._kept(own), None if other is None else self._kept(other)
        total = torch.zeros(len(part), device=own.device)
        kept_share, agreement = torch.zeros_like(total), torch.zeros_like(total)
        halves = self._halves(step, part) if self.complementary else None
        for view, inside in enumerate(mixes):
            target, kept, valid = own, own_kept, part.valid
            if inside is not None and other is not None and other_kept is not None:
                target, kept = paste(own, other, inside), torch.where(inside > 0, other_kept, own_kept)
                valid = _mixed(part.valid, part.partners_valid, inside)
            logits = step.logits(_name(view)) if halves is None else _masked(step, _name(view), halves[view])
            logits = resize_logits(logits, (own.shape[2], own.shape[3]))
            total = total + self._loss(logits, target, kept, valid) / len(mixes)
            counted = kept if valid is None else kept & valid
            kept_share += pixel_mean(counted.to(total), valid=valid) / len(mixes)
            same = logits.detach().argmax(1) == target.argmax(1)
            agreement += pixel_mean(same.to(total), kept=counted) / len(mixes)
        if self.feature_drop:
            dropped = resize_logits(_masked(step, "unlabeled", self._drop(step, part)), (own.shape[2], own.shape[3]))
            of_features = self._loss(dropped, own, own_kept, part.valid)
            total = (1 - self.feature_share) * total + self.feature_share * of_features
        loss = part.average(total)
        diagnostics = {
            "fixmatch_unweighted": loss.detach(),
            "kept": part.average(kept_share),
            "agreement": part.average(agreement),
            "teacher_confidence": part.average(pixel_mean(own.amax(1), valid=part.valid)),
        }
        if mixes[0] is not None:
            diagnostics["covered"] = part.average(covered(mixes[0]))
        return Losses({"fixmatch": weight * loss}, diagnostics)

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

    def _drop(self, step: Step, part: Part) -> Tensor:
        """A mask of channels [b, Cz, 1, 1] for the stream of dropped features: 0, or 1 over the share that stays."""
        z = step.features("unlabeled").deep
        uniform = _uniform(step.random("feature drop"), z.shape[1]).to(z.device)
        return (uniform >= self.feature_drop).to(z)[:, :, None, None] / (1 - self.feature_drop)

    def _halves(self, step: Step, part: Part) -> tuple[Tensor, Tensor]:
        """Complementary masks of channels [b, Cz, 1, 1] with values 0 and 2; all 1 for half of the images."""
        z = step.features(_name(0)).deep
        uniform = _uniform(step.random("channels"), z.shape[1] + 1).to(z.device)
        masked = uniform[:, :1] < 0.5
        first = torch.where(masked, 2.0 * (uniform[:, 1:] < 0.5), 1.0).to(z)[:, :, None, None]
        return first, torch.where(masked[:, :, None, None], 2 - first, 1.0)


def _name(view: int) -> str:
    return f"unlabeled, strong {view}"


def _masked(step: Step, name: str, mask: Tensor) -> Tensor:
    """The main decoder's logits of planned images from z times a mask."""
    features = step.features(name)
    masked = copy.copy(features)
    masked.deep = features.deep * mask  # pyright: ignore[reportAttributeAccessIssue]  # a copy of whatever encode returned
    return step.decode(masked)


def _mixed(own: Tensor | None, other: Tensor | None, inside: Tensor) -> Tensor | None:
    if own is None and other is None:
        return None
    everywhere = torch.ones_like(inside, dtype=torch.bool)
    return torch.where(inside > 0, everywhere if other is None else other, everywhere if own is None else own)


def _uniform(random: Sequence[Generator], count: int) -> Tensor:
    return torch.stack([torch.rand(count, generator=generator, device=generator.device) for generator in random])


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
