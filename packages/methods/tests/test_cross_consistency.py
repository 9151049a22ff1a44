from types import SimpleNamespace

import pytest
import torch
from torch import nn

from semiseg.methods import (
    AuxiliaryBank,
    CrossConsistency,
    Dropout,
    FeatureDrop,
    FeatureNoise,
    Part,
    Prediction,
    Ramp,
    Step,
    Supervised,
    Vat,
    distance,
    pairwise_variance,
)

CHANNELS, CLASSES = 8, 4
ALL = [(name, 2) for name in ("dropout", "feature_drop", "feature_noise", "guided_cutout", "vat")] + [
    ("context_mask", 1),
    ("object_mask", 1),
]


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(
            nn.Conv2d(3, CHANNELS, 4, 4), nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 1), nn.ReLU()
        )
        self.decoder = AuxiliaryBank([Dropout()], CHANNELS, CLASSES, stride=4)

    def encode(self, images):
        return SimpleNamespace(deep=self.encoder(images))

    def decode(self, features):
        return self.decoder.logits(0, features.deep)


@pytest.fixture
def network():
    return Network()


def draws(*samples):
    """A sample's generators depend on the sample and the name alone."""
    return lambda name, part: [torch.Generator().manual_seed(1000 * s + sum(map(ord, name))) for s in samples]


def build(network, *samples, weights=None, progress=0.05, step=5):
    def images(purpose):
        draw = [torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(10 * s + purpose)) for s in samples]
        return torch.stack(draw)

    masks = (images(0).mean(1) * CLASSES).long().clamp(max=CLASSES - 1)
    masks[:, :5] = 255
    parts = {"labeled": Part(images(0), masks, weights), "unlabeled": Part(images(1), None, weights)}
    return Step(
        progress=progress, step=step, parts=parts, encode=network.encode, decode=network.decode, random=draws(*samples)
    )


def objective(perturbations=ALL, **options):
    torch.manual_seed(1)
    options = {"channels": CHANNELS, "classes": CLASSES, "stride": 4, "foreground": [1, 2]} | options
    return CrossConsistency(perturbations, **options)


def gradients(*modules):
    return [None if p.grad is None else p.grad.clone() for module in modules for p in module.parameters()]


def test_the_paper_s_thirty_decoders():
    names = [p.name for p in CrossConsistency(channels=CHANNELS, classes=CLASSES, foreground=[1]).bank.perturbations]
    assert {name: names.count(name) for name in names} == {
        "context_mask": 2,
        "object_mask": 2,
        "vat": 2,
        "feature_drop": 6,
        "feature_noise": 6,
        "dropout": 6,
        "guided_cutout": 6,
    }


def weak_step(network, *samples, unlabeled=(), weights=None, size=(24, 32), progress=0.05, step=5):
    """A step with the given samples as weak images: a third of their pixels has a pseudo-label."""
    plain = build(network, *(unlabeled or samples), progress=progress, step=step)
    source = build(network, *samples)
    images, masks = source.part("unlabeled").images, source.part("labeled").masks
    assert masks is not None
    masks = torch.nn.functional.interpolate(masks[:, None].float(), size=size)[:, 0].to(torch.uint8)
    masks[:, size[0] // 3 :] = 255
    parts = {"labeled": plain.part("labeled"), "weak": Part(images, masks, weights)}
    if unlabeled:
        parts["unlabeled"] = plain.part("unlabeled")

    def random(name, part):
        return draws(*(samples if part == "weak" else unlabeled))(name, part)

    return Step(progress=progress, step=step, parts=parts, encode=network.encode, decode=network.decode, random=random)


@pytest.mark.parametrize("evaluation", ["bank", "loop"])
def test_the_weak_term_is_the_mean_cross_entropy_over_decoders_and_images(network, evaluation):
    weak = Ramp(0.4, over=0.2)
    method = objective(weight=Ramp(30), weak=weak, evaluation=evaluation)
    step = weak_step(network, 0, 1, 2)
    losses = method(step)
    outputs = list(
        method.bank(
            step.features("weak").deep, Prediction(step.logits("weak"), [1, 2]), lambda n: step.random(n, "weak")
        )
    )
    masks, target = step.part("weak").masks, step.logits("weak").detach().softmax(1)
    assert masks is not None
    entropies = []
    for logits in outputs:
        picked = logits.log_softmax(1).gather(1, masks.long().where(masks != 255, 0)[:, None])[:, 0]
        entropies.append(torch.stack([-picked[i][masks[i] != 255].mean() for i in range(3)]))
    entropy = torch.stack(entropies).mean()
    assert weak(0.05) == pytest.approx(0.4 * 2.718281828 ** (-5 * 0.75**2))
    torch.testing.assert_close(losses.terms["weak"], weak(0.05) * entropy, rtol=1e-4, atol=0)
    torch.testing.assert_close(losses.diagnostics["weak_unweighted"], entropy.detach(), rtol=1e-4, atol=0)
    assert losses.diagnostics["weak_weight"].item() == pytest.approx(weak(0.05))
    assert losses.diagnostics["weak_coverage"].item() == pytest.approx((masks != 255).float().mean().item())
    alone = torch.stack([distance("mse", target, logits) for logits in outputs]).mean()
    torch.testing.assert_close(losses.diagnostics["consistency_unweighted"], alone.detach(), rtol=1e-4, atol=0)
    torch.testing.assert_close(losses.terms["consistency"], 8.5951 * alone, rtol=1e-4, atol=0)


@pytest.mark.parametrize("evaluation", ["bank", "loop"])
def test_weak_labels_train_the_encoder_and_auxiliary_decoders_never_the_main_one(network, evaluation):
    method = objective(weight=Ramp(0), weak=Ramp(1, shape="constant"), evaluation=evaluation)
    losses = method(weak_step(network, 0, 1, unlabeled=(2,)))
    assert losses.terms["consistency"] == 0 and losses.terms["weak"] > 0
    losses.total.backward()
    assert all(g is None for g in gradients(network.decoder))
    assert all(g is not None and g.abs().sum() > 0 for g in gradients(network.encoder))
    for gradient in gradients(method):
        assert gradient is not None and (gradient.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize("unlabeled", [(), (5, 6, 7)])
@pytest.mark.parametrize("options", [{}, {"distance": "js", "confidence": 0.3, "pairwise": 0.7}])
def test_with_weak_labels_bank_and_loop_are_equal(network, unlabeled, options):
    def step():
        return weak_step(network, 0, 1, 2, unlabeled=unlabeled, size=(50, 37))

    assert_bank_is_loop(network, step, 1e-6, weak=Ramp(0.4), **options)


def test_weak_images_count_as_unlabeled_ones_with_equal_weight(network):
    """Two weak and three unlabeled images count as five unlabeled ones, also if ranks have different numbers of them."""
    perturbations = [name for name in ALL if name[0] != "guided_cutout"]
    method = objective(perturbations, weak=Ramp(0.4))
    plain = objective(perturbations)(build(network, 0, 1, 5, 6, 7))
    whole = method(weak_step(network, 0, 1, unlabeled=(5, 6, 7)))
    for name in ("consistency_unweighted", "target_confidence", "agreement", "consistency_weight"):
        torch.testing.assert_close(whole.diagnostics[name], plain.diagnostics[name])
    torch.testing.assert_close(whole.terms["consistency"], plain.terms["consistency"])

    def on_rank(weak, unlabeled):
        step = weak_step(network, *weak, unlabeled=unlabeled, weights=torch.full((len(weak),), 2 / 2))
        step.part("unlabeled").weights = torch.full((len(unlabeled),), 2 / 3)
        return method(step)

    ranks = [on_rank((0,), (5, 6)), on_rank((1,), (7,))]
    for name, value in (whole.terms | whole.diagnostics).items():
        torch.testing.assert_close(sum((r.terms | r.diagnostics)[name] for r in ranks) / 2, value)


def test_a_weak_part_without_masks_or_a_missing_one_raises(network):
    method = objective(weak=Ramp(0.4))
    assert method.needs == {"weak"} and objective().needs == {"unlabeled"}
    step = weak_step(network, 0)
    step.part("weak").masks = None
    with pytest.raises(ValueError, match="the weak part has no masks"):
        method(step)
    with pytest.raises(ValueError, match="no 'weak' part"):
        method(build(network, 0))
    assert "weak" not in objective()(weak_step(network, 0, unlabeled=(1,))).terms


@pytest.mark.parametrize("kind", ["mse", "kl", "js"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_term_is_the_weighted_mean_over_decoders_and_images(network, kind, reduction):
    method = objective(distance=kind, reduction=reduction, weight=Ramp(30), pairwise=0.5, pairwise_max=100)
    step = build(network, 0, 1, 2)
    losses = method(step)
    z, target = step.features("unlabeled").deep, step.logits("unlabeled").detach().softmax(1)
    prediction = Prediction(step.logits("unlabeled"), [1, 2])
    outputs = list(method.bank(z, prediction, lambda name: step.random(name)))
    distances = torch.stack([distance(kind, target, output, reduction=reduction) for output in outputs])
    assert distances.shape == (12, 3)
    torch.testing.assert_close(losses.terms["consistency"], 8.5951 * distances.mean(), rtol=1e-4, atol=0)
    torch.testing.assert_close(losses.diagnostics["consistency_unweighted"], distances.mean())
    assert losses.diagnostics["consistency_weight"].item() == pytest.approx(8.5951, abs=1e-4)
    spread = pairwise_variance(outputs, reduction=reduction).mean()
    torch.testing.assert_close(losses.terms["pairwise"], 0.5 * 8.5951 * spread, rtol=1e-4, atol=0)
    torch.testing.assert_close(losses.diagnostics["target_confidence"], target.amax(1).mean())
    agreement = torch.stack([(output.argmax(1) == target.argmax(1)).float().mean() for output in outputs]).mean()
    torch.testing.assert_close(losses.diagnostics["agreement"], agreement)
    assert not any(value.requires_grad for value in losses.diagnostics.values())


def test_consistency_trains_the_encoder_and_auxiliary_decoders_never_the_main_one(network):
    method = objective()
    method(build(network, 0, 1)).total.backward()
    assert all(g is None for g in gradients(network.decoder))
    assert all(g is not None and g.abs().sum() > 0 for g in gradients(network.encoder))
    for gradient in gradients(method):
        assert gradient is not None and (gradient.flatten(1).abs().sum(1) > 0).all()  # of all K decoders


class Nothing:
    name = "nothing"
    guided = False

    def __call__(self, z, prediction, generators, decoder):
        return SimpleNamespace(apply=lambda z: z)


@pytest.mark.parametrize("kind", ["mse", "kl", "js"])
def test_copies_of_the_main_decoder_without_perturbation_agree(network, kind):
    for parameter in network.decoder.parameters():
        nn.init.normal_(parameter)
    method = objective([Nothing(), Nothing()], distance=kind, weight=Ramp(30, shape="constant"))
    method.bank.init_from([w[0] for w in network.decoder.weights], [b[0] for b in network.decoder.biases])
    losses = method(build(network, 0, 1))
    assert losses.terms["consistency"].abs() < 1e-5
    assert losses.diagnostics["agreement"] == 1


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_weight_zero_is_supervised_training(network, preset):
    method = objective(preset=preset, weight=Ramp(0), pairwise=0.5)
    alone = Supervised()(build(network, 0, 1))
    alone.total.backward()
    expected = gradients(network)
    network.zero_grad()
    step = build(network, 0, 1)
    both = Supervised()(step) + method(step)
    both.total.backward()
    assert torch.equal(both.total, alone.total)
    for found, wanted in zip(gradients(network), expected, strict=True):
        assert found is not None and wanted is not None and torch.equal(found, wanted)
    # zeros, not None, so that no rank waits for them
    assert all(g is not None and (g == 0).all() for g in gradients(method))


def test_only_preset_paper_starts_from_zero(network):
    step = build(network, 0, progress=0.0, step=0)
    assert objective(preset="paper")(step).terms["consistency"] == 0
    assert objective(preset="released")(step).diagnostics["consistency_weight"].item() == pytest.approx(
        0.2021, abs=1e-4
    )
    explicit = objective(preset="released", weight=Ramp(30, from_zero=True))
    assert explicit(step).diagnostics["consistency_weight"] == 0


def test_a_batch_split_over_ranks_has_the_same_losses_and_gradients(network):
    method = objective(pairwise=0.3)
    supervised = Supervised("bootstrapped")

    def train(*samples, weights=None):
        network.zero_grad()
        method.zero_grad()
        step = build(network, *samples, weights=weights)
        losses = supervised(step) + method(step)
        losses.total.backward()
        return losses, gradients(network, method)

    whole, expected = train(0, 1, 2, 3, 4)
    ranks = [train(0, 1, 2, weights=torch.full((3,), 2 / 5)), train(3, 4, weights=torch.full((2,), 2 / 5))]
    for name, value in whole.terms.items():
        torch.testing.assert_close(sum(losses.terms[name] for losses, _ in ranks) / 2, value)
    for name in ("consistency_unweighted", "target_confidence", "agreement", "consistency_weight"):
        torch.testing.assert_close(sum(losses.diagnostics[name] for losses, _ in ranks) / 2, whole.diagnostics[name])
    for parts in zip(expected, *(g for _, g in ranks), strict=True):
        wanted, first, second = parts
        torch.testing.assert_close((first + second) / 2, wanted, rtol=1e-3, atol=1e-5)


def test_the_pairwise_term_chooses_decoders_by_step(network):
    method = objective([("dropout", 6)], pairwise=1.0, pairwise_max=2, weight=Ramp(1, shape="constant"))
    chosen = set()
    for step in range(12):
        method.zero_grad()
        losses = method(build(network, 0, step=step))
        losses.terms["pairwise"].backward()
        reached = [k for k in range(6) if method.bank.weights[0].grad[k].abs().sum() > 0]  # pyright: ignore[reportOptionalSubscript]
        assert len(reached) == 2
        chosen.update(reached)
    assert chosen == set(range(6))


def test_pixels_below_the_confidence_do_not_count(network):
    step = build(network, 0, 1)
    assert objective(confidence=1.0)(step).terms["consistency"] == 0
    assert objective(confidence=0.0)(step).total == objective()(step).total


@pytest.mark.parametrize("preset", ["paper", "released"])
@pytest.mark.parametrize("decoder", ["subpixel", "linear"])
def test_under_autocast_losses_and_gradients_stay_close(network, preset, decoder):
    method = objective(preset=preset, decoder=decoder)
    exact = method(build(network, 0, 1)).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        step = build(network, 0, 1)
        assert step.features("unlabeled").deep.dtype == torch.bfloat16
        losses = method(step)
    assert losses.total.dtype == torch.float32
    losses.total.backward()
    torch.testing.assert_close(losses.total, exact, rtol=0.1, atol=1e-4)
    assert all(g is not None and g.isfinite().all() for g in gradients(network.encoder, method))


def test_presets_differ_as_their_table_says():
    paper, released = objective(preset="paper"), objective(preset="released")
    assert (paper.bank.last_relu, released.bank.last_relu) == (False, True)
    kinds = {type(p): p for p in released.bank.perturbations}
    assert kinds[FeatureDrop] == FeatureDrop("threshold", 0.7, 0.9, "batch")
    assert kinds[FeatureNoise] == FeatureNoise(share="batch")
    assert kinds[Vat] == Vat(xi=1e-6, eps=2.0, damping=1e-8)
    assert {type(p): p for p in paper.bank.perturbations}[Vat] == Vat()
    assert objective(preset="released", foreground=None).foreground == {1, 2, 3}
    assert objective(preset="released", last_relu=False).bank.last_relu is False


@pytest.mark.parametrize("preset", ["paper", "released"])
@pytest.mark.parametrize("options", [{}, {"distance": "js", "reduction": "sum", "confidence": 0.4, "pairwise": 0.7}])
def test_bank_and_loop_give_the_same_losses_and_gradients(network, preset, options):
    weights = torch.tensor([0.2, 0.5, 0.1])
    assert_bank_is_loop(network, lambda: build(network, 0, 1, 2, weights=weights), 1e-4, preset=preset, **options)


def assert_bank_is_loop(network, make_step, tolerance, **options):
    """Equal losses and gradients, in float64: in float32, the released adversarial direction is rounding error."""
    network.double()
    found = []
    for evaluation in ("bank", "loop"):
        method = objective(evaluation=evaluation, **options).double()
        network.zero_grad()
        step = make_step()
        for part in step.parts.values():
            part.images = part.images.double()
        losses = method(step)
        losses.total.backward()
        found.append((losses, gradients(network.encoder, method)))
    (bank, by_bank), (loop, by_loop) = found
    assert bank.terms.keys() == loop.terms.keys() and bank.diagnostics.keys() == loop.diagnostics.keys()
    for name, value in (loop.terms | loop.diagnostics).items():
        torch.testing.assert_close((bank.terms | bank.diagnostics)[name].to(value), value, rtol=1e-5, atol=1e-7)
    for a, b in zip(by_bank, by_loop, strict=True):
        assert (a - b).norm() <= tolerance * b.norm()


def test_3x3_kernels_use_the_loop_and_train_behind_masks(network):
    assert objective().evaluation == "bank"
    method = objective([("context_mask", 2)], kernel=3)
    assert method.evaluation == "loop"
    method(build(network, 0, 1)).total.backward()
    assert all(g is not None and g.abs().sum() > 0 for g in gradients(network.encoder, method))


def test_perturbations_may_be_objects_or_have_options():
    method = objective([Dropout(0.3), ("vat", 2, {"eps": 0.1, "relative": True}), ("feature_drop", 1)])
    assert method.bank.perturbations == (Dropout(0.3), *[Vat(eps=0.1, relative=True)] * 2, FeatureDrop())


def test_invalid_arguments_raise(network):
    with pytest.raises(ValueError, match="context_mask, guided_cutout, object_mask need foreground"):
        objective(foreground=None)
    assert objective([("dropout", 1)], foreground=None).foreground == frozenset()
    for mistake, hint in (
        (lambda: objective([("droput", 1)]), "did you mean 'dropout'"),
        (lambda: objective([("dropout", 0)]), "expected at least 1"),
        (lambda: objective(preset="papers"), "did you mean 'paper'"),
        (lambda: objective(distance="msee"), "did you mean 'mse'"),
        (lambda: objective(evaluation="lop"), "did you mean 'loop'"),
        (lambda: objective(stride=8)(build(network, 0)), r"stride=\.\.\.\) must fit"),
    ):
        with pytest.raises(ValueError, match=hint):
            mistake()


@pytest.mark.parametrize("evaluation", ["bank", "loop"])
@pytest.mark.parametrize("options", [{}, {"distance": "kl", "confidence": 0.3, "over": "valid", "pairwise": 0.5}])
def test_padding_around_images_changes_nothing(network, evaluation, options):
    """The network sees each cell of 4x4 pixels alone, so an image in a larger canvas has the loss of the image."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    perturbations = [("dropout", 3)]  # drawn by channel: the others depend on the size of z
    method = objective(perturbations, evaluation=evaluation, weight=Ramp(30, shape="constant"), **options)
    step = build(network, 0, 1)
    images = step.part("unlabeled").images
    wanted = method(step)
    canvas, valid = torch.full((2, 3, 40, 48), 0.1), torch.zeros(2, 40, 48, dtype=torch.bool)
    canvas[:, :, 8:32, 4:36], valid[:, 8:32, 4:36] = images, True
    padded = build(network, 0, 1)
    padded.parts["unlabeled"] = Part(canvas, weights=step.part("unlabeled").weights, valid=valid)
    found = method(padded)
    for name, value in wanted.terms.items():
        assert value > 0
        torch.testing.assert_close(found.terms[name], value, rtol=1e-5, atol=0)
    for name, value in wanted.diagnostics.items():
        torch.testing.assert_close(found.diagnostics[name], value, rtol=1e-5, atol=0)
    padded.parts["unlabeled"].valid = None
    del padded._features["unlabeled"], padded._logits["unlabeled"]
    assert not torch.isclose(method(padded).terms["consistency"], wanted.terms["consistency"], rtol=1e-3)


def test_the_released_pairwise_term_sums_over_classes(network):
    terms = {
        preset: objective(
            [("dropout", 4)], preset=preset, pairwise=0.5, last_relu=False, weight=Ramp(1, shape="constant")
        )
        for preset in ("paper", "released")
    }
    terms["released"].bank.load_state_dict(terms["paper"].bank.state_dict())
    values = {preset: method(build(network, 0, 1)).terms for preset, method in terms.items()}
    torch.testing.assert_close(values["released"]["consistency"], values["paper"]["consistency"])
    torch.testing.assert_close(values["released"]["pairwise"], CLASSES * values["paper"]["pairwise"])


@pytest.mark.parametrize("evaluation", ["bank", "loop"])
def test_logits_beyond_an_odd_image_do_not_count(network, evaluation):
    """30x22 pixels at stride 4: z of 8x6 cells, logits of 32x24, of which the last rows and columns show no pixel."""
    network.encode = lambda images: SimpleNamespace(
        deep=network.encoder(nn.functional.pad(images, (0, -images.shape[3] % 4, 0, -images.shape[2] % 4)))
    )
    method = objective([("dropout", 3)], evaluation=evaluation, weight=Ramp(1, shape="constant"))
    step = build(network, 0, 1)
    images = step.part("unlabeled").images[..., :22, :30]
    step.parts["unlabeled"] = Part(images, weights=step.part("unlabeled").weights)
    found = method(step).terms["consistency"]
    prediction = Prediction(step.logits("unlabeled"), [1, 2])
    target = prediction.probabilities[..., :22, :30]
    outputs = list(method.bank(step.features("unlabeled").deep, prediction, lambda name: step.random(name)))
    wanted = torch.stack([distance("mse", target, output[..., :22, :30]) for output in outputs]).mean()
    torch.testing.assert_close(found, wanted)
