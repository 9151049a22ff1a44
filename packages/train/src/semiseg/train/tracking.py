"""What a run logs: metrics.jsonl, one JSON object a line. The place to add other experiment trackers."""

import json
import math
from pathlib import Path
from typing import Any

from semiseg.data import write_text


class Metrics:
    """metrics.jsonl: one JSON object a line, each with "step"; cut back to a checkpoint when a run resumes."""

    def __init__(self, path: Path, *, after: int) -> None:
        """Keep the lines of steps up to `after`, drop what was written later (it will be written again) or is damaged."""
        self.path = path
        lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
        write_text(path, "".join(line for line in lines if line.endswith("\n") and _step(line) <= after))

    def write(self, row: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _step(line: str) -> float:
    """The step of a line of metrics; infinite for a damaged one."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError):
        return math.inf
