"""Collect the commands of all installed semiseg packages, and print their errors without tracebacks."""

import errno
import os
import sys
from contextlib import suppress
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
    """Run the command line; an error of the user's files or system becomes one line on stderr and exit code 1.

    SEMISEG_TRACEBACK=1 shows where an error of the system came from.
    """
    code: Any = 0
    try:
        build_app()()
    except SystemExit as leaving:
        code = leaving.code
    except SemisegError as error:
        code = _fail(error)
    except KeyboardInterrupt:
        code = 130
    except (OSError, MemoryError, RecursionError) as error:
        if os.environ.get("SEMISEG_TRACEBACK"):
            raise
        code = 1 if isinstance(error, BrokenPipeError) else _fail(SemisegError(system_error(error)))
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):  # of torch, which has no class for it
            raise
        code = _fail(SemisegError(system_error(MemoryError())))
    sys.exit(_flushed(code))


def system_error(error: BaseException) -> str:
    """One line for an error of the operating system: where, what and what to do."""
    if not isinstance(error, OSError):
        what = "out of memory" if isinstance(error, MemoryError) else "values are nested too deeply"
        return f"{what}; use smaller data, or show where with SEMISEG_TRACEBACK=1"
    remedies = {
        errno.ENOSPC: "free some space or name another folder",
        errno.EDQUOT: "free some of your quota or name another folder",
        errno.EACCES: "change its permissions, or name another",
        errno.EPERM: "change its permissions, or name another",
        errno.EROFS: "name a folder on another file system",
        errno.ENOENT: "check the path",
        errno.EISDIR: "name a file, not a folder",
        errno.ENOTDIR: "a part of the path is a file; name another",
        errno.EEXIST: "name another, or remove it",
        errno.ENAMETOOLONG: "choose a shorter name",
        errno.ELOOP: "remove the link that points to itself",
        errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
    }
    where = "" if error.filename is None else f"{error.filename}: "
    remedy = remedies.get(error.errno or 0, "fix this, or show where with SEMISEG_TRACEBACK=1")
    return f"{where}{error.strerror or error or type(error).__name__}; {remedy}, then rerun the command"


def _fail(message: SemisegError) -> int:
    with suppress(OSError):  # nobody reads stderr
        typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
        typer.echo(str(message), err=True)
    return 1


def _flushed(code: Any) -> Any:
    """The exit code after everything has been printed; the reader of a pipe may be gone, or the disk full."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed by the shell
        try:
            stream.flush()
        except OSError as error:
            quiet = isinstance(error, BrokenPipeError) or stream is sys.stderr
            code = code or (1 if quiet else _fail(SemisegError(f"output: {system_error(error)}")))
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or Python reports it again at its end
    return code


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
