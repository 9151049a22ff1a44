"""`semiseg study ...`: analyses of the papers. Nothing heavy is imported before a command runs."""

import json
from pathlib import Path

import typer

from semiseg.data import SemisegError

study = typer.Typer(help="Look into what a method rests on.", no_args_is_help=True)


@study.command()
def clusters(
    places: list[str] = typer.Argument(metavar="IMAGES|SHARDS", help="Images, folders of them, or one split's shards."),
    out: Path = typer.Option(..., "--out", help="Folder for clusters.png and clusters.json."),
    model: str = typer.Option(None, "--model", help="A run, a saved model or a hub id, whose encoder is looked into."),
    encoder: str = typer.Option(
        None, "--encoder", help="NAME of a timm encoder, or NAME:WEIGHTS (timm, none, a file)."
    ),
    output_stride: int = typer.Option(16, "--output-stride", help="Of --encoder: 8, 16 or 32."),
    count: int = typer.Option(20, "--count", min=1, help="Images to take, evenly spread."),
    border: int = typer.Option(10, "--border", min=1, help="Pixels around a change of class that are its border."),
    taxonomy: str = typer.Option(None, "--taxonomy", help="Classes of labeled shards; default: their first."),
) -> None:
    """Show where neighbours differ, in images and in an encoder's activations (CCT, Fig. 2); does that follow borders?"""
    from semiseg.data import Bar, atomic, write_text
    from semiseg.train.clusters import draw, look, open_samples, report
    from semiseg.train.score.saved import open_model

    if (model is None) == (encoder is None):
        raise SemisegError(
            "say whose activations to look into: --model PLACE or --encoder NAME[:WEIGHTS], one of the two"
        )
    if model is not None:
        body = open_model(model)[0].encoder.eval()
        what = f"{body.name} of {model}"
    else:
        from semiseg.models import create_segmenter

        name, _, weights = encoder.partition(":")
        try:
            made = create_segmenter(
                encoder=name, output_stride=output_stride, weights=weights or "timm", classes={"any": 2}, context="none"
            )
        except (ValueError, FileNotFoundError, RuntimeError) as error:
            raise SemisegError(str(error)) from None
        body, what = made.encoder.eval(), name if weights != "none" else f"{name}, random weights"
    samples, classes = open_samples(places, count, taxonomy)
    pictures = []
    with Bar("looking") as tick:
        for picture in look(body, samples):
            pictures.append(picture)
            tick(len(pictures), len(samples))
    told = {"encoder": what, "output_stride": body.stride, **report(pictures, border)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        with atomic(out / "clusters.png") as file:
            draw(pictures, classes, body.name).save(file, "PNG")
        write_text(out / "clusters.json", json.dumps(told, indent=2) + "\n")
    except OSError as error:
        raise SemisegError(f"{out} cannot be written ({error.strerror or error}); choose another folder") from None
    words = {
        "separation": "chance that a border pixel's distance is the larger",
        "border_over_inside": "mean on / inside",
    }
    for kind in ("input", "hidden"):
        for name, figure in told.get(kind, {}).items():
            spread = "" if figure["sd"] is None else f", sd {figure['sd']:.2f}"
            typer.echo(f"{kind:6}  {words[name]}: {figure['mean']:.2f} (n = {figure['n']}{spread})")
    if "input" not in told:
        typer.echo("no labels, so no ratio of borders to inside; give shards with labels for that", err=True)
    typer.echo(f"look at: {out / 'clusters.png'}", err=True)
