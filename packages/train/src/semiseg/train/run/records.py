"""What a run says of itself as JSON: env.json, every start of it, and results.json. Read whatever became of the files."""

import json
from pathlib import Path
from typing import Any

from semiseg.data import SemisegError
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.resolved import digest, evaluation


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
        launches = json.loads(path.read_bytes())["launches"]
        if not isinstance(launches, list) or not all(isinstance(launch, dict) for launch in launches):
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


def is_scored(results: dict[str, Any], recipe: Recipe) -> bool:
    """Whether a run's scores were taken as the recipe says; true of runs that are never evaluated."""
    return not results["last"] or results["last"].get("evaluation") == evaluation(recipe)


def plan(recipe: Recipe) -> dict[str, Any]:
    """What a run's results must say to be those of this recipe: {"recipe": digest, "evaluation": how it is scored}."""
    return {"recipe": digest(recipe), "evaluation": evaluation(recipe)}


def differs(results: dict[str, Any], planned: dict[str, Any]) -> str:
    """Why results are not those that were planned; "" where they are, also where one side says nothing."""
    if planned.get("recipe", results["recipe"]) != results["recipe"]:
        return "it is of another recipe than was planned"
    wanted, done = planned.get("evaluation"), results["last"].get("evaluation")
    if wanted is None or done is None or wanted == done:
        return ""
    return f"it was scored with {done}, not with {wanted} as was planned"
