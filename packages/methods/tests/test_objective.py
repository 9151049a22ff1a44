from types import SimpleNamespace

import pytest
import torch

from semiseg.methods import Losses, Part, Step, seeded


def build(encode=lambda x: SimpleNamespace(deep=x), decode=lambda f: 2 * f.deep, **options):
    parts = {"labeled": Part(torch.rand(2, 3, 4, 4)), "unlabeled": Part(torch.rand(3, 3, 4, 4))}
    return Step(progress=0.5, step=7, parts=parts, encode=encode, decode=decode, **options)


def test_features_and_logits_are_computed_once_per_part():
    calls = []

    def encode(images):
        calls.append(("encode", len(images)))
        return SimpleNamespace(deep=images)

    def decode(features):
        calls.append(("decode", len(features.deep)))
        return 2 * features.deep

    step = build(encode, decode)
    for _ in range(2):
        assert torch.equal(step.logits("unlabeled"), 2 * step.parts["unlabeled"].images)
        assert step.features("labeled").deep is step.parts["labeled"].images
    assert calls == [("encode", 3), ("decode", 3), ("encode", 2)]


def test_a_joint_step_encodes_all_parts_in_one_batch():
    batches = []

    def encode(images):
        batches.append(images)
        return SimpleNamespace(deep=images.flatten(1).cumsum(0), low=None, size=images.shape[2:])

    step = build(encode, lambda features: features.deep, joint=True)
    parts = [step.parts["labeled"].images, step.parts["unlabeled"].images]
    together = torch.cat(parts).flatten(1).cumsum(0)
    assert torch.equal(step.logits("unlabeled"), together[2:]) and torch.equal(step.logits("labeled"), together[:2])
    assert len(batches) == 1 and torch.equal(batches[0], torch.cat(parts))
    others = vars(step.features("labeled"))
    assert others["low"] is None and others["size"] == (4, 4)


def test_a_joint_step_needs_images_of_one_size():
    parts = {"labeled": Part(torch.rand(2, 3, 4, 4)), "unlabeled": Part(torch.rand(3, 3, 4, 6))}
    step = Step(progress=0, step=0, parts=parts, encode=lambda x: x, decode=lambda x: x, joint=True)
    with pytest.raises(ValueError, match="labeled 4x4, unlabeled 4x6"):
        step.features("labeled")


def test_a_missing_part_is_none_and_the_error_lists_the_others():
    step = build()
    assert step.weak is None
    assert step.labeled is step.parts["labeled"] and step.unlabeled is step.parts["unlabeled"]
    with pytest.raises(ValueError, match="no 'weak' part; it has: labeled, unlabeled"):
        step.features("weak")


def test_features_need_the_attribute_deep():
    with pytest.raises(TypeError, match=r"encode\(images\) returned Tensor"):
        build(encode=lambda x: x).features("labeled")


def test_default_weights_make_a_plain_mean():
    part = Part(torch.rand(4, 3, 2, 2))
    values = torch.tensor([1.0, 2.0, 3.0, 10.0])
    assert len(part) == 4
    assert part.average(values) == 4.0
    assert Part(torch.rand(2, 3, 2, 2), weights=torch.tensor([0.5, 0.25])).average(torch.tensor([2.0, 4.0])) == 2.0


@pytest.mark.parametrize(
    "options", [{"masks": torch.zeros(3, 2, 2)}, {"masks": torch.zeros(2, 1, 2, 2)}, {"weights": torch.ones(3)}]
)
def test_masks_and_weights_that_do_not_fit_raise(options):
    with pytest.raises(ValueError, match="expected"):
        Part(torch.rand(2, 3, 2, 2), **options)


def test_an_empty_part_raises():
    with pytest.raises(ValueError, match="leave the part out"):
        Part(torch.rand(0, 3, 2, 2))


def test_generators_are_keyed_by_all_arguments_and_repeatable():
    parts = {"labeled": Part(torch.rand(2, 3, 4, 4)), "unlabeled": Part(torch.rand(2, 3, 4, 4))}
    numbers = set()
    for seed in (0, 1):
        for step in (0, 1):
            for name in ("vat", "dropout"):
                for part in parts:
                    first = [torch.rand(1, generator=g).item() for g in seeded(seed, step, parts)(name, part)]
                    again = [torch.rand(1, generator=g).item() for g in seeded(seed, step, parts)(name, part)]
                    assert first == again
                    numbers.update(first)
    assert len(numbers) == 2**5


def test_the_default_generators_of_a_step_are_repeatable():
    numbers = [torch.rand(1, generator=g).item() for g in build().random("vat")]
    assert len(numbers) == 3
    assert numbers == [torch.rand(1, generator=g).item() for g in build().random("vat")]


def test_too_few_generators_raise():
    with pytest.raises(ValueError, match="returned 1 generators for 3 images: expected one per image"):
        build(random=lambda name, part: [torch.Generator()]).random("vat")


def test_losses_merge_and_add_up():
    x = torch.tensor(3.0, requires_grad=True)
    losses = Losses({"a": x}, {"seen": x.detach()}) + Losses({"b": 2 * x}).prefixed("camvid/")
    assert list(losses.terms) == ["a", "camvid/b"]
    losses.total.backward()
    assert losses.total == 9 and x.grad == 3
    assert Losses().total == 0


def test_two_losses_of_the_same_name_raise():
    with pytest.raises(ValueError, match=r"both report a.*prefixed"):
        _ = Losses({"a": torch.tensor(1.0)}) + Losses({"a": torch.tensor(1.0)})
