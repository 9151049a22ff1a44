"""One run on disk: opened for a recipe, resumed from its newest checkpoint, described, saved, finished."""

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from semiseg.data import SemisegError, write_text
from semiseg.models import Segmenter
from semiseg.train.assemble.sources import Sources
from semiseg.train.memory import peak_memory
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.load import load
from semiseg.train.recipe.resolved import to_toml
from semiseg.train.run import checkpoint
from semiseg.train.run.checkpoint import State
from semiseg.train.run.launches import read_launches, this_start
from semiseg.train.run.lock import RunLock
from semiseg.train.run.results import is_scored, read_results, results_of, write_results
from semiseg.train.run.resume import Topology, data_changes, form_changes, recipe_changes, topology_changes
from semiseg.train.step.learner import Learner


class RunError(SemisegError):
    """A run folder that this recipe must not touch."""


@dataclass
class RunFolder:
    """`<runs>/<name>/`, from the first look at it to its results. Every rank opens it; rank 0 alone writes.

    newest  its newest intact checkpoint, and state: what that says of itself; None for a new run
    damaged what is wrong with later checkpoints
    changes what differs from the recipe, data and topology of that checkpoint: empty unless the user allowed changes
    """

    path: Path
    recipe: Recipe
    newest: Path | None
    state: State | None
    changes: list[str]
    allow_changes: bool = False
    damaged: list[str] = field(default_factory=list)
    lock: RunLock | None = None

    @classmethod
    def open(
        cls, recipe: Recipe, *, allow_changes: bool = False, extend: bool = False, take_over: bool = False
    ) -> "RunFolder":
        """The run's folder, new or of the same recipe. All ranks call this.

        A folder of another recipe is refused once it holds a checkpoint, unless `allow_changes`; before that there is
        nothing to lose; `extend`: a larger number of steps is no other recipe. Weights of another form are refused in any
        case. No other training may work there until `close`; take_over: one of another host is believed to be gone.

        Raises RunError, LockError, or CheckpointError for damage.
        """
        path = Path(recipe.runs) / recipe.name
        changes = changes_since(recipe)
        if form := form_changes(changes):
            raise RunError(
                f"{path} holds weights of another form ({'; '.join(form)}); give this run another name, as in "
                f"name={recipe.name}-2; model.start={path} starts it from these weights"
            )
        if more := [change for change in changes if change.startswith("steps: ") and not allow_changes]:
            before, after = map(int, more[0].removeprefix("steps: ").split(" -> "))
            if before < after and len(changes) == 1 and not extend:
                raise RunError(
                    f"{path} holds a run of {before} steps; to train it for {after}, with the learning rates and ramps "
                    f"of {after} from there on: {_command()} --extend"
                )
            if before > after and extend:
                raise RunError(f"{path} holds a run of {before} steps, which --extend cannot shorten to {after}")
        if [change for change in changes if not (extend and change in more)] and not allow_changes:
            raise RunError(
                f"{path} holds a run of another recipe ({'; '.join(changes)}); give this run another name, as in "
                f"name={recipe.name}-2, remove the folder, or resume anyway with --allow-changes, which is recorded"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from None
        lock = RunLock(path, take_over=take_over)
        try:
            checkpoint.recover(path)
            newest, state, damaged = checkpoint.newest(path)
        except BaseException:
            lock.release()
            raise
        return cls(path, recipe, newest, state, changes, allow_changes, damaged, lock)

    def close(self) -> None:
        """Let another training work here."""
        if self.lock is not None:
            self.lock.release()

    @property
    def precision(self) -> str | None:
        """What the run was trained in so far; None for a new run."""
        return self.state.topology.get("precision") if self.state else None

    def saved_model(self) -> Segmenter | None:
        """The model of the newest checkpoint, in training mode; None for a new run."""
        return None if self.newest is None else checkpoint.restore_model(self.newest, norm=self.recipe.model.norm)

    def restore(
        self, learner: Learner, optimizer: torch.optim.Optimizer, scaler: Any, sources: Sources, topology: Topology
    ) -> State:
        """Put everything but the model back from the newest checkpoint; a fresh state for a new run. All ranks call this.

        Raises RunError for what would make later losses differ, unless changes are allowed: other shards, another selection
        of them; other processes or micro-steps, where normalisation depends on them.
        """
        if self.newest is None or self.state is None:
            return State(step=0, seconds=0.0, digests=sources.identity(), last={}, best={})
        other_data = data_changes(self.state.digests, sources.identity())
        done = self.state.step >= self.recipe.steps
        norm = self.recipe.model.norm
        other_topology = [] if done else topology_changes(self.state.topology, topology, norm)
        remedies = ["put the old shards or key files back"] * bool(other_data)
        remedies += ["start it as it was started before"] * bool(other_topology)
        found = other_data + other_topology
        if found and not self.allow_changes:
            what = "was trained on other data" if other_data else "was trained with different settings"
            raise RunError(
                f"{self.newest} {what}, so later losses would differ: {'; '.join(found)}; {', '.join(remedies)}, give this "
                "run another name (name=...), or resume anyway with --allow-changes, which is recorded"
            )
        self.changes += found
        checkpoint.restore(self.newest, learner, optimizer, scaler)
        return self.state

    def finished(self) -> dict[str, Any] | None:
        """The results of a run that is complete and scored as the recipe says; None for any other."""
        if self.state is None or self.state.step < self.recipe.steps:
            return None
        results = read_results(self.path)
        return results if results and is_scored(results, self.recipe) else None

    def describe(self, selected: Mapping[str, list[str]], topology: Topology) -> None:
        """Remove what a kill left, add this start to env.json, then write recipe.toml and the keys of every selection.

        The recipe follows the record, so that a change in force is always a change on record. Keys go to
        subsets/<domain>.<role>.txt.
        """
        start = self.state.step if self.state else 0
        checkpoint.remove_leftovers(self.path, after=start)
        about = this_start(self.recipe, topology, start=start, changes=self.changes)
        try:
            launches = [*read_launches(self.path), about] if start else [about]
            write_text(self.path / "env.json", json.dumps({"launches": launches}, indent=2) + "\n")
            write_text(self.path / "recipe.toml", to_toml(self.recipe))
            for stream, keys in selected.items():
                subset = self.path / "subsets" / f"{stream.replace('/', '.')}.txt"
                subset.parent.mkdir(exist_ok=True)
                write_text(subset, "\n".join(keys) + "\n")
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def save(self, state: State, learner: Learner, optimizer: Any, scaler: Any, *, metadata: dict[str, Any]) -> None:
        """A checkpoint, atomically; older ones beyond `checkpoint.keep` go. Rank 0 alone calls this."""
        self._check()
        keep, first = self.recipe.checkpoint.keep, self.recipe.evaluate.weights == "teacher"
        checkpoint.save(self.path, state, learner, optimizer, scaler, keep=keep, metadata=metadata, teacher_first=first)

    def save_best(self, step: int, model: Segmenter, *, metadata: dict[str, Any]) -> None:
        """The model of the best evaluation so far, as best-<step>/. Rank 0 alone calls this."""
        self._check()
        checkpoint.save_best(self.path, step, model, metadata=metadata)

    def _check(self) -> None:
        if self.lock is not None:
            self.lock.check()

    def finish(
        self, last: dict[str, Any], best: dict[str, Any], sources: Sources, *, seconds: float, write: bool
    ) -> dict[str, Any]:
        """What results.json holds; written where `write`, which rank 0 alone says."""
        launches, memory = read_launches(self.path), peak_memory(cuda=torch.cuda.is_available())
        results = results_of(self.recipe, last, best, sources, launches, seconds=seconds, memory=memory)
        if write:
            write_results(self.path, results)
        return results


def changes_since(recipe: Recipe) -> list[str]:
    """How a recipe differs from the one of the checkpoints in its folder; empty where there are none."""
    folder = Path(recipe.runs) / recipe.name
    written = folder / "recipe.toml"
    if not written.is_file() or checkpoint.latest(folder) is None:
        return []
    return recipe_changes(load(written), recipe)


def _command() -> str:
    """The command that started this process, as a user would type it."""
    first, *arguments = sys.argv
    if Path(first).name == "__main__.py":
        return shlex.join(["python", "-m", "semiseg.train", *arguments])
    return shlex.join([Path(first).name, *arguments])


def _unwritable(folder: Path, error: OSError) -> RunError:
    return RunError(f"{folder} cannot be written ({error.strerror}); choose another place with runs=FOLDER")
