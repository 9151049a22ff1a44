"""What a run says of itself as JSON: env.json, every start of it, and results.json. Read whatever became of the files."""

import json
from pathlib import Path
from typing import Any

from semiseg.data.errors import SemisegError
from semiseg.data.storage import atomic


class RecordError(SemisegError):
    """A record that cannot be made again is damaged."""


def read_launches(folder: Path) -> list[dict[str, Any]]:
    """Every start of a run, oldest first: from which step, on how many processes, with which changes, of which commit.

    Empty where there is no env.json; RecordError for one that is damaged, as it may tell of changes.
    """
    path = folder / "env.json"
    if not path.exists():
        return []
    try:
        launches = json.loads(path.read_bytes())["launches"]
        if not isinstance(launches, list) or not all(isinstance(each, dict) for each in launches):
            raise TypeError("its launches are no list of tables")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RecordError(
            f"{path} is damaged ({' '.join(str(error).split()) or 'unreadable'}); put back a copy of it, or delete it to go on "
            "without the record of earlier starts"
        ) from error
    return launches


def read_results(folder: Path) -> dict[str, Any] | None:
    """What a run that came to its end found; None without results.json, or with one that is damaged.

    The last checkpoint holds all of it: the run's own command writes it again.
    """
    try:
        found = json.loads((folder / "results.json").read_bytes())
    except (OSError, ValueError):
        return None
    match found:
        case {"recipe": str(), "steps": int(), "hours": int() | float(), "last": dict(), "best": dict()}:
            return found
    return None


def write_text(path: Path, text: str) -> None:
    """Whole or not at all, also when the machine loses power. DataError where it cannot be written."""
    with atomic(path) as file:
        file.write(text.encode())
