"""`semiseg train | quickstart`. Nothing heavy is imported before a command runs."""

from pathlib import Path

import typer

from semiseg.data import SemisegError


def train(
    recipe: str = typer.Argument(help="A TOML file, or a name that `semiseg recipe ls` shows."),
    overrides: list[str] = typer.Argument(
        None, metavar="[KEY=VALUE]...", help="Changes, such as seed=1; KEY= takes a key away."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check everything, say what would be trained, stop."),
    allow_changes: bool = typer.Option(
        False,
        "--allow-changes",
        help="Continue a run although what its losses depend on has changed; its record tells.",
    ),
) -> None:
    """Train what a recipe says, in this process; the same command continues a run that was cut off.

    On several GPUs: accelerate launch -m semiseg.train RECIPE [KEY=VALUE]...
    """
    from semiseg.train.recipe.load import load
    from semiseg.train.recipe.preflight import preflight
    from semiseg.train.recipe.shipped import find

    loaded = load(find(recipe), overrides or [])
    preflight(loaded)
    if dry_run:
        from semiseg.train.dry_run import preview

        typer.echo(preview(loaded))
        return
    from semiseg.train.loop import train as run

    try:
        finished = run(loaded, allow_changes=allow_changes)
    except OSError as error:
        where = error.filename or "the run folder"
        raise SemisegError(f"{where}: {error.strerror or error}; mend it, then the same command continues") from error
    except KeyboardInterrupt:
        typer.echo("stopped; the same command continues from the last checkpoint", err=True)
        raise typer.Exit(130) from None
    _next_steps(finished.folder)


def quickstart(
    to: Path = typer.Option(Path("quickstart"), "--to", help="Folder for shards, runs and the contact sheet."),
    steps: int = typer.Option(None, "--steps", min=1, help="Shorter or longer than the recipe says."),
) -> None:
    """See CCT train: generate street scenes, train CCT and a supervised twin, compare them. About five minutes."""
    from semiseg.train.quickstart import quickstart as run

    run(to, steps=steps)


def _next_steps(folder: Path) -> None:
    typer.echo(f"done: {folder}/results.json", err=True)
    typer.echo(f"next: semiseg eval {folder}", err=True)
    typer.echo(f"      semiseg predict {folder} IMAGES --out predictions/ --overlay", err=True)
