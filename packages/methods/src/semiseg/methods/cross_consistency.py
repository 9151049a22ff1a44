"""Cross-consistency training (CCT): Ouali, Hudelot, Tami, CVPR 2020."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from semiseg.methods.auxiliary import AuxiliaryBank, Comparison
from semiseg.methods.choices import check_choice
from semiseg.methods.losses import (
    DISTANCES,
    IGNORE,
    OVER,
    REDUCTIONS,
    checked,
    cross_entropy,
    distance,
    pairwise_variance,
    pixel_mean,
    resize_map,
    resize_valid,
)
from semiseg.methods.objective import Losses, Objective, Step
from semiseg.methods.perturbations import PRESETS, Perturbation, create_perturbation
from semiseg.methods.prediction import Prediction
from semiseg.methods.ramps import Ramp

# "CCT" in the paper's Tables 1 to 3: 30 auxiliary decoders.
PAPER_PERTURBATIONS = (
    ("context_mask", 2),
    ("object_mask", 2),
    ("vat", 2),
    ("feature_drop", 6),
    ("feature_noise", 6),
    ("dropout", 6),
    ("guided_cutout", 6),
)

EVALUATIONS = ("bank", "loop")

# A perturbation object, (name, count) or (name, count, options).
PerturbationSpec = Perturbation | tuple[str, int] | tuple[str, int, Mapping[str, Any]]


class CrossConsistency(Objective):
    """Makes auxiliary decoders on perturbed features agree with the main decoder, on unlabeled images (CCT Eq. 2).

    Trains the encoder and the auxiliary decoders, never the main decoder. At weight 0 it still runs, so that every
    parameter has a (zero) gradient.

    perturbations: objects, (name, count) or (name, count, options), expanded to `count` auxiliary decoders.
    channels: Cz of `features.deep`. classes, stride, decoder, last_relu: of the auxiliary decoders, as for the main one.
    foreground: class ids of objects, needed by context_mask, object_mask and guided_cutout. With "released", None means
    every class but 0, which in street scenes is road or sky.
    weight: lambda_u over time. distance, reduction, confidence, over: see `losses.distance`. Padded pixels never count.
    pairwise: the weight of the pair-wise term as a share of `weight`; 0 disables it. It uses at most `pairwise_max`
    auxiliary outputs, chosen by the step number. pairwise_reduction: over classes, None for that of the preset.
    weak: w_w over time (CCT Eq. 5), the weight of the cross entropy between every auxiliary decoder and the pseudo-labels,
    which are the masks of the step's weak part (Eq. 6), resized by nearest neighbour to the decoders' resolution. The
    authors' code has 0.4 on the ramp of `weight`. Weak images then also count as unlabeled ones, with equal weight: a
    step needs a weak part, and may have an unlabeled one. None ignores a weak part.
    kernel: 1, or 3 for auxiliary decoders that see a cell's neighbours, see `AuxiliaryBank`.
    evaluation: "bank" evaluates the decoders together (`AuxiliaryBank.compare`); "loop" one after the other, keeping
    everything for the backward pass: the same numbers up to rounding, but slower, with memory that grows with K. 3x3
    kernels always use the loop.

    | what                 | "paper"                                 | "released" (the authors' code)                 |
    |----------------------|-----------------------------------------|------------------------------------------------|
    | weight at progress 0 | exactly 0                               | value * exp(-5), 0.2021 of 30                  |
    | last_relu            | False                                   | True                                           |
    | feature_drop         | quantile, gamma U(0.6, 0.9), per sample | threshold, gamma U(0.7, 0.9), per batch        |
    | feature_noise        | drawn per sample                        | drawn per batch                                |
    | vat                  | xi 0.1, eps 2, no damping               | xi 1e-6, eps 2, damping 1e-8: numerically void |
    | foreground None      | an error                                | every class but 0                              |
    | pairwise_reduction   | that of the distance                    | sum: C times the mean                          |

    The same in both: mse, averaged over classes, no confidence mask, no pair-wise term; weight 30 over 10 % of
    training; dropout 0.5; noise 0.3; cutout with sides 0.4 of each component's box, drawn again for each decoder.
    "paper" takes the released value where the paper is silent. Not reproduced from the code: the reversed
    arguments of its JS, and its limit of 50 outline vertices on objects.

    Terms: "consistency"; "pairwise" and "weak" if enabled. Back-propagate "consistency" and "weak" as one sum, as in
    `Losses.total`: the bank computes their gradients together, and raises an error otherwise.
    Diagnostics: "consistency_unweighted", "consistency_weight", "target_confidence" (mean largest probability of the
    target) and "agreement" (share of pixels, over decoders, with the main decoder's most probable class); with `weak` also
    "weak_unweighted", "weak_weight" and "weak_coverage" (mean share of pixels with a pseudo-label).
    """

    def __init__(
        self,
        perturbations: Sequence[PerturbationSpec] = PAPER_PERTURBATIONS,
        *,
        channels: int,
        classes: int,
        stride: int = 8,
        foreground: Collection[int] | None = None,
        preset: str = "paper",
        distance: str = "mse",
        reduction: str = "mean",
        weight: Ramp | None = None,
        confidence: float | None = None,
        over: str = "kept",
        pairwise: float = 0.0,
        pairwise_max: int = 8,
        pairwise_reduction: str | None = None,
        weak: Ramp | None = None,
        decoder: str = "subpixel",
        last_relu: bool | None = None,
        kernel: int = 1,
        evaluation: str = "bank",
    ) -> None:
        super().__init__()
        check_choice("CrossConsistency(preset=...)", preset, PRESETS)
        check_choice("CrossConsistency(distance=...)", distance, DISTANCES)
        check_choice("CrossConsistency(reduction=...)", reduction, REDUCTIONS)
        check_choice("CrossConsistency(over=...)", over, OVER)
        if pairwise_reduction is not None:
            check_choice("CrossConsistency(pairwise_reduction=...)", pairwise_reduction, REDUCTIONS)
        check_choice("CrossConsistency(evaluation=...)", evaluation, EVALUATIONS)
        released = preset == "released"
        expanded = expand(perturbations, preset)
        if foreground is None:
            guided = sorted({perturbation.name for perturbation in expanded if perturbation.guided})
            if guided and not released:
                raise ValueError(
                    f"CrossConsistency: {', '.join(guided)} need foreground=..., the class ids of objects; "
                    f"if class 0 is background, pass foreground=range(1, {classes})"
                )
            foreground = range(1, classes) if released else ()
        self.weight = _of_preset(weight or Ramp(30.0, over=0.1), released)
        self.weak = None if weak is None else _of_preset(weak, released)
        self.needs = frozenset({"unlabeled" if weak is None else "weak"})
        self.foreground = frozenset(foreground)
        self.distance = distance
        self.reduction = reduction
        self.confidence = confidence
        self.over = over
        self.pairwise = pairwise
        self.pairwise_reduction = pairwise_reduction or ("sum" if released else reduction)
        self.pairwise_max = pairwise_max
        self.bank = AuxiliaryBank(
            expanded,
            channels,
            classes,
            stride=stride,
            decoder=decoder,
            last_relu=released if last_relu is None else last_relu,
            kernel=kernel,
        )
        self.evaluation = evaluation if kernel == 1 else "loop"

    def begin(self, step: Step) -> Callable[[], Losses]:
        for part in self._shares(step):
            step.plan(part, step.part(part).images)
        return lambda: self(step)

    def forward(self, step: Step) -> Losses:
        weight = self.weight(step.progress, step.step)
        losses = Losses()
        for name, share in self._shares(step).items():
            part = step.part(name)
            prediction = Prediction(step.logits(name), self.foreground)
            z = step.features(name).deep
            self._check_sizes(z, prediction)
            weights = weight * share * part.weights
            labels = self._labels(step) if name == "weak" else None
            size = (prediction.classes.shape[1], prediction.classes.shape[2])
            valid = resize_valid(part.valid, part.images, size)
            evaluate = self._by_loop if self.evaluation == "loop" else self._by_bank
            comparison = evaluate(z, prediction, step, name, weights, labels, valid)
            terms = {"consistency": comparison.consistency}
            if comparison.spread is not None:
                terms["pairwise"] = self.pairwise * comparison.spread
            _add(losses.terms, terms)
            per_image = {
                "consistency_unweighted": comparison.distances,
                "consistency_weight": torch.full_like(comparison.agreement, weight),
                "target_confidence": pixel_mean(prediction.probabilities.amax(1), valid=valid),
                "agreement": comparison.agreement,
            }
            _add(losses.diagnostics, {key: share * part.average(value) for key, value in per_image.items()})
            if labels is not None and comparison.weak is not None and comparison.entropies is not None:
                losses.terms["weak"] = comparison.weak
                of_weak = {
                    "weak_unweighted": comparison.entropies,
                    "weak_weight": torch.full_like(comparison.entropies, self._weak_weight(step)),
                    "weak_coverage": (labels != IGNORE).to(comparison.entropies).mean((1, 2)),
                }
                _add(losses.diagnostics, {key: part.average(value) for key, value in of_weak.items()})
        return losses

    def _shares(self, step: Step) -> dict[str, Tensor | float]:
        """The parts whose images count as unlabeled, and each part's share of those images over all ranks."""
        if self.weak is None:
            return {"unlabeled": 1.0}
        if "unlabeled" not in step.parts:
            return {"weak": 1.0}
        unlabeled, weak = (step.part(name).weights.mean() for name in ("unlabeled", "weak"))
        # an image's weight is proportional to 1 / the size of its part's global batch
        return {"unlabeled": weak / (unlabeled + weak), "weak": unlabeled / (unlabeled + weak)}

    def _weak_weight(self, step: Step) -> float:
        return 0.0 if self.weak is None else self.weak(step.progress, step.step)

    def _labels(self, step: Step) -> Tensor:
        """Pseudo-labels int64 [b, H, W] at the decoders' resolution."""
        masks, logits = step.part("weak").masks, step.logits("weak")
        if masks is None:
            raise ValueError(
                "the weak part has no masks: expected pseudo-labels as class ids [b, h, w]; pass Part(images, masks)"
            )
        masks, _ = checked(logits, masks)
        return resize_map(masks, (logits.shape[2], logits.shape[3]), fill=IGNORE)

    def _check_sizes(self, z: Tensor, prediction: Prediction) -> None:
        expected = [len(z), self.bank.classes, *(self.bank.stride * side for side in z.shape[2:])]
        if list(prediction.probabilities.shape) != expected:
            raise ValueError(
                f"main logits are {list(prediction.probabilities.shape)}, auxiliary ones {expected}; "
                "CrossConsistency(classes=..., stride=...) must fit the main decoder: its classes, its size over that of z"
            )

    def _by_bank(
        self,
        z: Tensor,
        prediction: Prediction,
        step: Step,
        name: str,
        weights: Tensor,
        labels: Tensor | None,
        valid: Tensor | None,
    ) -> Comparison:
        return self.bank.compare(
            z,
            prediction,
            lambda perturbation: step.random(perturbation, name),
            weights=weights,
            distance=self.distance,
            reduction=self.reduction,
            confidence=self.confidence,
            over=self.over,
            valid=valid,
            paired_reduction=self.pairwise_reduction,
            paired=self._paired(step.step),
            labels=labels,
            label_weights=None if labels is None else self._weak_weight(step) * step.part(name).weights,
        )

    def _by_loop(
        self,
        z: Tensor,
        prediction: Prediction,
        step: Step,
        name: str,
        weights: Tensor,
        labels: Tensor | None,
        valid: Tensor | None,
    ) -> Comparison:
        part, paired = step.part(name), self._paired(step.step)
        counted: dict[str, Any] = {"confidence": self.confidence, "over": self.over, "valid": valid}
        none = torch.zeros(len(part), device=z.device)
        distances, agreement, entropies, outputs = none, none, none, []
        for k, logits in enumerate(self.bank(z, prediction, lambda perturbation: step.random(perturbation, name))):
            distances = distances + distance(
                self.distance, prediction.probabilities, logits, reduction=self.reduction, **counted
            )
            if labels is not None:
                entropies = entropies + cross_entropy(logits, labels)
            agreement = agreement + pixel_mean((logits.detach().argmax(1) == prediction.classes).float(), valid=valid)
            if k in paired:
                outputs.append(logits)
        distances, entropies, agreement = (total / len(self.bank) for total in (distances, entropies, agreement))
        weak = None if labels is None else self._weak_weight(step) * part.average(entropies)
        spread = None
        if outputs:
            spread = (pairwise_variance(outputs, reduction=self.pairwise_reduction, valid=valid) * weights).sum()
        return Comparison(
            (distances * weights).sum(), spread, agreement, weak, distances.detach(),
            None if labels is None else entropies.detach(),
        )  # fmt: skip

    def _paired(self, step: int) -> frozenset[int]:
        """The decoders of the pair-wise term: chosen by the step number alone, so that all ranks choose the same."""
        if not self.pairwise:
            return frozenset()
        order = torch.randperm(len(self.bank), generator=torch.Generator().manual_seed(step))
        return frozenset(order[: self.pairwise_max].tolist())


def _of_preset(ramp: Ramp, released: bool) -> Ramp:
    return replace(ramp, from_zero=not released) if ramp.from_zero is None else ramp


def _add(sums: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    for name, value in more.items():
        sums[name] = sums[name] + value if name in sums else value


def expand(perturbations: Sequence[PerturbationSpec], preset: str) -> list[Perturbation]:
    expanded: list[Perturbation] = []
    for item in perturbations:
        if isinstance(item, tuple):
            name, count, *options = item
            if count < 1:
                raise ValueError(f"perturbation {name!r} with count {count}: expected at least 1, or leave it out")
            expanded += [create_perturbation(name, preset, **(options[0] if options else {}))] * count
        else:
            expanded.append(item)
    return expanded
