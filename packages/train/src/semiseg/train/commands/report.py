"""`semiseg collect` and `semiseg report`: from run folders to a page. Nothing heavy is imported before a command runs."""

from pathlib import Path

import typer

from semiseg.data import SemisegError


def collect(
    runs: Path = typer.Argument(metavar="RUNS", help="A sweep's folder, or any folder of runs."),
    to: Path = typer.Option(..., "--to", help="Folder of the results, such as results/camvid; may hold earlier ones."),
    predict: int = typer.Option(
        0, "--predict", min=0, max=50, metavar="N", help="Also keep predictions of N validation images, evenly spaced."
    ),
    images: str = typer.Option(None, "--images", metavar="KEY,...", help="Or of these."),
    shards: str = typer.Option(None, "--shards", help="Where they lie; default: as the runs' recipes say."),
) -> None:
    """Keep of complete runs what a report needs: scores, recipe, record, thinned metrics. A few MB, no weights, no data.

    May be repeated as runs complete. Predictions are those of one run of each method, at the first label count and seed.
    """
    from semiseg.train.report.collect import collect as take
    from semiseg.train.report.collect import with_predictions

    done = take(runs, to)
    for name, reason in done.left.items():
        typer.echo(f"left out: {name}: {reason}", err=True)
    if done.dropped:
        typer.echo(f"no longer planned, so they count no more: {', '.join(done.dropped)}", err=True)
    typer.echo(f"{len(done.taken)} of {len(done.taken) + len(done.left)} runs in {to}", err=True)
    if predict or images:
        from semiseg.train.report.masks import predict as write

        keys = tuple(filter(None, (images or "").split(",")))
        told = write(done.index, runs, to, count=predict, keys=keys, shards=shards)
        with_predictions(done.index, told, to)
        typer.echo(f"predictions of {len(told['keys'])} images by {', '.join(told['runs'])}", err=True)
    typer.echo(f"next: semiseg report {to}", err=True)


def report(
    results: Path = typer.Argument(metavar="RESULTS", help="What `semiseg collect` wrote, or a sweep's folder."),
    out: Path = typer.Option(None, "--out", help="Folder for the report; default: RESULTS, of a sweep RESULTS/report."),
    shards: str = typer.Option(
        None, "--shards", help="Folder or URL of the shards: shows images and truth beside predictions."
    ),
) -> None:
    """Draw label-efficiency curves and tables: report.html (self-contained), curve.png, table.csv, table.md.

    With several domains, each has a curve-DOMAIN.png of its own. A page made with --shards holds images of the data
    set: mind its licence before you pass it on.
    """
    from semiseg.train.report.report import report as write

    if shards is not None and "://" not in shards and not Path(shards).is_dir():
        raise SemisegError(f"--shards {shards}: no such folder; leave it out for a page without images and truth")
    if out is None:
        out = (
            results / "report" if (results / "table.json").is_file() else results
        )  # a sweep has a table.csv of its own
    for path in write(results, out, shards=shards):
        typer.echo(str(path), err=True)
