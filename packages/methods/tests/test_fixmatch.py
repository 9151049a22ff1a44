"""FixMatch against a plain loop over images, views and pixels in float64; mixing, quantiles and channel masks by hand."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semiseg.methods import (
    FixMatch,
    Part,
    Ramp,
    Step,
    StrongViews,
    Supervised,
    class_weights,
    draw_box,
    draw_classes,
    seeded,
)

SIZE, CLASSES = (16, 24), 4


class Network(nn.Module):
    """An encoder that records its batches, and a decoder at half of the images' size."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder, self.decoder = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, CLASSES, 1)
        self.double()
        for parameter in self.parameters():
            nn.init.normal_(parameter)
        self.batches: list[int] = []

    def encode(self, images: Tensor) -> SimpleNamespace:
        self.batches.append(len(images))
        return SimpleNamespace(deep=self.encoder(images).relu(), size=tuple(images.shape[2:]))

    def decode(self, features: SimpleNamespace) -> Tensor:
        return self.decoder(features.deep)

    def probabilities(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        z = self.encoder(images).relu()
        logits = self.decoder(z if mask is None else z * mask)
        return nn.functional.interpolate(logits, SIZE, mode="bilinear", align_corners=True).softmax(1)


def make_part(views: int = 1, *, valid: bool = False) -> Part:
    random = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, 3, *SIZE, generator=random, dtype=torch.float64)
    strong = torch.rand(2, 3, views, 3, *SIZE, generator=random, dtype=torch.float64)
    masks = torch.rand(2, 3, *SIZE, generator=random) > 0.3
    shown = {"valid": masks[0], "partners_valid": masks[1]} if valid else {}
    weights = torch.tensor([0.5, 0.2, 0.3])
    return Part(images[0], weights=weights, partners=images[1], strong=strong[0], partners_strong=strong[1], **shown)


def step_of(part: Part, student: Network, teacher: Network | None, **options: Any) -> Step:
    parts = {"unlabeled": part, **options.pop("parts", {})}
    teach = None if teacher is None else lambda images: teacher.decode(teacher.encode(images))
    return Step(
        progress=0.5, step=3, parts=parts, encode=student.encode, decode=student.decode, teacher=teach, **options
    )


def loop(part: Part, student: Network, mixes: list[Tensor], target: Tensor, partner_target: Tensor, **o: Any) -> float:
    """The definition: every pixel of every view of every image."""
    total = 0.0
    assert part.strong is not None and part.partners_strong is not None
    views = part.strong.shape[1]
    for view in range(views):
        inside = mixes[view][:, None] > 0
        images = torch.where(inside, part.partners_strong[:, view], part.strong[:, view])
        predicted = student.probabilities(images).detach().numpy()
        for i in range(len(part)):
            loss, count = 0.0, 0
            for y in range(SIZE[0]):
                for x in range(SIZE[1]):
                    from_partner = bool(mixes[view][i, y, x])
                    shown = part.partners_valid if from_partner else part.valid
                    if shown is not None and not shown[i, y, x]:
                        continue
                    count += 1
                    q = (partner_target if from_partner else target)[i, :, y, x].detach().numpy()
                    label = int(q.argmax())
                    threshold = o["threshold"][label] if isinstance(o["threshold"], list) else o["threshold"]
                    if q.max() < threshold:
                        continue
                    p = predicted[i, :, y, x]
                    own = -math.log(p[label]) if o["hard"] else -float((q * np.log(p)).sum())
                    loss += own * (1 if o["weights"] is None else o["weights"][label])
            total += float(part.weights[i]) * loss / count / views
    return total


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize(("threshold", "weights"), [(0.7, None), ([0.5, 0.9, 0.6, 0.8], [0.5, 2.0, 1.0, 3.0])])
@pytest.mark.parametrize("valid", [False, True])
def test_it_is_the_loop_over_pixels(views: int, hard: bool, threshold: Any, weights: Any, valid: bool) -> None:
    part, student, teacher = make_part(views, valid=valid), Network(0), Network(1)
    method = FixMatch(weight=Ramp(4, 1.0, "linear"), threshold=threshold, hard=hard, weights=weights, probability=0.7)
    step = step_of(part, student, teacher)
    mixes = [
        draw_box(seeded(0, 3, step.parts)(f"mix {view}", "unlabeled"), SIZE, probability=0.7) for view in range(views)
    ]
    assert part.partners is not None and any(mix.any() for mix in mixes)
    targets = teacher.probabilities(part.images), teacher.probabilities(part.partners)
    wanted = loop(part, student, mixes, *targets, threshold=threshold, hard=hard, weights=weights)
    losses = method(step)
    assert losses.terms["fixmatch"].item() == pytest.approx(2 * wanted, rel=1e-6)
    assert 0.1 < losses.diagnostics["kept"] < 0.95
    assert student.batches == [3] * views and teacher.batches == [6]
    losses.total.backward()
    assert all(own.grad is not None and own.grad.any() for own in student.parameters())
    assert all(own.grad is None for own in teacher.parameters())


def test_the_student_may_name_the_classes_itself() -> None:
    part, student = make_part(), Network(0)
    losses = FixMatch(names="student", threshold=0.7, probability=1.0)(step_of(part, student, None))
    mix = draw_box(seeded(0, 3, {"unlabeled": part})("mix 0", "unlabeled"), SIZE, probability=1.0)
    assert part.partners is not None
    targets = student.probabilities(part.images), student.probabilities(part.partners)
    wanted = loop(part, student, [mix], *targets, threshold=0.7, hard=True, weights=None)
    assert losses.terms["fixmatch"].item() == pytest.approx(wanted, rel=1e-6)


def test_without_mixing_only_the_weak_images_are_named() -> None:
    part, student, teacher = make_part(), Network(0), Network(1)
    nowhere = torch.zeros(3, *SIZE)
    target = teacher.probabilities(part.images)
    wanted = loop(part, student, [nowhere], target, target, threshold=0.7, hard=True, weights=None)
    losses = FixMatch(threshold=0.7, mix="none")(step_of(part, student, teacher))
    assert losses.terms["fixmatch"].item() == pytest.approx(wanted, rel=1e-6) and teacher.batches == [3]


def test_classmix_pastes_half_of_the_partners_classes_with_their_labels() -> None:
    part, student, teacher = make_part(), Network(0), Network(1)
    assert part.partners is not None
    other = teacher.probabilities(part.partners)
    chosen = draw_classes(seeded(0, 3, {"unlabeled": part})("mix 0", "unlabeled"), other.argmax(1), probability=1.0)
    for pasted, ids in zip(chosen, other.argmax(1), strict=True):
        taken = set(ids[pasted > 0].tolist())
        assert taken.isdisjoint(ids[pasted == 0].tolist())
        assert len(taken) == math.ceil(len(ids.unique()) / 2)
    wanted = loop(
        part, student, [chosen], teacher.probabilities(part.images), other, threshold=0.6, hard=True, weights=None
    )
    losses = FixMatch(threshold=0.6, mix="classmix", probability=1.0)(step_of(part, student, teacher))
    assert losses.terms["fixmatch"].item() == pytest.approx(wanted, rel=1e-6)
    generators = [torch.Generator().manual_seed(i) for i in range(400)]
    mixed = draw_classes(generators, torch.arange(3).expand(400, 1, 3), probability=0.5)
    assert 160 < int((mixed.sum((1, 2)) == 2).sum()) < 240  # two of three classes, for half of the images


def test_boxes_have_the_areas_and_shapes_asked_for() -> None:
    generators = [torch.Generator().manual_seed(i) for i in range(500)]
    boxes = draw_box(generators, (100, 100), probability=0.6, area=(0.1, 0.5), aspect=2.5) > 0
    mixed = boxes.flatten(1).any(1)
    assert 0.53 < mixed.float().mean() < 0.67
    shares = boxes[mixed].float().mean((1, 2))
    assert 0.09 < shares.min() < 0.12 and 0.47 < shares.max() < 0.52 and abs(shares.mean() - 0.3) < 0.02
    for box in boxes[mixed][:50]:
        rows, columns = box.any(1).sum(), box.any(0).sum()
        assert rows * columns == box.sum() and 0.37 < rows / columns < 2.7
    with pytest.raises(ValueError, match="a range of areas"):
        draw_box(generators, (8, 8), area=(0.5, 0.2))


def test_a_quantile_keeps_the_most_confident_pixels_of_each_class_in_each_image() -> None:
    part, teacher = make_part(), Network(1)
    target = teacher.probabilities(part.images)
    kept = StrongViews(threshold=0.0, quantile=0.3)._kept(target)
    confidence, classes = target.max(1)
    for i in range(3):
        for label in classes[i].unique():
            own = confidence[i][classes[i] == label]
            least = own.sort(descending=True).values[math.ceil(0.3 * len(own)) - 1]
            assert torch.equal(kept[i][classes[i] == label], own >= least)


def test_the_stream_of_dropped_features_and_complementary_channels() -> None:
    part, student, teacher = make_part(2), Network(0), Network(1)
    options: dict[str, Any] = {"threshold": 0.6, "mix": "none"}
    plain = FixMatch(**options)(step_of(part, student, teacher)).terms["fixmatch"]
    random = seeded(0, 3, {"unlabeled": part})("feature drop", "unlabeled")
    mask = torch.stack([(torch.rand(6, generator=g) >= 0.4).double() / 0.6 for g in random])[:, :, None, None]
    target = teacher.probabilities(part.images)
    confidence, classes = target.max(1)
    p = student.probabilities(part.images, mask).gather(1, classes[:, None])[:, 0]
    dropped = (part.weights * ((confidence >= 0.6) * -p.log()).mean((1, 2))).sum()
    both = FixMatch(feature_drop=0.4, feature_share=0.25, **options)(step_of(part, student, teacher)).terms["fixmatch"]
    torch.testing.assert_close(both, 0.75 * plain + 0.25 * dropped)

    method = FixMatch(complementary=True, **options)
    step = step_of(part, student, teacher)
    first, second = method._halves(step, method.strong.plan(step)()[0].name)
    assert ((first + second == 2).all()) and set(first.flatten().tolist()) == {0.0, 1.0, 2.0}
    assert all(
        len(set(image.flatten().tolist()) & {1.0}) in (0, 1) and (1.0 in image) == (image == 1).all() for image in first
    )
    views = []
    assert part.strong is not None
    for view, half in enumerate((first, second)):
        p = student.probabilities(part.strong[:, view], half).gather(1, classes[:, None])[:, 0]
        views.append((part.weights * ((confidence >= 0.6) * -p.log()).mean((1, 2))).sum())
    losses = method(step_of(part, student, teacher))
    torch.testing.assert_close(losses.terms["fixmatch"], (views[0] + views[1]) / 2)


def test_a_joint_pass_encodes_labeled_and_strong_images_in_one_batch() -> None:
    part, student, teacher = make_part(2), Network(0), Network(1)
    labeled = Part(torch.rand(2, 3, *SIZE).double(), torch.randint(0, CLASSES, (2, *SIZE)))
    methods = [Supervised(weights=class_weights([5, 3, 2, 1])), FixMatch(threshold=0.6)]
    separate = step_of(part, student, teacher, parts={"labeled": labeled})
    wanted = [method(separate).total for method in methods]
    assert student.batches == [2, 3, 3]
    student.batches.clear()
    joint = step_of(part, student, teacher, parts={"labeled": labeled}, joint=True)
    for finish, total in zip([method.begin(joint) for method in methods], wanted, strict=True):
        torch.testing.assert_close(finish().total, total)
    assert student.batches == [8]


def test_what_is_missing_is_one_clear_error() -> None:
    part, student, teacher = make_part(), Network(0), Network(1)
    with pytest.raises(ValueError, match="has no strong views"):
        FixMatch()(step_of(Part(part.images), student, teacher))
    with pytest.raises(ValueError, match="needs partners"):
        FixMatch()(step_of(Part(part.images, strong=part.strong), student, teacher))
    with pytest.raises(ValueError, match="needs two strong views, found 1"):
        FixMatch(complementary=True)(step_of(part, student, teacher))
    with pytest.raises(ValueError, match="this step has no teacher"):
        FixMatch()(step_of(part, student, None))
    with pytest.raises(ValueError, match=r"strong of shape .* expected \[3, views, 3, 16, 24\]"):
        Part(part.images, strong=part.images)
    with pytest.raises(ValueError, match=r"expected numbers in 0\.\.1"):
        FixMatch(threshold=1.2)


def test_objectives_with_equal_settings_share_views_passes_and_labels() -> None:
    part, student, teacher = make_part(), Network(0), Network(1)
    step = step_of(part, student, teacher)
    first, second = FixMatch(threshold=0.6, weight=Ramp(3, shape="constant")), FixMatch(threshold=0.6, hard=False)
    for finish in [method.begin(step) for method in (first, second)]:
        finish()
    assert student.batches == [3] and teacher.batches == [6]
    other = step_of(part, student, teacher)
    for finish in [method.begin(other) for method in (first, FixMatch(threshold=0.7))]:
        finish()
    assert student.batches == [3] * 3 and teacher.batches == [6] * 3
