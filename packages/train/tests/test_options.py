"""Options of cross-consistency training in a recipe, from the file to the learner."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from semiseg.methods import CrossConsistency
from semiseg.train.assemble.learner import build_learner
from semiseg.train.assemble.model import build_model
from semiseg.train.assemble.sources import build_sources
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.load import load
from semiseg.train.recipe.problems import RecipeError
from semiseg.train.recipe.shards import classes_of
from semiseg.train.step.batches import Batch, StepData
from semiseg.train.step.learner import Learner


def built(recipe: Recipe) -> tuple[Learner, Batch]:
    torch.manual_seed(0)
    model = build_model(recipe.model, classes_of(recipe))
    sources = build_sources(recipe, fill=(0, 0, 0))
    batch = StepData(sources.streams)[3]
    assert isinstance(batch, dict)
    return build_learner(recipe, model, sources.taxonomies).double().train(), batch


def losses(recipe: Recipe) -> tuple[dict[str, float], list[torch.Tensor], int]:
    """Terms, gradients, and how often the encoder ran."""
    learner, batch = built(recipe)
    passes: list[int] = []
    learner.model.encoder.register_forward_hook(lambda module, inputs, output: passes.append(len(inputs[0])))
    found = learner(batch, step=3, steps=10)
    found.total.backward()
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    return {name: term.item() for name, term in found.terms.items()}, gradients, len(passes)


def test_a_joint_pass_is_one_pass(tiny: Callable[..., Recipe]):
    separate, expected, twice = losses(tiny("model.norm=frozen"))
    joint, found, once = losses(tiny("model.norm=frozen", "model.batches=joint"))
    assert (twice, once) == (2, 1)
    assert joint == pytest.approx(separate, rel=1e-9)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-10)


def test_a_joint_pass_shares_batch_statistics(tiny: Callable[..., Recipe]):
    separate, joint = losses(tiny()), losses(tiny("model.batches=joint"))
    assert joint[0] != pytest.approx(separate[0], rel=1e-6)


def test_a_joint_pass_needs_one_size(recipe_file: Callable[..., Path]):
    path = recipe_file()
    text = path.read_text()
    assert text.count("crop = ") == 1
    path.write_text("\n".join(line if "crop = " not in line else "augment = {}" for line in text.splitlines()))
    load(path)
    with pytest.raises(RecipeError, match=r"model\.batches.*one size, which domain street"):
        load(path, ["model.batches=joint"])


@pytest.mark.parametrize("decoder", ["subpixel", "linear"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_auxiliary_decoders_may_start_as_copies_of_the_main_one(tiny: Callable[..., Recipe], decoder: str, kernel: int):
    options = (f"model.decoder.kind={decoder}", f"objectives.1.kernel={kernel}", "objectives.1.start=main")
    learner, _ = built(tiny(*options))
    objective = learner.objectives["street"][1]  # type: ignore[index]
    assert isinstance(objective, CrossConsistency)
    assert objective.evaluation == ("bank" if kernel == 1 else "loop")
    assert objective.bank.kernel == kernel
    main = learner.model.decoders["street"]
    assert isinstance(main, nn.Module)
    z = torch.rand(2, 32, 5, 4, dtype=torch.float64)
    for k in range(len(objective.bank)):
        torch.testing.assert_close(objective.bank.logits(k, z), main(z))
    assert all(parameter.requires_grad for parameter in objective.bank.parameters())


def test_copies_must_be_of_one_kind(tiny: Callable[..., Recipe]):
    with pytest.raises(RecipeError, match='"main" is of kind "subpixel" and cannot be copied to "linear"'):
        tiny("objectives.1.start=main", "objectives.1.decoder=linear")


def test_one_mean_over_the_pixels_of_the_batch(tiny: Callable[..., Recipe]):
    learner, batch = built(tiny("objectives.0.loss.kind=cross_entropy", "objectives.0.loss.pool=batch"))
    labeled = batch["street"]["labeled"]
    assert labeled.masks is not None
    labeled.masks[0, :20] = 255
    logits = learner.model(labeled.images, "street")
    masks = labeled.masks.long()
    logits = nn.functional.interpolate(logits, masks.shape[1:], mode="bilinear", align_corners=True)
    expected = nn.functional.cross_entropy(logits, masks, ignore_index=255)
    found = learner(batch, step=3, steps=10).terms["street/supervised"]
    torch.testing.assert_close(found, expected.to(found), rtol=1e-5, atol=0)
