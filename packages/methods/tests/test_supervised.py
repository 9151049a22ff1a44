from types import SimpleNamespace

import pytest
import torch

from semiseg.methods import Part, Ramp, Step, Supervised, bootstrapped_cross_entropy, cross_entropy


def build(logits, masks, weights=None, progress=0.1):
    return Step(
        progress=progress,
        step=1,
        parts={"labeled": Part(torch.zeros(len(logits), 3, 8, 8), masks, weights)},
        encode=lambda x: SimpleNamespace(deep=x),
        decode=lambda f: logits,
    )


@pytest.fixture
def logits():
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def masks():
    masks = torch.randint(0, 4, (3, 8, 8), generator=torch.Generator().manual_seed(1))
    masks[0, :4] = 255
    return masks


def test_the_term_is_the_mean_over_images(logits, masks):
    per_image = cross_entropy(logits, masks)
    losses = Supervised()(build(logits, masks))
    torch.testing.assert_close(losses.terms["supervised"], per_image.mean())
    weights = torch.tensor([0.5, 0.1, 0.1])
    losses = Supervised()(build(logits, masks, weights))
    torch.testing.assert_close(losses.terms["supervised"], (weights * per_image).sum())


def test_bootstrapping_gets_progress_and_options(logits, masks):
    losses = Supervised("bootstrapped", until=0.2, minimum=3, over="valid")(build(logits, masks))
    expected = bootstrapped_cross_entropy(logits, masks, 0.1, until=0.2, minimum=3, over="valid").mean()
    assert losses.terms["supervised"] == expected


def test_accuracy_counts_valid_pixels(logits, masks):
    shares = []
    for i in range(3):
        right = valid = 0
        for y in range(8):
            for x in range(8):
                if masks[i, y, x] != 255:
                    valid += 1
                    right += int(logits[i, :, y, x].argmax() == masks[i, y, x])
        shares.append(right / max(1, valid))
    assert Supervised()(build(logits, masks)).diagnostics["accuracy"].item() == pytest.approx(sum(shares) / 3)
    assert Supervised()(build(logits, torch.full_like(masks, 255))).diagnostics["accuracy"] == 0


def test_invalid_arguments_raise(logits):
    with pytest.raises(ValueError, match="did you mean 'bootstrapped'"):
        Supervised("bootstraped")
    with pytest.raises(ValueError, match="did you mean 'until'"):
        Supervised("bootstrapped", untill=0.3)
    with pytest.raises(ValueError, match="unknown name 'until'"):
        Supervised(until=0.3)
    with pytest.raises(ValueError, match="no masks"):
        Supervised()(build(logits, None))


def test_self_training_is_the_weighted_loss_on_the_weak_part(logits, masks):
    step = build(logits, masks)
    step.parts = {"weak": step.parts["labeled"]}
    method = Supervised(part="weak", weight=Ramp(0.25, shape="constant"))
    losses = method(step)
    assert method.needs == {"weak"} and set(losses.diagnostics) == {"self_training_accuracy"}
    torch.testing.assert_close(losses.terms["self_training"], 0.25 * cross_entropy(logits, masks).mean())
    with pytest.raises(ValueError, match="part"):
        Supervised(part="unlabeled")
