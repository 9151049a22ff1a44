"""The image files of a tree, read as `semiseg.data` reads all images."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from semiseg.data import ORIENTATION, DataError, Picture, Reading, Tree, as_png, inspect_image, turn
from semiseg.data import highest as highest_value
from semiseg.data import open_image as opened

__all__ = ["ORIENTATION", "Picture", "as_png", "highest", "inspect", "opened", "stream", "turn"]


def inspect(tree: Tree, name: str, reading: Reading | None = None) -> Picture:
    """The header of a file; DataError, without a file name, if it can't be used as an image."""
    with stream(tree, name) as file:
        return inspect_image(file, reading or Reading())


def highest(tree: Tree, name: str) -> int:
    """The largest value of an image of more than 8 bits."""
    with stream(tree, name) as file:
        return highest_value(file)


@contextmanager
def stream(tree: Tree, name: str) -> Iterator[BinaryIO]:
    """A file to read from; in a folder, a header can be read without the rest of the file."""
    if tree.kind == "folder":
        try:
            with (tree.path / name).open("rb") as file:
                yield file
        except OSError as error:
            raise DataError(f"can't be read ({error.strerror or error})") from error
    else:
        yield io.BytesIO(tree.read(name))
