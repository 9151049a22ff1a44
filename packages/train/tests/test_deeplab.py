"""The papers' networks in a recipe: what is built, what is refused, and a run with and without checkpointing."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semiseg.models import DeepLabV3PlusDecoder, from_pretrained
from semiseg.train.assemble.learner import build_learner
from semiseg.train.assemble.model import ModelError, build_model
from semiseg.train.assemble.sources import build_sources
from semiseg.train.loop import train
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.load import load
from semiseg.train.recipe.problems import RecipeError
from semiseg.train.recipe.shards import classes_of
from semiseg.train.step.batches import StepData

DEEPLAB = (
    'model.context={kind="aspp", channels=16, rates=[2, 3]}',
    'model.decoder={kind="deeplabv3plus", low_stride=4}',
    'objectives.1.perturbations=[{kind="dropout", count=2}, {kind="vat"}]',
    "objectives.1.decoder=linear",
)


def test_cross_consistency_fits_the_deeplab_decoders_output(tiny: Callable[..., Recipe]):
    """Crops of 40x44, whose sides are multiples of 8 and of 4 only."""
    recipe = tiny(*DEEPLAB, "data.domains.street.augment.crop=[40, 44]", "model.encoder.checkpointing=true")
    model = build_model(recipe.model, classes_of(recipe))
    sources = build_sources(recipe, fill=(0, 0, 0))
    learner = build_learner(recipe, model, sources.taxonomies)
    assert model.encoder.checkpointing
    batch = StepData(sources.streams, alternate=False, rank=0, world=1)[0]
    assert isinstance(batch, dict)
    learner(batch, step=4, steps=8).total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learner.parameters())
    assert isinstance(model.decoders["street"], DeepLabV3PlusDecoder)
    bank = next(module for name, module in learner.named_modules() if name.endswith("bank"))
    assert bank.stride == model.upsampling == 2


def test_a_run_is_the_same_with_checkpointing_even_when_resumed(recipe_file: Callable[..., Path], tmp_path: Path):
    """4 steps at once without, against 2 and 2 with checkpointing: bit-identical, and the same run folder."""
    common = (*DEEPLAB, "steps=4", "evaluate.every=4", "checkpoint.every=2")
    plain = train(load(recipe_file(), [*common, "name=plain"]), quiet=True)
    lean = [*common, "name=lean", "model.encoder.checkpointing=true"]
    first = train(load(recipe_file(), lean), quiet=True).folder
    shutil.rmtree(first / "step-00000004")
    (first / "results.json").unlink()
    train(load(recipe_file(), lean), quiet=True)
    one, two = (from_pretrained(folder) for folder in (plain.folder, first))
    for (name, tensor), other in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name


def test_the_context_and_the_encoder_of_a_run_start_another_set_of_classes(
    recipe_file: Callable[..., Path], tmp_path: Path
):
    """`weights` loads only the encoder, `start` the context as well; rates and low stride must be equal."""
    run = train(load(recipe_file(), [*DEEPLAB, "steps=1", "name=first"]), quiet=True).folder
    source = from_pretrained(run).state_dict()
    text = recipe_file().read_text().replace("data.domains.street", "data.domains.town")
    other = tmp_path / "other.toml"
    other.write_text(text)
    for setting, parts in ((f"model.encoder.weights={run}", 1), (f"model.start={run}", 2)):
        recipe = load(other, [*DEEPLAB, setting])
        taken = build_model(recipe.model, {"town": tuple("abcdefg")}).state_dict()
        assert all(torch.equal(taken[name], t) for name, t in source.items() if name.startswith("encoder."))
        same = torch.equal(taken["context.fuse.weight"], source["context.fuse.weight"])
        assert same == (parts == 2)
    for change, message in (
        ('model.context={kind="aspp", channels=16, rates=[2, 4]}', r"has rates \[2, 3\] in its context"),
        ('model.decoder={kind="deeplabv3plus", low_stride=2}', "has decoders of low_stride 4"),
    ):
        recipe = load(other, [*DEEPLAB, f"model.start={run}", change])
        with pytest.raises(ModelError, match=message):
            build_model(recipe.model, {"town": tuple("abcdefg")})


def test_incompatible_settings_are_reported_at_once(tiny: Callable[..., Recipe]):
    with pytest.raises(RecipeError) as error:
        tiny(
            *DEEPLAB[:2],
            "model.encoder.name=wide_resnet38",
            "model.encoder.weights=timm",
            "model.encoder.output_stride=16",
            "model.encoder.checkpointing=true",
            "compile=true",
        )
    message = str(error.value)
    assert 'timm publishes no weights of wide_resnet38; set "none"' in message
    assert "wide_resnet38 has no output stride 16; set 8" in message
    assert '"same" is impossible with deeplabv3plus' in message and 'set "subpixel" or "linear"' in message
    compiled = (
        "model.encoder.checkpointing=true': a compiled encoder does not recompute activations; remove this, or set"
    )
    assert compiled in message
    assert "perturbations.1.kind: ranks cells by their sum over channels" in message
