"""`semiseg sweep`. Nothing heavy is imported before the command runs."""

from contextlib import suppress

import typer

from semiseg.data import SemisegError


def sweep(
    file: str = typer.Argument(metavar="SWEEP", help="A TOML file, or a shipped one, such as camvid_perturbations."),
    overrides: list[str] = typer.Argument(
        None, metavar="[KEY=VALUE]...", help="Changes to every run, such as steps=500; KEY= takes a key away."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check every run, list them, stop."),
    jobs: int = typer.Option(1, "--jobs", min=1, help="Runs at a time. They share out the CPU's cores and the GPUs."),
) -> None:
    """Train every combination of a sweep's axes, one run folder each; the same command continues it.

    Writes table.csv, table.json and, with semiseg-train[plots], plot.png beside the runs. Complete runs are left alone.
    """
    from semiseg.train.recipe.shipped import find_sweep
    from semiseg.train.sweep.grid import check_runs, expand, read_sweep, results_of
    from semiseg.train.sweep.launch import run_all
    from semiseg.train.sweep.table import print_table, tabulate, write_table

    what = read_sweep(find_sweep(file))
    runs = expand(what, overrides or [])
    check_runs([run for run in runs if results_of(run) is None])
    folder = runs[0].folder.parent
    if dry_run:
        for run in runs:
            typer.echo(f"{run.recipe.name}: {'complete' if results_of(run) else f'{run.recipe.steps} steps'}")
        typer.echo(f"{len(runs)} runs into {folder}", err=True)
        return
    with suppress(OSError):  # of a folder that can't be written run_all tells
        folder.mkdir(parents=True, exist_ok=True)
        write_table(what, runs, tabulate(what, runs), folder)  # from the start: it says what is planned
    try:
        failed = run_all(runs, folder, jobs=jobs)
    except KeyboardInterrupt:
        write_table(what, runs, tabulate(what, runs), folder)
        typer.echo("stopped; the same command continues", err=True)
        raise typer.Exit(130) from None
    rows = tabulate(what, runs)
    print_table(what, rows)
    write_table(what, runs, rows, folder)
    typer.echo(f"{folder}/table.csv", err=True)
    if what.plot:
        from semiseg.train.sweep.plot import plot

        try:
            if plot(what, rows, folder / "plot.png"):
                typer.echo(f"{folder}/plot.png", err=True)
        except SemisegError as error:
            typer.echo(str(error), err=True)
    for name, reason in failed.items():
        typer.echo(f"failed: {name}: {reason}", err=True)
    if failed:
        typer.echo(f"{len(failed)} of {len(runs)} runs failed; mend them, then the same command continues", err=True)
        raise typer.Exit(1)
