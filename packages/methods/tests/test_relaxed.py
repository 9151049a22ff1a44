"""Boundary label relaxation against a loop over pixels, and its identities."""

import math

import pytest
import torch
from torch import Tensor

from semiseg.methods import cross_entropy, relaxed_cross_entropy

CLASSES = 4


@pytest.fixture
def logits() -> Tensor:
    return 3 * torch.randn(3, CLASSES, 7, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def masks() -> Tensor:
    masks = torch.randint(0, CLASSES, (3, 7, 9), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    masks[0, :3] = 255
    masks[1, 2, 2:5] = 255
    return masks


def by_loop(
    logits: Tensor, mask: Tensor, window: int, strict: tuple[int, ...] = (), by_frequency: bool = False
) -> float:
    """One image: -log of the summed probabilities of the classes around, pixel by pixel, float64."""
    height, width = mask.shape
    valid = [(y, x) for y in range(height) for x in range(width) if mask[y, x] != 255]
    shares = [sum(int(mask[at] == c) for at in valid) / max(1, len(valid)) for c in range(CLASSES)]
    total = 0.0
    for y, x in valid:
        reach = 0 if int(mask[y, x]) in strict else window // 2
        around = {
            int(mask[j, i])
            for j in range(max(0, y - reach), min(height, y + reach + 1))
            for i in range(max(0, x - reach), min(width, x + reach + 1))
        } - {255}
        p = logits[:, y, x].double().softmax(0)
        weight = sum(2 - shares[c] for c in around) / len(around) if by_frequency else 1.0
        total -= weight * math.log(sum(float(p[c]) for c in around))
    return total / max(1, len(valid))


@pytest.mark.parametrize("window", [1, 3, 5])
@pytest.mark.parametrize(
    "options", [{}, {"strict": (1, 3)}, {"by_frequency": True}, {"strict": (0,), "by_frequency": True}]
)
def test_it_equals_a_loop_over_pixels(logits: Tensor, masks: Tensor, window: int, options: dict):
    found = relaxed_cross_entropy(logits, masks, window=window, **options)
    expected = [by_loop(logits[i], masks[i], window, **options) for i in range(3)]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_with_window_1_or_after_the_relaxation_it_is_cross_entropy(logits: Tensor, masks: Tensor):
    plain = cross_entropy(logits, masks)
    torch.testing.assert_close(relaxed_cross_entropy(logits, masks, window=1), plain)
    torch.testing.assert_close(relaxed_cross_entropy(logits, masks, 0.57, until=0.57), plain)
    assert not torch.allclose(relaxed_cross_entropy(logits, masks, 0.56, until=0.57), plain)


def test_an_image_does_not_depend_on_the_batch(logits: Tensor, masks: Tensor):
    together = relaxed_cross_entropy(logits, masks, by_frequency=True)
    alone = [relaxed_cross_entropy(logits[i : i + 1], masks[i : i + 1], by_frequency=True) for i in range(3)]
    torch.testing.assert_close(together.sum(), torch.cat(alone).sum())


def test_extreme_logits_give_a_finite_loss_and_gradient():
    logits = torch.full((1, 2, 3, 3), -200.0)
    logits[:, 1] = 200
    logits.requires_grad_()
    loss = relaxed_cross_entropy(logits, torch.zeros(1, 3, 3, dtype=torch.uint8))
    loss.sum().backward()
    assert loss.item() == 400 and logits.grad is not None and logits.grad.isfinite().all()


def test_an_ignored_pixel_has_no_gradient_and_adds_no_class(logits: Tensor):
    masks = torch.zeros(1, 7, 9, dtype=torch.uint8)
    masks[0, 3, 4] = 255
    logits = logits[:1].clone().requires_grad_()
    relaxed_cross_entropy(logits, masks).sum().backward()
    assert logits.grad is not None
    assert not logits.grad[0, :, 3, 4].any() and (logits.grad[0].abs().sum(0) > 0).sum() == 62
    torch.testing.assert_close(relaxed_cross_entropy(logits, masks), cross_entropy(logits, masks))
    logits = logits.detach().requires_grad_()
    nothing = relaxed_cross_entropy(logits, torch.full_like(masks, 255), by_frequency=True)
    nothing.sum().backward()
    assert nothing.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_invalid_arguments_raise(logits: Tensor, masks: Tensor):
    with pytest.raises(ValueError, match="odd number"):
        relaxed_cross_entropy(logits, masks, window=2)
    with pytest.raises(ValueError, match=r"class ids 0\.\.3"):
        relaxed_cross_entropy(logits, masks, strict=(4,))
    with pytest.raises(ValueError, match="class id 9"):
        relaxed_cross_entropy(logits, torch.full_like(masks, 9))
