"""What a run logs: metrics.jsonl, one JSON object a line. The place to add other experiment trackers."""

import json
from pathlib import Path
from typing import Any

from semiseg.data import write_text


class Metrics:
    """metrics.jsonl: one JSON object a line, each with "step"; cut back to a checkpoint when a run resumes."""

    def __init__(self, path: Path, *, after: int, due: bool = False) -> None:
        """Keep the lines of steps up to `after`, drop what was written later (it will be written again) or is damaged.

        due: also the scores of step `after`, whose evaluation is still to come.
        """
        self.path = path
        lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
        write_text(path, "".join(line for line in lines if line.endswith("\n") and _kept(line, after, due)))

    def write(self, row: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _kept(line: str, after: int, due: bool) -> bool:
    """Whether a line of metrics is of a step up to `after`; not for a damaged one."""
    try:
        row = json.loads(line)
        return float(row["step"]) < after + (not due or "lr" in row)
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return False
