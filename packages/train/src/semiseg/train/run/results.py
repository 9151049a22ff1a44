"""results.json: what a finished run found. Written once, read whatever became of the file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semiseg.data import parse_json, write_text
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.resolved import digest, evaluation
from semiseg.train.recipe.typed import check_types
from semiseg.train.run.checked import Results

if TYPE_CHECKING:
    from semiseg.train.assemble.sources import Sources  # torch, which reports do without


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Write results.json atomically. Rank 0 alone calls this."""
    write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")


def results_of(
    recipe: Recipe,
    last: Mapping[str, Any],
    best: Mapping[str, Any],
    sources: "Sources",
    launches: list[dict[str, Any]],
    *,
    seconds: float,
    memory: int,
) -> dict[str, Any]:
    """The contents of results.json. memory: bytes at the peak.

    data: stream -> digest of its shards; subsets: stream -> hash of the keys it took; launches: every start, with its
    changes; overlap, if there is any: which validation images were trained on.
    """
    kept = ("start", "processes", "accumulate", "precision", "changes", "commit", "dirty")
    return {
        "recipe": digest(recipe),
        "name": recipe.name,
        "seed": recipe.seed,
        "steps": recipe.steps,
        "expect": recipe.expect,
        "last": last,
        "best": best,
        "data": sources.digests,
        "subsets": sources.digest_of_subsets(),
        **({"overlap": list(sources.overlap)} if sources.overlap else {}),
        "launches": [{name: launch.get(name) for name in kept} for launch in launches],
        "hours": seconds / 3600,
        "peak_memory_bytes": memory,
    }


def read_results(folder: Path) -> dict[str, Any] | None:
    """The results of a finished run; None without results.json, or if it is damaged.

    The last checkpoint holds all of it: rerunning the command writes it again.
    """
    try:
        found = parse_json((folder / "results.json").read_bytes())
        check_types(Results, found)
    except (OSError, ValueError):
        return None
    return found if isinstance(found.get("steps"), int) else None


def is_scored(results: dict[str, Any], recipe: Recipe) -> bool:
    """Whether a run's scores were taken as the recipe says; true of runs that are never evaluated."""
    return not results["last"] or results["last"].get("evaluation") == evaluation(recipe)


def plan(recipe: Recipe) -> dict[str, Any]:
    """What a run's results must say to be those of this recipe: {"recipe": digest, "evaluation": how it is scored}."""
    return {"recipe": digest(recipe), "evaluation": evaluation(recipe)}


def differs(results: dict[str, Any], planned: dict[str, Any]) -> str:
    """Why results are not the planned ones; "" where they are, also where one side does not say."""
    if planned.get("recipe", results["recipe"]) != results["recipe"]:
        return "it was trained with another recipe than planned"
    wanted, done = planned.get("evaluation"), results["last"].get("evaluation")
    if wanted is None or done is None or wanted == done:
        return ""
    return f"it was scored with {done}, not with {wanted} as planned"
