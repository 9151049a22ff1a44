"""`semiseg sweep`. Nothing heavy is imported before the command runs."""

from contextlib import suppress

import typer

from semiseg.data import SemisegError


def sweep(
    file: str = typer.Argument(
        metavar="SWEEP", help="A TOML file, or the name of an included sweep, such as camvid_perturbations."
    ),
    overrides: list[str] = typer.Argument(
        None, metavar="[KEY=VALUE]...", help="Changes to every run, such as steps=500; KEY= removes a key."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check every run and list them, without training."),
    jobs: int = typer.Option(1, "--jobs", min=1, help="Number of concurrent runs; they divide CPU cores and GPUs."),
) -> None:
    """Train every combination of a sweep's axes, each in a separate run folder; rerun the command to resume.

    Writes table.csv, table.json and, if matplotlib is installed, plot.png next to the runs. Complete runs are kept.
    """
    from semiseg.train.recipe.shipped import find_sweep
    from semiseg.train.sweep.grid import check_runs, expand, read_sweep, results_of
    from semiseg.train.sweep.launch import run_all
    from semiseg.train.sweep.table import print_table, tabulate, write_table

    grid = read_sweep(find_sweep(file))
    runs = expand(grid, overrides or [])
    check_runs([run for run in runs if results_of(run) is None])
    folder = runs[0].folder.parent
    if dry_run:
        for run in runs:
            typer.echo(f"{run.recipe.name}: {'complete' if results_of(run) else f'{run.recipe.steps} steps'}")
        typer.echo(f"{len(runs)} runs into {folder}", err=True)
        return
    with suppress(OSError):  # run_all reports a folder that cannot be written
        folder.mkdir(parents=True, exist_ok=True)
        write_table(grid, runs, tabulate(grid, runs), folder)  # at the start, as it lists what is planned
    try:
        failed = run_all(runs, folder, jobs=jobs)
    except KeyboardInterrupt as error:
        write_table(grid, runs, tabulate(grid, runs), folder)
        typer.echo("stopped; rerun the command to resume", err=True)
        raise typer.Exit(getattr(error, "code", 130)) from None
    rows = tabulate(grid, runs)
    print_table(grid, rows)
    write_table(grid, runs, rows, folder)
    typer.echo(f"{folder}/table.csv", err=True)
    if grid.plot:
        try:
            from semiseg.train.sweep.plot import plot

            if plot(grid, rows, folder / "plot.png"):
                typer.echo(f"{folder}/plot.png", err=True)
        except ImportError as error:
            typer.echo(f"{folder}: no plot.png ({error}); pip install 'semiseg-train[plots]'", err=True)
        except SemisegError as error:
            typer.echo(str(error), err=True)
    for name, reason in failed.items():
        typer.echo(f"failed: {name}: {reason}", err=True)
    if failed:
        typer.echo(
            f"{len(failed)} of {len(runs)} runs failed; fix the causes, then rerun the command to resume", err=True
        )
        raise typer.Exit(1)
