"""The training loop, whole: one flat function, read from top to bottom."""

import time
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from semiseg.data import SemisegError, key64
from semiseg.train.assemble.learner import build_learner
from semiseg.train.assemble.model import build_model
from semiseg.train.assemble.optimizer import build_optimizer, learning_rate, set_learning_rate
from semiseg.train.assemble.sources import build_sources
from semiseg.train.console import Console
from semiseg.train.metrics import Metrics
from semiseg.train.recipe import Recipe
from semiseg.train.run import checkpoint
from semiseg.train.run import folder as run_folder
from semiseg.train.run.continuation import Topology
from semiseg.train.run.records import is_scored, read_results
from semiseg.train.step.batches import StepData, steps_from
from semiseg.train.step.class_shares import ClassShares
from semiseg.train.step.precision import build_accelerator, compile_encoder
from semiseg.train.step.ranks import reduced, share_buffers
from semiseg.train.step.update import in_memory, update
from semiseg.train.validate import judge, judged_of


class TrainingError(SemisegError):
    """Training cannot go on."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what its results.json holds."""

    folder: Path
    results: dict[str, Any]


def train(recipe: Recipe, *, quiet: bool = False, allow_changes: bool = False) -> Run:
    """Train what `recipe` says, from the newest checkpoint of its run folder if there is one; every rank calls this.

    A continuation may have another number of processes, micro-steps and workers. What would make its losses others is
    refused, or with `allow_changes` kept in env.json and results.json.

    Raises SemisegError for whatever a user can mend: data that changed, another recipe in the folder, losses that overflow.
    """
    folder, changed = run_folder.claim(recipe, allow_changes=allow_changes)
    checkpoint.recover(folder)
    newest = checkpoint.latest(folder)
    torch.manual_seed(key64(recipe.seed, "initialisation"))
    if newest is None:
        model = build_model(recipe.model, run_folder.classes_of(recipe))
    else:
        model = checkpoint.restore_model(newest, norm=recipe.model.norm)
    state = None if newest is None else checkpoint.read_state(newest)
    accelerator = build_accelerator(recipe, model, kept=state.topology.get("precision") if state else None)
    rank, world = accelerator.process_index, accelerator.num_processes
    topology = Topology(processes=world, accumulate=recipe.accumulate, precision=accelerator.mixed_precision)
    console = Console(quiet=quiet or not accelerator.is_main_process)

    fill = tuple(round(255 * float(mean)) for mean in model.mean.flatten())
    sources = build_sources(recipe, fill=(fill[0], fill[1], fill[2]))
    about = run_folder.metadata(recipe, sources.taxonomies, model)
    learner = build_learner(recipe, model, sources.taxonomies)
    optimizer = build_optimizer(recipe, learner)
    factor = learning_rate(recipe.schedule, recipe.steps)

    start, spent = 0, 0.0
    last, best = dict[str, Any](), dict[str, Any]()
    if newest is not None and state is not None:
        changed += run_folder.check_continues(
            newest, state, recipe, sources.identity(), topology, allow_changes=allow_changes
        )
        learner.to(accelerator.device)
        checkpoint.restore(newest, learner, optimizer, accelerator.scaler)
        start, spent, last, best = state.step, state.seconds, state.last, state.best
        if start >= recipe.steps and (results := read_results(folder)) and is_scored(results, recipe):
            console.say(f"{folder} is complete already: {recipe.steps} steps")
            return Run(folder, results)
        console.say(f"continuing {folder} from step {start}" + "".join(f"\n  changed: {each}" for each in changed))
    metrics = Metrics(folder / "metrics.jsonl", after=start) if accelerator.is_main_process else None
    if accelerator.is_main_process:
        checkpoint.sweep(folder, after=start)
        run_folder.describe(folder, recipe, sources.selected, topology, start=start, changed=changed)
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
    began = time.monotonic() - spent

    def save(step: int) -> None:
        share_buffers(bare, world)
        if accelerator.is_main_process:
            state = checkpoint.State(
                step=step,
                seconds=time.monotonic() - began,
                digests=sources.identity(),
                last=last,
                best=best,
                topology=asdict(topology),
            )
            checkpoint.save(
                *(folder, state, bare, optimizer, accelerator.scaler),
                keep=recipe.checkpoint.keep,
                metadata=about,
                teacher_first=recipe.evaluate.weights == "teacher",
            )
        accelerator.wait_for_everyone()

    learner.train()
    with console.training(start, recipe.steps):
        for step in range(start, recipe.steps):
            asked = time.monotonic()
            batch = next(batches)
            waited = time.monotonic() - asked
            shares.add(batch)
            set_learning_rate(optimizer.param_groups, factor(step))
            with in_memory():
                losses = update(recipe, accelerator, learner, optimizer, batch, step=step)
            bare.after_step(step)  # moving averages

            done = step + 1
            console.stepped(done, waited=waited)
            at_end = done == recipe.steps
            logs = (done - 1 + turns) % recipe.log.every < turns or done <= turns or at_end  # a step of every domain
            evaluates = bool(sources.validation) and (done % recipe.evaluate.every == 0 or at_end)
            saves = done % recipe.checkpoint.every == 0 or at_end
            if logs or evaluates or saves:
                values = losses.terms | losses.diagnostics
                row = {"step": done, "lr": recipe.optimizer.lr * factor(step), **reduced(values, world)}
                check_finite(row, bare if evaluates or saves else None)
                held = shares.take(accelerator.device, world) if logs or saves else {}
                row |= held if logs else {}
                if metrics and logs:
                    metrics.write({**row, "seconds": time.monotonic() - began, "waited": waited})
                    console.losses(done, row, losses.terms)
            if evaluates:
                share_buffers(bare, world)
                last, told = judge(recipe, bare, sources.validation, step=done)
                # scores that were taken in another way, before a continuation, are no rivals
                alike = best.get("evaluation") == last["evaluation"]
                is_best = last["miou"] is not None and (not alike or last["miou"] > best["miou"])
                best = last if is_best else best
                if metrics:
                    metrics.write({"step": done, **{f"{name}/miou": each["miou"] for name, each in told.items()}})
                    console.scores(done, told, best=is_best)
                    if is_best:
                        checkpoint.save_best(folder, done, judged_of(recipe, bare), metadata=about)
            if saves:
                save(done)

    if start >= recipe.steps and not is_scored({"last": last}, recipe):  # complete, and to be looked at in another way
        last, told = judge(recipe, bare, sources.validation, step=start)
        best = last
        if metrics:
            metrics.write({"step": start, **{f"{name}/miou": each["miou"] for name, each in told.items()}})
            console.scores(start, told, best=True)
            checkpoint.save_best(folder, start, judged_of(recipe, bare), metadata=about)
        save(start)
    results = run_folder.results(folder, recipe, last, best, sources, seconds=time.monotonic() - began)
    if accelerator.is_main_process:
        run_folder.write_results(folder, results)
    accelerator.wait_for_everyone()
    return Run(folder, results)


def check_finite(row: dict[str, float], learner: torch.nn.Module | None) -> None:
    """Stop before a value or a weight that is no number is logged or saved. All ranks meet the same."""
    broken = [f"{name} is {value}" for name, value in row.items() if not isfinite(value)]
    if learner is not None and not broken:
        tensors = [*learner.named_parameters(), *learner.named_buffers()]  # running statistics overflow on their own
        weights = [name for name, tensor in tensors if not bool(tensor.isfinite().all())]
        broken = [f"the weights of {name} are no numbers" for name in weights]
    if broken:
        raise TrainingError(
            f"at step {row['step']} {broken[0]}; checkpoints up to here are kept. Lower optimizer.lr, set clip=1.0 or "
            "precision=no, and give that run a name of its own (name=...)"
        )
