"""A weak source from recipe to batch: pseudo-labels of the covered images, and every mistake named."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from semiseg.data import OverlaySet, ShardSet, open_dataset, shard, write_overlay
from semiseg.methods import CrossConsistency
from semiseg.train.assemble.learner import build_learner
from semiseg.train.assemble.model import build_model
from semiseg.train.assemble.optimizer import build_optimizer
from semiseg.train.assemble.sources import build_sources
from semiseg.train.dry_run import preview
from semiseg.train.recipe import Recipe, Unlabeled, Weak
from semiseg.train.recipe.load import RecipeError, load, to_toml
from semiseg.train.recipe.preflight import preflight
from semiseg.train.recipe.shards import classes_of
from semiseg.train.step.batches import StepData

STREET = "data.domains.street"
WEAK = f"{STREET}.weak={{dataset='street', split='train', batch_size=4, minus='labeled'}}"
LOSS = "objectives.1.weak={value=0.4, over=0.3}"


@pytest.fixture
def weak(recipe_file: Callable[..., Path], weak_scenes: Path) -> Callable[..., Recipe]:
    """The tiny recipe with a weak source in place of the unlabeled one, under overrides."""

    def make(*overrides: str) -> Recipe:
        return load(recipe_file(), [f"data.shards={weak_scenes}", f"{STREET}.unlabeled=", WEAK, LOSS, *overrides])

    return make


def faults(recipe: Recipe) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        preflight(recipe)
    return list(caught.value.faults)


def test_weak_batches_hold_pseudo_labels_of_covered_images_that_are_not_labeled(weak: Callable[..., Recipe]):
    recipe = weak(f"{STREET}.augment={{}}")
    preflight(recipe)
    sources = build_sources(recipe, fill=(0, 0, 0))
    streams = sources.streams["street"]
    assert list(streams) == ["labeled", "weak"]
    overlay = OverlaySet(f"{recipe.data.shards}/street/train@cam")
    keys = overlay.keys()
    labeled = set(sources.selected["street/labeled"])
    assert len(keys) == len(overlay.base) - 3
    assert set(sources.selected["street/weak"]) == set(keys) - labeled
    assert len(streams["weak"].plan) == len(set(keys) - labeled) < len(keys)
    assert sources.digests["street/weak"] == overlay.digest

    batch = StepData(sources.streams)[2]
    assert isinstance(batch, dict)
    found = batch["street"]["weak"]
    truth = open_dataset("street").taxonomies[0]
    assert found.masks is not None and len(found) == 4
    for image, mask, position in zip(found.images, found.masks, found.positions, strict=True):
        drawn = streams["weak"].plan.draws(position, position + 1)[0].sample
        below = overlay.base.read(overlay.row(drawn))
        assert below.label is not None
        expected = torch.from_numpy(truth.map(below.label))
        expected[: len(expected) // 3] = 255
        assert torch.equal(mask, expected)
        assert torch.equal(image, torch.from_numpy(np.array(below.image)).permute(2, 0, 1))


def test_a_step_trains_auxiliary_decoders_on_pseudo_labels_but_not_the_main_one(weak: Callable[..., Recipe]):
    recipe = weak("objectives.1.weight.value=0", "objectives.1.weak.shape=constant")
    sources = build_sources(recipe, fill=(0, 0, 0))
    model = build_model(recipe.model, classes_of(recipe))
    learner = build_learner(recipe, model, sources.taxonomies).train()
    method = learner.objectives["street"][1]  # type: ignore[index]
    assert isinstance(method, CrossConsistency) and method.weak is not None and method.weak(0.0) == 0.4
    build_optimizer(recipe, learner)
    batch = StepData(sources.streams)[0]
    assert isinstance(batch, dict)
    losses = learner(batch, step=4, steps=8)
    assert set(losses.terms) == {"street/supervised", "street/consistency", "street/weak"}
    assert 0 < losses.diagnostics["street/weak_coverage"] < 0.9
    (losses.terms["street/consistency"] + losses.terms["street/weak"]).backward()
    assert all(parameter.grad is None for parameter in model.decoders.parameters())
    assert all(parameter.grad is not None for parameter in method.parameters())
    assert any(
        parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.encoder.parameters()
    )


def test_self_training_is_a_second_supervised_loss_of_the_main_decoder(weak: Callable[..., Recipe]):
    chosen = "objectives=[{kind='supervised'}, {kind='supervised', on='weak', weight=0.5, loss={kind='dice'}}]"
    recipe = weak(chosen)
    sources = build_sources(recipe, fill=(0, 0, 0))
    model = build_model(recipe.model, classes_of(recipe))
    learner = build_learner(recipe, model, sources.taxonomies).train()
    batch = StepData(sources.streams)[0]
    assert isinstance(batch, dict)
    losses = learner(batch, step=4, steps=8)
    assert set(losses.terms) == {"street/supervised", "street/self_training"}
    losses.terms["street/self_training"].backward()
    assert all(own.grad is not None and own.grad.abs().sum() > 0 for own in model.decoders.parameters())
    with pytest.raises(RecipeError, match="nothing trains the main decoder of domain street"):
        weak("objectives=[{kind='supervised', on='weak'}]")
    with pytest.raises(RecipeError, match="a second 'supervised' for domain street"):
        weak("objectives=[{kind='supervised'}, {kind='supervised', on='weak'}, {kind='supervised', on='weak'}]")


def test_a_domain_without_weak_images_has_the_objective_without_their_loss(weak: Callable[..., Recipe]):
    recipe = weak()
    street = replace(
        recipe.data.domains["street"], weak=None, unlabeled=Unlabeled(dataset="street", split="train", batch_size=3)
    )
    recipe = replace(recipe, data=replace(recipe.data, domains={"street": street}))
    taxonomies = build_sources(recipe, fill=(0, 0, 0)).taxonomies
    learner = build_learner(recipe, build_model(recipe.model, classes_of(recipe)), taxonomies)
    method = learner.objectives["street"][1]  # type: ignore[index]
    assert isinstance(method, CrossConsistency) and method.weak is None


def test_resolved_and_previewed(weak: Callable[..., Recipe], tmp_path: Path):
    recipe = weak()
    assert recipe.data.domains["street"].weak == Weak(dataset="street", split="train", batch_size=4, minus="labeled")
    path = tmp_path / "resolved.toml"
    path.write_text(to_toml(recipe))
    assert load(path) == recipe
    assert weak("objectives.1.weak={over=0.3}") == recipe  # 0.4 is the default
    text = preview(recipe)
    assert " images with pseudo-labels (of 18 in the split), 4 a step" in text and "street weak: " in text


def test_what_is_missing_is_reported_with_its_remedy(weak: Callable[..., Recipe], recipe_file: Callable[..., Path]):
    (missing,) = faults(weak(f"{STREET}.weak.overlay=cma"))
    place = missing.split("for ")[1].split(";")[0]
    assert "weak.overlay=cma': no pseudo-labels 'cma' for " in missing
    assert f"semiseg weak fit {place} --to runs/tags && " in missing
    assert missing.endswith(f"semiseg weak labels {place} --classifier runs/tags --name cma")
    (split,) = faults(weak(f"{STREET}.weak.split=trian"))
    assert "no shards for street/trian" in split and "did you mean 'train'?" in split
    (nothing,) = faults(weak(f"{STREET}.labeled.subset="))
    assert "weak.minus" in nothing or "nothing is left: all 18 images are labeled" in nothing

    def broken(*overrides: str) -> str:
        with pytest.raises(RecipeError) as caught:
            load(recipe_file(), overrides)
        (fault,) = caught.value.faults
        return fault

    assert (
        "no objective learns from these pseudo-labels; add an objective { kind = 'supervised', on = 'weak' }"
        in broken(WEAK)
    )
    assert f"{STREET}.weak: missing, and objectives.1 (cross_consistency) needs it; add weak = " in broken(LOSS)
    assert "3 micro-steps" in broken(WEAK.replace("batch_size=4", "batch_size=2"), LOSS, "accumulate=3")
    elsewhere = WEAK.replace("'street'", "'room'")
    assert "nothing to leave out: labeled images come from 'street', these from 'room'" in broken(elsewhere, LOSS)


def test_labels_of_shards_that_were_written_again_are_refused(weak: Callable[..., Recipe], weak_scenes: Path):
    shutil.rmtree(weak_scenes / "street" / "train")
    shard(open_dataset("street", size="64x48", train_count=18, val_count=5, seed=1), "train", weak_scenes)
    (refused,) = faults(weak())
    digest = ShardSet(weak_scenes / "street" / "train").digest[:12]
    assert f"has digest {digest}: they were rewritten since, and rows no longer match" in refused


def test_labels_of_other_classes_are_refused(weak: Callable[..., Recipe], weak_scenes: Path):
    street = ShardSet(weak_scenes / "street" / "train")
    other = replace(street.taxonomies[0], name="street-coarse")
    write_overlay(street, "coarse", other, lambda row: np.zeros((48, 64), np.uint8), settings={})
    (refused,) = faults(weak(f"{STREET}.weak.overlay=coarse"))
    assert "holds classes of taxonomy 'street-coarse', the domain has 'street-8'" in refused
    assert "--taxonomy street-8, under another --name" in refused
