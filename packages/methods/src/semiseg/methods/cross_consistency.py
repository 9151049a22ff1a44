"""Cross-consistency training: Ouali, Hudelot, Tami, CVPR 2020."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from semiseg.methods.auxiliary import AuxiliaryBank
from semiseg.methods.choices import check_choice
from semiseg.methods.losses import DISTANCES, REDUCTIONS, distance, pairwise_variance
from semiseg.methods.objective import Losses, Objective, Part, Step
from semiseg.methods.perturb import PRESETS, Perturbation, create_perturbation
from semiseg.methods.ramps import Ramp
from semiseg.methods.view import View

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

    Trains the encoder and the auxiliary decoders, never the main decoder. At weight 0 the pass still runs, so every
    parameter has a (zero) gradient.

    perturbations: objects, (name, count) or (name, count, options), expanded to one auxiliary decoder each.
    channels: Cz of `features.deep`. classes, stride, decoder, last_relu: of the auxiliary decoders; as the main one's.
    foreground: class ids of objects, needed by context_mask, object_mask and guided_cutout. None means, under
    "released" alone, every class but 0, which on street scenes would be road or sky.
    weight: lambda_u over time. distance, reduction, confidence: see `losses.distance`.
    pairwise: the pair-wise term's weight as a share of `weight`; 0 is off. It takes at most `pairwise_max` auxiliary
    outputs, chosen by the step's number.
    kernel: 1, or 3 for auxiliary decoders that see a cell's neighbours, see `AuxiliaryBank`.
    evaluation: "bank" evaluates the decoders together (`AuxiliaryBank.compare`), "loop" one after the other, keeping
    everything for the backward pass: the same numbers up to rounding, slower and with memory that grows with K. Kernels
    of 3x3 always take the loop.

    | what                 | "paper"                              | "released" (the authors' code)                  |
    |----------------------|--------------------------------------|-------------------------------------------------|
    | weight at progress 0 | exactly 0                            | value * exp(-5), 0.2021 of 30                   |
    | last_relu            | False                                | True                                            |
    | feature_drop         | quantile, gamma U(0.6, 0.9) a sample | threshold, gamma U(0.7, 0.9), one draw a batch  |
    | feature_noise        | a draw for each sample               | one draw a batch                                |
    | vat                  | xi 0.1, eps 2, no damping            | xi 1e-6, eps 2, damping 1e-8: numerically void  |
    | foreground None      | an error                             | every class but 0                               |

    The same in both: mse, averaged over classes, no confidence mask, no pair-wise term; weight 30 over 10 % of
    training; dropout 0.5; noise 0.3; cutout with sides 0.4 of each component's box, drawn anew for each decoder.
    "paper" takes the released value where the paper is silent. Not reproduced from the code: the reversed
    arguments of its JS, and its limit of 50 outline vertices on objects.

    Terms: "consistency", and "pairwise" where asked for. Diagnostics: "consistency_unweighted", "consistency_weight",
    "target_confidence" (mean largest probability of the target) and "agreement" (share of pixels, over decoders, where
    the auxiliary class is the main one's).
    """

    needs = frozenset({"unlabeled"})

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
        pairwise: float = 0.0,
        pairwise_max: int = 8,
        decoder: str = "subpixel",
        last_relu: bool | None = None,
        kernel: int = 1,
        evaluation: str = "bank",
    ) -> None:
        super().__init__()
        check_choice("CrossConsistency(preset=...)", preset, PRESETS)
        check_choice("CrossConsistency(distance=...)", distance, DISTANCES)
        check_choice("CrossConsistency(reduction=...)", reduction, REDUCTIONS)
        check_choice("CrossConsistency(evaluation=...)", evaluation, EVALUATIONS)
        released = preset == "released"
        expanded = _expand(perturbations, preset)
        if foreground is None:
            guided = sorted({perturbation.name for perturbation in expanded if perturbation.guided})
            if guided and not released:
                raise ValueError(
                    f"CrossConsistency: {', '.join(guided)} need foreground=..., the class ids of objects; "
                    f"for a data set whose class 0 is background: foreground=range(1, {classes})"
                )
            foreground = range(1, classes) if released else ()
        weight = weight or Ramp(30.0, over=0.1)
        self.weight = replace(weight, from_zero=not released) if weight.from_zero is None else weight
        self.foreground = frozenset(foreground)
        self.distance = distance
        self.reduction = reduction
        self.confidence = confidence
        self.pairwise = pairwise
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

    def forward(self, step: Step) -> Losses:
        part = step.part("unlabeled")
        z = step.features("unlabeled").deep
        view = View(step.logits("unlabeled"), self.foreground)
        expected = [len(z), self.bank.classes, *(self.bank.stride * side for side in z.shape[2:])]
        if list(view.probabilities.shape) != expected:
            raise ValueError(
                f"main logits are {list(view.probabilities.shape)}, auxiliary ones {expected}; "
                "CrossConsistency(classes=..., stride=...) must fit the main decoder's output against z"
            )
        evaluate = self._by_loop if self.evaluation == "loop" else self._by_bank
        value, spread, agreement = evaluate(z, view, step, part)
        weight = self.weight(step.progress, step.step)
        terms = {"consistency": weight * value}
        if spread is not None:
            terms["pairwise"] = self.pairwise * weight * spread
        return Losses(
            terms,
            {
                "consistency_unweighted": value.detach(),
                "consistency_weight": part.average(torch.full_like(agreement, weight)),
                "target_confidence": part.average(view.probabilities.amax(1).mean((1, 2))),
                "agreement": part.average(agreement),
            },
        )

    def _by_bank(self, z: Tensor, view: View, step: Step, part: Part) -> tuple[Tensor, Tensor | None, Tensor]:
        return self.bank.compare(
            z,
            view,
            lambda name: step.random(name, "unlabeled"),
            weights=part.weights,
            distance=self.distance,
            reduction=self.reduction,
            confidence=self.confidence,
            paired=self._paired(step.step),
        )

    def _by_loop(self, z: Tensor, view: View, step: Step, part: Part) -> tuple[Tensor, Tensor | None, Tensor]:
        paired = self._paired(step.step)
        consistency = torch.zeros(len(part), device=z.device)
        agreement = torch.zeros(len(part), device=z.device)
        outputs = []
        for k, logits in enumerate(self.bank(z, view, lambda name: step.random(name, "unlabeled"))):
            consistency = consistency + distance(
                self.distance, view.probabilities, logits, reduction=self.reduction, confidence=self.confidence
            )
            agreement += (logits.detach().argmax(1) == view.classes).float().mean((1, 2))
            if k in paired:
                outputs.append(logits)
        spread = part.average(pairwise_variance(outputs, reduction=self.reduction)) if outputs else None
        return part.average(consistency / len(self.bank)), spread, agreement / len(self.bank)

    def _paired(self, step: int) -> frozenset[int]:
        """The decoders of the pair-wise term: chosen by the step alone, so that all ranks take the same."""
        if not self.pairwise:
            return frozenset()
        order = torch.randperm(len(self.bank), generator=torch.Generator().manual_seed(step))
        return frozenset(order[: self.pairwise_max].tolist())


def _expand(perturbations: Sequence[PerturbationSpec], preset: str) -> list[Perturbation]:
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
