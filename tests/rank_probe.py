"""Run under torchrun by test_ranks.py: one step's gradients and the samples this rank saw, written to a folder."""

import json
import sys
from pathlib import Path

import torch

from semiseg.data import key64
from semiseg.train.assemble.learner import build_learner
from semiseg.train.assemble.model import build_model
from semiseg.train.assemble.sources import build_sources
from semiseg.train.recipe.load import load
from semiseg.train.recipe.shards import classes_of
from semiseg.train.step.batches import StepData, micro_steps
from semiseg.train.step.precision import build_accelerator
from semiseg.train.step.ranks import reduced


def main(recipe_file: str, out: Path, steps: list[int], overrides: list[str]) -> None:
    recipe = load(recipe_file, overrides)
    torch.manual_seed(key64(recipe.seed, "initialisation"))
    model = build_model(recipe.model, classes_of(recipe))
    accelerator = build_accelerator(model, precision=recipe.precision, deterministic=recipe.deterministic)
    rank, world = accelerator.process_index, accelerator.num_processes
    sources = build_sources(recipe, fill=(0, 0, 0))
    # in float64: in float32 the order of a sum can move an activation across a ReLU's kink
    learner = accelerator.prepare(build_learner(recipe, model, sources.taxonomies).double())
    data = StepData(sources.streams, alternate=recipe.data.domains_per_step == "one", rank=rank, world=world)
    learner.train()
    seen: dict[str, list[int]] = {}
    found = {}
    for step in steps:
        batch = data[step]
        assert isinstance(batch, dict), batch
        for roles in batch.values():
            for samples in roles.values():
                seen.setdefault(samples.stream, []).extend(samples.positions)
        values: dict[str, torch.Tensor] = {}
        micros = micro_steps(batch, recipe.accumulate)
        for index, micro in enumerate(micros):
            torch.manual_seed(key64(recipe.seed, "forward", step, index, rank))
            with accelerator.no_sync(learner) if index < len(micros) - 1 else torch.enable_grad():
                losses = learner(micro, step=step, steps=recipe.steps)
                accelerator.backward(losses.total)
            for name, value in losses.terms.items():
                values[name] = values.get(name, torch.zeros(())) + value.detach()
        module = accelerator.unwrap_model(learner)
        found[f"{step}.losses"] = reduced(values, world)
        found[f"{step}.gradients"] = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        found[f"{step}.buffers"] = {n: b.clone() for n, b in module.named_buffers()}
        learner.zero_grad(set_to_none=True)
    (out / f"seen.{world}.{rank}.json").write_text(json.dumps(seen))
    if rank == 0:
        torch.save(found, out / f"step.{world}.pt")
    accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4:])
