"""Text files that list the images of a split."""

from collections.abc import Iterator

from semiseg.data import DataError


def read_list(data: bytes, where: str) -> Iterator[tuple[int, list[str]]]:
    """(number, words) of each line that is not empty, with `/` as path separator; DataError if the file is not text."""
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not a text file ({error.reason} at byte {error.start}); download it again"
        ) from error
    for number, line in enumerate(lines, start=1):
        if words := line.replace("\\", "/").split():
            yield number, words


def check_once(lines: dict[str, int], name: str, number: int, where: str) -> None:
    """Record the line of a name; DataError if the name was listed before."""
    if (first := lines.setdefault(name, number)) != number:
        raise DataError(f"{name} is listed twice in {where}, lines {first} and {number}; remove one of them")
