"""The folder of a run: who it belongs to, what it says about itself, its results."""

import json
import platform
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from semiseg.data import SemisegError, Taxonomy, write_text
from semiseg.models import Segmenter
from semiseg.train.assemble.sources import Sources
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.load import load
from semiseg.train.recipe.resolved import digest, to_toml
from semiseg.train.recipe.shards import open_source
from semiseg.train.run.checkpoint import State, latest
from semiseg.train.run.continuation import Topology, data_changes, form_changes, recipe_changes, topology_changes
from semiseg.train.run.records import read_launches
from semiseg.train.run.revision import revision
from semiseg.train.score.saved import build_views


class RunError(SemisegError):
    """A run folder that this recipe must not touch."""


def claim(recipe: Recipe, *, allow_changes: bool = False) -> tuple[Path, list[str]]:
    """The run's folder, new or of the same recipe, and what differs from the recipe of its checkpoints. All ranks call this.

    A folder of another recipe is refused once it holds a checkpoint, unless `allow_changes`; before that there is
    nothing to lose. Weights of another form are refused in any case.
    """
    folder = Path(recipe.runs) / recipe.name
    changed = changes_since(recipe)
    if form := form_changes(changed):
        raise RunError(
            f"{folder} holds weights of another form ({'; '.join(form)}); give this run a name of its own, as in "
            f"name={recipe.name}-2; model.start={folder} starts it from these weights"
        )
    if changed and not allow_changes:
        raise RunError(
            f"{folder} holds a run of another recipe ({'; '.join(changed)}); give this run a name of its own, as in "
            f"name={recipe.name}-2, remove the folder, or go on all the same with --allow-changes, which its record "
            "will tell"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return folder, changed


def changes_since(recipe: Recipe) -> list[str]:
    """How a recipe differs from the one of the checkpoints in its folder; empty where there are none."""
    folder = Path(recipe.runs) / recipe.name
    written = folder / "recipe.toml"
    return recipe_changes(load(written), recipe) if written.is_file() and latest(folder) is not None else []


def classes_of(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Domain -> names of its classes."""
    return {
        name: open_source(recipe.data.shards, domain.labeled).taxonomy(domain.taxonomy).names
        for name, domain in recipe.data.domains.items()
    }


def metadata(recipe: Recipe, taxonomies: Mapping[str, Taxonomy], model: Segmenter) -> dict[str, Any]:
    """What a saved model says of itself: {"taxonomies": {domain: {name, names, colours}}, "resize": {domain: [h, w]}, "views"}.

    "views" is how its run looks at images when it scores them, a `Views` as JSON.

    Domains that `model` brings along from an earlier run keep what was said of them.
    """
    described = dict(model.metadata.get("taxonomies", {}))
    sizes = dict(model.metadata.get("resize", {}))
    for domain, each in taxonomies.items():
        colours = [list(colour) for colour in each.colours]
        described[domain] = {"name": each.name, "names": list(each.names), "colours": colours}
        size = recipe.data.domains[domain].augment.resize
        sizes[domain] = None if size is None else list(size)
    views = json.loads(json.dumps(asdict(build_views(recipe.evaluate))))
    return {"taxonomies": described, "resize": sizes, "views": views}


def check_continues(
    checkpoint: Path,
    state: State,
    recipe: Recipe,
    digests: Mapping[str, str],
    topology: Topology,
    *,
    allow_changes: bool = False,
) -> list[str]:
    """What keeps a continuation from having the losses that the run would have had: refused unless `allow_changes`.

    Other shards, or another selection of them; processes and micro-steps, where normalisation depends on them.
    """
    other_data = data_changes(state.digests, digests)
    done = state.step >= recipe.steps
    other_topology = [] if done else topology_changes(state.topology, topology, recipe.model.norm)
    remedies = ["put the old shards or key files back"] * bool(other_data)
    remedies += ["start it as it was started before"] * bool(other_topology)
    changed = other_data + other_topology
    if changed and not allow_changes:
        what = "was trained on other data" if other_data else "was trained in another way"
        raise RunError(
            f"{checkpoint} {what}: {'; '.join(changed)}: so the losses to come would be others; {', '.join(remedies)}, give "
            "this run a name of its own (name=...), or go on all the same with --allow-changes, which its record will tell"
        )
    return changed


def describe(
    folder: Path,
    recipe: Recipe,
    selected: Mapping[str, list[str]],
    topology: Topology,
    *,
    start: int,
    changed: list[str],
) -> None:
    """Add this start to env.json, then write recipe.toml and the keys of every selection (subsets/<domain>.<role>.txt)."""
    versions = {each.metadata["Name"].lower(): each.version for each in distributions()}
    own = {name: version for name, version in versions.items() if name.startswith("semiseg")}
    about = {
        "start": start,
        "changes": changed,
        "command": sys.argv,
        **asdict(topology),
        "workers": recipe.data.workers,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "packages": {name: versions.get(name) for name in ("torch", "torchvision", "timm", "accelerate", "numpy")}
        | own,
        **revision(),
    }
    try:
        launches = [*read_launches(folder), about] if start else [about]
        write_text(folder / "env.json", json.dumps({"launches": launches}, indent=2) + "\n")
        write_text(
            folder / "recipe.toml", to_toml(recipe)
        )  # after the record: a change that is in force is a change that is told
        for stream, keys in selected.items():
            subset = folder / "subsets" / f"{stream.replace('/', '.')}.txt"
            subset.parent.mkdir(exist_ok=True)
            write_text(subset, "\n".join(keys) + "\n")
    except OSError as error:
        raise _unwritable(folder, error) from None


def results(
    folder: Path, recipe: Recipe, last: dict[str, Any], best: dict[str, Any], sources: Sources, *, seconds: float
) -> dict[str, Any]:
    """What results.json holds.

    data: stream -> digest of its shards; subsets: stream -> hash of the keys it took; launches: every start and its changes.
    """
    told = ("start", "processes", "accumulate", "precision", "changes", "commit", "dirty")
    cuda = torch.cuda.is_available()
    unit = 1 if sys.platform == "darwin" else 1024
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
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
        "launches": [{name: launch.get(name) for name in told} for launch in read_launches(folder)],
        "hours": seconds / 3600,
        "peak_memory_bytes": peak,
    }


def write_results(folder: Path, content: dict[str, Any]) -> None:
    write_text(folder / "results.json", json.dumps(content, indent=2) + "\n")


def _unwritable(folder: Path, error: OSError) -> RunError:
    return RunError(f"{folder} cannot be written ({error.strerror}); choose another place with runs=FOLDER")
