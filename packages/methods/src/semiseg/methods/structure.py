"""The structure loss: two predictions of an image agree in the similarity of any two of its pixels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Generator, Tensor
from torch.autograd.function import once_differentiable

from semiseg.methods.float32 import in_float32, without_autocast


def structure_loss(
    student: Tensor,
    teacher: Tensor,
    boxes: Tensor,
    *,
    pairs: int | Literal["all"] = "all",
    compared: range | None = None,
    random: Sequence[Generator] | None = None,
) -> Tensor:
    """Difference of two predictions in the cosine similarities of pixels, [b] (structured consistency, Eq. 7 to 10).

    In each compared box: the mean over pairs (i, j) of its pixels of (a_ij of the student - a_ij of the teacher)^2, a_ij
    being the cosine of pixels i and j, with i = j included; then the sum over boxes. A box without pixels counts 0.

    student, teacher: class probabilities [b, C, h, w], or any nonzero vectors; float32, because half precision
    rounds away as much as the differences. No gradient reaches the teacher.
    boxes: integers [b, h, w], the box that each pixel belongs to, as returned by `semiseg.methods.cutmix.draw_boxes`.
    compared: the boxes that count; None means all from 1 on (0 is the image outside them). The paper compares the last
    16 of 32: range(17, 33).
    pairs: "all" is exact, without a matrix of pairs: N pixels cost N C^2 operations and 2 N C numbers of memory. A
    number is the paper's form: it draws this many pairs in each box, with replacement, from `random` (one generator per
    image); a box with no more pairs than that uses all of them.

    The paper does not say how to reduce over a batch: average these values. The loss is also zero if the student is sure
    of one class in the entire box and the teacher of another: combine it with a loss of single pixels.
    """
    if student.shape != teacher.shape or student.ndim != 4:
        raise ValueError(
            f"student {list(student.shape)} and teacher {list(teacher.shape)}: expected two tensors [b, C, h, w] of one shape"
        )
    if boxes.shape != (len(student), *student.shape[2:]) or boxes.is_floating_point():
        raise ValueError(
            f"boxes are {boxes.dtype} {list(boxes.shape)}: expected integers "
            f"{[len(student), *student.shape[2:]]}, a box for each pixel"
        )
    if pairs != "all" and (pairs < 1 or random is None or len(random) != len(student)):
        raise ValueError(
            f'structure_loss(pairs={pairs}): expected "all", or a number of pairs and {len(student)} generators, one per image'
        )
    losses = []
    with without_autocast(student):
        for image, (own, other, ids) in enumerate(
            zip(in_float32(student).flatten(2), in_float32(teacher.detach()).flatten(2), boxes.flatten(1), strict=True)
        ):
            pixels, counts = _by_box(ids, compared)
            if counts != [len(ids)]:  # unless one box covers the image
                own, other = own.index_select(1, pixels), other.index_select(1, pixels)
            if pairs == "all":
                losses.append(_AllPairs.apply(own, other, counts).sum())
            else:
                assert random is not None
                losses.append(_some_pairs(own, other, counts, pairs, random[image]))
    return torch.stack(losses)


def _by_box(ids: Tensor, compared: range | None) -> tuple[Tensor, list[int]]:
    """The pixels of the compared boxes, sorted by box, and the number of pixels in each box."""
    inside = ids > 0 if compared is None else (ids >= compared.start) & (ids < compared.stop)
    pixels = inside.nonzero()[:, 0]
    boxes, order = ids[pixels].sort(stable=True)
    return pixels[order], boxes.unique_consecutive(return_counts=True)[1].tolist()


class _AllPairs(torch.autograd.Function):
    """Mean over all pairs of each box, from vectors [C, n] whose boxes have `counts` columns each; exact.

    With unit columns S and T, P = S + T and D = S - T: |S'S - T'T|^2 = (tr((P D')^2) + <P P', D D'>) / 2, so differences
    are taken before products, and small ones survive in float32.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, counts: list[int]) -> Tensor:
        classes = len(student)
        both = student.new_empty(2 * classes, student.shape[1])  # P above D, in place: memory traffic is the bottleneck
        total, apart = torch.add(student, teacher, out=both[:classes]), torch.sub(student, teacher, out=both[classes:])
        own, other, scales_apart = _scales(student, teacher, total, apart)
        torch.mul(student, own, out=total).addcmul_(teacher, other)
        apart.mul_(own).addcmul_(teacher, scales_apart)
        with exact_products():
            products = [part @ part.T for part in both.split(counts, 1)]
        grams = torch.stack(products) if products else both.new_empty(0, 2 * classes, 2 * classes)
        pp, pd, dd = grams[:, :classes, :classes], grams[:, :classes, classes:], grams[:, classes:, classes:]
        squares = torch.tensor(counts, dtype=both.dtype, device=both.device) ** 2
        ctx.save_for_backward(both, own, grams, squares)
        ctx.counts = counts
        return ((pd * pd.mT).sum((1, 2)) + (pp * dd).sum((1, 2))) / (2 * squares)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        both, scale, grams, squares = ctx.saved_tensors
        classes = len(both) // 2
        pp, pd, dd = grams[:, :classes, :classes], grams[:, :classes, classes:], grams[:, classes:, classes:]
        matrices = torch.cat([pd + dd, pd.mT + pp], 2) * (gradients[0] / squares)[:, None, None]
        unit = (both[:classes] + both[classes:]) / 2
        gradient = torch.empty_like(unit)
        with exact_products(), without_autocast(both):
            for matrix, part, into in zip(
                matrices, both.split(ctx.counts, 1), gradient.split(ctx.counts, 1), strict=True
            ):
                into.copy_(matrix @ part)
        return (gradient - unit * (unit * gradient).sum(0)) * scale, None, None


def _some_pairs(student: Tensor, teacher: Tensor, counts: list[int], pairs: int, generator: Generator) -> Tensor:
    """The sum over boxes of the mean over `pairs` random pairs, or over all pairs if there are no more."""
    total = student.sum() * 0
    for own, other in zip(student.split(counts, 1), teacher.split(counts, 1), strict=True):
        count = own.shape[1]
        if count**2 <= pairs:
            total = total + _AllPairs.apply(own, other, [count]).sum()
            continue
        drawn = torch.randint(count, (2, pairs), generator=generator, device=generator.device).to(own.device)
        total_i, difference_i = _sum_and_difference(own.index_select(1, drawn[0]), other.index_select(1, drawn[0]))
        total_j, difference_j = _sum_and_difference(own.index_select(1, drawn[1]), other.index_select(1, drawn[1]))
        total = total + ((total_i * difference_j + difference_i * total_j).sum(0) / 2).square().mean()
    return total


def _sum_and_difference(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """S + T and S - T of the unit columns S and T, both to float32's relative precision."""
    total, apart = student + teacher, student - teacher
    own, other, scales_apart = _scales(student, teacher, total, apart)
    return student * own + teacher * other, apart * own + teacher * scales_apart


def _scales(student: Tensor, teacher: Tensor, total: Tensor, apart: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """1/|s|, 1/|t| and 1/|s| - 1/|t| of each column, [n]; the last one without cancellation."""
    own, other = _inverse_norm(student), _inverse_norm(teacher)
    squares_apart = torch.linalg.vecdot(apart, total, dim=0)
    return own, other, -squares_apart * (own * other) ** 2 / (own + other)


def _inverse_norm(vectors: Tensor) -> Tensor:
    return torch.linalg.vecdot(vectors, vectors, dim=0).clamp_min(torch.finfo(vectors.dtype).tiny).rsqrt()


@contextmanager
def exact_products() -> Iterator[None]:
    """Multiply float32 matrices in float32, not in TF32, which keeps three digits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
