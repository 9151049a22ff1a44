"""`semiseg weak fit | labels | predict`. Nothing heavy is imported before a command runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from semiseg.data import DataError, SemisegError, echo, visible

if TYPE_CHECKING:
    from semiseg.data import ShardSet, Taxonomy

app = typer.Typer(
    help="Pseudo-labels: from image-level tags (fit, labels), or by a trained model for self-training (predict).",
    no_args_is_help=True,
)

SPLIT = typer.Argument(help="The shards of a split, such as shards/voc/trainaug.", show_default=False)


@app.command()
def fit(
    split: str = SPLIT,
    to: Path = typer.Option(..., "--to", help="Output folder of the classifier."),
    taxonomy: str = typer.Option(
        None, "--taxonomy", help="Set of classes; default: the taxonomy of the split, if it has only one."
    ),
    masks: bool = typer.Option(False, "--tags-from-masks", help="Simulate tags from dense labels."),
    least: float = typer.Option(
        0.01, "--least", help="With --tags-from-masks: tag a class if it covers more than this fraction of the image."
    ),
    encoder: str = typer.Option("resnet50s", "--encoder", help="Name of a timm model."),
    weights: str = typer.Option("timm", "--weights", help="timm (pretrained) or none (random)."),
    stride: int = typer.Option(16, "--stride", help="Output stride: 8, 16 or 32."),
    steps: int = typer.Option(3000, "--steps", min=1, help="Optimizer updates."),
    batch_size: int = typer.Option(16, "--batch-size", min=1, help="Images in a step, over all processes."),
    lr: float = typer.Option(0.01, "--lr", help="Learning rate of the encoder; the linear layer uses ten times this."),
    crop: int = typer.Option(448, "--crop", min=32, help="Side of the square training crops, in pixels."),
    seed: int = typer.Option(0, "--seed", help="Seed of all random numbers."),
    workers: int = typer.Option(2, "--workers", min=0, help="Data loading processes for each training process."),
    save_every: int = typer.Option(
        200, "--save-every", min=1, help="Steps between saves: the most that an interruption can lose."
    ),
) -> None:
    """Fit an image classifier to tags. Rerun the same command to resume after an interruption."""
    from accelerate import PartialState

    from semiseg.data import ShardSet
    from semiseg.train.weak import classifier as weak

    if weights not in ("timm", "none"):
        raise SemisegError(f"--weights {weights}: expected timm or none")
    shards = ShardSet(split)
    fitting = weak.Fitting(
        masks=masks,
        least=least,
        encoder=encoder,
        weights=weights,
        stride=stride,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        crop=crop,
        seed=seed,
    )
    try:
        weak.fit(shards, _taxonomy(shards, taxonomy), to, fitting, workers=workers, save_every=save_every)
    except KeyboardInterrupt:
        echo("stopped; rerun the command to resume from the last save", err=True)
        raise typer.Exit(130) from None
    if PartialState().is_main_process:
        echo(f"next: semiseg weak labels {split} --classifier {to}", err=True)


@app.command()
def labels(
    split: str = SPLIT,
    classifier: Path = typer.Option(..., "--classifier", help="Folder that `semiseg weak fit` wrote."),
    taxonomy: str = typer.Option(None, "--taxonomy", help="Set of classes; default: that of the classifier."),
    name: str = typer.Option("cam", "--name", help="Name of the pseudo-labels; they are written to <split>@<name>."),
    rule: str = typer.Option("released", "--rule", help="Threshold rule: released (the released code) or paper."),
    low: float = typer.Option(0.05, "--low", help="Activations below this are background."),
    high: float = typer.Option(0.30, "--high", help="Activations above this are the class."),
    crf: bool = typer.Option(True, "--crf/--no-crf", help="Refine the labels with a dense CRF."),
    report: int = typer.Option(
        200, "--report", min=0, help="Images to score the pseudo-labels on, if the split has dense labels; 0: none."
    ),
    shard_size: str = typer.Option(
        "1MB", "--shard-size", help="Size of a shard (about 100 labels per MB); an interruption loses at most one."
    ),
) -> None:
    """Write pseudo-labels as an overlay beside the split. Rerun the same command to resume after an interruption."""
    from semiseg.data import Bar, ShardSet
    from semiseg.methods.choices import check_choice
    from semiseg.methods.pseudo import RULES
    from semiseg.train.weak import classifier as weak
    from semiseg.train.weak import labels as weak_labels

    try:
        check_choice("--rule", rule, RULES)
        if not 0 <= low <= high <= 1:
            raise ValueError(f"--low {low} --high {high}: expected 0 <= low <= high <= 1")
    except ValueError as error:
        raise SemisegError(str(error)) from error
    shards = ShardSet(split)
    fitted = weak.read(classifier / weak.FILE)["settings"]
    chosen = shards.taxonomy(taxonomy or fitted["taxonomy"])
    labeling = weak_labels.Labeling(rule=rule, low=low, high=high, crf=crf)
    labeler = weak_labels.Labeler(classifier, shards, chosen, labeling)
    try:
        with Bar("pseudo-labels") as tick:
            overlay = weak_labels.write_labels(labeler, chosen, name, size=shard_size, progress=tick)
        if shards.labeled and report:
            with Bar("report") as tick:
                target = classifier / f"{shards.manifest.split}@{name}"
                found = weak_labels.score_labels(labeler, overlay, chosen, target, limit=report, progress=tick)
            _print_report(found, target)
    except KeyboardInterrupt:
        echo("stopped; rerun the command to resume", err=True)
        raise typer.Exit(130) from None
    echo(f"{overlay.url}: {len(overlay)} of {len(shards)} images have labels", err=True)


@app.command()
def predict(
    model: str = typer.Argument(..., help="A run, or the folder of a saved model.", show_default=False),
    split: str = SPLIT,
    name: str = typer.Option("self", "--name", help="Name of the pseudo-labels; they are written to <split>@<name>."),
    confidence: float = typer.Option(
        0.6,
        "--confidence",
        min=0,
        max=1,
        help="Label a pixel if its most probable class has at least this probability.",
    ),
    share: float = typer.Option(
        1.0,
        "--share",
        min=0.01,
        max=1,
        help="Of the pixels that the model gives a class, label only this share, the most confident ones.",
    ),
    domain: str = typer.Option(None, "--domain", help="Set of classes; default: the only one of the model."),
    scale: list[float] = typer.Option(None, "--scale", help="Average over images resized by this factor; repeatable."),
    flip: bool = typer.Option(True, "--flip/--no-flip", help="Average with the horizontally flipped image."),
    best: bool = typer.Option(False, "--best", help="Use the run's best weights in validation instead of the last."),
    report: int = typer.Option(
        200, "--report", min=1, help="Images to compare with their masks, if the split has masks."
    ),
    shard_size: str = typer.Option(
        "1MB", "--shard-size", help="Size of a shard (about 100 labels per MB); an interruption loses at most one."
    ),
) -> None:
    """Label a split with a trained model where it is confident. Rerun the same command to resume after an interruption."""
    from semiseg.data import Bar, ShardSet
    from semiseg.train.recipe.shards import label_conflict
    from semiseg.train.score.saved import choose_domain, move_to_device, open_model, recipe_of, views_of
    from semiseg.train.weak.self_training import Namer, Naming, name_split, report_names

    segmenter, taxonomies = open_model(model, best=best)
    chosen = choose_domain(segmenter, domain)
    shards = ShardSet(split)
    known = [own for own in shards.taxonomies if own.names == taxonomies[chosen].names]
    if not known:
        names = ", ".join(taxonomies[chosen].names)
        raise SemisegError(f"{shards.url} has no taxonomy with the model's classes ({names}); use shards with these")
    taxonomy = next((own for own in known if own.name == taxonomies[chosen].name), known[0])
    if shards.labeled and (conflict := label_conflict(taxonomy, shards)):
        raise SemisegError(f"{shards.url}: {conflict}")
    views = views_of(recipe_of(Path(model)), segmenter.metadata, scale=scale, flip=flip)
    move_to_device(segmenter)
    namer = Namer(
        segmenter, shards, taxonomy, domain=chosen, views=views, naming=Naming(confidence=confidence, share=share)
    )
    target = (Path(model) if Path(model).is_dir() else Path(shards.url)) / f"{shards.manifest.split}@{name}"
    try:
        if share < 1:
            with Bar("thresholds") as tick:
                namer.balance(tick)
        with Bar("pseudo-labels") as tick:
            overlay = name_split(namer, name, size=shard_size, progress=tick)
        with Bar("report") as tick:
            found = report_names(namer, overlay, target, limit=report, progress=tick)
    except KeyboardInterrupt:
        echo("stopped; rerun the command to resume", err=True)
        raise typer.Exit(130) from None
    _print_names(found, target)
    echo(f"{overlay.url}: {found['labeled']:.1f} % of the pixels of {len(overlay)} images have labels", err=True)
    if not found["labeled"]:
        raise SemisegError(
            f"the model is nowhere as confident as {confidence:g}, so these pseudo-labels teach nothing; delete {overlay.url} "
            "and lower --confidence"
        )
    source = f"{{ dataset = '{shards.manifest.dataset}', split = '{shards.manifest.split}', overlay = '{name}'"
    echo(f"in a recipe: weak = {source}, minus = 'labeled', batch_size = ... }}", err=True)
    echo("             [[objectives]] kind = 'supervised', on = 'weak'", err=True)


def _print_names(report: dict[str, Any], target: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    against = report.get("against_masks")
    title = f"{report['images']} images, in percent of the labeled pixels"
    title += f"; precision and IoU: {against['images']} images with masks" if against else ""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    columns = ["", "pixels", "images", *(["precision", "IoU"] if against else [])]
    for column in columns:
        table.add_column(column, justify="left" if not column else "right")
    for name, own in report["classes"].items():
        scores = [_number(against["classes"][name][key]) for key in ("precision", "iou")] if against else []
        table.add_row(escape(visible(name)), f"{own['pixels']:.1f}", str(own["images"]), *scores)
    if against:
        table.add_row("all", "100.0", str(report["images"]), _number(against["precision"]), _number(against["miou"]))
    Console().print(table)
    echo(f"{target}.json, {target}.png", err=True)


def _taxonomy(shards: "ShardSet", name: str | None) -> "Taxonomy":
    if name is not None:
        return shards.taxonomy(name)
    if len(shards.taxonomies) != 1:
        names = ", ".join(known.name for known in shards.taxonomies) or "none"
        raise DataError(f"{shards.url} has {len(shards.taxonomies)} taxonomies; choose one with --taxonomy: {names}")
    return shards.taxonomies[0]


def _print_report(report: dict[str, Any], target: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=f"{report['images']} images, in percent", title_justify="left")
    for column in ("", "thresholds", "refined"):
        table.add_column(column, justify="left" if not column else "right")
    stages = report["before"], report["after"]
    for key in ("coverage", "precision", "miou"):
        table.add_row(key, *(_number(stage[key]) for stage in stages))
    for name in stages[0]["classes"]:
        table.add_row(f"IoU {visible(name)}", *(_number(stage["classes"][name]["iou"]) for stage in stages))
    Console(markup=False, emoji=False).print(table)
    echo(f"{target}.json, {target}.png", err=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
