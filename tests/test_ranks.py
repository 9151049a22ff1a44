"""Several processes against one: same samples, same losses, same gradients."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.processes import python, torchrun

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
def test_two_processes_equal_one(recipe_file: Callable[..., Path], tmp_path: Path, schedule: str):
    """Two domains, uneven shares (3 images on 2 processes), frozen normalisation; micro-steps as well."""
    recipe = recipe_file(domains=2)
    frozen = ("model.norm=frozen", f"data.domains_per_step={schedule}")
    steps = [3, 4]
    one = probe(recipe, tmp_path, 1, steps, *frozen)
    alone = positions(tmp_path, 1)
    two = probe(recipe, tmp_path, 2, steps, *frozen)
    assert positions(tmp_path, 2) == alone
    for step in steps:
        compare(one, two, step)
        gradients = one[f"{step}.gradients"]
        heads = {name.split(".")[2] for name in gradients if name.startswith("model.decoders.")}
        assert heads == ({"street", "room"} if schedule == "all" else {("street", "room")[step % 2]})


def test_micro_steps_equal_a_whole_step(recipe_file: Callable[..., Path], tmp_path: Path):
    recipe = recipe_file()
    whole = probe(recipe, tmp_path, 1, [4], "model.norm=frozen")
    cut = probe(recipe, tmp_path, 1, [4], "model.norm=frozen", "accumulate=3")
    compare(whole, cut, 4)


def test_an_epoch_over_two_processes_holds_every_sample_once(recipe_file: Callable[..., Path], tmp_path: Path):
    """Six labeled images at three a step: steps 2 and 3 are the second epoch; each of its samples is met once."""
    recipe = recipe_file()
    probe(recipe, tmp_path, 2, [2, 3], "model.norm=frozen")
    assert positions(tmp_path, 2)["street/labeled"] == list(range(6, 12))


def compare(one: dict, other: dict, step: int) -> None:
    assert one[f"{step}.losses"] == pytest.approx(other[f"{step}.losses"], rel=1e-5)
    expected, found = one[f"{step}.gradients"], other[f"{step}.gradients"]
    assert expected.keys() == found.keys()
    error = sum(float((found[name] - gradient).norm() ** 2) for name, gradient in expected.items()) ** 0.5
    norm = sum(float(gradient.norm() ** 2) for gradient in expected.values()) ** 0.5
    assert norm > 0 and error <= 1e-5 * norm
    for name, gradient in expected.items():  # small ones too, with room for the order of their sums
        assert float((found[name] - gradient).norm()) <= 1e-4 * float(gradient.norm()) + 1e-9, name
