"""Checkpoints that are whole or not there, and that restore a run to the bit."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from semiseg.data import SemisegError, put_back, replaced
from semiseg.models import Segmenter, from_pretrained, save_pretrained
from semiseg.models.segmenter import Norm
from semiseg.train.sealed import SEAL, all_best, all_steps, fault, is_own, seal, step_of
from semiseg.train.step.learner import Learner
from semiseg.train.step.precision import Precision

_LEFTOVER = re.compile(r"\.(step|best)-\d{8,}\.(part|old)|\..+\.tmp")


class CheckpointError(SemisegError):
    """A checkpoint that is damaged or does not belong to this run."""


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run stands. `digests` are those of its data; `last` and `best` the scores of two evaluations.

    topology: how batches were shared out, a `resume.Topology`; empty in checkpoints that do not say. due: the evaluation of
    this step is still to come, since the run was stopped before. counts: of crops since the last line of metrics, by domain.
    sealed: there is a seal.json.
    """

    step: int
    seconds: float
    digests: dict[str, str]
    last: dict[str, Any]
    best: dict[str, Any]
    topology: dict[str, Any] = field(default_factory=dict)
    due: bool = False
    counts: dict[str, Any] = field(default_factory=dict)
    sealed: bool = False


def save(
    run: Path,
    state: State,
    learner: Learner,
    optimizer: Any,
    scaler: Any = None,
    *,
    keep: int,
    metadata: dict,
    teacher_first: bool = False,
) -> Path:
    """Write `run/step-<step>/` under another name, flush it, rename it; then drop all but the last `keep`.

    Where there is a teacher, the folder is a saved model of the student's weights and holds the teacher as teacher/; with
    `teacher_first` it is one of the teacher's weights and holds the student as student/.
    Rank 0 alone calls this, after buffers are equal on all ranks. `metadata` goes into the model's config.json.
    """
    with _whole(run / f"step-{state.step:08d}") as part:
        first, second = ("teacher", "student") if teacher_first else ("student", "teacher")
        models = {"student": learner.model} | ({"teacher": learner.average()} if learner.teacher else {})
        save_pretrained(models[first], part, metadata=metadata)
        if second in models:
            save_pretrained(models[second], part / second, metadata=metadata)
        own = {name: tensor.contiguous() for name, tensor in learner.objectives.state_dict().items()}
        save_file(own, part / "learner.safetensors")
        torch.save(optimizer.state_dict(), part / "optimizer.pt")
        if scaler is not None:
            torch.save(scaler.state_dict(), part / "scaler.pt")
        (part / "state.json").write_text(json.dumps(asdict(replace(state, sealed=True)), indent=2) + "\n")
    mine = [folder for folder in all_steps(run) if is_own(folder) and step_of(folder) <= state.step]
    for old in [*mine[:-keep], *[folder for folder in all_best(run)[:-1] if is_own(folder)]]:
        shutil.rmtree(old)
    return all_steps(run)[-1]


def save_best(run: Path, step: int, model: Segmenter, *, metadata: Mapping[str, Any]) -> None:
    """Keep the model of the best evaluation so far as best-<step>/; the ones before it go with the next checkpoint."""
    with _whole(run / f"best-{step:08d}") as part:
        save_pretrained(model, part, metadata=metadata)


def recover(run: Path) -> None:
    """Put back a checkpoint that a kill left under another name while a new one was to take its place. All ranks call this."""
    for old in run.glob(".*.old"):
        if _LEFTOVER.fullmatch(old.name):
            put_back(old.with_name(old.name[1:].removesuffix(".old")))


def remove_leftovers(run: Path, *, after: int) -> None:
    """Remove what a kill left: unfinished folders, and the best models of steps later than the checkpoint at `after`.

    Later checkpoints, which are damaged or not the run's, are renamed: they would be in the way of new ones.
    """
    late = [folder for folder in all_best(run) if step_of(folder) > after and is_own(folder)]
    there = [path for place in (run, run / "subsets") for path in place.glob(".*") if _LEFTOVER.fullmatch(path.name)]
    for left in [*there, *late]:
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    for folder in all_steps(run):
        if step_of(folder) > after:
            folder.rename(_free(folder))
    if after == 0:
        (run / "results.json").unlink(missing_ok=True)


def _free(folder: Path) -> Path:
    """step-00000010.damaged, or the first of .damaged-2, .damaged-3, ... that does not exist."""
    name, number = f"{folder.name}.damaged", 1
    while os.path.lexists(folder.with_name(name)):
        number += 1
        name = f"{folder.name}.damaged-{number}"
    return folder.with_name(name)


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A folder to write into that appears as `target` when all is flushed to disk; CheckpointError where that fails."""
    try:
        with replaced(target) as part:
            yield part
            seal(part, target.name)
            for file in part.rglob("*"):
                _flush(file)
        _flush(target.parent)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own for a full disk
        raise CheckpointError(
            f"{target} cannot be written ({error}); free some space, then rerun the command to resume from the last one"
        ) from error


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run, by its name; it may be damaged."""
    return steps[-1] if (steps := all_steps(run)) else None


def newest(run: Path) -> tuple[Path | None, State | None, list[str]]:
    """The newest intact checkpoint, its state, and what is wrong with later ones; every byte is compared with its seal.

    CheckpointError if all are damaged. None, None for a run without checkpoints.
    """
    damaged: list[str] = []
    for folder in reversed(all_steps(run)):
        try:
            return folder, _checked(folder), damaged
        except CheckpointError as error:
            damaged.append(str(error))
    if damaged:
        which = "it" if len(damaged) == 1 else f"all {len(damaged)} checkpoints"
        raise CheckpointError(
            f"{damaged[0]}, and there is no intact checkpoint before it; put back a copy, or move {which} away to start again "
            "at step 0"
        )
    return None, None, []


def _checked(folder: Path) -> State:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder")
    if found := fault(folder):
        raise CheckpointError(f"{folder} is damaged: {found}")
    try:
        state = read_state(folder)
    except CheckpointError as error:
        raise CheckpointError(str(error).partition("; delete it")[0]) from error
    if state.step != step_of(folder):
        raise CheckpointError(f"{folder} holds the state of step {state.step}")
    if state.sealed and not (folder / SEAL).is_file():
        raise CheckpointError(f"{folder} is damaged: {SEAL} is missing")
    return state


def read_state(folder: Path) -> State:
    """The state of a checkpoint."""
    try:
        state = State(**json.loads((folder / "state.json").read_bytes()))
        for name, value in vars(state).items():
            kinds = {"step": int, "seconds": int | float, "due": bool, "sealed": bool}
            if not isinstance(value, kinds.get(name, dict)):
                raise TypeError(f"{name} in its state.json is {value!r}")
        if state.topology.get("precision", "no") not in get_args(Precision):
            raise ValueError(f"precision in its state.json is {state.topology['precision']!r}")
        if any(scores and not scores.keys() >= {"step", "miou", "domains"} for scores in (state.last, state.best)):
            raise ValueError("scores in its state.json lack a part")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _damaged(folder, error) from error
    return state


def restore_model(folder: Path, *, norm: Norm) -> Segmenter:
    """The model of a checkpoint that is trained on, the student's where there is a teacher; in training mode."""
    try:
        return from_pretrained(_model_of(folder, "student"), norm=norm).train()
    except (FileNotFoundError, ValueError) as error:
        raise _damaged(folder, error) from error


def restore(folder: Path, learner: Learner, optimizer: Any, scaler: Any = None) -> None:
    """Put all else of a checkpoint back, exactly: the teacher, auxiliary decoders, moments, the loss scale.

    Learning rates, momentum and decay stay those that `optimizer` was built with. CheckpointError for damage, and for
    decoders or moments that do not fit.
    """
    try:
        device = next(learner.parameters()).device
        decoders = load_file(folder / "learner.safetensors")
        averaged = from_pretrained(_model_of(folder, "teacher")).state_dict() if learner.teacher else {}
        moments = torch.load(folder / "optimizer.pt", map_location=device, weights_only=True)
        if scaler is not None and (folder / "scaler.pt").is_file():
            scaler.load_state_dict(torch.load(folder / "scaler.pt", weights_only=True))
    except Exception as error:  # safetensors, pickle, zip and torch each raise their own kinds
        raise _damaged(folder, error) from error
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    try:
        learner.objectives.load_state_dict(decoders)
        if learner.teacher:
            learner.average().load_state_dict(averaged)
        optimizer.load_state_dict(moments)
        _lay_out(optimizer)
    except (RuntimeError, ValueError, KeyError) as error:
        first = [line.strip() for line in str(error).splitlines()][:2][-1]  # torch lists every tensor below a headline
        raise CheckpointError(
            f"{folder} does not fit this recipe ({first}); put its objectives back, or start a run of another name from "
            f"its weights with model.start={folder}"
        ) from error
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give every moment the memory layout of its parameter: fused updates pair their numbers by place in memory."""
    for parameter, kept in optimizer.state.items():
        for name, moment in kept.items():
            if moment is not None and moment.shape == parameter.shape and moment.stride() != parameter.stride():
                kept[name] = torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)


def _model_of(folder: Path, role: str) -> Path:
    """Where a checkpoint keeps the model of "student" or "teacher": in a folder of that name, or else as itself."""
    return folder / role if (folder / role).is_dir() else folder


def _damaged(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{folder} cannot be restored ({error}); delete it to go on from the one before")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
