"""`semiseg train | quickstart`. Nothing heavy is imported before a command runs."""

from pathlib import Path

import typer

from semiseg.data import SemisegError


def train(
    recipe: str = typer.Argument(help="A TOML file, or a name listed by `semiseg recipe ls`."),
    overrides: list[str] = typer.Argument(
        None, metavar="[KEY=VALUE]...", help="Changes to the recipe, such as seed=1; KEY= removes a key."
    ),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Check everything, estimate step time, memory and total hours, then stop."
    ),
    allow_changes: bool = typer.Option(
        False,
        "--allow-changes",
        help="Resume even though settings that affect the losses have changed; the change is recorded.",
    ),
    extend: bool = typer.Option(
        False, "--extend", help="Train a run for more steps than it was begun with; the change is recorded."
    ),
    take_over: bool = typer.Option(
        False, "--take-over", help="Resume a run whose last training may still be alive on another machine."
    ),
) -> None:
    """Train a recipe in this process. Rerun the same command to resume an interrupted run.

    On several GPUs: accelerate launch -m semiseg.train RECIPE [KEY=VALUE]...
    """
    from semiseg.train.recipe.advice import check_options
    from semiseg.train.recipe.load import RecipeError, load
    from semiseg.train.recipe.preflight import preflight
    from semiseg.train.recipe.shipped import find

    try:
        check_options(recipe, overrides or [], OPTIONS)
    except RecipeError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    loaded = load(find(recipe), overrides or [])
    preflight(loaded)
    if dry_run:
        from semiseg.train.dry_run import preview

        typer.echo(preview(loaded))
        return
    from semiseg.train.loop import train as run

    try:
        finished = run(loaded, allow_changes=allow_changes, extend=extend, take_over=take_over)
    except OSError as error:
        where = error.filename or "the run folder"
        reason = error.strerror or error
        raise SemisegError(f"{where}: {reason}; fix this, then rerun the command to resume") from error
    except KeyboardInterrupt as error:
        typer.echo(str(error) or "stopped; rerun the command to resume from the last checkpoint", err=True)
        raise typer.Exit(getattr(error, "code", 130)) from None
    _next_steps(finished.folder)


# Options of other programs, such as --steps 100, are explained rather than refused by the parser.
OPTIONS = ("--allow-changes", "--dry-run", "--extend", "--help", "--take-over")
train.typer_settings = {"context_settings": {"ignore_unknown_options": True}}  # type: ignore[attr-defined]


def quickstart(
    to: Path = typer.Option(Path("quickstart"), "--to", help="Folder for shards, runs and the contact sheet."),
    steps: int = typer.Option(None, "--steps", min=1, help="Updates for each model; default: as in the recipe."),
) -> None:
    """See CCT train: generate street scenes, train CCT and a supervised baseline, compare them. About five minutes."""
    from semiseg.train.quickstart import quickstart as run

    run(to, steps=steps)


def _next_steps(folder: Path) -> None:
    typer.echo(f"done: {folder}/results.json", err=True)
    typer.echo(f"next: semiseg eval {folder}", err=True)
    typer.echo(f"      semiseg predict {folder} IMAGES --out predictions/ --overlay", err=True)
