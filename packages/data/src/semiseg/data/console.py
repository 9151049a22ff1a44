"""Print text that may hold names from files."""

import typer

from semiseg.data.errors import visible


def echo(text: object, *, err: bool = False) -> None:
    """Print lines; control characters, which a terminal would obey, are shown as escapes."""
    typer.echo(visible(str(text), keep="\n\t"), err=err)
