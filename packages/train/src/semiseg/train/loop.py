"""The training loop, whole: one flat function, read from top to bottom."""

import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import parse_flag_from_env
from torch import Tensor

from semiseg.data import SemisegError
from semiseg.data.keyed import key64
from semiseg.models import Segmenter
from semiseg.train import checkpoint, run_folder
from semiseg.train.batches import StepData, steps_from
from semiseg.train.build import build_learner, build_model, build_optimizer, learning_rate, set_learning_rate
from semiseg.train.build_sources import Validation, build_sources
from semiseg.train.class_shares import ClassShares
from semiseg.train.console import Console, Metrics
from semiseg.train.continuation import Topology
from semiseg.train.evaluate import Scores, evaluate
from semiseg.train.learner import Learner
from semiseg.train.precision import arrange, choose, compile_encoder, uncompiled
from semiseg.train.recipe import Recipe
from semiseg.train.records import is_scored, read_results
from semiseg.train.resolved import evaluation
from semiseg.train.update import in_memory, update


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


def build_accelerator(recipe: Recipe, model: Segmenter, *, kept: str | None = None) -> Accelerator:
    """accelerate, told what the recipe decides: the precision; nothing of what it does to loaders, losses or schedules.

    Lays out the model's weights as that precision wants them. kept: the precision of the run so far. All ranks call this.
    """
    torch.use_deterministic_algorithms(recipe.deterministic)
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    # True also where no domain is idle: DDP then keeps its buckets, which it would otherwise rebuild after a process's
    # first step, so that a continued run of 3 processes or more would add gradients up in another order for one step
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    AcceleratorState._reset_state()  # or a second run of this process could have no other precision than the first
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))  # the process group, over which ranks agree
    precision = choose(recipe.precision, model.encoder, kept=kept, device=state.device)
    arrange(model, precision)
    accelerator = Accelerator(mixed_precision=precision, kwargs_handlers=[ddp])
    accelerator.gradient_accumulation_steps = 1  # a launcher's setting would divide the loss again
    return accelerator


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


def judge(
    recipe: Recipe, learner: Learner, validation: Mapping[str, Validation], *, step: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score what the recipe says, student, teacher or both. All ranks call this.

    In float32: what `semiseg eval` finds for these weights, on any machine. Returns what results.json holds of it, and
    domain -> scores, the teacher's as "<domain>/teacher".
    """
    workers = recipe.data.workers
    scores = evaluate_all(judged_of(recipe, learner), validation, workers=workers)
    domains = {name: each.to_json() for name, each in scores.items()}
    last = {"step": step, "miou": mean_miou(domains), "domains": domains, "evaluation": evaluation(recipe)}
    if recipe.evaluate.weights != "both":
        return last, domains
    scores = evaluate_all(learner.average(), validation, workers=workers)
    beside = {name: each.to_json() for name, each in scores.items()}
    last["teacher"] = {"miou": mean_miou(beside), "domains": beside}
    return last, domains | {f"{name}/teacher": each for name, each in beside.items()}


def judged_of(recipe: Recipe, learner: Learner) -> Segmenter:
    """Whose scores a run's are."""
    return learner.average() if recipe.evaluate.weights == "teacher" else learner.model


def evaluate_all(model: Segmenter, validation: Mapping[str, Validation], *, workers: int) -> dict[str, Scores]:
    """Scores of every domain. All ranks call this."""
    with uncompiled(model.encoder):
        return {
            domain: evaluate(
                *(model, each.shards, each.taxonomy),
                domain=domain,
                subset=each.subset,
                resize=each.resize,
                views=each.views,
                workers=workers,
            )
            for domain, each in validation.items()
        }


def mean_miou(domains: dict[str, dict[str, Any]]) -> float | None:
    """What "best" is judged by: the mean over domains, in percent; None where no domain has any labeled pixel."""
    known = [each["miou"] for each in domains.values() if each["miou"] is not None]
    return sum(known) / len(known) if known else None


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
