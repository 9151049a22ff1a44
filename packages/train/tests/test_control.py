"""The weight-0 control of a method: everything that the method does, except for its loss."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from semiseg.train.assemble.learner import build_learner
from semiseg.train.assemble.model import build_model
from semiseg.train.assemble.sources import build_sources
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.problems import RecipeError
from semiseg.train.recipe.shards import classes_of
from semiseg.train.step.batches import StepData

SUPERVISED = "{kind='supervised'}"
CROSS = "{kind='cross_consistency', pairwise=0.5, weight={shape='constant'}, perturbations=[{kind='dropout', count=2}]}"
STRUCTURED = "{kind='structured_consistency'}"


def after_a_pass(recipe: Recipe) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Losses, gradients (with those of the objectives), and running statistics of one step in training mode."""
    torch.manual_seed(0)
    model = build_model(recipe.model, classes_of(recipe))
    sources = build_sources(recipe, fill=(0, 0, 0))
    learner = build_learner(recipe, model, sources.taxonomies).train()
    batch = StepData(sources.streams)[0]
    assert isinstance(batch, dict)
    losses = learner(batch, step=1, steps=4)
    losses.total.backward()
    gradients = {name: own.grad for name, own in learner.named_parameters() if own.grad is not None}
    statistics = {name: own for name, own in model.state_dict().items() if "running" in name}
    return losses.terms, gradients, statistics


@pytest.mark.parametrize("method", [CROSS, STRUCTURED])
def test_a_control_has_the_supervised_loss_and_the_methods_statistics(tiny: Callable[..., Recipe], method: str) -> None:
    objectives = f"objectives=[{SUPERVISED}, {method}]"
    _, _, alone = after_a_pass(tiny(f"objectives=[{SUPERVISED}]"))
    _, moved, of_method = after_a_pass(tiny(objectives))
    terms, gradients, of_control = after_a_pass(tiny(objectives, "control=true"))
    assert all(value == 0 for name, value in terms.items() if name != "street/supervised") and len(terms) > 1
    assert terms["street/supervised"] > 0
    assert of_control.keys() == of_method.keys()
    assert all(value.equal(of_method[name]) for name, value in of_control.items())
    assert any(not value.equal(alone[name]) for name, value in of_control.items())
    assert gradients.keys() == moved.keys()  # zeros, not None, so that weight decay and momentum act alike
    own = [name for name in gradients if name.startswith("objectives.")]
    assert all((gradients[name] == 0).all() for name in own)
    frozen = "model.norm=frozen"
    _, expected, _ = after_a_pass(tiny(f"objectives=[{SUPERVISED}]", frozen))
    _, found, _ = after_a_pass(tiny(objectives, "control=true", frozen))
    assert all(value.equal(found[name]) for name, value in expected.items())


def test_a_control_of_supervised_training_is_refused(tiny: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match="control=true': every objective needs labeled images only"):
        tiny(f"objectives=[{SUPERVISED}]", "control=true")
