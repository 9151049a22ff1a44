"""`--dry-run`: what a recipe would train, and its time and memory as measured by a few real steps. Writes nothing."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from semiseg.data import SemisegError, key64, readable
from semiseg.models import Segmenter
from semiseg.train.assemble.learner import build_learner
from semiseg.train.assemble.model import build_model
from semiseg.train.assemble.optimizer import build_optimizer
from semiseg.train.assemble.sources import Sources, build_sources
from semiseg.train.memory import peak_memory
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.shards import classes_of
from semiseg.train.step.batches import Batch, StepData
from semiseg.train.step.learner import Learner
from semiseg.train.step.loading import usable
from semiseg.train.step.precision import build_accelerator, compile_encoder
from semiseg.train.step.update import in_memory, update
from semiseg.train.validate import evaluate_all

STEPS = 3  # measured, after one to warm up
SECONDS = 60.0  # after which no further step begins


def preview(recipe: Recipe) -> str:
    """Sources with their sizes and epochs, parameters, and what a few steps took, as lines of text."""
    sources = build_sources(recipe, fill=(0, 0, 0))
    model = build_model(recipe.model, classes_of(recipe), download=False)
    learner = build_learner(recipe, model, sources.taxonomies, sources.class_pixels)
    lines = [f"{recipe.name}: {recipe.steps} steps into {recipe.runs}/{recipe.name}"]
    turns = len(sources.streams) if recipe.data.domains_per_step == "one" else 1
    for domain, streams in sources.streams.items():
        for role, stream in streams.items():
            epochs = recipe.steps / turns * stream.batch_size * (2 if stream.pairs else 1) / len(stream.plan)
            covered = ""
            if role == "weak":
                base = sum(len(part.base) for part in getattr(stream.shards, "sets", [stream.shards]))
                covered = f" with pseudo-labels (of {base} in the split)"
            lines.append(
                f"  {domain} {role}: {len(stream.plan)} of {len(stream.shards)} images{covered}, "
                f"{stream.batch_size}{' pairs' if stream.pairs else ''} a step, {epochs:.1f} epochs"
            )
        if domain in sources.validation:
            val = sources.validation[domain]
            lines.append(f"  {domain} val: {len(val.shards if val.subset is None else val.subset)} images")
        kinds = ", ".join(type(objective).__name__ for objective in learner.objectives[domain])  # type: ignore[arg-type]
        lines.append(f"  {domain} objectives: {kinds}")
    lines += [f"  {shared} (allowed by data.allow_overlap)" for shared in sources.overlap]
    count = {name: sum(p.numel() for p in module.parameters()) for name, module in (
        ("encoder", model.encoder), ("context", model.context), ("decoders", model.decoders), ("objectives", learner.objectives)
    )}  # fmt: skip
    lines.append("  parameters: " + ", ".join(f"{name} {number:,}" for name, number in count.items()))
    lines += measure(recipe, model, sources, learner).lines()
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a few steps took in one process.

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

    def lines(self) -> list[str]:
        """Lines of text."""
        loading = f"{_seconds(self.load)} to load a batch in each of {self.workers} workers"
        if not self.workers:
            loading = (
                f"{_seconds(self.load)} to load a batch in the same process (data.workers=2 would load in parallel)"
            )
        slower = "the model is the bottleneck"
        if self.load / max(1, self.workers) > self.step:
            slower = "loading is the bottleneck" + "; more data.workers may help" * bool(self.workers)
        hours = (self.steps * self.pace + self.evaluations * self.val) / 3600
        times = f"{self.evaluations} evaluations of {_seconds(self.val)}" if self.evaluations else "no evaluation"
        return [
            f"  measured on {self.device}, precision {self.precision}: {_seconds(self.step)} a step; {loading}: {slower}",
            f"  peak memory {readable(self.memory)}; {hours:.2g} hours for {self.steps} steps and {times} in one process",
        ]


def measure(recipe: Recipe, model: Segmenter, sources: Sources, learner: Learner) -> Measured:
    """Take one step to warm up and up to STEPS more, from the middle of training, where every weight has risen.

    Raises SemisegError for what would end the training too.
    """
    accelerator = build_accelerator(model, precision=recipe.precision, deterministic=recipe.deterministic)
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
        settings = {"seed": recipe.seed, "accumulate": recipe.accumulate, "clip": recipe.clip}
        update(accelerator, prepared, optimizer, batch, step=step, steps=recipe.steps, **settings)
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
    for domain, source in sources.validation.items():
        everything = np.arange(len(source.shards)) if source.subset is None else source.subset
        some = {domain: replace(source, subset=everything[:2])}
        seconds = _timed(lambda some=some: evaluate_all(model, some, workers=0))[1]
        val += seconds / len(everything[:2]) * len(everything) * (2 if recipe.evaluate.weights == "both" else 1)
    cuda = accelerator.device.type == "cuda"
    return Measured(
        device=torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads",
        precision=accelerator.mixed_precision,
        step=sum(taken) / len(taken),
        load=sum(loaded) / len(loaded),
        val=val,
        evaluations=-(-recipe.steps // recipe.evaluate.every) if sources.validation else 0,
        workers=usable(recipe.data.workers),
        steps=recipe.steps,
        memory=peak_memory(cuda=cuda),
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
