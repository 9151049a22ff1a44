"""Text files that list samples, as other programs write them: one name, path, or pair of image and mask on a line."""

import codecs
import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from semiseg.data.errors import DataError
from semiseg.data.order.subset import Keyed, by_keys

_SUFFIX = r"\.(?:jpe?g|jfif|png|tiff?|bmp|webp|gif|jp2|ppm|pgm)"
_NAMED = re.compile(rf"(.+?{_SUFFIX})[\"']?(?=[\s,;]|$)", re.IGNORECASE)
_ENDS = re.compile(rf"{_SUFFIX}$", re.IGNORECASE)


def read_lines(data: bytes, where: str) -> Iterator[tuple[int, str]]:
    """(number, text) of each line that is neither empty nor a comment (#); DataError if the file is not UTF-8 or UTF-16."""
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # PowerShell's `>` writes UTF-16
    try:
        text = data.decode("utf-16" if data.startswith(marks) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not a text file ({error.reason} at byte {error.start}); save it as UTF-8, one name a line"
        ) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def names_in(line: str) -> list[str]:
    """What the first name on a line may be, the most likely first: what ends as an image, or precedes a mask or a label.

    Names may contain spaces. Backslashes become slashes; quotes and leading slashes are dropped.
    """
    if ended := _NAMED.match(line):
        candidates = [ended[1]]
    else:
        first = re.split(r"[\t,;]|\s+(?=\S*[/\\])", line)[0]  # "images/a masks/a"
        candidates = [first, line.split()[0], line]
    clean = (text.strip().strip("\"'").replace("\\", "/").lstrip("/") for text in candidates)
    return list(dict.fromkeys(text for text in clean if text))


def without_suffix(name: str) -> str:
    """A name without the suffix of an image."""
    return _ENDS.sub("", name)


def by_list(shards: Keyed, path: str | os.PathLike[str]) -> np.ndarray:
    """The samples that a text file lists, as sorted int64 indices.

    A line is a key, or a path that ends with one, such as "JPEGImages/x.jpg SegmentationClass/x.png". DataError, with the
    line, for a file that can't be read or is empty, and for unknown and repeated samples.
    """
    where = str(path)
    try:
        lines = list(read_lines(Path(path).read_bytes(), where))
    except OSError as error:
        raise DataError(f"cannot read '{where}' ({error.strerror or error}); write one key a line") from error
    if not lines:
        raise DataError(f"'{where}' is empty; write one key a line")
    keys = list(shards.keys())
    known = {key.lower(): key for key in keys} | {key: key for key in keys}
    found: dict[str, int] = {}
    missing: list[tuple[int, str]] = []
    for number, line in lines:
        key = _key(line, known)
        if key is None:
            missing.append((number, line))
        elif key in found:
            raise DataError(f"{where}:{number}: sample '{key}' is also on line {found[key]}; remove one of them")
        else:
            found[key] = number
    if missing:
        number, line = missing[0]
        stem = without_suffix(names_in(line)[0]).rpartition("/")[2]
        close = difflib.get_close_matches(stem, keys, n=1, cutoff=0)
        raise DataError(
            f"{where}:{number}: {len(missing)} of {len(lines)} lines name no sample, first '{line[:80]}'"
            + (f"; nearest to '{stem}' is '{close[0]}'" if close else "")
        )
    return by_keys(shards, found)


def _key(line: str, known: Mapping[str, str]) -> str | None:
    """The key that a line names: a path without its suffix and, one by one, without leading folders."""
    for candidate in names_in(line):
        parts = PurePosixPath(candidate).parts
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            for form in (tail, without_suffix(tail)):
                for key in (form, _cleaned(form)):
                    if found := known.get(key) or known.get(key.lower()):
                        return found
    return None


def _cleaned(text: str) -> str:
    """As `clean_key`, which adapters use for names with other characters."""
    return re.sub(r"[^A-Za-z0-9_/-]", "_", text)
