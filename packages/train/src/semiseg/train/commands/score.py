"""`semiseg eval | predict | export`. Nothing heavy is imported before a command runs."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from semiseg.data import DataError, SemisegError, echo, visible
from semiseg.train.score.saved import choose_domain, move_to_device, open_model, recipe_of, views_of

if TYPE_CHECKING:
    from semiseg.train.score.evaluate import Scores

MODEL = typer.Argument(
    help="A run folder, the folder of a saved model, or the id of a model on the Hugging Face Hub.", show_default=False
)
BEST = typer.Option(False, "--best", help="Use the best model of a run instead of its last.")
SCALE = typer.Option(None, "--scale", min=0.1, max=8, help="Resize images by this factor; repeat for several scales.")
FLIP = typer.Option(None, "--flip/--no-flip", help="Average with the horizontally flipped image.")
TILE = typer.Option(None, "--tile", min=0, metavar="H W", help="Predict in tiles of this size; 0 0: no tiles.")
OVERLAP = typer.Option(None, "--overlap", min=0, max=0.95, help="Minimum overlap between adjacent tiles (fraction).")


class Format(StrEnum):
    """What `semiseg predict` writes."""

    ids = "ids"
    colour = "colour"
    raw = "raw"


def evaluate(
    model: str = MODEL,
    dataset: str = typer.Option(None, "--dataset", help="Data set to score on; default: the recipe's."),
    split: str = typer.Option(None, "--split", help="Split of the data set; default: the recipe's, or val."),
    shards: str = typer.Option(
        None, "--shards", help="Folder or URL of the shards; default: the recipe's, or shards/."
    ),
    domain: str = typer.Option(None, "--domain", help="Score only this domain (set of classes); default: all."),
    best: bool = BEST,
    scale: list[float] = SCALE,
    flip: bool = FLIP,
    tile: tuple[int, int] = TILE,
    overlap: float = OVERLAP,
    workers: int = typer.Option(2, "--workers", min=0, help="Data loading processes."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Score a model: IoU of every class and their mean.

    Scales, flip and tiles default to those of the model's run; probabilities are averaged.

    Uses a GPU if there is one, unless ACCELERATE_USE_CPU=true.
    """
    from dataclasses import replace

    from semiseg.data import Bar
    from semiseg.train.console import remark
    from semiseg.train.recipe.shards import open_shards, open_source, select
    from semiseg.train.score.evaluate import evaluate as score
    from semiseg.train.score.saved import renamed_classes, scored_classes

    segmenter, taxonomies = open_model(model, best=best)
    sizes, described = segmenter.metadata.get("resize", {}), segmenter.metadata["taxonomies"]
    recipe = recipe_of(Path(model))
    domains = {} if recipe is None else recipe.data.domains
    validated = {name: declared.val for name, declared in domains.items() if declared.val is not None}
    views = views_of(recipe, segmenter.metadata, scale=scale, flip=flip, tile=tile, overlap=overlap)
    if dataset is None and not validated:
        raise DataError(f"{model} is not a run with a val source; name the data with --dataset, --split and --shards")
    wanted = [choose_domain(segmenter, domain)] if domain or dataset else list(validated)
    found: dict[str, Scores] = {}
    device = move_to_device(segmenter)
    for name in wanted:
        source = None
        if dataset is not None:
            pool = open_shards(f"{(shards or 'shards').rstrip('/')}/{dataset}/{split or 'val'}")
        elif name in validated:
            root, source = "" if recipe is None else recipe.data.shards, validated[name]
            if split is not None:
                source = replace(source, split=split, subset=None, ids=None)
            pool = open_source(shards or root, source)
        else:
            raise DataError(f"the recipe of {model} has no val source for domain {name}; name the data with --dataset")
        taxonomy = scored_classes(taxonomies[name], pool, raw_space=described[name].get("raw_space"))
        if names := renamed_classes(taxonomies[name].names, taxonomy.names):
            echo(f"{name}: class names differ between the model and {pool.url}: {names}", err=True)
        subset = None if source is None else select(pool, source, taxonomy)
        with Bar(f"evaluating {name}{device}") as tick:
            found[name] = score(
                segmenter,
                pool,
                taxonomy,
                domain=name,
                subset=subset,
                resize=sizes.get(name),
                views=views,
                workers=workers,
                progress=tick,
            )
    for name, scores in found.items():
        if never_right := remark(scores.to_json()):
            echo(f"{name}: {never_right}", err=True)
    if as_json:
        typer.echo(json.dumps({name: scores.to_json() for name, scores in found.items()}, indent=2))
    else:
        _print_scores(found)


def predict(
    model: str = MODEL,
    images: list[str] = typer.Argument(
        help="Images or folders of images; or shards, such as shards/cityscapes/test.", show_default=False
    ),
    out: Path = typer.Option(..., "--out", help="Output folder; each mask has the name of its image."),
    form: Format = typer.Option(
        Format.ids,
        "--format",
        help="Pixel values: class ids (with the class colours as palette), colours, or the publisher's raw label ids.",
    ),
    domain: str = typer.Option(None, "--domain", help="Domain (set of classes) to predict, if there are several."),
    overlay: bool = typer.Option(False, "--overlay", help="Also write each image with its prediction drawn over it."),
    best: bool = BEST,
    scale: list[float] = SCALE,
    flip: bool = FLIP,
    tile: tuple[int, int] = TILE,
    overlap: float = OVERLAP,
    option: list[str] = typer.Option(
        None,
        "--option",
        metavar="NAME=VALUE",
        help="How to read images: bits=12, range=0,1, bands=1,2,3; default: as for the shards that the model was trained on.",
    ),
) -> None:
    """Predict masks: one PNG for each image, at the size of the image.

    Photos are converted as the images of the model's shards were: size, bits, bands, compression.

    An image that can't be read is named, the others are predicted, and the exit code is 1.

    For the Cityscapes server: semiseg predict MODEL shards/cityscapes/test --format raw --out labelIds/

    Scales, flip and tiles default to those of the model's run; probabilities are averaged.

    Uses a GPU if there is one, unless ACCELERATE_USE_CPU=true.
    """
    from semiseg.data import Bar, ShardSet
    from semiseg.train.score.images import describe, find_images, images_of, saved_conversion, shown
    from semiseg.train.score.predict import with_raw_ids, write_masks

    segmenter, taxonomies = open_model(model, best=best)
    name = choose_domain(segmenter, domain)
    taxonomy, own = taxonomies[name], ()
    conversion, kind = saved_conversion(segmenter.metadata, name, option or [])
    notes: list[str] = []
    sharded = [place for place in images if "://" in place or (Path(place) / "manifest.json").is_file()]
    if not sharded:
        found, notes = find_images([Path(place) for place in images], out, conversion, kind)
        if how := describe(conversion):
            notes.insert(0, f"photos are converted as the images that the model was trained on: {how}")
    elif len(images) == 1:
        shards = ShardSet(sharded[0])
        found, own = images_of(shards, conversion), shards.taxonomies
    else:
        raise DataError(f"{sharded[0]} holds shards, whose masks are named by key; predict them in a separate command")
    if form == Format.raw:
        taxonomy = with_raw_ids(taxonomy, own)
    size = segmenter.metadata.get("resize", {}).get(name)
    views = views_of(recipe_of(Path(model)), segmenter.metadata, scale=scale, flip=flip, tile=tile, overlap=overlap)
    device = move_to_device(segmenter)
    for note in notes:
        echo(note, err=True)
    with Bar(f"predicting{device}") as tick:
        done = write_masks(
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
    for note, count in done.notes.items():
        echo(f"{count} image{'s' * (count != 1)} of {note}", err=True)
    for failure in done.failures:
        echo(f"no mask: {failure}", err=True)
    echo(f"{done.masks} masks of {taxonomy.name} in {shown(out)}", err=True)
    if done.failures:
        echo(f"{len(done.failures)} of {len(found)} images have no mask: see above", err=True)
        raise typer.Exit(1)


def export(
    model: str = MODEL,
    to: Path = typer.Option(..., "--to", help="Folder to write: model.safetensors and config.json."),
    domain: str = typer.Option(None, "--domain", help="Export only this domain (set of classes); default: all."),
    best: bool = BEST,
) -> None:
    """Save a model for use elsewhere: the complete model, or one domain (set of classes)."""
    from semiseg.models import save_pretrained

    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise SemisegError(f"{to} is not an empty folder; choose a new one")
    segmenter, _ = open_model(model, best=best)
    metadata = segmenter.metadata
    if domain is not None:
        name = choose_domain(segmenter, domain)
        metadata = {**metadata, "taxonomies": {name: metadata["taxonomies"][name]}}
        segmenter = segmenter.only(name)
    try:
        save_pretrained(segmenter, to, metadata=metadata)
    except OSError as error:
        raise SemisegError(f"{to} cannot be written ({error.strerror or error}); choose another folder") from error
    echo(f"{to}: {', '.join(segmenter.classes)}", err=True)
    echo(f"next: semiseg predict {to} IMAGES --out masks/", err=True)


def _print_scores(found: "dict[str, Scores]") -> None:
    from rich.console import Console
    from rich.table import Table

    for domain, scores in found.items():
        table = Table("class", "IoU %", title=f"{visible(domain)}: {scores.images} images")
        table.columns[1].justify = "right"
        for name, value in zip(scores.names, scores.iou, strict=True):
            table.add_row(visible(name), "-" if value != value else f"{100 * value:.2f}")
        table.add_section()
        table.add_row("mean", f"{100 * scores.miou:.2f}")
        table.add_row("pixel accuracy", f"{100 * scores.accuracy:.2f}")
        Console(markup=False, emoji=False).print(table)
