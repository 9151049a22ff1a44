"""Auxiliary decoders with a sure target: CCT's perturbations on strong views, and the confident classes of the weak view."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from semiseg.methods.auxiliary import AuxiliaryBank
from semiseg.methods.cross_consistency import PerturbationSpec, expand
from semiseg.methods.losses import IGNORE, resize_map, resize_valid, table_of
from semiseg.methods.objective import Losses, Objective, Part, Step
from semiseg.methods.prediction import Prediction
from semiseg.methods.ramps import Ramp
from semiseg.methods.strong import StrongView, StrongViews


class TaughtConsistency(Objective):
    """Makes auxiliary decoders on perturbed features of strong views learn the classes that the weak view shows confidently.

    CCT asks its auxiliary decoders to agree with the main decoder's soft prediction of the same view by the same weights, a
    target that they soon reach. Here the target is FixMatch's: the class that a teacher sees in the weak view where it is
    sure. The loss of an image is the cross entropy over these pixels, divided by all its valid pixels and averaged over
    decoders and strong views. It trains encoder and auxiliary decoders, never the main decoder; combine it with `FixMatch` of
    equal settings, which then shares images, labels and encoder passes.

    perturbations, channels, classes, stride, decoder, last_relu, foreground: as for `CrossConsistency`, preset "paper"; guided
    perturbations are guided by the main decoder's prediction of the strong view. weight: over time. weights: of the
    classes, see `losses.class_weights`. views: of `StrongViews`: names, threshold, quantile, mix and others.

    Labels are resized to the decoders' resolution by nearest neighbour. Term: "taught". Diagnostics: "taught_unweighted";
    "auxiliary_agreement", the share of valid pixels, over decoders, with the main decoder's most probable class.
    """

    needs = frozenset({"unlabeled"})

    def __init__(
        self,
        perturbations: Sequence[PerturbationSpec],
        *,
        channels: int,
        classes: int,
        stride: int = 8,
        foreground: Collection[int] = (),
        decoder: str = "subpixel",
        last_relu: bool = False,
        weight: Ramp | None = None,
        weights: Sequence[float] | None = None,
        views: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        expanded = expand(perturbations, "paper")
        if any(perturbation.guided for perturbation in expanded) and not foreground:
            raise ValueError(
                f"TaughtConsistency: guided perturbations need foreground=..., the class ids of objects; if class 0 is "
                f"background, pass foreground=range(1, {classes})"
            )
        self.strong = StrongViews(**(views or {}))
        self.weight = weight or Ramp(1.0, shape="constant")
        self.weights = weights
        self.foreground = frozenset(foreground)
        self.bank = AuxiliaryBank(expanded, channels, classes, stride=stride, decoder=decoder, last_relu=last_relu)

    def forward(self, step: Step) -> Losses:
        return self.begin(step)()

    def begin(self, step: Step) -> Callable[[], Losses]:
        views_of = self.strong.plan(step)
        return lambda: self._losses(step, step.part("unlabeled"), views_of())

    def _losses(self, step: Step, part: Part, views: Sequence[StrongView]) -> Losses:
        weight = self.weight(step.progress, step.step)
        total = torch.zeros((), device=part.images.device)
        entropies, agreement = (torch.zeros(len(part), device=part.images.device) for _ in range(2))
        for number, view in enumerate(views):
            prediction = Prediction(step.logits(view.name), self.foreground)
            size = (prediction.classes.shape[1], prediction.classes.shape[2])
            labels, valid = _labels(view, size), resize_valid(view.valid, part.images, size)
            shown = torch.full((len(part),), size[0] * size[1], device=labels.device)
            comparison = self.bank.compare(
                step.features(view.name).deep,
                prediction,
                lambda perturbation, number=number: step.random(f"{perturbation} {number}"),
                weights=torch.zeros_like(part.weights),  # no distance from the main prediction
                valid=valid,
                labels=labels,
                label_weights=weight / len(views) * part.weights,
                label_factors=None
                if self.weights is None
                else table_of(self.weights, prediction.probabilities)[labels],
                label_counts=shown if valid is None else valid.sum((1, 2)),
            )
            assert comparison.weak is not None and comparison.entropies is not None
            total = total + comparison.consistency + comparison.weak
            entropies = entropies + comparison.entropies / len(views)
            agreement = agreement + comparison.agreement / len(views)
        diagnostics = {
            "taught_unweighted": part.average(entropies),
            "auxiliary_agreement": part.average(agreement),
        }
        return Losses({"taught": total}, diagnostics)


def _labels(view: StrongView, size: tuple[int, int]) -> Tensor:
    """Confident classes int64 [b, *size] at the decoders' resolution, 255 elsewhere."""
    counted = view.kept if view.valid is None else view.kept & view.valid
    return resize_map(view.target.argmax(1).where(counted, IGNORE), size, fill=IGNORE)
