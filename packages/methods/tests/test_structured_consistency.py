"""The objective against its two terms computed by hand; encoder passes are counted."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from semiseg.methods import (
    CrossConsistency,
    Part,
    Ramp,
    Step,
    StructuredConsistency,
    Supervised,
    Teacher,
    draw_boxes,
    seeded,
    structure_loss,
)

SIZE = (16, 24)


class Network(nn.Module):
    """An encoder that counts its passes, and a decoder at half of the images' size."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder, self.passes = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 4, 1), list[int]()

    def encode(self, images: Tensor) -> SimpleNamespace:
        self.passes.append(len(images))
        return SimpleNamespace(deep=self.encoder(images).relu())

    def decode(self, features: SimpleNamespace) -> Tensor:
        return self.decoder(features.deep)


@pytest.fixture
def parts() -> dict[str, Part]:
    images = torch.rand(8, 3, *SIZE)
    weights = torch.tensor([0.5, 0.2, 0.3])
    masks = torch.randint(0, 4, (2, *SIZE))
    return {"labeled": Part(images[:2], masks), "unlabeled": Part(images[2:5], None, weights, images[5:])}


def build(parts: dict[str, Part], student: Network, teacher: Network, progress: float = 0.5) -> Step:
    return Step(
        progress=progress,
        step=3,
        parts=parts,
        encode=student.encode,
        decode=student.decode,
        teacher=lambda images: teacher.decode(teacher.encode(images)),
    )


def test_both_terms_by_hand(parts: dict[str, Part]):
    student, teacher = Network(), Network()
    boxes = draw_boxes(seeded(0, 3, parts)("boxes", "unlabeled"), SIZE, count=6, area=0.6)
    unlabeled = parts["unlabeled"]
    assert unlabeled.partners is not None
    inside = boxes[:, None] > 0

    def predict(network: Network, images: Tensor) -> Tensor:
        logits = network.decode(network.encode(images))
        return nn.functional.interpolate(logits, SIZE, mode="bilinear", align_corners=True).softmax(1)

    own = predict(student, unlabeled.images.where(~inside, unlabeled.partners))
    target = predict(teacher, unlabeled.images).where(~inside, predict(teacher, unlabeled.partners)).detach()
    pixel = sum(w * (own[i] - target[i]).square().sum(0).mean() for i, w in enumerate(unlabeled.weights))
    structure = unlabeled.weights @ structure_loss(own, target, boxes, compared=range(4, 7))
    objective = StructuredConsistency(
        pixel=Ramp(20, 1.0, "linear"), structure=Ramp(3, shape="constant"), boxes=6, compared=3, area=0.6
    )
    losses = objective(build(parts, student, teacher))
    assert list(losses.terms) == ["pixel_consistency", "structure_consistency"]
    torch.testing.assert_close(losses.terms["pixel_consistency"], torch.as_tensor(10 * pixel))
    torch.testing.assert_close(losses.terms["structure_consistency"], 3 * structure, rtol=1e-4, atol=1e-9)
    share = unlabeled.weights @ (boxes > 0).float().mean((1, 2))
    assert losses.diagnostics["covered"].item() == pytest.approx(share.item())
    losses.total.backward()
    assert all(p.grad is not None and p.grad.any() for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_passes_of_the_encoder(parts: dict[str, Part]):
    """One on labeled, one on mixed images, one of the teacher on both; cross-consistency adds one on unmixed images."""
    student, teacher = Network(), Network()
    objectives = [Supervised(), StructuredConsistency()]
    step = build(parts, student, teacher)
    for objective in objectives:
        objective(step)
    assert student.passes == [2, 3] and teacher.passes == [6]

    student.passes, teacher.passes = [], []
    cross = CrossConsistency([("dropout", 2)], channels=6, classes=4, stride=1, decoder="linear")
    step = build(parts, student, teacher)
    for objective in [*objectives, cross]:
        objective(step)
    assert student.passes == [2, 3, 3] and teacher.passes == [6]


def test_without_structure_it_is_the_mean_teacher_with_cutmix(parts: dict[str, Part]):
    student, teacher = Network(), Network()
    losses = StructuredConsistency(structure=Ramp(0.0))(build(parts, student, teacher))
    both = StructuredConsistency()(build(parts, student, teacher))
    assert list(losses.terms) == ["pixel_consistency"]
    assert losses.terms["pixel_consistency"] == both.terms["pixel_consistency"]
    assert "structure_consistency_unweighted" not in losses.diagnostics


def test_confidence_leaves_pixels_out_of_both_terms(parts: dict[str, Part]):
    student, teacher = Network(), Network()
    for parameter in teacher.parameters():
        parameter.data *= 20
    sure = StructuredConsistency(confidence=0.999999)(build(parts, student, Network()))
    assert sure.terms["pixel_consistency"] == 0 and sure.terms["structure_consistency"] == 0
    every_pixel = StructuredConsistency()(build(parts, student, teacher))
    some = StructuredConsistency(confidence=0.9)(build(parts, student, teacher))
    none = StructuredConsistency(confidence=0.0)(build(parts, student, teacher))
    for name, value in every_pixel.terms.items():
        torch.testing.assert_close(none.terms[name], value)
        assert some.terms[name] > 0 and not torch.isclose(some.terms[name], value)


def test_a_student_like_its_teacher_on_equal_images_has_no_loss(parts: dict[str, Part]):
    student = Network()
    images = parts["unlabeled"].images
    same = {"unlabeled": Part(images, partners=images)}
    teacher = Teacher(student).model
    assert isinstance(teacher, Network)
    losses = StructuredConsistency()(build(same, student, teacher))
    assert losses.total.item() == pytest.approx(0, abs=1e-9)


def test_invalid_arguments_raise(parts: dict[str, Part]):
    images = parts["unlabeled"].images
    with pytest.raises(ValueError, match="no partners"):
        StructuredConsistency()(build({"unlabeled": Part(images)}, Network(), Network()))
    with pytest.raises(ValueError, match=r"no teacher; pass Step\(teacher=...\)"):
        step = build(parts, Network(), Network())
        step._teacher = None
        StructuredConsistency()(step)
    with pytest.raises(ValueError, match=r"expected 1\.\.8"):
        StructuredConsistency(boxes=8)
    with pytest.raises(ValueError, match="one per image, of its size"):
        Part(images, partners=images[:1])


@pytest.mark.parametrize("over", ["kept", "valid"])
def test_padding_is_in_no_term(parts: dict[str, Part], over: str):
    """By hand: pixels whose source is padding are neither kept nor valid, and belong to no box."""
    student, teacher = Network(), Network()
    unlabeled = parts["unlabeled"]
    valid, others = (torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(i)) > 0.3 for i in (1, 2))
    boxes = draw_boxes(seeded(0, 3, parts)("boxes", "unlabeled"), SIZE)
    mixed = others.where(boxes > 0, valid)
    free = StructuredConsistency(confidence=0.3, over=over)
    everything = build(parts, student, teacher)
    target = free._target(everything, boxes)
    assert unlabeled.partners is not None
    inside = boxes[:, None] > 0
    images = unlabeled.partners.where(inside, unlabeled.images)
    logits = nn.functional.interpolate(
        student.decode(student.encode(images)), SIZE, mode="bilinear", align_corners=True
    )
    own, kept = logits.softmax(1), (target.amax(1) > 0.3) & mixed
    assert 0 < kept.sum() < mixed.sum()
    per_image = torch.stack(
        [
            (own[i] - target[i]).square().sum(0)[kept[i]].sum() / (kept if over == "kept" else mixed)[i].sum()
            for i in range(3)
        ]
    )
    structure = structure_loss(own, target, boxes * kept, compared=range(17, 33))
    padded = parts | {"unlabeled": Part(unlabeled.images, None, unlabeled.weights, unlabeled.partners, valid, others)}
    losses = free(build(padded, student, teacher))
    torch.testing.assert_close(losses.terms["pixel_consistency"], 20 * unlabeled.weights @ per_image)
    torch.testing.assert_close(losses.terms["structure_consistency"], 3 * unlabeled.weights @ structure)
    with pytest.raises(ValueError, match=r"valid is torch\.float32"):
        Part(unlabeled.images, valid=valid.float())
