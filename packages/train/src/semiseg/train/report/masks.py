"""Predictions for a report: a few validation images, by one run of each method. Ours alone: no image, no label is kept."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semiseg.data import DataError, Pool, SemisegError, ShardSet, replaced
from semiseg.train.recipe.load import load
from semiseg.train.recipe.shards import open_source, select
from semiseg.train.report.collect import why_incomplete
from semiseg.train.report.index import Index, read_json
from semiseg.train.score.predict import Picture, write_masks
from semiseg.train.score.saved import open_model, to_work, views_of

FOLDER = "predictions"


def predict(
    index: Index, runs: Path, to: Path, *, count: int = 0, keys: tuple[str, ...] = (), shards: str | None = None
) -> dict[str, Any]:
    """Write `to/predictions/<run>/<key>.png` (class ids with a palette); returns what the index says of them.

    Of each method the first repeat at the first label count, by its last weights; "scores" tell which weights those were.
    Earlier predictions of the same images by methods that are not in `runs` stay. `keys`: which validation images; or
    `count` of them, evenly spread over the split. `shards`: where they lie, by default where the run had them.
    Raises SemisegError where no run is complete with its weights, or a key is not in the split.
    """
    chosen = chosen_runs(index, runs)
    if not chosen:
        raise SemisegError(f"{runs} holds no complete run that could predict; collect without --predict and --images")
    recipe = load(runs / next(iter(chosen.values())) / "recipe.toml")
    domain, source = next(((name, each.val) for name, each in recipe.data.domains.items() if each.val), ("", None))
    if source is None:
        raise SemisegError(f"the runs in {runs} have no validation images to predict; leave --predict and --images out")
    pool = open_source(shards or recipe.data.shards, source)
    subset = select(pool, source, pool.taxonomy(recipe.data.domains[domain].taxonomy))
    names = pool.keys() if subset is None else [pool.keys()[i] for i in subset]
    if unknown := [key for key in keys if key not in names]:
        raise DataError(f"--images: no validation image {unknown[0]!r} in {pool.url}; its keys look like {names[0]!r}")
    rule = f"chosen by name, of {len(names)}"
    if not keys:
        places = np.linspace(0, len(names) - 1, min(count, len(names)) + 2)[1:-1].round().astype(int)
        keys, rule = tuple(names[i] for i in places), f"evenly spaced in the split's order of {len(names)}"
    rows = {key: row for row, key in enumerate(pool.keys())}
    pictures = [Picture(f"{pool.url}: sample {key}", Path(key), partial(_image, pool, rows[key])) for key in keys]
    earlier = index.predictions or {}
    if earlier.get("keys") != list(keys) or earlier.get("domain") != domain:
        earlier = {}
    remedy = "train that run again"
    scores = {run: read_json(runs / run / "results.json", remedy=remedy)["last"].get("miou") for run in chosen.values()}
    with replaced(to / FOLDER) as fresh:
        for method, run in earlier.get("runs", {}).items():  # of another machine, which has those methods' weights
            if method not in chosen and (to / FOLDER / run).is_dir():
                shutil.copytree(to / FOLDER / run, fresh / run)
        for run in chosen.values():
            model, taxonomies = open_model(str(runs / run))
            to_work(model)
            views = views_of(load(runs / run / "recipe.toml"), model.metadata)
            size = model.metadata.get("resize", {}).get(domain)
            write_masks(model, taxonomies[domain], pictures, fresh / run, domain=domain, resize=size, views=views)
    return {
        "domain": domain,
        "taxonomy": recipe.data.domains[domain].taxonomy,
        "dataset": source.dataset,
        "splits": list(source.splits),
        "keys": list(keys),
        "rule": rule,
        "runs": earlier.get("runs", {}) | chosen,
        "scores": earlier.get("scores", {}) | scores,
    }


def chosen_runs(index: Index, runs: Path) -> dict[str, str]:
    """Method -> its run at the first label count, of the first repeat that is complete and has weights."""
    chosen: dict[str, str] = {}
    first = index.axes[index.across][0] if index.across else None
    order = index.axes.get(index.repeats, [""])
    there = [name for name, at in index.runs.items() if not index.across or at[index.across] == first]
    for name in sorted(there, key=lambda name: order.index(index.runs[name].get(index.repeats, order[0]))):
        if not why_incomplete(runs / name, index.plan.get(name, {})) and any(
            (runs / name).glob("step-*/model.safetensors")
        ):
            chosen.setdefault(index.method(name), name)
    return {method: chosen[method] for method in index.methods if method in chosen}


def _image(pool: ShardSet | Pool, row: int) -> Image.Image:
    return pool[row].image.convert("RGB")
