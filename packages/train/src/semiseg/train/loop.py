"""The training loop: one flat function, in the order of events."""

import time
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from semiseg.data import SemisegError, key64
from semiseg.train.assemble.learner import build_learner
from semiseg.train.assemble.model import build_model, describe_model
from semiseg.train.assemble.optimizer import build_optimizer, learning_rate, set_learning_rate
from semiseg.train.assemble.sources import build_sources
from semiseg.train.console import Console
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.resolved import evaluation
from semiseg.train.recipe.shards import classes_of
from semiseg.train.run.checkpoint import State
from semiseg.train.run.folder import RunFolder
from semiseg.train.run.results import is_scored
from semiseg.train.run.resume import Topology
from semiseg.train.score.images import conversion_of
from semiseg.train.step.batches import StepData, steps_from
from semiseg.train.step.class_shares import ClassShares
from semiseg.train.step.precision import build_accelerator, compile_encoder
from semiseg.train.step.ranks import reduced, same_on_all_ranks, share_buffers
from semiseg.train.step.stop import Stop, Stopped, listening
from semiseg.train.step.update import in_memory, update
from semiseg.train.tracking import Metrics
from semiseg.train.validate import Interrupted, is_better, scored_model, validate


class TrainingError(SemisegError):
    """Training cannot go on."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what its results.json holds."""

    folder: Path
    results: dict[str, Any]


def train(
    recipe: Recipe,
    *,
    quiet: bool = False,
    allow_changes: bool = False,
    extend: bool = False,
    take_over: bool = False,
) -> Run:
    """Train what `recipe` says, from the newest checkpoint of its run folder if there is one; every rank calls this.

    A resumed run may have another number of processes, micro-steps and workers. What would change its losses is refused, or
    with `allow_changes` recorded in env.json and results.json. `extend` allows a larger number of steps only; `take_over` a
    folder whose last training may still be alive on another machine.

    Raises SemisegError for whatever a user can fix: data that changed, another recipe in the folder, losses that overflow.
    SIGINT, SIGTERM or SIGHUP to any rank ends all of them after the same step, with a checkpoint and a Stopped.
    """
    with listening() as stop:
        run = RunFolder.open(recipe, allow_changes=allow_changes, extend=extend, take_over=take_over)
        try:
            return _train(run, stop, quiet=quiet)
        finally:
            run.close()


def _train(run: RunFolder, stop: Stop, *, quiet: bool) -> Run:
    """`train`, in the order of events."""
    recipe = run.recipe
    torch.manual_seed(key64(recipe.seed, "initialisation"))
    model = run.saved_model()
    if model is None:
        model = build_model(recipe.model, classes_of(recipe))
    accelerator = build_accelerator(
        model,
        precision=recipe.precision,
        deterministic=recipe.deterministic,
        kept=run.precision,
        timeout=recipe.timeout,
    )
    rank, world, main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    topology = Topology(processes=world, accumulate=recipe.accumulate, precision=accelerator.mixed_precision)
    console = Console(quiet=quiet or not main)

    fill = tuple(round(255 * float(mean)) for mean in model.mean.flatten())
    sources = build_sources(recipe, fill=(fill[0], fill[1], fill[2]))
    made = {name: conversion_of(roles["labeled"].shards) for name, roles in sources.streams.items()}
    about = describe_model(recipe, sources.taxonomies, model, made)
    learner = build_learner(recipe, model, sources.taxonomies, sources.class_pixels)
    optimizer = build_optimizer(recipe, learner)
    factor = learning_rate(recipe.schedule, recipe.steps)

    learner.to(accelerator.device)
    state = run.restore(learner, optimizer, accelerator.scaler, sources, topology)
    start, last, best = state.step, state.last, state.best
    same_on_all_ranks(start, f"the newest checkpoint of {run.path}", accelerator.device, world)
    if results := run.finished():
        console.say(f"{run.path} is already complete: {recipe.steps} steps")
        return Run(run.path, results)
    for shared in sources.overlap:
        console.say(f"{shared} (allowed by data.allow_overlap)")
    for found in run.damaged:
        console.say(f"{found}; it is kept under the name *.damaged, and the checkpoint before it is used")
    if run.newest:
        console.say(
            f"resuming {run.path} from step {start}" + "".join(f"\n  changed: {change}" for change in run.changes)
        )
    metrics = Metrics(run.path / "metrics.jsonl", after=start, due=state.due) if main else None
    if main:
        run.describe(sources.selected, topology)
    accelerator.wait_for_everyone()

    if recipe.compile:
        compile_encoder(model.encoder, domains=len(sources.streams))
    # Not the loader: it is split by rank already (preparing it would drop half of every batch).
    learner, optimizer = accelerator.prepare(learner, optimizer)
    bare = accelerator.unwrap_model(learner)
    data = StepData(sources.streams, alternate=recipe.data.domains_per_step == "one", rank=rank, world=world)
    turns = len(sources.streams) if data.alternate else 1
    batches = steps_from(data, start, recipe.steps, workers=recipe.data.workers, pin=accelerator.device.type == "cuda")
    shares = ClassShares(sources.streams, sources.taxonomies)
    if main:
        shares.restore(state.counts)
    began = time.monotonic() - state.seconds

    def score(step: int) -> bool:
        """Validate, and keep the model if it is the best so far; False if a signal came. All ranks call this."""
        nonlocal last, best
        share_buffers(bare, world)
        weights, workers = recipe.evaluate.weights, recipe.data.workers
        how = {"weights": weights, "workers": workers, "evaluation": evaluation(recipe)}
        try:
            last, scores = validate(bare, sources.validation, step=step, stop=stop, **how)
        except Interrupted:
            return False
        is_best = is_better(last, best)
        best = last if is_best else best
        if metrics:
            metrics.write({"step": step, **{f"{name}/miou": found["miou"] for name, found in scores.items()}})
            console.scores(step, scores, best=is_best)
            if is_best:
                run.save_best(step, scored_model(bare, weights), metadata=about)
        return True

    def save(step: int, *, due: bool = False) -> None:
        """Write a checkpoint; `due`: the evaluation of this step is still to come. All ranks call this."""
        share_buffers(bare, world)
        counts = shares.counts(accelerator.device, world)
        if main:
            kept = {"last": last, "best": best, "digests": sources.identity(), "topology": asdict(topology)}
            kept |= {"due": due, "counts": counts}
            now = State(step=step, seconds=time.monotonic() - began, **kept)
            run.save(now, bare, optimizer, accelerator.scaler, metadata=about)
        accelerator.wait_for_everyone()

    stop.defer(accelerator.device, world, quiet=quiet or not main)
    if state.due and sources.validation:
        if not score(start):
            raise Stopped(stop.number, f"at step {start}")
        if start >= recipe.steps:
            save(start)
    learner.train()
    with console.training(start, recipe.steps):
        for step in range(start, recipe.steps):
            asked = time.monotonic()
            try:
                with stop.at_once(world == 1):
                    batch = next(batches)
            except Stopped:
                check_finite({"step": step}, bare)
                if step > start:
                    save(step)
                raise Stopped(stop.number, f"at step {step}") from None
            waited = time.monotonic() - asked
            stop.start()
            shares.add(batch)
            set_learning_rate(optimizer.param_groups, factor(step))
            with in_memory():
                losses = update(
                    *(accelerator, learner, optimizer, batch),
                    step=step,
                    steps=recipe.steps,
                    seed=recipe.seed,
                    accumulate=recipe.accumulate,
                    clip=recipe.clip,
                )
            bare.after_step(step)  # moving averages

            done = step + 1
            stopping = stop.agreed()
            console.stepped(done, waited=waited)
            at_end = done == recipe.steps
            logs = (done - 1 + turns) % recipe.log.every < turns or done <= turns or at_end  # a step of every domain
            evaluates = bool(sources.validation) and (done % recipe.evaluate.every == 0 or at_end)
            saves = done % recipe.checkpoint.every == 0 or at_end
            if logs or evaluates or saves or stopping:
                values = losses.terms | losses.diagnostics
                row = {"step": done, "lr": recipe.optimizer.lr * factor(step), **reduced(values, world)}
                check_finite(row, bare if evaluates or saves or stopping else None)
                held = shares.take(accelerator.device, world) if logs or saves else {}
                row |= held if logs else {}
                if metrics and logs:
                    metrics.write({**row, "seconds": time.monotonic() - began, "waited": waited})
                    console.losses(done, row, losses.terms)
            due = evaluates and (stopping or not score(done))
            if saves or stopping or due:
                save(done, due=due)
            if due or (stopping and not at_end):
                raise Stopped(stop.number, f"at step {done}")

    if start >= recipe.steps and not is_scored({"last": last}, recipe):  # complete, to be scored in another way
        best = {}
        if not score(start):
            raise Stopped(stop.number, f"at step {start}, before it was scored")
        save(start)
    results = run.finish(last, best, sources, seconds=time.monotonic() - began, write=main)
    accelerator.wait_for_everyone()
    return Run(run.path, results)


def check_finite(row: dict[str, float], learner: torch.nn.Module | None) -> None:
    """Stop before a value or a weight that is NaN or infinite is logged or saved. All ranks meet the same."""
    broken = [f"{name} is {value}" for name, value in row.items() if not isfinite(value)]
    if learner is not None and not broken:
        tensors = [*learner.named_parameters(), *learner.named_buffers()]  # running statistics overflow by themselves
        names = [name for name, tensor in tensors if not bool(tensor.isfinite().all())]
        broken = [f"{name} contains NaN or infinite weights" for name in names]
    if broken:
        raise TrainingError(
            f"at step {row['step']} {broken[0]}; checkpoints up to here are kept. Lower optimizer.lr, set clip=1.0 or "
            "precision=no, and give that run another name (name=...)"
        )
