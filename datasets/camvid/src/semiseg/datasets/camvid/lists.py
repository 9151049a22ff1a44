"""Text files that say which image belongs to which split."""

from collections.abc import Iterator

from semiseg.data import DataError


def read_list(data: bytes, where: str) -> Iterator[tuple[int, list[str]]]:
    """(number, words) of each line that has any, with `/` between the parts of a path; DataError for what is no text."""
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not a text file ({error.reason} at byte {error.start}); get it anew") from error
    for number, line in enumerate(lines, start=1):
        if words := line.replace("\\", "/").split():
            yield number, words


def check_once(lines: dict[str, int], name: str, number: int, where: str) -> None:
    """Note the line of a name; DataError for a second one."""
    if (first := lines.setdefault(name, number)) != number:
        raise DataError(f"{name} is listed twice in {where}, lines {first} and {number}; take one of them out")
