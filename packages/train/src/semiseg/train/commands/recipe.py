"""`semiseg recipe ls | cp | show | check | diff | schema`. Nothing heavy is imported before a command runs."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from semiseg.train.recipe import Domain

app = typer.Typer(help="List, show, copy, check and compare recipes.", no_args_is_help=True)

RECIPE = typer.Argument(help="A TOML file, or a name listed by `semiseg recipe ls`.", show_default=False)
OVERRIDES = typer.Argument(
    None,
    metavar="[KEY=VALUE]...",
    help="Changes to the recipe, such as seed=1; KEY= removes a key.",
    show_default=False,
)


@app.command("ls")
def list_recipes(as_json: bool = typer.Option(False, "--json", help="Print one JSON list.")) -> None:
    """List the recipes that come with semiseg."""
    from semiseg.train.recipe.load import load
    from semiseg.train.recipe.shipped import heading, shipped

    found = [
        {"name": name, "about": heading(path), "paper": load(path).paper, "path": str(path)}
        for name, path in shipped().items()
    ]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "about"):
        table.add_column(column, no_wrap=column != "about")
    for recipe in found:
        table.add_row(recipe["name"], recipe["about"])
    Console(markup=False, emoji=False).print(table)
    typer.echo("papers and all settings: semiseg recipe show NAME", err=True)


@app.command("cp")
def copy(
    name: str = RECIPE,
    to: Path = typer.Argument(Path(), help="A file or a folder.", show_default="the current folder"),
    force: bool = typer.Option(False, "--force", help="Overwrite an existing file."),
) -> None:
    """Copy a recipe, with its comments, to edit it."""
    from semiseg.data import SemisegError
    from semiseg.train.recipe.shipped import find

    source = find(name)
    target = to / source.name if to.is_dir() else to
    if target.exists() and not force:
        raise SemisegError(f"{target} already exists; choose another name, or overwrite it with --force")
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    try:
        # The schema is not copied, so the line that names it is left out.
        target.write_text("".join(line for line in lines if not line.startswith("#:schema ")), encoding="utf-8")
    except OSError as error:
        raise SemisegError(f"{target} cannot be written ({error.strerror}); choose another place") from error
    typer.echo(target)
    typer.echo(f"next: semiseg train {target}", err=True)


@app.command()
def show(
    recipe: str = RECIPE,
    overrides: list[str] = OVERRIDES,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead."),
) -> None:
    """Print the complete recipe, with defaults and changes, as TOML that `semiseg train` accepts."""
    from dataclasses import asdict

    from semiseg.train.recipe.load import load, to_toml
    from semiseg.train.recipe.shipped import find

    loaded = load(find(recipe), overrides or [])
    text = json.dumps(asdict(loaded), indent=2) + "\n" if as_json else to_toml(loaded)
    if as_json or not sys.stdout.isatty():
        typer.echo(text, nl=False)
        return
    from rich.console import Console
    from rich.syntax import Syntax

    Console().print(Syntax(text, "toml", background_color="default"))


@app.command()
def check(
    recipe: str = RECIPE,
    overrides: list[str] = OVERRIDES,
    world: int = typer.Option(1, "--processes", min=1, help="Number of training processes."),
    as_json: bool = typer.Option(False, "--json", help='Print one JSON object: "ok" and a list of "faults".'),
) -> None:
    """Report every mistake in a recipe, and everything missing to train it here."""
    from semiseg.train.recipe.load import RecipeError, load
    from semiseg.train.recipe.preflight import preflight
    from semiseg.train.recipe.shipped import find

    try:
        loaded = load(find(recipe), overrides or [])
        preflight(loaded, world=world)
        from semiseg.train.assemble.feasible import model_faults  # imports torch

        if faults := model_faults(loaded):
            raise RecipeError(faults)
    except RecipeError as error:
        if not as_json:
            raise
        typer.echo(json.dumps({"ok": False, "faults": error.faults}, indent=2))
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps({"ok": True, "faults": []}, indent=2))
        return
    domains = "; ".join(_describe(name, domain) for name, domain in loaded.data.domains.items())
    kinds = ", ".join(objective.kind for objective in loaded.objectives)
    typer.echo(f"ok: {loaded.name}: {loaded.steps} steps of {kinds} with {loaded.model.encoder.name} on {domains}")


@app.command()
def diff(
    before: str = RECIPE,
    after: str = RECIPE,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON list."),
) -> None:
    """Print every key whose value differs between two recipes, defaults included."""
    from semiseg.train.recipe.load import changes, load
    from semiseg.train.recipe.shipped import find

    found = changes(load(find(before)), load(find(after)), incidental=True)
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(found), nl=bool(found or as_json))


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from semiseg.train.recipe.load import schema as build

    typer.echo(json.dumps(build(), indent=2))


def _describe(name: str, domain: "Domain") -> str:
    labeled = f"{domain.labeled.subset.count} labeled images" if domain.labeled.subset else "labeled images"
    more = f" and {domain.unlabeled.dataset} unlabeled" if domain.unlabeled else ""
    more += f", {domain.weak.dataset} weakly labeled" if domain.weak else ""
    return f"{name} ({domain.taxonomy}: {labeled} of {domain.labeled.dataset}{more})"
