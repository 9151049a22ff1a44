"""`semiseg collect` and `semiseg report`: from runs to a page. Nothing heavy is imported before a command runs."""

from pathlib import Path

import typer

from semiseg.data import SemisegError, unknown


def collect(
    runs: Path = typer.Argument(metavar="RUNS", help="A sweep's folder, or any folder of runs."),
    to: Path = typer.Option(
        ..., "--to", help="Folder to write to, such as results/camvid; earlier results in it stay."
    ),
    predict: int = typer.Option(
        0, "--predict", min=0, max=50, metavar="N", help="Also store predictions of N validation images, evenly spaced."
    ),
    images: str = typer.Option(
        None, "--images", metavar="KEY,...", help="Predict these validation images, comma-separated."
    ),
    shards: str = typer.Option(
        None, "--shards", help="Folder or URL of the shards to predict from; default: that of the recipes."
    ),
) -> None:
    """Store what a report needs of complete runs in one file: scores, recipes, commits, thinned metrics. No weights, no data.

    Run it again as runs complete. Predictions come from one run of each method, at the first label count and seed.
    """
    from semiseg.train.report.collect import collect as collect_runs

    done = collect_runs(runs, to)
    for name, reason in done.left.items():
        typer.echo(f"left out: {name}: {reason}", err=True)
    if done.dropped:
        typer.echo(f"ignored: no longer in the sweep: {', '.join(done.dropped)}", err=True)
    typer.echo(f"{len(done.taken)} of {len(done.taken) + len(done.left)} runs in {to}", err=True)
    if predict or images:
        from semiseg.train.report.masks import predict as predict_masks

        keys = tuple(filter(None, (images or "").split(",")))
        stored = predict_masks(done.index, runs, to, count=predict, keys=keys, shards=shards)
        typer.echo(f"predictions of {len(stored['keys'])} images by {', '.join(stored['runs'])}", err=True)
    typer.echo(f"next: semiseg report {to}", err=True)


def report(
    results: Path = typer.Argument(
        metavar="RESULTS", help="A folder that `semiseg collect` wrote, or a sweep's folder."
    ),
    out: Path = typer.Option(
        None, "--out", help="Folder for the report; default: RESULTS, or RESULTS/report for a sweep."
    ),
    shards: str = typer.Option(
        None, "--shards", help="Folder or URL of the shards: shows images and ground truth next to predictions."
    ),
    recipe: str = typer.Option(None, "--recipe", metavar="RUN", help="Print the recipe of this run instead."),
) -> None:
    """Draw label-efficiency curves and tables: report.html (self-contained), curve.png, table.csv, table.md.

    With several domains, each has a separate curve-DOMAIN.png.

    A page made with --shards contains images of the data set: check its licence before you share the page.
    """
    if recipe is not None:
        from semiseg.train.report.runs import read_runs

        recipes = {run.name: run.recipe for run in read_runs(results)[1]}
        if recipe not in recipes:
            raise SemisegError(f"{results}: {unknown('run', recipe, recipes)}")
        typer.echo(recipes[recipe], nl=False)
        return
    from semiseg.train.report.report import report as write_report

    if shards is not None and "://" not in shards and not Path(shards).is_dir():
        raise SemisegError(
            f"--shards {shards}: no such folder; leave it out for a page without images and ground truth"
        )
    if out is None:  # a sweep has its own table.csv
        out = results / "report" if (results / "table.json").is_file() else results
    for path in write_report(results, out, shards=shards):
        typer.echo(str(path), err=True)
