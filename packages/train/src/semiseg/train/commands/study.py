"""`semiseg study ...`: analyses of the papers. Nothing heavy is imported before a command runs."""

import json
from pathlib import Path

import typer

from semiseg.data import SemisegError

study = typer.Typer(help="Analyse a method's assumptions.", no_args_is_help=True)


@study.command()
def clusters(
    places: list[str] = typer.Argument(
        metavar="IMAGES|SHARDS", help="Images, folders of images, or one split's shards."
    ),
    out: Path = typer.Option(..., "--out", help="Folder for clusters.png and clusters.json."),
    model: str = typer.Option(None, "--model", help="A run, a saved model or a hub id: use its encoder."),
    encoder: str = typer.Option(
        None, "--encoder", help="NAME of a timm encoder, or NAME:WEIGHTS (timm, none, or a file)."
    ),
    output_stride: int = typer.Option(16, "--output-stride", help="Output stride of --encoder: 8, 16 or 32."),
    count: int = typer.Option(20, "--count", min=1, help="Number of images, evenly spaced."),
    border: int = typer.Option(
        10, "--border", min=1, help="Width of a border: pixels on either side of a change of class."
    ),
    taxonomy: str = typer.Option(None, "--taxonomy", help="Taxonomy of labeled shards; default: their first."),
) -> None:
    """Show where neighbours differ in images and in an encoder's activations (CCT, Fig. 2), and compare with class borders."""
    from semiseg.data import Bar, atomic, write_text
    from semiseg.train.clusters import draw, measure, open_samples, summarise
    from semiseg.train.score.saved import open_model

    if (model is None) == (encoder is None):
        raise SemisegError(
            "give exactly one of --model PLACE and --encoder NAME[:WEIGHTS]: whose activations to analyse"
        )
    if model is not None:
        network = open_model(model)[0].encoder.eval()
        source = f"{network.name} of {model}"
    else:
        from semiseg.models import create_segmenter

        name, _, weights = encoder.partition(":")
        try:
            segmenter = create_segmenter(
                encoder=name, output_stride=output_stride, weights=weights or "timm", classes={"any": 2}, context="none"
            )
        except (ValueError, FileNotFoundError, RuntimeError) as error:
            raise SemisegError(str(error)) from None
        network, source = segmenter.encoder.eval(), name if weights != "none" else f"{name}, random weights"
    samples, classes = open_samples(places, count, taxonomy)
    images = []
    with Bar("analysing") as bar:
        for image in measure(network, samples):
            images.append(image)
            bar(len(images), len(samples))
    summary = {"encoder": source, "output_stride": network.stride, **summarise(images, border)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        with atomic(out / "clusters.png") as file:
            draw(images, classes, network.name).save(file, "PNG")
        write_text(out / "clusters.json", json.dumps(summary, indent=2) + "\n")
    except OSError as error:
        raise SemisegError(f"{out} cannot be written ({error.strerror or error}); choose another folder") from None
    labels = {
        "separation": "probability that a border pixel has the larger distance",
        "border_over_inside": "mean on / inside",
    }
    for kind in ("input", "hidden"):
        for name, values in summary.get(kind, {}).items():
            spread = "" if values["sd"] is None else f", sd {values['sd']:.2f}"
            typer.echo(f"{kind:6}  {labels[name]}: {values['mean']:.2f} (n = {values['n']}{spread})")
    if "input" not in summary:
        typer.echo("no labels, so borders cannot be compared with insides; give shards with labels for that", err=True)
    typer.echo(f"figure: {out / 'clusters.png'}", err=True)
