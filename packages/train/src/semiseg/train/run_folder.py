"""The folder of a run: who it belongs to, what it says about itself, its results."""

import json
import os
import platform
import resource
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from semiseg.data import SemisegError, Taxonomy
from semiseg.models import Segmenter
from semiseg.train.build import open_source
from semiseg.train.checkpoint import State, latest
from semiseg.train.load import load
from semiseg.train.recipe import Recipe
from semiseg.train.resolved import changes, digest, to_toml


class RunError(SemisegError):
    """A run folder that this recipe must not touch."""


def claim(recipe: Recipe) -> Path:
    """The run's folder with its recipe.toml, new or of the same recipe. Every rank calls this.

    A folder of another recipe is refused once it holds a checkpoint; before that there is nothing to lose.
    """
    folder = Path(recipe.runs) / recipe.name
    written = folder / "recipe.toml"
    if written.is_file() and latest(folder) is not None:
        before = load(written)
        if digest(before) != digest(recipe):
            differences = "; ".join(changes(before, recipe))
            raise RunError(
                f"{folder} holds a run of another recipe ({differences}); "
                f"give this run a name of its own, as in name={recipe.name}-2, or remove the folder"
            )
    if int(os.environ.get("RANK", "0")) == 0:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(written, to_toml(recipe))
        except OSError as error:
            raise RunError(
                f"{folder} cannot be written ({error.strerror}); choose another place with runs=FOLDER"
            ) from None
    return folder


def classes_of(recipe: Recipe) -> dict[str, int]:
    """Domain -> number of classes."""
    return {
        name: len(open_source(recipe.data.shards, domain.labeled).taxonomy(domain.taxonomy).names)
        for name, domain in recipe.data.domains.items()
    }


def metadata(recipe: Recipe, taxonomies: Mapping[str, Taxonomy], model: Segmenter) -> dict[str, Any]:
    """What a saved model says of itself: {"taxonomies": {domain: {name, names, colours}}, "resize": {domain: [h, w]}}.

    Domains that `model` brings along from an earlier run keep what was said of them.
    """
    described = dict(model.metadata.get("taxonomies", {}))
    sizes = dict(model.metadata.get("resize", {}))
    for domain, each in taxonomies.items():
        colours = [list(colour) for colour in each.colours]
        described[domain] = {"name": each.name, "names": list(each.names), "colours": colours}
        size = recipe.data.domains[domain].augment.resize
        sizes[domain] = None if size is None else list(size)
    return {"taxonomies": described, "resize": sizes}


def check_same_data(checkpoint: Path, state: State, digests: Mapping[str, str]) -> None:
    """Refuse to continue on other shards, or another selection of them, than the checkpoint was trained on."""
    changed = [name for name, digest in digests.items() if state.digests.get(name) != digest]
    if changed:
        raise RunError(
            f"{checkpoint} was trained on other data: {', '.join(changed)} (digests differ), so the order of samples would "
            "change; put the old shards or key files back, or start a run with another name"
        )


def describe(folder: Path, selected: Mapping[str, list[str]]) -> None:
    """Write env.json and the keys of every selection (subsets/<domain>.<role>.txt)."""
    versions = {each.metadata["Name"].lower(): each.version for each in distributions()}
    own = {name: version for name, version in versions.items() if name.startswith("semiseg")}
    about = {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "packages": {name: versions.get(name) for name in ("torch", "torchvision", "timm", "accelerate", "numpy")}
        | own,
    }
    _write(folder / "env.json", json.dumps(about, indent=2) + "\n")
    for stream, keys in selected.items():
        subset = folder / "subsets" / f"{stream.replace('/', '.')}.txt"
        subset.parent.mkdir(exist_ok=True)
        _write(subset, "\n".join(keys) + "\n")


def results(
    recipe: Recipe, last: dict[str, Any], best: dict[str, Any], subsets: dict[str, str], *, seconds: float
) -> dict[str, Any]:
    """What results.json holds. `subsets`: stream -> hash of the keys it took."""
    cuda = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "recipe": digest(recipe),
        "name": recipe.name,
        "seed": recipe.seed,
        "steps": recipe.steps,
        "expect": recipe.expect,
        "last": last,
        "best": best,
        "subsets": subsets,
        "hours": seconds / 3600,
        "peak_memory_bytes": peak,
    }


def read_results(folder: Path) -> dict[str, Any] | None:
    path = folder / "results.json"
    return json.loads(path.read_text()) if path.is_file() else None


def write_results(folder: Path, content: dict[str, Any]) -> None:
    _write(folder / "results.json", json.dumps(content, indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.replace(path)
