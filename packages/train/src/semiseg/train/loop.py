"""The training loop, whole: one flat function, read from top to bottom."""

import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor

from semiseg.data import SemisegError
from semiseg.data.keyed import key64
from semiseg.methods import Losses
from semiseg.models import Segmenter
from semiseg.train import checkpoint, run_folder
from semiseg.train.batches import StepData, micro_steps, steps_from
from semiseg.train.build import (
    Validation,
    build_learner,
    build_model,
    build_optimizer,
    build_sources,
    learning_rate,
    set_learning_rate,
)
from semiseg.train.console import Console, Metrics
from semiseg.train.evaluate import Scores, evaluate
from semiseg.train.recipe import Recipe


class TrainingError(SemisegError):
    """Training cannot go on."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what its results.json holds."""

    folder: Path
    results: dict[str, Any]


def train(recipe: Recipe, *, quiet: bool = False) -> Run:
    """Train what `recipe` says, from the newest checkpoint of its run folder if there is one; every rank calls this.

    Raises SemisegError for whatever a user can mend: data that changed, another recipe in the folder, losses that overflow.
    """
    folder = run_folder.claim(recipe)
    accelerator = build_accelerator(recipe)
    rank, world = accelerator.process_index, accelerator.num_processes
    console = Console(quiet=quiet or not accelerator.is_main_process)

    torch.manual_seed(key64(recipe.seed, "initialisation"))
    newest = checkpoint.latest(folder)
    if newest is None:
        model = build_model(recipe.model, run_folder.classes_of(recipe))
    else:
        model = checkpoint.restore_model(newest, norm=recipe.model.norm)
    fill = tuple(round(255 * float(mean)) for mean in model.mean.flatten())
    sources = build_sources(recipe, fill=(fill[0], fill[1], fill[2]))
    about = run_folder.metadata(sources.taxonomies, model)
    learner = build_learner(recipe, model, sources.taxonomies)
    optimizer = build_optimizer(recipe, learner)
    factor = learning_rate(recipe.schedule, recipe.steps)

    start, spent = 0, 0.0
    last, best = dict[str, Any](), dict[str, Any]()
    if newest is not None:
        state = checkpoint.read_state(newest)
        run_folder.check_same_data(newest, state, sources.digests)
        learner.to(accelerator.device)
        checkpoint.restore(newest, learner, optimizer, accelerator.scaler)
        start, spent, last, best = state.step, state.seconds, state.last, state.best
        if start >= recipe.steps and (results := run_folder.read_results(folder)):
            console.say(f"{folder} is complete already: {recipe.steps} steps")
            return Run(folder, results)
        console.say(f"continuing {folder} from step {start}")
    metrics = Metrics(folder / "metrics.jsonl", after=start) if accelerator.is_main_process else None
    if accelerator.is_main_process:
        run_folder.describe(folder, sources.selected)
    accelerator.wait_for_everyone()

    # Not the loader: it is split by rank already (preparing it would drop half of every batch).
    learner, optimizer = accelerator.prepare(learner, optimizer)
    bare = accelerator.unwrap_model(learner)
    data = StepData(sources.streams, alternate=recipe.data.domains_per_step == "one", rank=rank, world=world)
    batches = steps_from(data, start, recipe.steps, workers=recipe.data.workers, pin=accelerator.device.type == "cuda")
    began = time.monotonic() - spent
    learner.train()
    with console.training(start, recipe.steps):
        for step in range(start, recipe.steps):
            asked = time.monotonic()
            batch = next(batches)
            waited = time.monotonic() - asked
            set_learning_rate(optimizer.param_groups, factor(step))
            values = dict[str, Tensor]()
            losses = Losses()
            for index, micro in enumerate(micro_steps(batch, recipe.accumulate), start=1):
                torch.manual_seed(key64(recipe.seed, "forward", step, index, rank))  # drop-out inside an encoder
                micro = {
                    domain: {role: samples.to(accelerator.device) for role, samples in roles.items()}
                    for domain, roles in micro.items()
                }
                with nullcontext() if index == recipe.accumulate else accelerator.no_sync(learner):
                    with accelerator.autocast():
                        losses = learner(micro, step=step, steps=recipe.steps)
                    accelerator.backward(losses.total)  # images weigh world / batch already: nothing left to divide by
                for name, value in (losses.terms | losses.diagnostics).items():
                    values[name] = values.get(name, 0) + value.detach()
            if recipe.clip is not None:
                accelerator.clip_grad_norm_(learner.parameters(), recipe.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            done = step + 1
            console.stepped(done)
            at_end = done == recipe.steps
            if done % recipe.log.every == 0 or at_end or done == 1:
                row = {"step": done, "lr": recipe.optimizer.lr * factor(step), **reduced(values, world)}
                check_finite(row, folder)
                if metrics:
                    metrics.write({**row, "seconds": time.monotonic() - began, "waited": waited})
                    console.losses(done, row, losses.terms)
            if sources.validation and (done % recipe.evaluate.every == 0 or at_end):
                share_buffers(bare, world)
                with accelerator.autocast():
                    scores = evaluate_all(bare.model, sources.validation, workers=recipe.data.workers)
                last = {"step": done, "mean": mean_miou(scores)}
                last |= {name: each.to_json() for name, each in scores.items()}
                is_best = not best or last["mean"] > best["mean"]
                best = last if is_best else best
                if metrics:
                    metrics.write({"step": done, **{f"{name}/miou": last[name]["miou"] for name in scores}})
                    console.scores(done, scores, best=is_best)
                    if is_best:
                        run_folder.save_best(folder, bare.model, about)
            if done % recipe.checkpoint.every == 0 or at_end:
                share_buffers(bare, world)
                if accelerator.is_main_process:
                    spent = time.monotonic() - began
                    state = checkpoint.State(step=done, seconds=spent, digests=sources.digests, last=last, best=best)
                    keep = recipe.checkpoint.keep
                    checkpoint.save(folder, state, bare, optimizer, accelerator.scaler, keep=keep, metadata=about)
                accelerator.wait_for_everyone()

    results = run_folder.results(recipe, last, best, sources.digest_of_subsets(), seconds=time.monotonic() - began)
    if accelerator.is_main_process:
        run_folder.write_results(folder, results)
    accelerator.wait_for_everyone()
    return Run(folder, results)


def build_accelerator(recipe: Recipe) -> Accelerator:
    """accelerate, told what the recipe decides: precision, and whether idle domains leave parameters unused."""
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    alternate = recipe.data.domains_per_step == "one" and len(recipe.data.domains) > 1
    precision = recipe.precision
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    return Accelerator(
        mixed_precision=precision, kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=alternate)]
    )


def reduced(named: dict[str, Tensor], world: int) -> dict[str, float]:
    """Values of the global batch as numbers, from each rank's. All ranks call this."""
    stacked = torch.stack([value.float() for value in named.values()])
    if world > 1:
        torch.distributed.all_reduce(stacked)
        stacked /= world
    return dict(zip(named, stacked.tolist(), strict=True))


def share_buffers(module: torch.nn.Module, world: int) -> None:
    """Give every rank the first one's buffers (running statistics differ until then). All ranks call this."""
    if world > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)


def evaluate_all(model: Segmenter, validation: Mapping[str, Validation], *, workers: int) -> dict[str, Scores]:
    """Scores of every domain. All ranks call this."""
    return {
        domain: evaluate(
            model, each.shards, each.taxonomy, domain=domain, subset=each.subset, resize=each.resize, workers=workers
        )
        for domain, each in validation.items()
    }


def mean_miou(scores: dict[str, Scores]) -> float:
    """What "best" is judged by: the mean over domains."""
    return sum(each.miou for each in scores.values()) / len(scores)


def check_finite(row: dict[str, float], folder: Path) -> None:
    for name, value in row.items():
        if not isfinite(value):
            raise TrainingError(
                f'{name} is {value} at step {row["step"]}: lower optimizer.lr, set clip = 1.0, or precision = "no"; '
                f"{folder} continues from its last checkpoint under the same recipe only"
            )
