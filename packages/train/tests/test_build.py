"""From a recipe to objects, where one recipe says different things of different domains."""

from collections.abc import Callable

import pytest
import torch

from semiseg.methods import CrossConsistency
from semiseg.train.build import build_learner, build_model, build_optimizer, build_sources
from semiseg.train.recipe import Recipe
from semiseg.train.run_folder import classes_of

CCT = "kind='cross_consistency', perturbations=[{kind='dropout', count=2}]"


def test_each_domain_has_a_ramp_and_a_learning_rate_of_its_own(tiny: Callable[..., Recipe]) -> None:
    recipe = tiny(
        "objectives=[{kind='supervised'}, "
        f"{{{CCT}, domains=['street'], weight={{value=30, over=0.5, shape='linear'}}, lr_scale=4}}, "
        f"{{{CCT}, domains=['room'], weight={{value=7, over=0.25, shape='linear'}}, lr_scale=9}}]",
        domains=2,
    )
    sources = build_sources(recipe, fill=(0, 0, 0))
    learner = build_learner(recipe, build_model(recipe.model, classes_of(recipe)), sources.taxonomies)
    found = {}
    for domain in ("street", "room"):
        _, consistency = learner.objectives[domain]  # type: ignore[misc]  # a ModuleList
        assert isinstance(consistency, CrossConsistency)
        found[domain] = [consistency.weight(progress) for progress in (0.1, 0.25, 0.5, 1.0)]
    assert found["street"] == pytest.approx([6, 15, 30, 30])
    assert found["room"] == pytest.approx([2.8, 7, 7, 7])

    optimizer = build_optimizer(recipe, learner)
    rate_of = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    for domain, scale in (("street", 4), ("room", 9)):
        for parameter in learner.objectives[domain].parameters():
            assert rate_of[id(parameter)] == pytest.approx(scale * recipe.optimizer.lr)


def test_an_objective_trains_only_the_domains_that_it_names(tiny: Callable[..., Recipe]) -> None:
    recipe = tiny(f"objectives=[{{kind='supervised'}}, {{{CCT}, domains=['room']}}]", domains=2)
    sources = build_sources(recipe, fill=(0, 0, 0))
    torch.manual_seed(0)
    learner = build_learner(recipe, build_model(recipe.model, classes_of(recipe)), sources.taxonomies)
    kinds = {name: [type(each).__name__ for each in learner.objectives[name]] for name in ("street", "room")}  # type: ignore[misc]
    assert kinds == {"street": ["Supervised"], "room": ["Supervised", "CrossConsistency"]}
