"""`semiseg weak fit | labels`. Nothing heavy is imported before a command runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from semiseg.data import DataError, SemisegError

if TYPE_CHECKING:
    from semiseg.data import ShardSet, Taxonomy

app = typer.Typer(help="Masks from image-level tags: fit a classifier, then write pseudo-labels.", no_args_is_help=True)

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
        typer.echo("stopped; rerun the command to resume from the last save", err=True)
        raise typer.Exit(130) from None
    if PartialState().is_main_process:
        typer.echo(f"next: semiseg weak labels {split} --classifier {to}", err=True)


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
        typer.echo("stopped; rerun the command to resume", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{overlay.url}: {len(overlay)} of {len(shards)} images have labels", err=True)


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
        table.add_row(f"IoU {name}", *(_number(stage["classes"][name]["iou"]) for stage in stages))
    Console().print(table)
    typer.echo(f"{target}.json, {target}.png", err=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
