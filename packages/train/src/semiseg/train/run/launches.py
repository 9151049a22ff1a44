"""env.json: every start of a run, with its machine, versions, topology and changes."""

import platform
import sys
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semiseg.data import SemisegError, parse_json
from semiseg.train.recipe import Recipe
from semiseg.train.run.revision import revision

if TYPE_CHECKING:
    from semiseg.train.run.resume import Topology


class RecordError(SemisegError):
    """A record that cannot be made again is damaged."""


def read_launches(folder: Path) -> list[dict[str, Any]]:
    """Every start of a run, oldest first: from which step, on how many processes, with which changes, of which commit.

    Empty where there is no env.json; RecordError for one that is damaged, as it may record changes.
    """
    path = folder / "env.json"
    if not path.exists():
        return []
    try:
        launches = parse_json(path.read_bytes())["launches"]
        if not isinstance(launches, list) or not all(isinstance(launch, dict) for launch in launches):
            raise TypeError("its launches are no list of tables")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RecordError(
            f"{path} is damaged ({' '.join(str(error).split()) or 'unreadable'}); put back a copy of it, or delete it to go on "
            "without the record of earlier starts"
        ) from error
    return launches


def this_start(recipe: Recipe, topology: "Topology", *, start: int, changes: list[str]) -> dict[str, Any]:
    """An entry of env.json: where, how and with what this process was started."""
    import torch  # only here: reports read launches without it

    versions = {found.metadata["Name"].lower(): found.version for found in distributions()}
    own = {name: version for name, version in versions.items() if name.startswith("semiseg")}
    libraries = ("torch", "torchvision", "timm", "accelerate", "numpy")
    return {
        "start": start,
        "changes": changes,
        "command": sys.argv,
        **asdict(topology),
        "workers": recipe.data.workers,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "packages": {name: versions.get(name) for name in libraries} | own,
        **revision(),
    }
