"""A context of several levels in a recipe: every method runs on its z, and what cannot be is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from semiseg.models import FPN, from_pretrained
from semiseg.train.assemble.learner import build_learner
from semiseg.train.assemble.model import ModelError, build_model
from semiseg.train.assemble.sources import build_sources
from semiseg.train.commands import score
from semiseg.train.loop import train
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.load import load
from semiseg.train.recipe.problems import RecipeError
from semiseg.train.recipe.shards import classes_of
from semiseg.train.step.batches import StepData

NETWORK = (
    'model.encoder={name="resnet10t", output_stride=32, weights="none"}',
    'model.context={kind="fpn", levels=[8, 16, 32], channels=16, width=8}',
)
SEVEN = ("dropout", "feature_drop", "feature_noise", "guided_cutout", "vat", "context_mask", "object_mask")


@pytest.mark.parametrize("decoder", ["subpixel", "linear", "deeplabv3plus"])
def test_all_perturbations_and_structured_consistency_act_on_its_z(tiny: Callable[..., Recipe], decoder: str) -> None:
    kinds = ", ".join(f"{{kind='{kind}'}}" for kind in SEVEN)
    auxiliary = "linear" if decoder == "deeplabv3plus" else "same"
    recipe = tiny(
        *NETWORK,
        f"model.decoder.kind={decoder}",
        "objectives=[{kind='supervised'}, {kind='structured_consistency'}, "
        f"{{kind='cross_consistency', decoder='{auxiliary}', perturbations=[{kinds}]}}]",
    )
    model = build_model(recipe.model, classes_of(recipe))
    assert isinstance(model.context, FPN) and model.stride == 8 and model.encoder.stride == 32
    assert model.upsampling == (2 if decoder == "deeplabv3plus" else 8)
    learner = build_learner(recipe, model, build_sources(recipe, fill=(0, 0, 0)).taxonomies)
    batch = StepData(build_sources(recipe, fill=(0, 0, 0)).streams)[0]
    assert isinstance(batch, dict)
    learner(batch, step=4, steps=8).total.backward()
    trained = [own for own in learner.parameters() if own.requires_grad]
    assert all(own.grad is not None and own.grad.isfinite().all() for own in trained)


def test_a_run_is_saved_scored_and_continued(recipe_file: Callable[..., Path], tmp_path: Path) -> None:
    common = (*NETWORK, "steps=2", "evaluate.every=2", "precision=no")
    folder = train(load(recipe_file(), [*common, "name=fine"]), quiet=True).folder
    model = from_pretrained(folder)
    assert model.config["levels"] == [8, 16, 32] and model.config["context_width"] == 8
    app = typer.Typer()
    app.command()(score.evaluate)
    scored = CliRunner().invoke(app, [str(folder), "--workers", "0"])
    assert scored.exit_code == 0, scored.output
    again = load(recipe_file(), [*common, "name=more", f"model.start={folder}"])
    started = build_model(again.model, classes_of(again))
    assert all(torch.equal(a, b) for a, b in zip(started.parameters(), model.parameters(), strict=True))
    other = load(recipe_file(), [*common, "name=other", f"model.start={folder}", "model.context.width=16"])
    with pytest.raises(ModelError, match=r"has levels .8, 16, 32. of width 8 in its context"):
        build_model(other.model, classes_of(other))


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ("[8, 16]", r"end in output_stride = 32; set \[8, 16, 32\]"),
        ("[16, 8, 32]", "not strides from fine to coarse"),
        ("[8, 12, 32]", "not strides from fine to coarse"),
    ],
)
def test_levels_that_do_not_fit_are_refused(recipe_file: Callable[..., Path], levels: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load(recipe_file(), [*NETWORK, f"model.context.levels={levels}"])
