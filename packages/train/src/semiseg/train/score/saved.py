"""Saved models: open one, choose its domain, and find the views and the classes that it was trained with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semiseg.data import SemisegError
from semiseg.train.sealed import all_best, all_steps, fault

if TYPE_CHECKING:
    from semiseg.data import Pool, ShardSet, Taxonomy
    from semiseg.models import Segmenter
    from semiseg.train.recipe import Evaluate, Recipe
    from semiseg.train.score.views import Views


def open_model(place: str, *, best: bool = False) -> "tuple[Segmenter, dict[str, Taxonomy]]":
    """A saved model in evaluation mode, and the taxonomy of each of its domains, as saved with it."""
    from semiseg.data import RawSpace, Taxonomy
    from semiseg.models import from_pretrained
    from semiseg.train.score.described import check_description

    if Path(place).is_file():
        raise SemisegError(f"{place} is a file; expected the folder of a run or of a saved model")
    kept = all_best(Path(place))
    if best and not kept:
        raise SemisegError(f"{place} has no best-*/: it is not a run, or was never validated; leave out --best")
    folder = kept[-1] if best else place
    for saved_in in (Path(folder), *all_steps(Path(folder))[-1:]):
        if broken := fault(saved_in, only=("config.json", "model.safetensors")):
            raise SemisegError(
                f"{saved_in} is damaged: {broken}; use an earlier one, or train the run again to write it"
            )
    try:
        segmenter = from_pretrained(folder)
    except (FileNotFoundError, ValueError) as error:
        raise SemisegError(str(error)) from None
    check_description(segmenter.metadata, segmenter.classes, folder)
    described = segmenter.metadata.get("taxonomies", {})
    taxonomies = {}
    for name, classes in segmenter.classes.items():
        if name not in described:
            raise SemisegError(f"{place} does not name the classes of its domain {name}; use a model saved by semiseg")
        saved = described[name]
        raw = RawSpace(name=saved["name"], names=dict(enumerate(saved["names"])))
        taxonomies[name] = Taxonomy(
            name=saved["name"],
            raw=raw,
            names=tuple(saved["names"]),
            colours=tuple((r, g, b) for r, g, b in saved["colours"]),
            ids={number: number for number in range(classes)},
            foreground=frozenset(),
        )
    return segmenter, taxonomies


def choose_domain(segmenter: "Segmenter", domain: str | None) -> str:
    """The requested domain, or the only one."""
    known = list(segmenter.classes)
    if domain is None and len(known) == 1:
        return known[0]
    if domain not in known:
        what = "has several domains" if domain is None else f"has no domain {domain!r}"
        raise SemisegError(f"the model {what}; choose one with --domain: {', '.join(known)}")
    return domain


def move_to_device(segmenter: "Segmenter") -> str:
    """Move a model to a GPU, if any (ACCELERATE_USE_CPU=true: never); returns " on <device>", or "" for a CPU."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    device = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")).device
    assert device is not None
    segmenter.to(device)
    return "" if device.type == "cpu" else f" on {device}"


def recipe_of(run: Path) -> "Recipe | None":
    """The recipe in a run's folder; None for any other model."""
    from semiseg.train.recipe.load import load

    return load(run / "recipe.toml") if (run / "recipe.toml").is_file() else None


def views_of(
    recipe: "Recipe | None",
    metadata: Mapping[str, Any],
    *,
    scale: list[float] | None = None,
    flip: bool | None = None,
    tile: tuple[int, int] | None = None,
    overlap: float | None = None,
) -> "Views":
    """Views from the command line; options not given come from the run's recipe, or else from the model's metadata."""
    from semiseg.train.score.views import SINGLE_VIEW, Views

    planned = SINGLE_VIEW
    if recipe is not None:
        planned = build_views(recipe.evaluate)
    elif saved := metadata.get("views"):  # JSON, which has lists
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()
        }
        planned = Views(**fields)
    if tile is not None and bool(tile[0]) != bool(tile[1]):
        raise SemisegError(f"--tile {tile[0]} {tile[1]} is not a size; give height and width, or 0 0 for no tiles")
    return Views(
        scales=tuple(scale) if scale else planned.scales,
        flip=planned.flip if flip is None else flip,
        tile=planned.tile if tile is None else (tile if all(tile) else None),
        overlap=planned.overlap if overlap is None else overlap,
    )


def build_views(evaluate: "Evaluate") -> "Views":
    """The views that a recipe's `[evaluate]` describes."""
    from semiseg.train.score.views import Views

    tile = evaluate.tile
    if tile is None:
        return Views(scales=evaluate.scales, flip=evaluate.flip)
    return Views(scales=evaluate.scales, flip=evaluate.flip, tile=tile.size, overlap=tile.overlap)


def classes_in(segmenter: "Segmenter", domain: str) -> tuple[str, ...]:
    """The class names saved with a model; empty if there are none."""
    return tuple(segmenter.metadata.get("taxonomies", {}).get(domain, {}).get("names", ()))


def scored_classes(saved: "Taxonomy", shards: "ShardSet | Pool", *, raw_space: str | None) -> "Taxonomy":
    """The taxonomy of labeled shards that a model's classes are scored in.

    saved: the model's. raw_space: of the labels that it was trained on; None for models that do not record it. Labels of
    another data set are scored if its classes have the same names in the same order. Raises DataError for all others.
    """
    from semiseg.data import DataError, Pool, Taxonomy
    from semiseg.train.recipe.shards import label_conflict

    sets, space = shards.sets if isinstance(shards, Pool) else (shards,), shards.raw_space.name
    if not shards.labeled:
        raise DataError(f"{shards.url}: has no labels; score on a labeled split, such as --split val")
    own = {taxonomy.name: taxonomy for taxonomy in shards.taxonomies}
    found = own.get(saved.name)
    if found is None:
        found = next((taxonomy for taxonomy in own.values() if taxonomy.names == saved.names), None)
    if found is None:
        known = Taxonomy.all().get(saved.name)
        if known is None or known.raw_space != space:
            raise DataError(
                f"{shards.url}: labels of '{space}' with the classes {_listed(next(iter(own.values()), saved).names)}, but "
                f"the model knows those of taxonomy '{saved.name}': {_listed(saved.names)}; score on shards with these classes "
                "(--dataset NAME --split SPLIT), or choose another domain of the model with --domain"
            )
        found = known
    if conflict := next((text for each in sets if (text := label_conflict(found, each))), ""):
        raise DataError(f"{shards.url}: {conflict}; write these shards again: semiseg data shard")
    same = raw_space in (None, space, f"classes of {saved.name}") or space == f"classes of {saved.name}"
    if conflict := class_conflict(saved.names, found.names, renamed=same):
        raise DataError(f"{shards.url}: {conflict}; score on shards with the classes that the model was trained on")
    return found


def class_conflict(model: Sequence[str], data: Sequence[str], *, renamed: bool = True) -> str:
    """Why a model's decoder does not fit these classes; "" if it does. Classes may be `renamed`, but not moved."""
    if tuple(model) == tuple(data):
        return ""
    moved = [name for number, name in enumerate(model) if name in data and list(data).index(name) != number]
    if renamed and len(model) == len(data) and not moved and (set(model) & set(data)):
        return ""
    return f"the model's classes are {_listed(model)}, those of the data {_listed(data)}"


def renamed_classes(model: Sequence[str], data: Sequence[str]) -> str:
    """Which classes have other names in the data, for a note; "" if none."""
    pairs = [f"'{own}' is '{other}'" for own, other in zip(model, data, strict=True) if own != other]
    return ", ".join(pairs[:4]) + (f" and {len(pairs) - 4} more" if len(pairs) > 4 else "")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
