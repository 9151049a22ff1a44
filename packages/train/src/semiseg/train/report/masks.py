"""Predictions for a report: a few validation images, by one run of each method. Model output only: no image, no label."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from semiseg.data import DataError, Pool, SemisegError, ShardSet
from semiseg.train.recipe.load import load
from semiseg.train.recipe.shards import open_source, select
from semiseg.train.report.index import Index, read_json
from semiseg.train.report.runs import (
    read_collected,
    read_predictions,
    why_incomplete,
    write_collected,
    write_predictions,
)
from semiseg.train.score.images import InputImage
from semiseg.train.score.predict import write_masks
from semiseg.train.score.saved import move_to_device, open_model, views_of


def predict(
    index: Index, runs: Path, to: Path, *, count: int = 0, keys: tuple[str, ...] = (), shards: str | None = None
) -> dict[str, Any]:
    """Write `to/predictions.zip` (class ids with a palette) and what it holds into the index of `to`, which is returned.

    The masks of each method are by its first repeat at the first label count, with its last weights, which "scores" identify.
    Earlier predictions of the same images by methods that are not in `runs` stay. `keys`: which validation images; or
    `count` of them, evenly spaced over the split. `shards`: where they are, by default where the run had them.
    Raises SemisegError if no run is complete with its weights, or a key is not in the split.
    """
    chosen = chosen_runs(index, runs)
    if not chosen:
        raise SemisegError(
            f"{runs} holds no complete run with weights to predict with; leave out --predict and --images"
        )
    recipe = load(runs / next(iter(chosen.values())) / "recipe.toml")
    domain, source = next(((name, data.val) for name, data in recipe.data.domains.items() if data.val), ("", None))
    if source is None:
        raise SemisegError(f"the runs in {runs} have no validation images to predict; leave out --predict and --images")
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
    pictures = [InputImage(f"{pool.url}: sample {key}", Path(key), partial(_image, pool, rows[key])) for key in keys]
    remedy = "train that run again"
    scores = {run: read_json(runs / run / "results.json", remedy=remedy)["last"].get("miou") for run in chosen.values()}
    earlier = index.predictions or {}
    if earlier.get("keys") != list(keys) or earlier.get("domain") != domain:
        earlier = {}
    before = read_predictions(to)  # maybe of another machine, which has the weights of other methods
    kept = {
        method: run
        for method, run in earlier.get("runs", {}).items()
        if method in chosen or f"{run}/{keys[0]}.png" in before
    }
    shown = kept | chosen
    others = set(shown.values()) - set(chosen.values())
    masks = {name: mask for name, mask in before.items() if name.partition("/")[0] in others}
    with TemporaryDirectory() as temp:
        for run in chosen.values():
            model, taxonomies = open_model(str(runs / run))
            move_to_device(model)
            views = views_of(load(runs / run / "recipe.toml"), model.metadata)
            size = model.metadata.get("resize", {}).get(domain)
            done = write_masks(
                model, taxonomies[domain], pictures, Path(temp) / run, domain=domain, resize=size, views=views
            )
            if done.failures:
                raise DataError(done.failures[0])
        masks |= {file.relative_to(temp).as_posix(): file.read_bytes() for file in Path(temp).rglob("*.png")}
    predictions = {
        "domain": domain,
        "taxonomy": recipe.data.domains[domain].taxonomy,
        "dataset": source.dataset,
        "splits": list(source.splits),
        "keys": list(keys),
        "rule": rule,
        "runs": shown,
        "scores": earlier.get("scores", {}) | scores,
    }
    write_predictions(to, masks)
    write_collected(to, replace(index, predictions=predictions), read_collected(to)[1])
    return predictions


def chosen_runs(index: Index, runs: Path) -> dict[str, str]:
    """Method -> its run at the first label count, of the first repeat that is complete and has weights."""
    chosen: dict[str, str] = {}
    first = index.axes[index.across][0] if index.across else None
    order = index.axes.get(index.repeats, [""])
    candidates = [name for name, at in index.runs.items() if not index.across or at[index.across] == first]
    for name in sorted(candidates, key=lambda name: order.index(index.runs[name].get(index.repeats, order[0]))):
        if not why_incomplete(runs / name, index.plan.get(name, {})) and any(
            (runs / name).glob("step-*/model.safetensors")
        ):
            chosen.setdefault(index.method(name), name)
    return {method: chosen[method] for method in index.methods if method in chosen}


def _image(pool: ShardSet | Pool, row: int) -> Image.Image:
    return pool[row].image.convert("RGB")
