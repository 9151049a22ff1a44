import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy
from torch.nn.functional import interpolate

from semiseg.methods import (
    bootstrapped_cross_entropy,
    bootstrapping_threshold,
    class_weights,
    cross_entropy,
    dice,
    dice_cross_entropy,
    distance,
    hard_cross_entropy,
    pairwise_variance,
)
from semiseg.methods.losses import resize_logits, resize_map, resize_valid

B, C, H, W = 3, 5, 4, 6


@pytest.fixture
def logits() -> torch.Tensor:
    return 2 * torch.randn(B, C, H, W, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def masks() -> torch.Tensor:
    masks = torch.randint(0, C, (B, H, W), generator=torch.Generator().manual_seed(1))
    masks[0, 1:3] = 255
    masks[1, 0, 0] = 255
    return masks


def true_probabilities(logits, masks) -> list[list[float]]:
    """Probabilities of the true class at the valid pixels of each image, by loops."""
    images = []
    for image, mask in zip(logits.numpy(), masks.numpy(), strict=True):
        probabilities = []
        for y in range(H):
            for x in range(W):
                if mask[y, x] != 255:
                    exponents = np.exp(image[:, y, x])
                    probabilities.append(exponents[mask[y, x]] / exponents.sum())
        images.append(probabilities)
    return images


def test_cross_entropy_equals_the_double_loop(logits, masks):
    expected = [np.mean([-math.log(p) for p in image]) for image in true_probabilities(logits, masks)]
    np.testing.assert_allclose(cross_entropy(logits, masks), expected, rtol=1e-12)
    np.testing.assert_allclose(cross_entropy(logits.float(), masks.to(torch.uint8)), expected, rtol=1e-5)


def test_cross_entropy_over_the_batch_is_torch_s_mean(logits, masks):
    masks = masks.clone()
    masks[0, 1:] = 255  # images of unequal weight
    found = cross_entropy(logits, masks, pool="batch").mean()
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(logits, masks.long(), ignore_index=255))
    assert abs(found - cross_entropy(logits, masks).mean()) > 1e-3
    assert not cross_entropy(logits, torch.full_like(masks, 255), pool="batch").any()


def test_logits_are_resized_to_the_masks(logits):
    masks = torch.randint(0, C, (B, 2 * H + 1, W + 3), generator=torch.Generator().manual_seed(2))
    resized = interpolate(logits, size=masks.shape[1:], mode="bilinear", align_corners=True)
    assert torch.equal(cross_entropy(logits, masks), cross_entropy(resized, masks))


@pytest.mark.parametrize("pool", ["image", "batch"])
@pytest.mark.parametrize("empty", [(1,), (0, 1, 2)])
def test_an_ignored_image_gives_zero_and_no_gradient(logits, masks, pool, empty):
    masks[list(empty)] = 255
    for loss in (cross_entropy, lambda a, b: bootstrapped_cross_entropy(a, b, 0.1, pool=pool)):
        leaf = logits.clone().requires_grad_()
        per_image = loss(leaf, masks)
        per_image.sum().backward()
        assert leaf.grad is not None and leaf.grad.isfinite().all()
        for i in range(B):
            assert (per_image[i] == 0) == (i in empty)
            assert (leaf.grad[i].abs().sum() == 0) == (i in empty)


def test_ignored_pixels_get_no_gradient(logits, masks):
    leaf = logits.requires_grad_()
    cross_entropy(leaf, masks).sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad.abs().sum(1) == 0, masks == 255)


def test_unknown_class_ids_raise(logits, masks):
    masks[0, 0, 0] = 7
    with pytest.raises(ValueError, match=r"class id 7; expected 0\.\.4"):
        cross_entropy(logits, masks)


def test_masks_that_do_not_fit_raise(logits, masks):
    with pytest.raises(ValueError, match="expected"):
        cross_entropy(logits, masks[:2])


@pytest.mark.parametrize(
    ("epoch", "eta"), [(0, 0.048), (1, 0.171), (4, 0.444), (8, 0.656), (16, 0.830), (32, 0.894), (80, 0.894)]
)
def test_bootstrapping_threshold_equals_the_published_values(epoch, eta):
    assert bootstrapping_threshold(epoch / 80, 21) == pytest.approx(eta, abs=5e-4)


def test_bootstrapping_threshold_without_a_ramp_is_constant():
    assert bootstrapping_threshold(0.0, 21, until=0) == pytest.approx(0.894, abs=5e-4)


@pytest.mark.parametrize("over", ["kept", "valid"])
@pytest.mark.parametrize("progress", [0.0, 0.02, 0.1, 1.0])
@pytest.mark.parametrize("minimum", [0, 1, 4, 1000])
def test_bootstrapping_within_images_equals_the_loop(logits, masks, over, progress, minimum):
    eta = bootstrapping_threshold(progress, C)
    expected = []
    for probabilities in true_probabilities(logits, masks):
        ranked = sorted(probabilities)
        kept = [p for i, p in enumerate(ranked) if p < eta or i < minimum]
        divisor = len(kept) if over == "kept" else len(ranked)
        expected.append(sum(-math.log(p) for p in kept) / max(1, divisor))
    found = bootstrapped_cross_entropy(logits, masks, progress, minimum=minimum, over=over)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("over", ["kept", "valid"])
@pytest.mark.parametrize("progress", [0.0, 0.02, 0.1])
def test_bootstrapping_over_the_batch_is_the_authors_form(logits, masks, over, progress):
    probabilities = np.sort(np.concatenate(true_probabilities(logits, masks)))
    threshold = max(bootstrapping_threshold(progress, C), probabilities[B])  # the (B+1)-th smallest
    kept = probabilities[probabilities < threshold]
    expected = -np.log(kept).sum() / (len(kept) if over == "kept" else len(probabilities))
    found = bootstrapped_cross_entropy(logits, masks, progress, over=over, pool="batch")
    assert found.mean().item() == pytest.approx(expected, rel=1e-12)


def test_bootstrapping_a_flat_prediction_keeps_every_tie():
    masks = torch.zeros(1, H, W, dtype=torch.long)
    logits = torch.zeros(1, C, H, W)
    logits[:, 0] = 9  # every pixel is predicted equally well
    for pool in ("image", "batch"):
        found = bootstrapped_cross_entropy(logits, masks, 0.0, pool=pool)
        torch.testing.assert_close(found, cross_entropy(logits, masks))


@pytest.mark.parametrize(("threshold", "least"), [(0.7, 0.0), (0.3, 0.25), (0.05, 0.5), (1.0, 0.0)])
def test_hard_pixels_are_those_below_the_threshold_or_the_least_probable(logits, masks, threshold, least):
    expected = []
    for probabilities in true_probabilities(logits, masks):
        losses = sorted((-math.log(p) for p in probabilities), reverse=True)
        below = sum(loss >= -math.log(threshold) for loss in losses)
        kept = losses[: max(below, math.ceil(least * len(losses)), 1)]
        expected.append(np.mean(kept))
    found = hard_cross_entropy(logits, masks, threshold=threshold, least=least)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert hard_cross_entropy(logits, torch.full_like(masks, 255)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("confidence", [None, 0.5])
@pytest.mark.parametrize("kind", ["mse", "kl", "js"])
def test_distances_equal_scipy_s_in_a_double_loop(logits, kind, reduction, confidence):
    target = (3 * logits.roll(1, 0)).softmax(1)
    target[0, :, 0, 0] = torch.tensor([1.0, 0, 0, 0, 0])
    p, q = target.numpy(), logits.softmax(1).numpy()
    expected = []
    for i in range(B):
        pixels = []
        for y in range(H):
            for x in range(W):
                a, b = p[i, :, y, x], q[i, :, y, x]
                if confidence is None or a.max() > confidence:
                    value = {"mse": ((a - b) ** 2).sum(), "kl": entropy(a, b), "js": jensenshannon(a, b) ** 2}[kind]
                    pixels.append(value / (C if reduction == "mean" else 1))
        expected.append(np.mean(pixels))
    found = distance(kind, target, logits, reduction=reduction, confidence=confidence)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    found = distance(kind, target.float(), logits.float(), reduction=reduction, confidence=confidence)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["mse", "kl", "js"])
def test_distance_gradients_equal_finite_differences(logits, kind):
    target = logits.roll(1, 0).softmax(1)[:, :, :2, :2]
    leaf = logits[:, :, :2, :2].clone().requires_grad_()
    torch.autograd.gradcheck(lambda x: distance(kind, target, x), leaf)


@pytest.mark.parametrize("kind", ["mse", "kl", "js"])
def test_the_distance_from_itself_is_zero(logits, kind):
    assert distance(kind, logits.softmax(1), logits).abs().max() < 1e-15


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_everything_is_finite_at_extreme_logits(logits, masks, dtype):
    masks[2] = 255
    extreme = (1e4 * logits.sign()).to(dtype)
    target = (1e4 * logits.roll(1, 1)).float().softmax(1)
    for loss in (
        lambda x: cross_entropy(x, masks),
        lambda x: bootstrapped_cross_entropy(x, masks, 0.0),
        lambda x: distance("mse", target, x),
        lambda x: distance("kl", target, x),
        lambda x: distance("js", target, x),
        lambda x: pairwise_variance([x, x.flip(1)]),
    ):
        leaf = extreme.clone().requires_grad_()
        per_image = loss(leaf)
        assert per_image.dtype == torch.float32
        per_image.sum().backward()
        assert per_image.isfinite().all() and leaf.grad is not None and leaf.grad.isfinite().all()


def test_images_without_confident_pixels_count_zero(logits):
    leaf = logits.requires_grad_()
    found = distance("mse", torch.full_like(logits, 1 / C), leaf, confidence=0.5)
    found.sum().backward()
    assert (found == 0).all() and leaf.grad is not None and (leaf.grad == 0).all()


def test_pairwise_variance_equals_numpy_s_and_reaches_every_output(logits):
    outputs = [logits.roll(k, 1).clone().requires_grad_() for k in range(4)]
    probabilities = torch.stack([x.detach().softmax(1) for x in outputs]).numpy()
    np.testing.assert_allclose(pairwise_variance(outputs).detach(), probabilities.var(0).mean((1, 2, 3)), rtol=1e-12)
    summed = pairwise_variance(outputs, reduction="sum")
    np.testing.assert_allclose(summed.detach(), probabilities.var(0).sum(1).mean((1, 2)), rtol=1e-12)
    summed.sum().backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in outputs)


def test_invalid_arguments_raise(logits, masks):
    with pytest.raises(ValueError, match="did you mean 'mse'"):
        distance("msee", logits.softmax(1), logits)
    with pytest.raises(ValueError, match="differ in shape"):
        distance("mse", logits.softmax(1)[:1], logits)
    with pytest.raises(ValueError, match="did you mean 'kept'"):
        bootstrapped_cross_entropy(logits, masks, 0.5, over="keptt")


@pytest.mark.parametrize("over", ["kept", "valid"])
@pytest.mark.parametrize("confidence", [None, 0.4])
def test_distance_over_kept_or_valid_pixels_by_hand(over, confidence):
    """4 % confident pixels count 4 % of the loss over valid pixels, as in FixMatch, and all of it over kept ones."""
    random = np.random.default_rng(0)
    target = random.dirichlet(np.ones(3), (2, 5, 7)).transpose(0, 3, 1, 2)
    logits = random.normal(size=(2, 3, 5, 7))
    valid = random.random((2, 5, 7)) > 0.3
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    per_pixel = ((p - target) ** 2).sum(1)
    counted = valid if confidence is None else valid & (target.max(1) > confidence)
    wanted = [per_pixel[i][counted[i]].sum() / (counted if over == "kept" else valid)[i].sum() for i in range(2)]
    given = (torch.from_numpy(target), torch.from_numpy(logits))
    options = {"reduction": "sum", "confidence": confidence, "over": over}
    found = distance("mse", *given, **options, valid=torch.from_numpy(valid))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    nowhere = distance("mse", *given, **options, valid=torch.zeros(2, 5, 7, dtype=torch.bool))
    assert (nowhere == 0).all()


@pytest.mark.parametrize(("power", "cap"), [(0.5, 20.0), (1.0, 20.0), (1.0, 3.0), (0.0, 20.0)])
def test_class_weights_have_mean_one_over_pixels_and_a_cap(power, cap):
    pixels = np.array([9000, 900, 90, 9, 1, 0])
    found = np.array(class_weights(pixels.tolist(), power=power, cap=cap))
    shares = pixels / pixels.sum()
    assert (found * shares).sum() == pytest.approx(1)
    relative = found / found[0]
    wanted = np.minimum(cap, (shares[0] / np.maximum(shares, 1e-300)) ** power)
    np.testing.assert_allclose(relative, wanted, rtol=1e-12)
    for bad in ([0, 0], [3, -1]):
        with pytest.raises(ValueError, match="expected pixels >= 0"):
            class_weights(bad)


@pytest.mark.parametrize("pool", ["image", "batch"])
@pytest.mark.parametrize("over", ["kept", "valid"])
def test_weights_multiply_the_losses_of_their_classes(logits, masks, pool, over):
    weights = [0.5, 2.0, 1.0, 7.0, 0.0]
    found = cross_entropy(logits, masks, pool=pool, weights=weights).mean()
    losses = torch.nn.functional.cross_entropy(logits, masks.long(), ignore_index=255, reduction="none")
    each = torch.tensor([*weights, *[0.0] * 251], dtype=torch.float64)[masks.long()]
    valid = masks != 255
    by_image = torch.stack([(losses * each)[i].sum() / valid[i].sum() for i in range(B)])
    torch.testing.assert_close(found, by_image.mean() if pool == "image" else (losses * each).sum() / valid.sum())
    options = {"over": over, "pool": pool}
    plain = bootstrapped_cross_entropy(logits, masks, 0.2, **options)
    torch.testing.assert_close(bootstrapped_cross_entropy(logits, masks, 0.2, weights=[1.0] * C, **options), plain)
    torch.testing.assert_close(bootstrapped_cross_entropy(logits, masks, 0.2, weights=[3.0] * C, **options), 3 * plain)
    threshold = bootstrapping_threshold(0.2, C)
    if pool == "image":
        kept = [valid[i] & (torch.exp(-losses[i]) < threshold) for i in range(B)]
        hand = [(losses[i] * each[i])[kept[i]].sum() / (kept if over == "kept" else valid)[i].sum() for i in range(B)]
        torch.testing.assert_close(
            bootstrapped_cross_entropy(logits, masks, 0.2, weights=weights, **options), torch.stack(hand)
        )


def test_dice_equals_a_loop_over_classes(logits, masks):
    probabilities = logits.softmax(1).numpy()
    wanted = []
    for p, mask in zip(probabilities, masks.numpy(), strict=True):
        valid = mask != 255
        losses = []
        for label in sorted(set(mask[valid].tolist())):
            g = mask[valid] == label
            losses.append(1 - 2 * p[label][valid][g].sum() / (p[label][valid].sum() + g.sum()))
        wanted.append(np.mean(losses))
    np.testing.assert_allclose(dice(logits, masks), wanted, rtol=1e-12)
    weights = [1.0, 2.0, 3.0, 4.0, 5.0]
    both = dice_cross_entropy(logits, masks, weight_of_dice=0.5, weights=weights)
    np.testing.assert_allclose(both, cross_entropy(logits, masks, weights=weights) + 0.5 * torch.tensor(wanted))
    perfect = 200.0 * torch.nn.functional.one_hot(masks.where(masks != 255, 0), C).permute(0, 3, 1, 2).double()
    assert dice(perfect, masks).abs().max() < 1e-12
    empty = logits.clone().requires_grad_()
    dice(empty, torch.full((B, H, W), 255)).sum().backward()
    assert empty.grad is not None and (empty.grad == 0).all()
    assert torch.autograd.gradcheck(lambda x: dice(x, masks), logits.clone().requires_grad_())


def test_logits_that_reach_beyond_the_image_are_cropped_and_others_resized():
    """A 10x14 image under a network of stride 4 has 12x16 logits, from its top left on; a 5x7 decoder is resized."""
    logits = torch.randn(2, 3, 12, 16, dtype=torch.float64)
    assert torch.equal(resize_logits(logits, (10, 14)), logits[..., :10, :14])
    small = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    expected = interpolate(small, size=(10, 14), mode="bilinear", align_corners=True)
    torch.testing.assert_close(resize_logits(small, (10, 14)), expected)
    twice = torch.randn(2, 3, 20, 28, dtype=torch.float64)
    expected = interpolate(twice, size=(10, 14), mode="bilinear", align_corners=True)
    torch.testing.assert_close(resize_logits(twice, (10, 14)), expected)
    masks = torch.randint(0, 3, (2, 10, 14))
    torch.testing.assert_close(cross_entropy(logits, masks), cross_entropy(logits[..., :10, :14], masks))
    fitted = resize_map(masks, (12, 16), fill=255)
    assert torch.equal(fitted[:, :10, :14], masks) and (fitted[:, 10:] == 255).all() and (fitted[..., 14:] == 255).all()
    images = torch.rand(2, 3, 10, 14)
    shown = resize_valid(masks > 0, images, (12, 16))
    assert shown is not None and torch.equal(shown[:, :10, :14], masks > 0) and not shown[:, 10:].any()
    everywhere = resize_valid(None, images, (12, 16))
    assert everywhere is not None and everywhere[:, :10, :14].all() and int(everywhere.sum()) == 2 * 10 * 14
    assert resize_valid(None, images, (5, 7)) is None
