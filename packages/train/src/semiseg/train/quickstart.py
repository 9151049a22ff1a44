"""`semiseg quickstart`: the main job on an embedded default, so that anyone sees CCT train within minutes."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from semiseg.data import Bar, ShardSet, Taxonomy, colourise, contact_sheet, open_dataset, shard
from semiseg.models import from_pretrained
from semiseg.train.loop import Run, train
from semiseg.train.recipe import Recipe, Supervised
from semiseg.train.recipe.load import load
from semiseg.train.recipe.preflight import preflight
from semiseg.train.recipe.shipped import find
from semiseg.train.score.views import predict_ids

DOMAIN, DATASET = "street", "street"


def quickstart(to: Path, *, steps: int | None = None) -> Path:
    """Shard generated scenes, train CCT and its supervised baseline at equal updates, compare; returns the sheet's path.

    The baseline sees the same labeled images, in the same order and with the same crops, and starts from the same weights.
    """
    say = Console(stderr=True, highlight=False, soft_wrap=True).print
    shards = to / "shards"
    recipe = load(find("quickstart"), [f"data.shards={shards}", f"runs={to / 'runs'}"])
    if steps:  # the warm-up stays the same share of it
        schedule = replace(recipe.schedule, warmup=recipe.schedule.warmup * steps // recipe.steps)
        recipe = replace(recipe, steps=steps, schedule=schedule)
    say("[bold]1/3[/bold] generating street scenes")
    adapter = open_dataset(DATASET)
    for split in ("train", "val"):
        with Bar(f"      {split}") as tick:
            manifest = shard(adapter, split, shards, size="2MB", workers=os.cpu_count() or 1, progress=tick)
        say(f"      {split}: {manifest.samples} scenes in {shards / DATASET / split}")
    runs: dict[str, Run] = {}
    for number, (name, chosen) in enumerate({"supervised": baseline_of(recipe), "CCT": recipe}.items()):
        labeled = recipe.data.domains[DOMAIN].labeled.subset
        say(
            f"[bold]{number + 2}/3[/bold] training {name}: {chosen.steps} steps, {labeled.count if labeled else 'all'} labels"
        )
        preflight(chosen)
        runs[name] = train(chosen)
    print_comparison(runs)
    sheet = to / "predictions.png"
    draw_predictions(
        runs, ShardSet(str(shards / DATASET / "val")), Taxonomy.get(recipe.data.domains[DOMAIN].taxonomy), sheet
    )
    say(f"\nlook at: {sheet}")
    say("next, on data of your own kind:")
    say("  semiseg data list                        data sets that are installed")
    say("  semiseg data shard camvid PATH           write shards of a real one")
    say("  semiseg recipe show camvid_cct           what a recipe says, every default visible")
    say("  semiseg train camvid_cct seed=1          train it")
    return sheet


def baseline_of(recipe: Recipe) -> Recipe:
    """The same recipe without its unlabeled images and whatever needs them."""
    supervised = tuple(objective for objective in recipe.objectives if isinstance(objective, Supervised))
    domains = {name: replace(domain, unlabeled=None) for name, domain in recipe.data.domains.items()}
    return replace(
        recipe, name=f"{recipe.name}-supervised", objectives=supervised, data=replace(recipe.data, domains=domains)
    )


def print_comparison(runs: dict[str, Run]) -> None:
    """IoU of every class, a column for each run, at the last step."""
    scores = {name: run.results["last"]["domains"][DOMAIN] for name, run in runs.items()}
    table = Table("class", *(f"{name} %" for name in scores), title="IoU on validation scenes, last step")
    for column in table.columns[1:]:
        column.justify = "right"
    for name in next(iter(scores.values()))["iou"]:
        table.add_row(name, *(_percent(found["iou"][name]) for found in scores.values()))
    table.add_section()
    table.add_row("mean", *(_percent(found["miou"]) for found in scores.values()), style="bold")
    Console(markup=False, emoji=False).print(table)


def draw_predictions(runs: dict[str, Run], shards: ShardSet, taxonomy: Taxonomy, to: Path, *, count: int = 6) -> None:
    """A contact sheet: image, truth, and each run's prediction."""
    models = [from_pretrained(run.folder) for run in runs.values()]
    rows = []
    for index in np.linspace(0, len(shards) - 1, count).astype(int):
        sample = shards[int(index)]
        assert sample.label is not None
        pixels = torch.from_numpy(np.array(sample.image.convert("RGB"))).permute(2, 0, 1)
        with torch.inference_mode():
            ids = [predict_ids(model, pixels, domain=DOMAIN, size=sample.label.shape).numpy() for model in models]
        rows.append([sample.image, *(colourise(classes, taxonomy) for classes in (taxonomy.map(sample.label), *ids))])
    contact_sheet(rows, titles=["image", "truth", *runs], taxonomy=taxonomy).save(to)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
