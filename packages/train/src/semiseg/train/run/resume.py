"""What may change between a run and its continuation, and what is refused because losses would no longer be the same.

The global batches of a run follow from its recipe and its shards. How many processes, micro-steps and loading workers
share them out may change at every start, as long as normalisation sees the same images. Anything else is another run:
refused with the difference named, or allowed by the user and kept in the run's record.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from semiseg.train.assemble.sources import CLASSES
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.resolved import changes

_FORM = ("model.", "optimizer.kind:")  # of a recipe: what decides which tensors a checkpoint holds,
_FORMLESS = ("model.norm:", "model.batches:", "model.start:", "model.encoder.weights:")  # and what does not


@dataclass(frozen=True, kw_only=True)
class Topology:
    """How a start shares out the global batches, and the precision that `precision = "auto"` came to."""

    processes: int
    accumulate: int
    precision: str


def recipe_changes(before: Recipe, after: Recipe) -> list[str]:
    """What differs of all that decides a sample or a loss; `accumulate` only cuts a step, see `topology_changes`."""
    return [change for change in changes(before, after) if not change.startswith("accumulate:")]


def form_changes(changed: list[str]) -> list[str]:
    """Those of the changes under which a checkpoint's weights cannot be used at all."""
    return [change for change in changed if change.startswith(_FORM) and not change.startswith(_FORMLESS)]


def data_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Streams that were added, that went, or whose shards, selection of samples or classes have another digest.

    `before` says nothing of classes where it was written before they were kept.
    """
    unknown = {name for name in now if name.endswith(CLASSES)}
    if any(name.endswith(CLASSES) for name in before):
        unknown = set()
    names = sorted(name for name in {**before, **now} if before.get(name) != now.get(name) and name not in unknown)
    return [f"data of {name}: {_short(before.get(name))} -> {_short(now.get(name))}" for name in names]


def topology_changes(before: Mapping[str, object], now: Topology, norm: str) -> list[str]:
    """What differs of how batches are shared out, where losses are then equal no longer, not even up to the order of sums.

    Frozen normalisation sees no batch. Synchronised normalisation sees the images of all processes, but of one micro-step.
    `before`: as a checkpoint has it; empty where it was written before topologies were kept.
    """
    old = {**asdict(now), **before}
    changed = [f"{name}: {old[name]} -> not known here" for name in sorted(old.keys() - asdict(now).keys())]
    changed += [f"precision: {old['precision']} -> {now.precision}"] if old["precision"] != now.precision else []
    spread = [
        f"{name}: {old[name]} -> {getattr(now, name)}"
        for name in ("processes", "accumulate")
        if old[name] != getattr(now, name)
    ]
    whole = norm == "sync" and old["accumulate"] == now.accumulate == 1
    if not spread or norm == "frozen" or whole:
        return changed
    seen = "one process's share of a micro-step" if norm == "batch" else "one micro-step"
    return [*changed, f'{", ".join(spread)}, while model.norm = "{norm}" normalises over {seen}']


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]
