"""Collect the commands of all installed semiseg packages, and print their errors without tracebacks."""

import sys
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any

import typer

from semiseg.cli.doctor import doctor
from semiseg.data import SemisegError

# Commands of packages that may be missing: they say what to install instead of "no such command".
ELSEWHERE = {
    "train": "semiseg[train]",
    "eval": "semiseg[train]",
    "predict": "semiseg[train]",
    "export": "semiseg[train]",
    "recipe": "semiseg[train]",
    "sweep": "semiseg[train]",
    "study": "semiseg[train]",
    "collect": "semiseg[train]",
    "report": "semiseg[train]",
    "weak": "semiseg[train]",
    "quickstart": "semiseg[all]",
}


def main() -> None:
    """Run the command line; a SemisegError becomes its message on stderr and exit code 1, never a traceback."""
    try:
        build_app()()
    except SemisegError as error:
        typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
        typer.echo(str(error), err=True)
        sys.exit(1)


def build_app() -> typer.Typer:
    """All commands: `doctor`, and those of the entry points in the group `semiseg.commands`.

    An entry point is a `typer.Typer` (a group of commands) or a function (one command).
    """
    app = typer.Typer(
        help="Semantic segmentation from few labels.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        show_version: bool = typer.Option(
            False, "--version", is_eager=True, callback=_print_version, help="Show the version."
        ),
    ) -> None:
        del show_version

    found = {entry.name: entry for entry in entry_points(group="semiseg.commands")}
    for name in sorted(found.keys() | ELSEWHERE.keys() | {"doctor"}):
        command: Any
        if name == "doctor":
            command = doctor
        elif name in found:
            command = _loaded(found[name])
        else:
            remedy = f"pip install '{ELSEWHERE[name]}'"
            command = _unusable(
                f"'semiseg {name}' is not installed; install it with: {remedy}", f"not installed: {remedy}"
            )
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, **getattr(command, "typer_settings", {}))(command)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"semiseg {version('semiseg')}")
        raise typer.Exit


def _loaded(entry: EntryPoint) -> Any:
    """The command of an entry point; a package that cannot be imported must not break the other commands."""
    try:
        return entry.load()
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        return _unusable(
            f"'semiseg {entry.name}' could not be loaded ({why}); reinstall its package", f"could not be loaded: {why}"
        )


def _unusable(message: str, short: str) -> Any:
    """A command that reports why it can't be used."""

    def command() -> None:
        raise SemisegError(message)

    command.__doc__ = f"({short})"
    command.typer_settings = {  # type: ignore[attr-defined]
        "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True}
    }
    return command
