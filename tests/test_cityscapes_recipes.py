"""The Cityscapes recipes of structured consistency, on shards with the official layout; masks for the test server."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from semiseg.cli.main import build_app
from semiseg.data import ShardSet, open_dataset, shard
from semiseg.train import load, train
from semiseg.train.assemble.sources import build_sources
from semiseg.train.recipe.preflight import preflight
from semiseg.train.recipe.problems import RecipeError
from semiseg.train.step.batches import StepData

RECIPES = Path(__file__).parents[1] / "recipes"
FRAMES = {"train": 6, "val": 2, "test": 2, "train_extra": 3}
SMALL = (  # makes tests fast; everything else is as in the recipe
    "data.workers=0",
    "data.domains.cityscapes.augment.crop=[64, 72]",
    "data.domains.cityscapes.labeled.batch_size=2",
    "data.domains.cityscapes.unlabeled.batch_size=2",
    "model.encoder.name=test_resnet",
    "model.encoder.weights=none",
    "model.context.channels=16",
    "model.context.rates=[1, 2]",
    "evaluate.tile={ size = [48, 64], overlap = 0.33 }",
    "steps=2",
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every split in the recipes, from a tree in the publisher's encoding; pixels are noise."""
    folder, draw = tmp_path_factory.mktemp("cityscapes"), np.random.default_rng(0)
    for split, count in FRAMES.items():
        kind = "gtCoarse" if split == "train_extra" else "gtFine"
        for number in range(count):
            stem = f"{split.replace('_', '')}town_000000_{number:06}"
            picture = folder / "tree" / "leftImg8bit" / split / stem.split("_")[0] / f"{stem}_leftImg8bit.png"
            label = folder / "tree" / kind / split / stem.split("_")[0] / f"{stem}_{kind}_labelIds.png"
            for file, image in (
                (picture, draw.integers(0, 256, (64, 128, 3), np.uint8)),
                (label, draw.choice(np.array([0, 7, 11, 12, 24, 26, 27], np.uint8), (8, 16)).repeat(8, 0).repeat(8, 1)),
            ):
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(file)
    adapter = open_dataset("cityscapes", folder / "tree")
    for split in FRAMES:
        shard(adapter, split, folder / "shards")
    return folder / "shards"


@pytest.mark.parametrize("name", ["cityscapes_structured", "cityscapes_structured_r50"])
def test_the_recipe_passes_checks_and_trains_on_shards_of_the_official_layout(
    name: str, shards: Path, tmp_path: Path
) -> None:
    subset = ["data.domains.cityscapes.labeled.subset.count=4"] if name.endswith("r50") else []
    given = [f"data.shards={shards}", f"runs={tmp_path}", *subset]
    preflight(load(RECIPES / f"{name}.toml", given))  # as it is, except for the places of shards and runs
    run = train(load(RECIPES / f"{name}.toml", [*given, *SMALL]), quiet=True)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    terms = {f"cityscapes/{term}" for term in ("supervised", "pixel_consistency", "structure_consistency")}
    assert terms <= rows[0].keys() and all(np.isfinite(rows[0][term]) for term in terms)
    assert run.results["last"]["domains"]["cityscapes"]["images"] == FRAMES["val"]


def test_train_and_val_are_one_source_if_both_are_named(shards: Path) -> None:
    """For the test server: every image of both splits once per epoch, with its mask."""
    both = 'data.domains.cityscapes.labeled={ dataset = "cityscapes", split = ["train", "val"], batch_size = 2 }'
    rest = 'data.domains.cityscapes.unlabeled={ dataset = "cityscapes", split = "train_extra", batch_size = 2 }'
    given = [f"data.shards={shards}", "data.workers=0", both, rest]
    with pytest.raises(
        RecipeError, match=f"{FRAMES['val']} of {FRAMES['val']} validation images are also training images"
    ):
        preflight(load(RECIPES / "cityscapes_structured_r50.toml", given))
    recipe = load(RECIPES / "cityscapes_structured_r50.toml", [*given, "data.domains.cityscapes.val="])
    preflight(recipe)
    sources = build_sources(recipe, fill=(0, 0, 0))
    stream = sources.streams["cityscapes"]["labeled"]
    keys = stream.shards.keys()
    expected = {f"{split}town/{split}town_000000_{i:06}" for split in ("train", "val") for i in range(FRAMES[split])}
    assert set(keys) == expected and len(keys) == len(expected)
    data = StepData(sources.streams, alternate=False, rank=0, world=1)
    for epoch in range(2):
        drawn = stream.plan.draws(epoch * len(keys), (epoch + 1) * len(keys))
        assert sorted(draw.sample for draw in drawn) == list(range(len(keys)))
    for step in range(4):
        batch = data[step]
        assert isinstance(batch, dict)
        masks = batch["cityscapes"]["labeled"].masks
        assert masks is not None and bool((masks != 255).any())


def test_predictions_have_the_format_of_the_test_server(shards: Path, tmp_path: Path) -> None:
    """labelIds at full size; one file for each image, named `<city>_<sequence>_<frame>*.png`, in any subfolder."""
    recipe = load(RECIPES / "cityscapes_structured.toml", [f"data.shards={shards}", f"runs={tmp_path}", *SMALL])
    run = train(recipe, quiet=True).folder
    out, test = tmp_path / "labelIds", ShardSet(str(shards / "cityscapes" / "test"))
    arguments = ["predict", run, test.url, "--format", "raw", "--scale", 0.5, "--scale", 1, "--flip", "--out", out]
    done = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    written = sorted(out.rglob("*.png"))
    assert len(written) == FRAMES["test"]
    evaluated = {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33}
    for file, key in zip(written, sorted(test.keys()), strict=True):
        assert re.fullmatch(r"testtown_\d{6}_\d{6}.*\.png", file.name) and file.stem == key.split("/")[1]
        mask = Image.open(file)
        assert mask.mode == "L" and mask.size == (128, 64)
        assert set(np.unique(np.array(mask)).tolist()) <= evaluated
