import math
from typing import Any

import numpy as np
import pytest
import torch

from semiseg.methods import (
    PERTURBATIONS,
    AuxiliaryBank,
    ChannelScale,
    ContextMask,
    Dropout,
    FeatureDrop,
    FeatureNoise,
    GuidedCutout,
    ObjectMask,
    Prediction,
    Scale,
    Shift,
    SpatialMask,
    Vat,
    create_perturbation,
)

B, C, H, W = 3, 8, 6, 7
CLASSES = 4


@pytest.fixture
def z() -> torch.Tensor:
    return torch.randn(B, C, H, W, generator=torch.Generator().manual_seed(0)).relu()


@pytest.fixture
def prediction() -> Prediction:
    """Smooth predictions, so that there are objects."""
    coarse = torch.randn(B, CLASSES, 4, 4, generator=torch.Generator().manual_seed(1))
    return Prediction(torch.nn.functional.interpolate(coarse, (2 * H, 2 * W), mode="bilinear"), [1, 2])


@pytest.fixture
def bank() -> AuxiliaryBank:
    torch.manual_seed(3)
    return AuxiliaryBank([Dropout()], C, CLASSES, stride=4)


def undecoded(z: torch.Tensor) -> torch.Tensor:
    raise AssertionError("only vat calls the decoder")


def test_operators_are_their_definitions(z):
    mask, scale = torch.rand(B, 1, H, W) > 0.5, torch.rand(B, C, 1, 1)
    noise, shift = torch.rand(B, C, H, W), torch.rand(B, C, H, W)
    masked, scaled, noisy, shifted = (
        operator.apply(z) for operator in (SpatialMask(mask), ChannelScale(scale), Scale(noise), Shift(shift))
    )
    for b, c, y, x in np.ndindex(B, C, H, W):
        value = z[b, c, y, x]
        assert masked[b, c, y, x] == (value if mask[b, 0, y, x] else 0)
        assert scaled[b, c, y, x] == value * scale[b, c, 0, 0]
        torch.testing.assert_close(noisy[b, c, y, x], value * (1 + noise[b, c, y, x]))
        assert shifted[b, c, y, x] == value + shift[b, c, y, x]


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_sample_s_perturbation_does_not_depend_on_the_batch(z, prediction, bank, generators, name):
    perturbation = create_perturbation(name)
    together = perturbation(z, prediction, generators(*range(B)), lambda z: bank.logits(0, z)).apply(z)
    assert not torch.equal(together, z)
    for i in range(B):
        alone = Prediction(prediction.probabilities[i : i + 1].log(), [1, 2])
        found = perturbation(z[i : i + 1], alone, generators(i), lambda z: bank.logits(0, z)).apply(z[i : i + 1])
        if name == "vat":  # the decoder's sums may be in another order
            torch.testing.assert_close(found[0], together[i], rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(found[0], together[i])


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_other_random_numbers_give_another_perturbation(z, prediction, bank, generators, name):
    perturbation = create_perturbation(name)
    first, second = (
        perturbation(z, prediction, generators(*seeds), lambda z: bank.logits(0, z)).apply(z)
        for seeds in ((0, 1, 2), (10, 11, 12))
    )
    assert torch.equal(first, second) == (name in ("context_mask", "object_mask"))


def test_dropout_zeroes_channels_and_keeps_the_mean(generators):
    z = torch.ones(2, 4000, 2, 2)
    found = Dropout(p=0.25)(z, Prediction(torch.zeros(2, 2, 2, 2)), generators(0, 1), undecoded).apply(z)
    values = found.flatten(2)
    assert (values == values[:, :, :1]).all()
    assert found.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    # 8000 draws: a standard deviation is 0.0048
    assert (found == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert not torch.equal(found[0], found[1])


def test_feature_noise_is_uniform_and_proportional(generators):
    z = torch.full((2, 50, 10, 10), 2.0)
    prediction = Prediction(torch.zeros(2, 2, 2, 2))
    operator = FeatureNoise()(z, prediction, generators(0, 1), undecoded)
    noise = operator.scale
    assert noise.abs().max() <= 0.3 and noise.abs().max() > 0.299
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.var().item() == pytest.approx(0.6**2 / 12, rel=0.05)
    torch.testing.assert_close(operator.apply(z), 2 + 2 * noise)
    assert not torch.equal(noise[0], noise[1])
    shared = FeatureNoise(share="batch")(z, prediction, generators(0, 1), undecoded)
    applied = shared.apply(z)
    assert torch.equal(applied[0], applied[1]) and torch.equal(shared.scale[0], noise[0])


def gammas(generators, low, high) -> list[float]:
    return [low + (high - low) * torch.rand(1, generator=g).item() for g in generators(*range(B))]


def test_feature_drop_drops_the_most_active_cells(z, prediction, generators):
    found = FeatureDrop()(z, prediction, generators(*range(B)), undecoded).mask
    drawn = gammas(generators, 0.6, 0.9)
    assert len(set(drawn)) == B
    for i in range(B):
        sums = sorted((-z[i, :, y, x].sum().item(), y, x) for y in range(H) for x in range(W))
        dropped = round((1 - drawn[i]) * H * W)
        assert 0.1 * H * W - 1 < dropped < 0.4 * H * W + 1
        expected = np.ones((H, W), dtype=bool)
        for _, y, x in sums[:dropped]:
            expected[y, x] = False
        np.testing.assert_array_equal(found[i, 0].numpy(), expected)


def test_feature_drop_drops_exactly_its_share_of_ties(generators):
    z = torch.ones(1, C, 10, 10)
    prediction = Prediction(torch.zeros(1, 2, 2, 2))
    for seed in range(20):
        gamma = 0.6 + 0.3 * torch.rand(1, generator=generators(seed)[0]).item()
        mask = FeatureDrop()(z, prediction, generators(seed), undecoded).mask.flatten()
        dropped = round((1 - gamma) * 100)
        assert torch.equal(mask, torch.arange(100) >= dropped)


@pytest.mark.parametrize("share", ["sample", "batch"])
def test_feature_drop_by_threshold_equals_the_loop(z, prediction, generators, share):
    found = FeatureDrop(mode="threshold", low=0.7, high=0.9, share=share)(
        z, prediction, generators(*range(B)), undecoded
    )
    drawn = gammas(generators, 0.7, 0.9)
    for i in range(B):
        means = z[i].mean(0)
        gamma = drawn[i if share == "sample" else 0]
        for y, x in np.ndindex(H, W):
            assert bool(found.mask[i, 0, y, x]) == (means[y, x].item() < gamma * means.max().item())


def test_masks_split_features_into_objects_and_context(z, prediction, generators):
    inside = ContextMask()(z, prediction, generators(*range(B)), undecoded).apply(z)
    outside = ObjectMask()(z, prediction, generators(*range(B)), undecoded).apply(z)
    assert torch.equal(inside + outside, z)
    for b, y, x in np.ndindex(B, H, W):  # the prediction has twice z's resolution
        foreground = prediction.classes[b, 2 * y, 2 * x] in (1, 2)
        assert torch.equal(inside[b, :, y, x], z[b, :, y, x] * foreground)


def test_without_foreground_the_context_mask_drops_everything(z, generators):
    empty = Prediction(torch.zeros(B, CLASSES, 2 * H, 2 * W), [1])
    drawn = generators(*range(B))
    assert (ContextMask()(z, empty, drawn, undecoded).apply(z) == 0).all()
    assert torch.equal(ObjectMask()(z, empty, drawn, undecoded).apply(z), z)
    assert torch.equal(GuidedCutout()(z, empty, drawn, undecoded).apply(z), z)


def rectangles(*boxes, height=40, width=50) -> Prediction:
    """One image per list of boxes, (top, bottom, left, right), of class 1."""
    logits = torch.zeros(len(boxes), 2, height, width)
    for i, image in enumerate(boxes):
        for top, bottom, left, right in image:
            logits[i, 1, top:bottom, left:right] = 1
    return Prediction(logits, [1])


def test_cutout_cuts_one_crop_in_each_box(generators):
    boxes = [[(2, 12, 5, 25), (20, 40, 30, 40)], [], [(0, 40, 0, 50)]]
    prediction, z = rectangles(*boxes), torch.ones(3, 2, 40, 50)
    for seeds in ((0, 1, 2), (3, 4, 5), (6, 7, 8)):
        cut = GuidedCutout()(z, prediction, generators(*seeds), undecoded).apply(z)[:, 0] == 0
        for i, image in enumerate(boxes):
            for top, bottom, left, right in image:
                y, x = cut[i, top:bottom, left:right].nonzero(as_tuple=True)
                assert y.max() - y.min() + 1 == 0.4 * (bottom - top) and x.max() - x.min() + 1 == 0.4 * (right - left)
                assert len(y) == 0.4 * (bottom - top) * 0.4 * (right - left)
                cut[i, top:bottom, left:right] = False
        assert not cut.any()  # nothing outside the boxes


def test_cutout_reaches_every_position_in_the_box(generators):
    prediction, z = rectangles([(4, 9, 10, 15)]), torch.ones(1, 1, 40, 50)
    starts = set()
    for seed in range(200):
        y, x = (GuidedCutout()(z, prediction, generators(seed), undecoded).mask[0, 0] == 0).nonzero(as_tuple=True)
        starts.add((int(y.min()), int(x.min())))
    assert starts == {(y, x) for y in range(4, 8) for x in range(10, 14)}  # 2 of 5 cells: four starts per axis


def test_cutout_skips_small_objects(generators):
    prediction, z = rectangles([(0, 3, 0, 3), (10, 20, 10, 20)]), torch.ones(1, 1, 40, 50)
    cut = GuidedCutout(smallest=10 / 2000)(z, prediction, generators(0), undecoded).mask[0, 0] == 0
    assert not cut[:5, :5].any() and cut[10:20, 10:20].sum() == 16
    assert (GuidedCutout(smallest=9 / 2000)(z, prediction, generators(0), undecoded).mask[0, 0] == 0)[:5, :5].sum() == 1


def test_cutout_cuts_at_least_one_cell(generators):
    prediction, z = rectangles([(3, 4, 7, 8)]), torch.ones(1, 1, 40, 50)
    assert (GuidedCutout(smallest=0)(z, prediction, generators(0), undecoded).mask[0, 0] == 0).nonzero().tolist() == [
        [3, 7]
    ]


def test_cutout_is_resized_to_the_features(generators):
    prediction = rectangles([(0, 40, 0, 50)])
    full = GuidedCutout()(torch.ones(1, 1, 40, 50), prediction, generators(0), undecoded).mask
    small = GuidedCutout()(torch.ones(1, 1, 20, 25), prediction, generators(0), undecoded).mask
    assert torch.equal(small, full[:, :, ::2, ::2])


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("xi", [1e-1, 1e-2])
def test_vat_finds_the_direction_of_a_float64_power_iteration(z, prediction, bank, generators, iterations, xi):
    # ||z|| = 70, and no cell is 0: at a kink of the decoder's ReLUs, a step of xi and the derivative differ.
    z = 5 * (z + 0.1)
    shift = Vat(xi=xi, eps=2.0, iterations=iterations)(
        z, prediction, generators(*range(B)), lambda z: bank.logits(0, z)
    ).shift
    weights = [w.detach()[0].double()[:, :, None, None] for w in bank.weights]

    def decode(features):
        x = torch.nn.functional.conv2d(features, weights[0])
        for i, weight in enumerate(weights[1:], 1):
            x = torch.nn.functional.conv2d(x, weight)
            x = x.relu() if i < len(weights) - 1 else x
            x = torch.nn.functional.pixel_shuffle(x, 2)
        return x

    for i, generator in enumerate(generators(*range(B))):
        features = z[i : i + 1].double()
        d = torch.randn(C, H, W, generator=generator)[None].double()
        p = decode(features).softmax(1)
        for _ in range(iterations):
            # The second derivative of KL at 0 is J^T (diag p - p p^T) J: a jvp, then a vjp.
            d = d / d.norm()
            moved = torch.autograd.functional.jvp(decode, features, d)[1]
            assert isinstance(moved, torch.Tensor)
            d = torch.autograd.functional.vjp(decode, features, p * (moved - (p * moved).sum(1, keepdim=True)))[1]
            assert isinstance(d, torch.Tensor)
        length = shift[i].double().norm()
        assert (d * shift[i]).sum() / (d.norm() * length) > 0.99
        assert length.item() == pytest.approx(2.0, rel=1e-4)


def test_vat_s_direction_changes_the_prediction_more_than_chance(z, prediction, bank, generators):
    def divergence(shift):
        clean, moved = bank.logits(0, z).log_softmax(1), bank.logits(0, z + shift).log_softmax(1)
        return (clean.exp() * (clean - moved)).sum().item()

    adversarial = Vat(eps=0.5)(z, prediction, generators(*range(B)), lambda z: bank.logits(0, z)).shift
    chance = torch.randn(B, C, H, W, generator=torch.Generator().manual_seed(5))
    chance *= 0.5 / chance.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    with torch.no_grad():
        assert divergence(adversarial) > 1.5 * divergence(chance)


def test_vat_s_length_as_a_share_of_the_features(z, prediction, bank, generators):
    shift = Vat(eps=0.1, relative=True)(z, prediction, generators(*range(B)), lambda z: bank.logits(0, z)).shift
    torch.testing.assert_close(shift.flatten(1).norm(dim=1), 0.1 * z.flatten(1).norm(dim=1), rtol=1e-4, atol=0)


def test_vat_without_a_gradient_shifts_nothing(z, prediction, generators):
    shift = Vat()(z, prediction, generators(*range(B)), lambda z: 0 * z).shift
    assert torch.equal(shift, torch.zeros_like(z))


def test_vat_normalises_gradients_whose_squares_underflow(z, prediction, generators):
    shift = Vat()(z, prediction, generators(*range(B)), lambda z: 1e-25 * z + (z - 1e-25 * z).detach()).shift
    torch.testing.assert_close(shift.flatten(1).norm(dim=1), torch.full((B,), 2.0), rtol=1e-4, atol=0)


def test_vat_as_released_is_void(z, prediction, bank, generators):
    released = create_perturbation("vat", "released")
    shift = released(z, prediction, generators(*range(B)), lambda z: bank.logits(0, z)).apply(z) - z
    assert shift.flatten(1).norm(dim=1).max() < 0.2  # eps is 2


def test_vat_leaves_no_gradients_and_no_graph(z, prediction, bank, generators):
    leaf = z.clone().requires_grad_()
    bank.zero_grad()
    with torch.no_grad():
        shift = Vat()(leaf, prediction, generators(*range(B)), lambda z: bank.logits(0, z)).shift
    assert shift.abs().sum() > 0 and not shift.requires_grad
    assert leaf.grad is None and all(p.grad is None for p in bank.parameters())


def test_vat_is_the_same_under_autocast(z, prediction, bank, generators):
    plain = Vat()(z, prediction, generators(*range(B)), lambda z: bank.logits(0, z)).shift
    convolution = torch.nn.Conv2d(C, CLASSES, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert convolution(z).dtype == torch.bfloat16
        assert torch.equal(Vat()(z, prediction, generators(*range(B)), lambda z: bank.logits(0, z)).shift, plain)
        seen = []
        Vat()(z, prediction, generators(*range(B)), lambda z: seen.append(convolution(z)) or convolution(z))
        assert {x.dtype for x in seen} == {torch.float32}


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_masks_and_noise_pass_gradients_to_the_features_alone(z, prediction, bank, generators, name):
    leaf = z.clone().requires_grad_()
    operator = create_perturbation(name)(leaf, prediction, generators(*range(B)), lambda z: bank.logits(0, z))
    operator.apply(leaf).sum().backward()
    held: dict[str, Any] = vars(operator)
    assert not any(value.requires_grad for value in held.values())
    slope = leaf.grad
    assert slope is not None and math.isfinite(slope.sum())
    if name not in ("vat", "feature_noise"):  # linear in z: the slope times z is the output
        torch.testing.assert_close(slope * z, operator.apply(z))


def test_presets_and_mistakes():
    assert create_perturbation("feature_drop") == FeatureDrop("quantile", 0.6, 0.9, "sample")
    assert create_perturbation("feature_drop", "released") == FeatureDrop("threshold", 0.7, 0.9, "batch")
    assert create_perturbation("feature_drop", "released", high=0.8) == FeatureDrop("threshold", 0.7, 0.8, "batch")
    assert create_perturbation("vat", "released") == Vat(xi=1e-6, eps=2.0, damping=1e-8)
    for mistake, hint in (
        (lambda: create_perturbation("droput"), "did you mean 'dropout'"),
        (lambda: create_perturbation("vat", epz=1), "option of perturbation 'vat'.*did you mean 'eps'"),
        (lambda: create_perturbation("vat", "papr"), "did you mean 'paper'"),
        (lambda: FeatureDrop(mode="quantiles"), "did you mean 'quantile'"),
        (lambda: FeatureNoise(share="btch"), "did you mean 'batch'"),
        (lambda: GuidedCutout(per="clas"), "did you mean 'class'"),
    ):
        with pytest.raises(ValueError, match=hint):
            mistake()
