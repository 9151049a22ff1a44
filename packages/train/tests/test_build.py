"""From a recipe to objects, where one recipe says different things of different domains."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from semiseg.data import ClassUniformPlan
from semiseg.methods import CrossConsistency
from semiseg.train.assemble.learner import build_learner
from semiseg.train.assemble.model import build_model
from semiseg.train.assemble.optimizer import build_optimizer
from semiseg.train.assemble.sources import build_sources
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.shards import classes_of
from semiseg.train.step.batches import StepData

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


def test_class_weights_are_those_of_the_labeled_subset(tiny: Callable[..., Recipe]) -> None:
    """Counted in the masks of the six labeled images, pixel by pixel."""
    for kind in ("cross_entropy", "bootstrapped", "dice"):
        recipe = tiny(f"objectives=[{{kind='supervised', loss={{kind='{kind}', class_weights={{power=1, cap=9}}}}}}]")
        sources = build_sources(recipe, fill=(0, 0, 0))
        stream, taxonomy = sources.streams["street"]["labeled"], sources.taxonomies["street"]
        counts, keys = np.zeros(len(taxonomy.names), np.int64), sources.selected["street/labeled"]
        for number, key in enumerate(stream.shards.keys()):
            if key in keys:
                mask = taxonomy.map(stream.shards.read(number).label)  # type: ignore[arg-type]
                counts += np.bincount(mask[mask != 255], minlength=len(counts))
        assert sources.class_pixels == {"street": counts.tolist()} and len(keys) == 6
        learner = build_learner(
            recipe, build_model(recipe.model, classes_of(recipe)), sources.taxonomies, sources.class_pixels
        )
        (objective,) = learner.objectives["street"]  # type: ignore[misc]
        weights = np.array(objective.options["weights"])  # type: ignore[index]
        assert weights.max() / weights.min() == pytest.approx(9) and counts @ weights == pytest.approx(counts.sum())
        batch = StepData(sources.streams)[0]
        assert isinstance(batch, dict)
        learner(batch, step=0, steps=4).total.backward()
    assert build_sources(tiny(), fill=(0, 0, 0)).class_pixels == {}


def test_class_uniform_crops_hold_their_classes_equally_often(tiny: Callable[..., Recipe]) -> None:
    """Of the labeled source alone, then of another split's masks for two classes until half of the training."""
    crop = ("steps=40", "data.domains.street.augment.crop=[24, 24]", "data.domains.street.labeled.subset={count=6}")
    recipe = tiny(*crop, "data.domains.street.labeled.class_uniform={share=0.5}")
    stream = build_sources(recipe, fill=(0, 0, 0)).streams["street"]["labeled"]
    assert isinstance(stream.plan, ClassUniformPlan) and stream.taxonomy is not None
    counts = dict.fromkeys(stream.plan.classes, 0)
    samples = set()
    for draw in stream.plan.draws(0, 120):
        samples.add(draw.sample)
        if draw.anchor is not None:
            label = stream.shards.read(draw.sample).label
            assert label is not None
            mask = stream.load(draw).mask
            assert mask is not None and mask.shape == (24, 24)
            anchors = stream.shards.anchors(stream.taxonomy).of_samples(np.array([draw.sample]))
            here = (anchors.row == draw.anchor[0]) & (anchors.column == draw.anchor[1])
            counts[int(anchors.label[here][0])] += 1
    assert len(samples) == 6
    assert sum(counts.values()) == 60

    names = ["pole", "person"]
    extra = f"{{dataset='street', split='val', classes={names}, until=0.5}}"
    own = f"data.domains.street.labeled.class_uniform={{share=1.0, extra={extra}}}"
    stream = build_sources(tiny(*crop, own, "data.allow_overlap=true"), fill=(0, 0, 0)).streams["street"]["labeled"]
    assert isinstance(stream.plan, ClassUniformPlan) and stream.taxonomy is not None
    half = 20 * stream.batch_size
    draws = stream.plan.draws(0, 2 * half)
    anchors = stream.shards.anchors(stream.taxonomy)
    for draw in draws[:half]:
        if draw.sample >= 18:  # the training scenes come first
            found = anchors.label[(anchors.sample == draw.sample)]
            assert set(found.tolist()) & {stream.taxonomy.names.index(name) for name in names}
    assert any(draw.sample >= 18 for draw in draws[:half])
    assert not any(draw.sample >= 18 for draw in draws[half:])
