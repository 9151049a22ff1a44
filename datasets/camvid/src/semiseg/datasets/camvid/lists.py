"""Text files that list the images of a split."""

from collections.abc import Iterator

from semiseg.data import DataError, read_lines


def read_list(data: bytes, where: str) -> Iterator[tuple[int, list[str]]]:
    """(number, words) of each line that is not empty, with `/` as path separator; DataError if the file is not text."""
    for number, line in read_lines(data, where):
        if words := line.replace("\\", "/").replace(",", " ").split():
            yield number, words


def check_once(lines: dict[str, int], name: str, number: int, where: str) -> None:
    """Record the line of a name; DataError if the name was listed before."""
    if (first := lines.setdefault(name, number)) != number:
        raise DataError(f"{name} is listed twice in {where}, lines {first} and {number}; remove one of them")
