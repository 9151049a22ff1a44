"""Names of the files in a shard set's folder, and which names from files may become parts of paths."""

import re
from typing import Any

MANIFEST = "manifest.json"
PLAN = "plan.json"  # the layout, beside the shards while they are written; removed once there is a manifest
PART_PLAN = r"plan\.(\d+)-of-(\d+)\.json"  # the plan file of a part, see `part_plan`
ANY_PLAN = re.compile(rf"plan\.json|{PART_PLAN}")
SHARD_FILE = re.compile(r"\d{6,}\.(tar|index\.(parquet|sha256))")

SEAL = ".index.sha256"  # ends the name of the file with the sha256 of an index, which `merge` removes
LONGEST = 200  # characters of a name; a file name has at most 255
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")


def is_folder_name(text: Any) -> bool:
    """Whether a data set or split may have this name: it becomes a folder, a part of URLs and an argument of commands.

    So it has ASCII letters, digits and `_ - . @` only; it does not start with `-` or `.`, and has no two dots in a row.
    """
    return isinstance(text, str) and len(text) <= LONGEST and bool(_FOLDER.fullmatch(text)) and ".." not in text


def check_folder_name(kind: str, text: Any) -> str:
    """The name, unchanged; ValueError if it can't be a folder: every name from a file passes here before it is in a path."""
    if is_folder_name(text):
        return text
    shown = ascii(text)[:80]
    raise ValueError(f"{kind} {shown} can't name a folder; letters, digits, '_', '-', '.', '@' are allowed")


def check_text(kind: str, text: Any, most: int = 1000) -> str:
    """The text of a file's field, unchanged; ValueError if it is not text, or too long."""
    if not isinstance(text, str):
        raise ValueError(f"{kind} is {ascii(text)[:80]}; expected text")
    if len(text) > most:
        raise ValueError(f"{kind} has {len(text):,} characters; expected at most {most:,}")
    return text


def check_count(kind: str, value: Any, least: int = 0) -> int:
    """The whole number of a file's field, unchanged; ValueError for others, and for what no file can count."""
    if type(value) is not int or not least <= value < 1 << 62:
        raise ValueError(f"{kind} is {ascii(value)[:80]}; expected a whole number from {least}")
    return value


def shard_name(number: int) -> str:
    """The stem of a shard's tar and index."""
    return f"{number:06d}"


def part_plan(part: tuple[int, int]) -> str:
    """The name of the plan file of part (i, n)."""
    number, count = part
    return f"{PLAN.removesuffix('.json')}.{number}-of-{count}.json"


def part_of(name: str) -> tuple[int, int] | None:
    """The part whose plan file has this name; None for that of the complete set."""
    match = ANY_PLAN.fullmatch(name)
    return (int(match[1]), int(match[2])) if match and match[1] else None
