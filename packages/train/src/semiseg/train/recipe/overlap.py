"""Validation images among the training images: scores on them say nothing about new images.

The samples that are used are compared, not the splits, of all domains: by the bytes of their images, from checksums in the
index, and by key. A key alone proves nothing, since some data sets number the images of every split from 0, so images of
equal keys and different bytes are decoded and compared at 16 x 16 pixels, a few of each pair of sources. The images of a run
whose weights training starts from count as training images, too, if its recipe and its shards are still there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from semiseg.data import DataError, Sample
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.load import load
from semiseg.train.recipe.problems import Origin, Problem, RecipeError
from semiseg.train.recipe.shards import Chosen, choose

RECIPE = "recipe.toml"  # in the folder of a run
COMPARED = 8  # pairs of images that are decoded, of two sources
SIDE = 16  # of thumbnails in pixels
MEAN, MOST = 4.0, 16.0  # differences, of 255, of one photograph that was written twice: mean, and 99th percentile
Everything = Mapping[str, Mapping[str, Chosen]]  # domain -> role -> samples


def check_overlap(recipe: Recipe, chosen: Everything | None = None) -> tuple[str, ...]:
    """Which validation images are trained on, a line for each domain; RecipeError unless the recipe allows any."""
    if chosen is None:
        chosen = {name: choose(recipe.data, name) for name in recipe.data.domains}
    found = list(_overlaps(chosen, _learned(recipe)))
    if found and not recipe.data.allow_overlap:
        remedy = "use other images for one of them, or, to measure the fit on purpose, set data.allow_overlap=true"
        problems = [Problem(("data", "domains", name, "val"), f"{what}; {remedy}") for name, what in found]
        raise RecipeError(Origin.of(recipe).report(problems))
    return tuple(f"{name}: {what}" for name, what in found)


@dataclass(frozen=True)
class _Taken:
    """The samples of a source: their numbers in it, their keys, and size and crc32 of each image as one integer."""

    source: Chosen
    numbers: np.ndarray
    keys: list[str]
    images: np.ndarray

    @classmethod
    def of(cls, source: Chosen) -> "_Taken":
        shards = source.shards
        numbers = np.arange(len(shards)) if source.indices is None else np.asarray(source.indices, np.int64)
        keys, checksums = shards.keys(), shards.image_checksums()
        images = (checksums[:, 0] << 32 | checksums[:, 1])[numbers]
        return cls(source, numbers, [keys[i] for i in numbers], images)

    def read(self, place: int) -> Sample:
        return self.source.shards.read(int(self.numbers[place]), label=False)


def _learned(recipe: Recipe) -> Everything:
    """What runs trained on that the weights come from: "key = run: domain" -> role -> samples, without validation images."""
    found: dict[str, Mapping[str, Chosen]] = {}
    seen: set[Path] = set()
    key, weights = (
        ("encoder.weights", recipe.model.encoder.weights)
        if recipe.model.start is None
        else ("start", recipe.model.start)
    )
    at = f"model.{key}"
    while (run := _run_of(weights)) and run not in seen:
        at = f"{at}, which started from {run}" if seen else f"{at} = {run}"
        seen.add(run)
        try:
            earlier = load(run / RECIPE)
            for name in earlier.data.domains:
                roles = choose(earlier.data, name)
                found[f"{at}: {name}"] = {role: source for role, source in roles.items() if role != "val"}
        except (RecipeError, DataError, OSError):  # a recipe of another version, or shards that are gone
            break
        weights = earlier.model.encoder.weights if earlier.model.start is None else earlier.model.start
    return found


def _run_of(weights: str) -> Path | None:
    """The run folder that weights are of, if they are of a run: `runs/x`, or one of its models `runs/x/step-00000100`."""
    place = Path(weights)
    return next((folder for folder in (place, place.parent) if place.is_dir() and (folder / RECIPE).is_file()), None)


def _overlaps(chosen: Everything, learned: Everything) -> Iterator[tuple[str, str]]:
    """Domain and what is wrong, for every domain whose validation images are trained on anywhere."""
    if not any("val" in roles for roles in chosen.values()):
        return
    training = {
        (name, role): _Taken.of(source)
        for name, roles in (*chosen.items(), *learned.items())
        for role, source in roles.items()
        if role != "val"
    }
    for name, roles in chosen.items():
        if "val" not in roles:
            continue
        val = _Taken.of(roles["val"])
        shared: dict[str, list[int]] = {}
        for (other, role), taken in training.items():
            if places := _shared(val, taken):
                role = "labeled.class_uniform.extra" if role == "extra" else role
                elsewhere = f"{other}.{role}" if other in learned else f"data.domains.{other}.{role}"
                at = role if other == name else elsewhere
                at = f"{at} ({taken.source.shards.url})"
                shared[at] = places
        if shared:
            count = len({place for places in shared.values() for place in places})
            where = "; ".join(f"{len(places)} in {at}: {_some(val, places)}" for at, places in shared.items())
            yield name, f"{count} of {len(val.keys)} validation images are also training images: {where}"


def _shared(val: _Taken, taken: _Taken) -> list[int]:
    """Places in `val` of the images that `taken` holds too."""
    same = np.flatnonzero(np.isin(val.images, taken.images))
    if 0 < len(same) <= COMPARED:  # few enough to be chance, were it not for their bytes
        first = {int(image): place for place, image in reversed(list(enumerate(taken.images)))}
        same = [place for place in same if _equal(val, int(place), taken, first[int(val.images[place])])]
    found = {int(place) for place in same}
    at = {key: place for place, key in enumerate(taken.keys)}
    named = [(place, at[key]) for place, key in enumerate(val.keys) if place not in found and key in at]
    chosen = [named[i] for i in np.unique(np.linspace(0, len(named) - 1, COMPARED).astype(int))] if named else []
    alike = [place for place, other in chosen if _alike(val.read(place), taken.read(other))]
    if len(alike) * 2 > len(chosen):  # the same photographs, written in another way
        alike = [place for place, _ in named]
    return sorted(found.union(alike))


def _equal(val: _Taken, place: int, taken: _Taken, other: int) -> bool:
    one, two = val.source.shards, taken.source.shards
    return one.raw(int(val.numbers[place])).image == two.raw(int(taken.numbers[other])).image


def _alike(one: Sample, two: Sample) -> bool:
    """Whether two images are one photograph in another size or compression."""
    if abs(np.log(one.image.width * two.image.height / (two.image.width * one.image.height))) > 0.05:
        return False
    small, other = (
        np.asarray(sample.image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64) for sample in (one, two)
    )
    apart = np.abs(small - other)
    return bool(apart.mean() < min(MEAN, small.std() / 4) and np.percentile(apart, 99) < MOST)


def _some(val: _Taken, places: list[int]) -> str:
    return ", ".join(val.keys[place] for place in places[:3]) + ", ..." * (len(places) > 3)
