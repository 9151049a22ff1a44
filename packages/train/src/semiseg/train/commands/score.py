"""`semiseg eval | predict | export`. Nothing heavy is imported before a command runs."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from semiseg.data import DataError, SemisegError
from semiseg.train.score.saved import choose_domain, open_model, recipe_of, to_work, views_of

if TYPE_CHECKING:
    from semiseg.train.score.evaluate import Scores

SCALE = typer.Option(None, "--scale", min=0.1, max=8, help="Look at images at this scale; give it once for each.")
FLIP = typer.Option(None, "--flip/--no-flip", help="Also look at them mirrored.")
TILE = typer.Option(
    None, "--tile", min=0, metavar="H W", help="Cut them into tiles of this size; 0 0 takes them whole."
)
OVERLAP = typer.Option(None, "--overlap", min=0, max=0.95, help="Least share of its side that a tile has in common.")


class Format(StrEnum):
    """What `semiseg predict` writes."""

    ids = "ids"
    colour = "colour"
    raw = "raw"


def evaluate(
    model: str = typer.Argument(help="A run folder, a saved model's folder, or the id of a model on the hub."),
    dataset: str = typer.Option(None, "--dataset", help="Shards to score on; default: those of the run's recipe."),
    split: str = typer.Option(None, "--split", help="Its split; default: that of the run's recipe, or val."),
    shards: str = typer.Option(
        None, "--shards", help="Folder or URL of the shards; default: the recipe's, or shards/."
    ),
    domain: str = typer.Option(None, "--domain", help="Only this label space of the model."),
    best: bool = typer.Option(False, "--best", help="Of a run: its best model, not its last."),
    scale: list[float] = SCALE,
    flip: bool = FLIP,
    tile: tuple[int, int] = TILE,
    overlap: float = OVERLAP,
    workers: int = typer.Option(2, "--workers", min=0),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Score a model: IoU of every class and their mean.

    Scales, flip and tiles are those of the model's run where they are not given; probabilities are averaged. A GPU is
    used where there is one, unless ACCELERATE_USE_CPU=true.
    """
    from dataclasses import replace

    from semiseg.data import Bar, ShardSet
    from semiseg.train.recipe.shards import open_source, select
    from semiseg.train.score.evaluate import evaluate as score
    from semiseg.train.score.saved import class_conflict

    segmenter, taxonomies = open_model(model, best=best)
    sizes = segmenter.metadata.get("resize", {})
    recipe = recipe_of(Path(model))
    domains = {} if recipe is None else recipe.data.domains
    validated = {name: each.val for name, each in domains.items() if each.val is not None}
    views = views_of(recipe, segmenter.metadata, scale=scale, flip=flip, tile=tile, overlap=overlap)
    if dataset is None and not validated:
        raise DataError(f"{model} is no run with a val source; name the data with --dataset, --split and --shards")
    wanted = [choose_domain(segmenter, domain)] if domain or dataset else list(validated)
    found: dict[str, Scores] = {}
    where = to_work(segmenter)
    for name in wanted:
        if dataset is not None:
            pool, subset = ShardSet(f"{(shards or 'shards').rstrip('/')}/{dataset}/{split or 'val'}"), None
        elif name in validated:
            root, source = "" if recipe is None else recipe.data.shards, validated[name]
            if split is not None:
                source = replace(source, split=split, subset=None, ids=None)
            pool = open_source(shards or root, source)
            subset = select(pool, source, pool.taxonomy(taxonomies[name].name))
        else:
            raise DataError(f"the recipe of {model} has no val source for domain {name}; name the data with --dataset")
        taxonomy, resize = pool.taxonomy(taxonomies[name].name), sizes.get(name)
        if conflict := class_conflict(taxonomies[name].names, taxonomy.names):
            raise DataError(f"{pool.url}: {conflict}; score on shards whose classes are those that it was trained on")
        with Bar(f"evaluating {name}{where}") as tick:
            found[name] = score(
                segmenter,
                pool,
                taxonomy,
                domain=name,
                subset=subset,
                resize=resize,
                views=views,
                workers=workers,
                progress=tick,
            )
    if as_json:
        typer.echo(json.dumps({name: scores.to_json() for name, scores in found.items()}, indent=2))
    else:
        _print_scores(found)


def predict(
    model: str = typer.Argument(help="A run folder, a saved model's folder, or the id of a model on the hub."),
    images: list[str] = typer.Argument(help="Images, or folders of images; or shards, such as shards/cityscapes/test."),
    out: Path = typer.Option(..., "--out", help="Folder that the masks go to, named as their images."),
    form: Format = typer.Option(
        Format.ids,
        "--format",
        help="Pixels are class ids (with the classes' colours as palette), colours, or the raw ids of the publisher's labels.",
    ),
    domain: str = typer.Option(None, "--domain", help="Label space, if the model has several."),
    overlay: bool = typer.Option(False, "--overlay", help="Also write each image with its prediction drawn over it."),
    best: bool = typer.Option(False, "--best", help="Of a run: its best model, not its last."),
    scale: list[float] = SCALE,
    flip: bool = FLIP,
    tile: tuple[int, int] = TILE,
    overlap: float = OVERLAP,
) -> None:
    """Predict masks: one PNG for each image, at its size.

    For Cityscapes' server: semiseg predict MODEL shards/cityscapes/test --format raw --out labelIds/

    Scales, flip and tiles are those of the model's run where they are not given; probabilities are averaged. A GPU is
    used where there is one, unless ACCELERATE_USE_CPU=true.
    """
    from semiseg.data import Bar, ShardSet
    from semiseg.train.score.predict import find_images, images_of, with_raw_ids, write_masks

    segmenter, taxonomies = open_model(model, best=best)
    name = choose_domain(segmenter, domain)
    taxonomy, own = taxonomies[name], ()
    sharded = [place for place in images if "://" in place or (Path(place) / "manifest.json").is_file()]
    if not sharded:
        found = find_images([Path(place) for place in images], out)
    elif len(images) == 1:
        shards = ShardSet(sharded[0])
        found, own = images_of(shards), shards.taxonomies
    else:
        raise DataError(
            f"{sharded[0]} holds shards, whose masks are named by key; predict them in a command of their own"
        )
    if form == Format.raw:
        taxonomy = with_raw_ids(taxonomy, own)
    size = segmenter.metadata.get("resize", {}).get(name)
    views = views_of(recipe_of(Path(model)), segmenter.metadata, scale=scale, flip=flip, tile=tile, overlap=overlap)
    where = to_work(segmenter)
    with Bar(f"predicting{where}") as tick:
        write_masks(
            segmenter,
            taxonomy,
            found,
            out,
            domain=name,
            resize=size,
            views=views,
            form=form.value,
            overlays=overlay,
            progress=tick,
        )
    typer.echo(f"{len(found)} masks of {taxonomy.name} in {out}", err=True)


def export(
    model: str = typer.Argument(help="A run folder, a saved model's folder, or the id of a model on the hub."),
    to: Path = typer.Option(..., "--to", help="Folder to write: model.safetensors and config.json."),
    domain: str = typer.Option(None, "--domain", help="Take out this label space alone; default: all of the model."),
    best: bool = typer.Option(False, "--best", help="Of a run: its best model, not its last."),
) -> None:
    """Save a model for use elsewhere, whole or with the decoder of one label space alone."""
    from semiseg.models import save_pretrained

    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise SemisegError(f"{to} is not an empty folder; choose a new one")
    segmenter, _ = open_model(model, best=best)
    described = segmenter.metadata
    if domain is not None:
        name = choose_domain(segmenter, domain)
        described = {**described, "taxonomies": {name: described["taxonomies"][name]}}
        segmenter = segmenter.only(name)
    try:
        save_pretrained(segmenter, to, metadata=described)
    except OSError as error:
        raise SemisegError(f"{to} cannot be written ({error.strerror or error}); choose another folder") from error
    typer.echo(f"{to}: {', '.join(segmenter.classes)}", err=True)
    typer.echo(f"next: semiseg predict {to} IMAGES --out masks/", err=True)


def _print_scores(found: "dict[str, Scores]") -> None:
    from rich.console import Console
    from rich.table import Table

    for domain, scores in found.items():
        table = Table("class", "IoU %", title=f"{domain}: {scores.images} images")
        table.columns[1].justify = "right"
        for name, value in zip(scores.names, scores.iou, strict=True):
            table.add_row(name, "-" if value != value else f"{100 * value:.2f}")
        table.add_section()
        table.add_row("mean", f"{100 * scores.miou:.2f}")
        table.add_row("pixel accuracy", f"{100 * scores.accuracy:.2f}")
        Console().print(table)
