"""The structure loss against double loops and dense matrices of pairs."""

import pytest
import torch
from torch import Tensor

from semiseg.methods import structure_loss


def probabilities(shape: tuple[int, ...], difference: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Softmax of two sets of logits with the given difference, float32."""
    numbers = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=numbers)
    return (logits + difference * torch.randn(shape, generator=numbers)).softmax(1), logits.softmax(1)


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=0)


def dense(student: Tensor, teacher: Tensor) -> Tensor:
    """The definition, with its matrices of pairs; student, teacher: [C, N]."""
    own, other = unit(student), unit(teacher)
    return (own.T @ own - other.T @ other).square().mean()


def double_loop(student: Tensor, teacher: Tensor) -> float:
    own, other = (unit(vectors.double()).T.tolist() for vectors in (student, teacher))
    total = 0.0
    for s_i, t_i in zip(own, other, strict=True):
        for s_j, t_j in zip(own, other, strict=True):
            a_s = sum(x * y for x, y in zip(s_i, s_j, strict=True))
            a_t = sum(x * y for x, y in zip(t_i, t_j, strict=True))
            total += (a_s - a_t) ** 2
    return total / len(own) ** 2


@pytest.mark.parametrize("difference", [1, 1e-2, 1e-3])
def test_double_loop_in_float64(difference: float):
    """Two images, three boxes of up to 300 pixels, of which one is not compared."""
    student, teacher = probabilities((2, 3, 20, 20), difference)
    boxes = torch.zeros(2, 20, 20, dtype=torch.uint8)
    boxes[0, :15], boxes[0, 15:, :6], boxes[1, 3:9, 4:12] = 1, 2, 3
    expected = []
    for image in range(2):
        members = [boxes[image] == box for box in (1, 2) if (boxes[image] == box).any()]
        expected.append(sum(double_loop(student[image][:, box], teacher[image][:, box]) for box in members))
    found = structure_loss(student, teacher, boxes, compared=range(1, 3))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(expected, rel=4e-6)
    assert found[1] == 0


@pytest.mark.parametrize("difference", [1, 1e-2, 1e-3])
def test_value_and_gradient_are_as_accurate_as_the_dense_form(difference: float):
    """65 x 65 pixels, 21 classes: value to 4e-6 in float32, where the textbook's three terms lose all digits."""
    student, teacher = probabilities((1, 21, 65, 65), difference)
    exact = student.double().requires_grad_()
    own, other = unit(exact[0].flatten(1)), unit(teacher.double()[0].flatten(1))
    terms = ((own @ own.T).square().sum(), (other @ other.T).square().sum(), (own @ other.T).square().sum())
    expected = (terms[0] + terms[1] - 2 * terms[2]) / 4225**2  # accurate enough in float64
    expected.backward()

    ours, pairs = student.clone().requires_grad_(), student.clone().requires_grad_()
    found = structure_loss(ours, teacher, torch.ones(1, 65, 65, dtype=torch.uint8))
    found.sum().backward()
    dense(pairs[0].flatten(1), teacher[0].flatten(1)).backward()
    assert found.item() == pytest.approx(expected.item(), rel=4e-6)

    def error(gradient: Tensor | None) -> float:
        assert gradient is not None and exact.grad is not None
        return float((gradient - exact.grad).norm() / exact.grad.norm())

    assert error(ours.grad) <= 1.5 * error(pairs.grad)
    assert error(ours.grad) < 1e-3


def test_gradient_of_boxes_in_float64():
    student, teacher = (values.double() for values in probabilities((2, 4, 5, 6), 1))
    boxes = torch.randint(0, 4, (2, 5, 6), generator=torch.Generator().manual_seed(1))
    weights = torch.tensor([0.3, 2.0], dtype=torch.float64)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda own: structure_loss(own, teacher, boxes) @ weights, student)


def test_it_ignores_the_length_of_vectors_and_a_swap_of_classes():
    student, teacher = probabilities((1, 5, 8, 8), 1)
    assert structure_loss(teacher, teacher, torch.ones(1, 8, 8, dtype=torch.int64)).item() == pytest.approx(
        0, abs=1e-12
    )
    boxes = torch.ones(1, 8, 8, dtype=torch.int64)
    lengths = 0.1 + 5 * torch.rand(1, 1, 8, 8)
    plain = structure_loss(student, teacher, boxes)
    torch.testing.assert_close(structure_loss(student * lengths, teacher, boxes), plain, rtol=1e-5, atol=0)
    sure, other = torch.zeros(1, 5, 8, 8), torch.zeros(1, 5, 8, 8)
    sure[:, 0], other[:, 1] = 1, 1
    assert structure_loss(sure, other, boxes).item() == 0


@pytest.mark.parametrize("pairs", ["all", 40])
def test_covered_pixels_and_boxes_outside_compared_do_not_count(pairs):
    """A pixel covered by a later box does not belong to the earlier one; there is no gradient outside compared boxes."""
    student, teacher = probabilities((1, 3, 10, 10), 1)
    boxes = torch.zeros(1, 10, 10, dtype=torch.uint8)
    boxes[0, :6, :6], boxes[0, 3:8, 3:8], boxes[0, 9] = 1, 2, 3

    def loss(own: Tensor) -> Tensor:
        random = [torch.Generator().manual_seed(3)]
        return structure_loss(own, teacher, boxes, pairs=pairs, compared=range(1, 2), random=random)

    changed = student.clone()
    changed[:, :, 4, 4] = torch.tensor([0.9, 0.05, 0.05])  # within the first box's rectangle, covered by the second
    assert loss(changed).equal(loss(student))
    changed[:, :, 1, 1] = torch.tensor([0.9, 0.05, 0.05])
    assert not loss(changed).equal(loss(student))

    student.requires_grad_()
    loss(student).sum().backward()
    assert student.grad is not None
    assert (student.grad[0].abs().sum(0) > 0).sum() > 10
    assert not student.grad[0][:, boxes[0] != 1].any()


def test_without_compared_boxes_loss_and_gradient_are_zero():
    student, teacher = probabilities((2, 3, 4, 4), 1)
    student.requires_grad_()
    loss = structure_loss(student, teacher, torch.zeros(2, 4, 4, dtype=torch.int64))
    loss.sum().backward()
    assert loss.tolist() == [0, 0] and student.grad is not None and not student.grad.any()


def test_random_pairs_converge_to_all_pairs():
    """The mean of 200 draws of 500 of 14,400 pairs is within three standard errors; a box of fewer pairs uses all."""
    student, teacher = probabilities((1, 4, 12, 12), 1)
    boxes = torch.ones(1, 12, 12, dtype=torch.int64)
    boxes[0, 10:] = 2
    exact = structure_loss(student, teacher, boxes).item()
    draws = torch.stack(
        [
            structure_loss(student, teacher, boxes, pairs=500, random=[torch.Generator().manual_seed(seed)])
            for seed in range(200)
        ]
    )
    assert 0.01 < draws.std() / exact < 0.3
    assert draws.mean().item() == pytest.approx(exact, abs=3 * draws.std().item() / 200**0.5)
    enough = structure_loss(student, teacher, boxes, pairs=120**2, random=[torch.Generator()])
    assert enough.item() == exact


def test_a_sample_draws_its_own_pairs():
    student, teacher = probabilities((2, 4, 8, 8), 1)
    boxes = torch.ones(2, 8, 8, dtype=torch.int64)

    def draw(*images: int) -> Tensor:
        chosen = list(images)
        random = [torch.Generator().manual_seed(image) for image in images]
        return structure_loss(student[chosen], teacher[chosen], boxes[chosen], pairs=30, random=random)

    assert draw(0, 1)[1] == draw(1)[0]
    assert draw(0, 1).equal(draw(0, 1))


def test_mixed_precision_and_tf32_change_nothing():
    student, teacher = probabilities((1, 4, 16, 16), 1e-2)
    boxes = torch.ones(1, 16, 16, dtype=torch.int64)
    plain, mixed = student.clone().requires_grad_(), student.clone().requires_grad_()
    structure_loss(plain, teacher, boxes).sum().backward()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            structure_loss(mixed, teacher, boxes).sum().backward()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert plain.grad is not None and mixed.grad is not None and plain.grad.equal(mixed.grad)


def test_invalid_arguments_raise():
    student, teacher = probabilities((2, 3, 4, 4), 1)
    boxes = torch.ones(2, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"two tensors \[b, C, h, w\] of one shape"):
        structure_loss(student, teacher[:1], boxes)
    with pytest.raises(ValueError, match="a box for each pixel"):
        structure_loss(student, teacher, boxes[:, :3])
    with pytest.raises(ValueError, match="2 generators, one per image"):
        structure_loss(student, teacher, boxes, pairs=5)
