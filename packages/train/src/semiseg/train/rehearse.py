"""A few real steps of a recipe, on its real data: what it will take in time and memory. Writes nothing."""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from semiseg.data import SemisegError
from semiseg.data.keyed import key64
from semiseg.data.progress import readable
from semiseg.models import Segmenter
from semiseg.train.batches import Batch, StepData, usable
from semiseg.train.build import build_optimizer
from semiseg.train.build_sources import Sources
from semiseg.train.learner import Learner
from semiseg.train.loop import build_accelerator, evaluate_all
from semiseg.train.precision import compile_encoder
from semiseg.train.recipe import Recipe
from semiseg.train.update import in_memory, update

STEPS = 3  # measured, after one to warm up
SECONDS = 60.0  # after which no further step begins


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What a few steps took, by one process.

    step, load: seconds of an update alone, of loading one batch alone. val: seconds of evaluating once. workers: loading
    processes that there are cores for. memory: bytes at the peak, on the GPU or of this process.
    """

    device: str
    precision: str
    step: float
    load: float
    val: float
    evaluations: int
    workers: int
    steps: int
    memory: int

    @property
    def pace(self) -> float:
        """Seconds a step in training: loading goes on beside the update where there are workers for it."""
        return max(self.step, self.load / self.workers) if self.workers else self.step + self.load

    def tell(self) -> list[str]:
        """Lines of text."""
        loading = f"loading {_seconds(self.load)} a batch by each of {self.workers} workers"
        if not self.workers:
            loading = f"loading {_seconds(self.load)} a batch, in turn with it: data.workers=2 would do it meanwhile"
        slower = "the model is the slower side"
        if self.load / max(1, self.workers) > self.step:
            slower = "data is the slower side" + "; more data.workers may help" * bool(self.workers)
        hours = (self.steps * self.pace + self.evaluations * self.val) / 3600
        times = f"{self.evaluations} evaluations of {_seconds(self.val)}" if self.evaluations else "no evaluation"
        return [
            f"  measured on {self.device}, precision {self.precision}: {_seconds(self.step)} a step; {loading}: {slower}",
            f"  peak memory {readable(self.memory)}; {hours:.2g} hours for {self.steps} steps and {times}, by one process",
        ]


def rehearse(recipe: Recipe, model: Segmenter, sources: Sources, learner: Learner) -> Rehearsal:
    """Take one step to warm up and up to STEPS more, from the middle of training, where every weight has risen.

    Raises SemisegError for what would end the training too.
    """
    accelerator = build_accelerator(recipe, model)
    optimizer = build_optimizer(recipe, learner)
    if recipe.compile:
        compile_encoder(model.encoder, domains=len(sources.streams))
    prepared, optimizer = accelerator.prepare(learner, optimizer)
    data = StepData(sources.streams, alternate=recipe.data.domains_per_step == "one")
    turns = len(sources.streams) if data.alternate else 1
    torch.manual_seed(key64(recipe.seed, "rehearsal"))
    learner.train()
    began = time.monotonic()
    taken: list[float] = []
    loaded: list[float] = []
    first = recipe.steps // 2

    def step_once(step: int, batch: Batch) -> None:
        update(recipe, accelerator, prepared, optimizer, batch, step=step)
        learner.after_step(step)

    for step in range(first, first + turns * (1 + STEPS)):
        batch, seconds = _timed(lambda step=step: data[step])
        if isinstance(batch, SemisegError):
            raise batch
        loaded.append(seconds)
        taken.append(_timed(lambda step=step, batch=batch: step_once(step, batch))[1])
        if recipe.compile and len(taken) <= turns:  # what compiling takes says nothing of the steps to come
            began = time.monotonic()
        if time.monotonic() - began > SECONDS and len(taken) % turns == 0:
            break
    if len(taken) > turns:
        taken, loaded = taken[turns:], loaded[turns:]
    val = 0.0
    for domain, each in sources.validation.items():
        everything = np.arange(len(each.shards)) if each.subset is None else each.subset
        some = {domain: replace(each, subset=everything[:2])}
        seconds = _timed(lambda some=some: evaluate_all(model, some, workers=0))[1]
        val += seconds / len(everything[:2]) * len(everything) * (2 if recipe.evaluate.weights == "both" else 1)
    cuda = accelerator.device.type == "cuda"
    scale = 1 if sys.platform == "darwin" else 1024
    return Rehearsal(
        device=torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads",
        precision=accelerator.mixed_precision,
        step=sum(taken) / len(taken),
        load=sum(loaded) / len(loaded),
        val=val,
        evaluations=-(-recipe.steps // recipe.evaluate.every) if sources.validation else 0,
        workers=usable(recipe.data.workers),
        steps=recipe.steps,
        memory=torch.cuda.max_memory_allocated()
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale,
    )


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    with in_memory():
        done = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return done, time.perf_counter() - began


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value < 100 else f"{value / 60:.3g} min"
