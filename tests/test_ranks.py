"""Several processes against one: same samples, same losses, same gradients."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.processes import python, torchrun

if TYPE_CHECKING:
    from semiseg.train.recipe import Recipe

PROBE = Path(__file__).with_name("rank_probe.py")


def probe(recipe: Path, out: Path, world: int, steps: list[int], *overrides: str) -> dict:
    arguments = (PROBE, recipe, out, json.dumps(steps), *overrides)
    if world == 1:
        python(*arguments)
    else:
        torchrun(world, *arguments)
    return torch.load(out / f"step.{world}.pt")


def positions(out: Path, world: int) -> dict[str, list[int]]:
    seen: dict[str, list[int]] = {}
    for rank in range(world):
        for stream, found in json.loads((out / f"seen.{world}.{rank}.json").read_text()).items():
            seen.setdefault(stream, []).extend(found)
    return {stream: sorted(found) for stream, found in seen.items()}


@pytest.mark.parametrize("schedule", ["all", "one"])
def test_two_and_three_processes_equal_one(recipe_file: Callable[..., Path], tmp_path: Path, schedule: str):
    """Two domains with frozen normalisation, uneven shares (4 images on 3 processes, 3 on 2)."""
    recipe = recipe_file(domains=2)
    room = ("data.domains.room.labeled.batch_size=4", "data.domains.room.unlabeled.batch_size=3")
    frozen = ("model.norm=frozen", f"data.domains_per_step={schedule}", *room)
    steps = [3, 4]
    one = probe(recipe, tmp_path, 1, steps, *frozen)
    alone = positions(tmp_path, 1)
    for world in (2, 3):
        several = probe(recipe, tmp_path, world, steps, *frozen)
        assert positions(tmp_path, world) == alone
        for step in steps:
            compare(one, several, step)
            gradients = several[f"{step}.gradients"]
            heads = {name.split(".")[2] for name in gradients if name.startswith("model.decoders.")}
            assert heads == ({"street", "room"} if schedule == "all" else {("street", "room")[step % 2]})


def test_synchronised_norm_on_two_processes_equals_one(recipe_file: Callable[..., Path], tmp_path: Path):
    """Gradients and running statistics; five images on two processes, so that shares are uneven."""
    recipe = recipe_file()
    five = [f"data.domains.street.{role}.batch_size=5" for role in ("labeled", "unlabeled")]
    one = probe(recipe, tmp_path, 1, [3, 4], "model.norm=sync", *five)
    two = probe(recipe, tmp_path, 2, [3, 4], "model.norm=sync", *five)
    for step in (3, 4):
        compare(one, two, step)
        expected, found = one[f"{step}.buffers"], two[f"{step}.buffers"]
        assert expected.keys() == found.keys() and any(name.endswith("running_var") for name in expected)
        for name, buffer in expected.items():
            assert float((found[name] - buffer).double().norm()) <= 1e-5 * float(buffer.double().norm()) + 1e-9, name
    plain = probe(recipe, tmp_path, 2, [3], "model.norm=batch", *five)
    with pytest.raises(AssertionError):  # the comparison can fail: plain statistics differ by process
        compare(one, plain, 3)


def test_a_domain_whose_turn_it_is_not_stays_unchanged(tiny: "Callable[..., Recipe]"):
    """Momentum and weight decay act on zero gradients but not on None: decoders of the other domain stay bit-identical."""
    from semiseg.train.assemble.learner import build_learner
    from semiseg.train.assemble.model import build_model
    from semiseg.train.assemble.optimizer import build_optimizer
    from semiseg.train.assemble.sources import build_sources
    from semiseg.train.recipe.shards import classes_of
    from semiseg.train.step.batches import StepData

    recipe = tiny("data.domains_per_step=one", "optimizer.weight_decay=0.1", domains=2)
    sources = build_sources(recipe, fill=(0, 0, 0))
    learner = build_learner(recipe, build_model(recipe.model, classes_of(recipe)), sources.taxonomies).train()
    optimizer = build_optimizer(recipe, learner)
    data = StepData(sources.streams, alternate=True)
    names = {name: f".{name}." for name in ("street", "room")}
    for step in range(4):
        before = {name: parameter.detach().clone() for name, parameter in learner.named_parameters()}
        batch = data[step]
        assert isinstance(batch, dict)
        learner(batch, step=step, steps=4).total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        idle = names[("room", "street")[step % 2]]
        for name, parameter in learner.named_parameters():
            if idle in name:
                assert torch.equal(before[name], parameter), f"{name} moved at step {step}"
        moved = [name for name, parameter in learner.named_parameters() if not torch.equal(before[name], parameter)]
        assert any(names[("street", "room")[step % 2]] in name for name in moved)


def test_micro_steps_equal_one_step(recipe_file: Callable[..., Path], tmp_path: Path):
    recipe = recipe_file()
    whole = probe(recipe, tmp_path, 1, [4], "model.norm=frozen")
    cut = probe(recipe, tmp_path, 1, [4], "model.norm=frozen", "accumulate=3")
    compare(whole, cut, 4)


def test_micro_steps_on_two_processes_equal_one(recipe_file: Callable[..., Path], tmp_path: Path):
    """Only the last micro-step synchronises; shares are 3 and 2 images, cut into micro-steps of 2 and 1, and 1 and 1."""
    recipe = recipe_file()
    five = [f"data.domains.street.{role}.batch_size=5" for role in ("labeled", "unlabeled")]
    one = probe(recipe, tmp_path, 1, [4], "model.norm=frozen", *five)
    cut = probe(recipe, tmp_path, 2, [4], "model.norm=frozen", *five, "accumulate=2")
    compare(one, cut, 4)
    assert any(name.startswith("objectives.") for name in one["4.gradients"])


def test_an_epoch_over_two_processes_holds_every_sample_once(recipe_file: Callable[..., Path], tmp_path: Path):
    """Six labeled images, three in a step: steps 2 and 3 are the second epoch, with each sample once."""
    recipe = recipe_file()
    probe(recipe, tmp_path, 2, [2, 3], "model.norm=frozen")
    assert positions(tmp_path, 2)["street/labeled"] == list(range(6, 12))


def compare(one: dict, other: dict, step: int) -> None:
    """Equal except for the order of sums, and for the weights of shares, which are float32."""
    assert one[f"{step}.losses"] == pytest.approx(other[f"{step}.losses"], rel=1e-6)
    expected, found = one[f"{step}.gradients"], other[f"{step}.gradients"]
    assert expected.keys() == found.keys()
    error = sum(float((found[name] - gradient).norm() ** 2) for name, gradient in expected.items()) ** 0.5
    norm = sum(float(gradient.norm() ** 2) for gradient in expected.values()) ** 0.5
    assert norm > 0 and error <= 1e-6 * norm
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm()) <= 1e-5 * float(gradient.norm()) + 1e-12, name
