"""The objective against a plain loop over decoders in float64, with random numbers by channel that both draw."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from semiseg.methods import FixMatch, Part, Prediction, Ramp, Step, StrongViews, TaughtConsistency

CHANNELS, CLASSES, STRIDE = 8, 4, 4
OPTIONS: dict[str, Any] = {"channels": CHANNELS, "classes": CLASSES, "stride": STRIDE}
SEVEN = ["dropout", "feature_drop", "feature_noise", "guided_cutout", "vat", "context_mask", "object_mask"]


class Network(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = nn.Conv2d(3, CHANNELS, STRIDE, STRIDE)
        self.decoder = nn.Conv2d(CHANNELS, CLASSES, 1)
        self.double()
        for parameter in self.parameters():
            nn.init.normal_(parameter)
        self.passes = 0

    def encode(self, images: Tensor) -> Any:
        self.passes += 1
        return SimpleNamespace(deep=self.encoder(images).relu())

    def decode(self, features: Any) -> Tensor:
        return interpolate(self.decoder(features.deep), scale_factor=STRIDE, mode="bilinear", align_corners=False)


def make_step(student: Network, teacher: Network, *, views: int = 1, valid: bool = False) -> Step:
    random = torch.Generator().manual_seed(3)
    images = torch.rand(2, 3, 3, 16, 24, generator=random, dtype=torch.float64)
    strong = torch.rand(2, 3, views, 3, 16, 24, generator=random, dtype=torch.float64)
    shown = torch.rand(2, 3, 16, 24, generator=random) > 0.3
    masks = {"valid": shown[0], "partners_valid": shown[1]} if valid else {}
    part = Part(
        images[0],
        weights=torch.tensor([0.5, 0.2, 0.3]),
        partners=images[1],
        strong=strong[0],
        partners_strong=strong[1],
        **masks,
    )
    return Step(
        progress=0.5,
        step=3,
        parts={"unlabeled": part},
        encode=student.encode,
        decode=student.decode,
        teacher=lambda images: teacher.decode(teacher.encode(images)),
    )


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("valid", [False, True])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 3.0]])
@pytest.mark.parametrize("decoder", ["subpixel", "linear"])
def test_it_is_the_loop_over_decoders(views: int, valid: bool, weights: list[float] | None, decoder: str) -> None:
    student, teacher = Network(0), Network(1)
    strong: dict[str, Any] = {"threshold": 0.7, "probability": 0.7}
    method = TaughtConsistency(
        [(name, 2) for name in SEVEN],
        foreground=[1, 2],
        weight=Ramp(3, shape="constant"),
        weights=weights,
        views=strong,
        decoder=decoder,
        **OPTIONS,
    ).double()
    found = method(make_step(student, teacher, views=views, valid=valid))

    step = make_step(student, teacher, views=views, valid=valid)
    part = step.part("unlabeled")
    total = torch.zeros((), dtype=torch.float64)
    for number, view in enumerate(StrongViews(**strong).plan(step)()):
        z = step.features(view.name).deep
        prediction = Prediction(step.logits(view.name), [1, 2])
        outputs = list(method.bank(z, prediction, lambda name, number=number: step.random(f"{name} {number}")))
        confidence, classes = view.target.max(1)
        for i in range(3):
            shown = torch.ones(16, 24, dtype=torch.bool) if view.valid is None else view.valid[i]
            counted = shown & (confidence[i] >= 0.7)
            factors = torch.tensor(weights or [1.0] * 4, dtype=torch.float64)[classes[i]]
            for logits in outputs:
                losses = cross_entropy(logits[i : i + 1], classes[i : i + 1], reduction="none")[0] * factors
                total = total + part.weights[i] * losses[counted].sum() / shown.sum() / len(outputs) / views
    assert total.item() > 0
    torch.testing.assert_close(found.terms["taught"], 3 * total, rtol=1e-7, atol=0)
    torch.testing.assert_close(found.diagnostics["taught_unweighted"], total, rtol=1e-6, atol=0)
    mine = torch.autograd.grad(found.terms["taught"], [*student.encoder.parameters(), *method.parameters()])
    loop = torch.autograd.grad(3 * total, [*student.encoder.parameters(), *method.parameters()])
    for one, other in zip(mine, loop, strict=True):
        assert (one - other).norm() <= 1e-7 * other.norm() and other.norm() > 0


def test_it_shares_passes_with_fixmatch_and_never_trains_the_main_decoder() -> None:
    student, teacher = Network(0), Network(1)
    step = make_step(student, teacher)
    method = TaughtConsistency([("dropout", 2)], views={"threshold": 0.6}, **OPTIONS).double()
    finishes = [own.begin(step) for own in (FixMatch(threshold=0.6), method)]
    fixmatch, taught = (finish() for finish in finishes)
    assert student.passes == teacher.passes == 1
    taught.total.backward(retain_graph=True)
    assert student.decoder.weight.grad is None and student.encoder.weight.grad is not None
    assert all(own.grad is not None and own.grad.abs().sum() > 0 for own in method.parameters())
    fixmatch.total.backward()
    assert student.decoder.weight.grad is not None
    with pytest.raises(ValueError, match="guided perturbations need foreground"):
        TaughtConsistency([("object_mask", 1)], **OPTIONS)
