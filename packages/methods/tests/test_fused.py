"""Decoders evaluated together against the plain loop: values, all gradients, precisions, memory."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from semiseg.methods import (
    AuxiliaryBank,
    ContextMask,
    Dropout,
    FeatureDrop,
    FeatureNoise,
    GuidedCutout,
    ObjectMask,
    Prediction,
    Vat,
    cross_entropy,
    distance,
    pairwise_variance,
    tails,
)

KINDS = [Dropout(), FeatureNoise(), Vat(), FeatureDrop(), GuidedCutout(), ContextMask(), ObjectMask()]
RELEASED = [FeatureDrop("threshold", 0.7, 0.9, "batch"), FeatureNoise(share="batch"), GuidedCutout(per="class")]
# In an order such that decoders that share a matrix product are not neighbours.
THIRTY = [FeatureNoise(), *KINDS[2:] * 5, *[FeatureNoise(), Dropout()] * 2]


def generators(count):
    return lambda name: [torch.Generator().manual_seed(1000 * s + sum(map(ord, name))) for s in range(count)]


class Problem:
    """A bank with parameters of typical size, features and a smooth main prediction."""

    def __init__(
        self, perturbations, classes, *, batch=3, size=(5, 7), channels=16, dtype=torch.float64, stride=8, **options
    ):
        torch.manual_seed(0)
        self.bank = AuxiliaryBank(perturbations, channels, classes, stride=stride, **options).to(dtype)
        for parameter in self.bank.parameters():
            nn.init.normal_(parameter, std=0.5 if parameter.ndim == 2 else parameter.shape[2] ** -0.5)
        self.z = torch.randn(batch, channels, *size, dtype=dtype).relu().requires_grad_()
        coarse = 3 * torch.randn(batch, classes, 3, 3, dtype=dtype)
        full_size = [stride * side for side in size]
        self.prediction = Prediction(nn.functional.interpolate(coarse, full_size, mode="bilinear"), range(1, classes))
        self.weights = torch.rand(batch, dtype=dtype)

    def loop(
        self,
        *,
        distance_="mse",
        reduction="mean",
        confidence=None,
        over="kept",
        valid=None,
        paired=(),
        paired_reduction=None,
    ):
        """Consistency, pair-wise term and agreement, by their definitions."""
        outputs = list(self.bank(self.z, self.prediction, generators(len(self.z))))
        target = self.prediction.probabilities.to(self.z.dtype)
        options = {"reduction": reduction, "confidence": confidence, "over": over, "valid": valid}
        distances = [distance(distance_, target, o, **options) for o in outputs]
        spread = None
        if paired:
            of_pairs = pairwise_variance(
                [outputs[k] for k in paired], reduction=paired_reduction or reduction, valid=valid
            )
            spread = (of_pairs * self.weights).sum()
        everywhere = torch.ones_like(self.prediction.classes, dtype=torch.bool) if valid is None else valid
        same = [[(o[i].argmax(0) == self.prediction.classes[i])[everywhere[i]] for i in range(len(o))] for o in outputs]
        agreement = torch.stack([torch.stack([image.to(target.dtype).mean() for image in own]) for own in same])
        return (torch.stack(distances).mean(0) * self.weights).sum(), spread, agreement.mean(0)

    def compare(self, *, distance_="mse", paired=(), **options):
        return self.bank.compare(
            self.z,
            self.prediction,
            generators(len(self.z)),
            weights=self.weights,
            distance=distance_,
            paired=frozenset(paired),
            **options,
        )

    def gradients(self, value):
        return torch.autograd.grad(value, [self.z, *self.bank.parameters()], retain_graph=True)

    def check(self, tolerance, **options):
        wanted, found = self.loop(**options), self.compare(**options)
        torch.testing.assert_close(found[2], wanted[2], rtol=0, atol=tolerance)
        for a, b in zip(found[:2], wanted[:2], strict=True):
            if a is None or b is None:
                assert a is b
                continue
            assert abs(a.item() - b.item()) <= tolerance * abs(b.item())
            for x, y in zip(self.gradients(a), self.gradients(b), strict=True):
                assert x.shape == y.shape and y.norm() > 0
                assert (x - y).norm() <= tolerance * y.norm()


def copies(module):
    return [parameter.grad.clone() for parameter in module.parameters()]


@pytest.mark.parametrize(
    ("perturbations", "classes", "batch", "size"),
    [
        *[([kind], 11, 3, (5, 7)) for kind in KINDS],
        ([Dropout()], 2, 1, (1, 9)),
        (RELEASED, 11, 3, (5, 4)),
        (KINDS[:6], 2, 3, (9, 5)),
        (KINDS[1:], 21, 1, (5, 3)),
        (THIRTY, 11, 3, (3, 5)),
        (THIRTY, 2, 1, (7, 5)),
        (THIRTY, 21, 3, (5, 2)),
    ],
)
def test_float64_equals_the_loop(perturbations, classes, batch, size):
    Problem(perturbations, classes, batch=batch, size=size).check(1e-10)


@pytest.mark.parametrize("decoder", ["subpixel", "linear"])
@pytest.mark.parametrize("kind", ["mse", "kl", "js"])
@pytest.mark.parametrize(("reduction", "confidence"), [("mean", None), ("sum", 0.6)])
def test_every_distance_equals_the_loop(decoder, kind, reduction, confidence):
    problem = Problem(KINDS, 4, decoder=decoder)
    problem.check(1e-10, distance_=kind, reduction=reduction, confidence=confidence, paired=(0, 2, 3, 6))


@pytest.mark.parametrize("kind", ["mse", "kl", "js"])
@pytest.mark.parametrize("over", ["kept", "valid"])
@pytest.mark.parametrize("confidence", [None, 0.6])
def test_padded_pixels_never_count(kind, over, confidence):
    problem = Problem(KINDS, 4)
    valid = torch.rand(problem.prediction.classes.shape) > 0.3
    valid[1, :17] = False
    options = {"distance_": kind, "confidence": confidence, "over": over, "valid": valid}
    problem.check(1e-10, **options, paired=(0, 2, 3, 6), paired_reduction="sum")
    before = problem.compare(**options)
    problem.prediction.probabilities = problem.prediction.probabilities.where(valid[:, None], 0.25)
    problem.prediction.classes = problem.prediction.classes.where(valid, 0)
    after = problem.compare(**options)
    torch.testing.assert_close(after.consistency, before.consistency, rtol=1e-12, atol=0)
    torch.testing.assert_close(after.agreement, before.agreement, rtol=1e-12, atol=0)


def with_labels(problem):
    """Labels, some of them missing, and all of the last image's; with separate weights."""
    classes, size = problem.bank.classes, problem.prediction.classes.shape
    labels = torch.randint(classes, size).masked_fill(torch.rand(size) < 0.4, 255)
    labels[-1] = 255
    return {"labels": labels, "label_weights": torch.rand(len(labels), dtype=problem.z.dtype)}


def both(problem, given, **options):
    """Consistency, weak loss and the complete comparison of one pass."""
    found = problem.compare(**options, **given)
    assert found.weak is not None and found.entropies is not None
    return found.consistency, found.weak, found


def check_labels(problem, tolerance, *, paired=(), distance_="mse", **options):
    """Both losses in one pass: values, values per image, gradients of the sum."""
    given = with_labels(problem)
    wanted, _, agreement = problem.loop(distance_=distance_, paired=paired, **options)
    outputs = problem.bank(problem.z, problem.prediction, generators(len(problem.z)))
    entropies = torch.stack([cross_entropy(logits, given["labels"]) for logits in outputs]).mean(0)
    weak = (entropies * given["label_weights"]).sum()
    consistency, cross, found = both(problem, given, distance_=distance_, paired=paired, **options)
    assert cross.item() == pytest.approx(weak.item(), rel=tolerance) and weak > 0
    assert consistency.item() == pytest.approx(wanted.item(), rel=tolerance)
    torch.testing.assert_close(found.entropies, entropies.detach(), rtol=tolerance, atol=0)
    torch.testing.assert_close((found.distances * problem.weights).sum(), wanted.detach(), rtol=tolerance, atol=0)
    torch.testing.assert_close(found.agreement, agreement, rtol=0, atol=tolerance)
    pairs = zip(problem.gradients(consistency + cross), problem.gradients(wanted + weak), strict=True)
    for x, y in pairs:
        assert y.norm() > 0 and (x - y).norm() <= tolerance * y.norm()
    return found


@pytest.mark.parametrize("decoder", ["subpixel", "linear"])
@pytest.mark.parametrize("kind", ["mse", "kl", "js"])
@pytest.mark.parametrize(("reduction", "confidence"), [("mean", None), ("sum", 0.6)])
def test_labels_in_the_same_pass_equal_the_loop(decoder, kind, reduction, confidence, monkeypatch):
    problem = Problem(KINDS, 4, decoder=decoder)
    options = {"distance_": kind, "reduction": reduction, "confidence": confidence}
    found = check_labels(problem, 1e-10, **options)
    assert found.entropies is not None and found.entropies[-1] == 0 and found.distances[-1] > 0
    monkeypatch.setattr(tails, "CPU_TILE", 4 * 64 * 4)  # many tiles, and also a spread
    found = check_labels(problem, 1e-10, **options, paired=(0, 2, 3))
    torch.testing.assert_close(found.spread, problem.loop(**options, paired=(0, 2, 3))[1], rtol=1e-10, atol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_labels_with_thirty_decoders(dtype, tolerance):
    check_labels(Problem(THIRTY, 21, batch=2, size=(5, 6), dtype=dtype, last_relu=True), tolerance)


def test_labels_without_gradients():
    problem = Problem(KINDS, 3)
    given = with_labels(problem)
    _, wanted, _ = both(problem, given)
    with torch.no_grad():
        _, found, more = both(problem, given)
    torch.testing.assert_close(found, wanted.detach())
    assert not found.requires_grad and not more.distances.requires_grad


def test_labels_on_certain_predictions_stay_finite():
    problem = Problem(KINDS[3:], 3)
    with torch.no_grad():
        problem.bank.weights[0].mul_(1e4)
    consistency, weak, _ = both(problem, with_labels(problem))
    assert weak.isfinite() and weak > 100
    assert all(gradient.isfinite().all() for gradient in problem.gradients(consistency + weak))


def test_two_losses_of_one_pass_must_be_back_propagated_as_their_sum():
    problem = Problem(KINDS, 3)
    consistency, weak, _ = both(problem, with_labels(problem))
    for apart in (weak, consistency, consistency + 2 * weak):
        with pytest.raises(RuntimeError, match=r"as their sum.*evaluation='loop'"):
            problem.gradients(apart)
    once = problem.gradients(consistency + weak)
    for a, b in zip(problem.gradients(3 * consistency + 3 * weak), once, strict=True):
        torch.testing.assert_close(a, 3 * b)


@pytest.mark.parametrize("stride", [2, 4, 16])
def test_every_stride_and_the_last_relu_equal_the_loop(stride):
    Problem(KINDS, 3, size=(3, 2), stride=stride, last_relu=True).check(1e-10, paired=(1, 2))


@pytest.mark.parametrize("decoder", ["subpixel", "linear"])
def test_the_size_of_tiles_changes_nothing(decoder, monkeypatch):
    """Many tiles per image, the last one narrower; and many decoders per tile, the last group smaller."""
    problem = Problem([*KINDS, *KINDS[3:6]], 3, decoder=decoder)
    for elements in (3 * 64 * 4, 3 * 64 * 35 * 4):
        monkeypatch.setattr(tails, "CPU_TILE", elements)
        problem.check(1e-10, paired=(0, 3, 4))


@pytest.mark.parametrize("classes", [2, 21])
def test_float32_gradients_equal_those_of_the_loop(classes):
    Problem(THIRTY, classes, batch=2, size=(9, 11), channels=64, dtype=torch.float32).check(1e-4)


def test_certain_predictions_and_targets_stay_finite():
    """Logits of several thousand: probabilities of exactly 0 and 1 on both sides."""
    problem = Problem(KINDS[3:], 3)
    with torch.no_grad():
        problem.bank.weights[0].mul_(1e4)
    problem.prediction = Prediction(1e4 * problem.prediction.probabilities, [1, 2])
    for kind in ("mse", "kl", "js"):
        value = problem.compare(distance_=kind)[0]
        assert value.isfinite()
        assert all(gradient.isfinite().all() for gradient in problem.gradients(value))
    problem.check(1e-9, distance_="kl")


def test_where_all_logits_tie_only_class_0_agrees():
    """Before the first update, all logits of a masked cell are 0."""
    problem = Problem([ContextMask(), ObjectMask()], 4)
    problem.bank.reset_parameters()
    torch.testing.assert_close(problem.compare()[2], problem.loop()[2])


def test_channels_last_features_give_the_same():
    problem = Problem(KINDS, 3)
    wanted = problem.compare()[0]
    expected = problem.gradients(wanted)
    problem.z = problem.z.detach().to(memory_format=torch.channels_last).requires_grad_()
    found = problem.compare()[0]
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    for a, b in zip(problem.gradients(found), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


def test_numerical_gradients():
    """Without Vat, whose shift depends on z and parameters but is treated as a constant; no cell is at a kink."""
    problem = Problem([Dropout(), FeatureNoise(), ContextMask()], 2, batch=2, size=(2, 2), channels=3, stride=2)
    leaves = [problem.z, *problem.bank.parameters()]

    def value(*_):
        return problem.compare(confidence=0.5)[0]

    assert torch.autograd.gradcheck(value, leaves, eps=1e-6, atol=1e-7)


def test_without_gradients_the_values_are_the_same():
    problem = Problem(KINDS, 3)
    wanted = problem.loop(paired=(0, 1))
    with torch.no_grad():
        found = problem.compare(paired=(0, 1))
    for a, b in zip(found[:3], wanted, strict=True):
        assert a is not None and b is not None and not a.requires_grad
        torch.testing.assert_close(a, b.detach(), rtol=1e-12, atol=1e-14)


def test_frozen_parameters_or_features_get_no_gradient():
    problem = Problem(KINDS, 3)
    wanted = problem.gradients(problem.loop()[0])
    problem.z = problem.z.detach()
    problem.compare()[0].backward()
    for parameter, gradient in zip(problem.bank.parameters(), wanted[1:], strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    problem.bank.zero_grad()
    problem.z.requires_grad_()
    problem.bank.requires_grad_(False)
    problem.compare()[0].backward()
    torch.testing.assert_close(problem.z.grad, wanted[0])
    assert all(parameter.grad is None for parameter in problem.bank.parameters())


class Squared:
    """A custom perturbation and operator."""

    name, guided = "squared", False

    def __call__(self, z, prediction, generators, decoder):
        return self

    def apply(self, z):
        return z.square()


def test_custom_operators_equal_the_loop():
    Problem([Squared(), Dropout(), Squared()], 3).check(1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_under_autocast_with_a_loss_scale_no_gradient_is_lost(dtype, tolerance):
    """z and its gradient are in half precision; the gradient is scaled before it is converted, so it does not underflow."""
    problem = Problem(KINDS, 21, batch=2, size=(9, 9), channels=32, dtype=torch.float32)
    half = problem.z.detach().to(dtype)
    problem.z = half.float().requires_grad_()
    exact = problem.gradients(30 * problem.loop()[0])
    problem.z = half.requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        value = 30 * problem.compare()[0]
    assert value.dtype == torch.float32
    found = problem.gradients(2.0**16 * value)
    assert found[0].dtype == dtype and all(g.dtype == torch.float32 for g in found[1:])
    for a, b in zip(found, exact, strict=True):
        a = a.double() / 2.0**16
        assert (a - b).norm() <= tolerance * b.norm()
        # Only gradients above 1e-4 of the largest are checked: fp16 holds five decades below it.
        checked = b.abs() > 1e-4 * b.abs().max()
        assert (a[checked] != 0).all()


def test_gradients_accumulate_over_parts_and_scale_like_any_loss():
    problem = Problem(KINDS, 3)
    value, spread, *_ = problem.compare(paired=(0, 1))
    assert spread is not None
    (3 * value + 0.5 * spread).backward()
    first = copies(problem.bank)
    (3 * problem.compare()[0]).backward()
    spread = problem.compare(paired=(0, 1))[1]
    assert spread is not None
    (0.5 * spread).backward()
    for twice, once in zip(copies(problem.bank), first, strict=True):
        torch.testing.assert_close(twice, 2 * once)


def test_a_compiled_encoder_gets_the_same_gradients():
    problem = Problem(KINDS, 3, dtype=torch.float32)
    encoder = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
    images = torch.randn(3, 3, 5, 7)

    def gradients():
        encoder.zero_grad()
        problem.z = encoder(images)
        problem.compare()[0].backward()
        return copies(encoder)

    expected = gradients()
    encoder.compile(backend="aot_eager")
    for a, b in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_3x3_kernels_need_the_loop():
    problem = Problem([ContextMask()], 3, kernel=3)
    with pytest.raises(ValueError, match="kernel=3"):
        problem.compare()


MEMORY = """
import pathlib, re, sys, torch
from semiseg.methods import *
count, size = int(sys.argv[1]), 24
kinds = [GuidedCutout(), ContextMask(), FeatureDrop(), Dropout(), FeatureNoise(), Vat()]
bank = AuxiliaryBank([kinds[k % 6] for k in range(count)], 512, 5)
z = torch.rand(4, 512, size, size, requires_grad=True)
prediction = Prediction(torch.randn(4, 5, 8 * size, 8 * size), range(1, 5))
random = lambda name: [torch.Generator().manual_seed(i) for i in range(4)]
status = pathlib.Path("/proc/self/status")
before = int(re.search(r"VmRSS:\\s+(\\d+)", status.read_text())[1])
if sys.argv[2] == "bank":
    value = bank.compare(z, prediction, random, weights=torch.ones(4))[0]
else:
    value = sum(distance("mse", prediction.probabilities, logits).sum() for logits in bank(z, prediction, random))
value.backward()
print(1024 * (int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) - before))
"""


def extra_memory(count: int, how: str) -> int:
    """Peak bytes of value and gradients above those before, in a separate process."""
    command = [sys.executable, "-c", MEMORY, str(count), how]
    # Return freed memory at once, so that glibc's caching is not measured.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_does_not_grow_with_the_number_of_decoders():
    """GuidedCutout comes first in the script, so objects, found once for all decoders, are in both measurements."""
    few, many, kept = extra_memory(6, "bank"), extra_memory(60, "bank"), extra_memory(6, "loop")
    assert many <= 1.1 * few < kept
