"""The teacher of a run: its formula, the same over 1 and 2 processes, and after a kill."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.processes import environment, python, torchrun
from tests.test_ranks import compare, positions, probe

STRUCTURED = (
    "{kind='structured_consistency', pixel={value=20, shape='constant'}, structure={value=3, shape='constant'}}"
)
CROSS = "{kind='cross_consistency', perturbations=[{kind='dropout'}, {kind='vat'}]}"
OPTIONS = (
    f"objectives=[{{kind='supervised', loss={{kind='relaxed'}}}}, {STRUCTURED}, {CROSS}]",
    "data.domains.street.labeled.batch_size=4",
    "data.domains.street.unlabeled.batch_size=5",
    "checkpoint.every=1",
    "checkpoint.keep=99",
)


def weights(run: Path, step: int, role: str) -> dict[str, torch.Tensor]:
    folder = run / f"step-{step:08d}"
    return load_file((folder / role if (folder / role).is_dir() else folder) / "model.safetensors")


def train(recipe: Path, name: str, *overrides: str) -> list[str]:
    return ["-m", "semiseg.train", str(recipe), f"name={name}", "steps=6", *OPTIONS, *overrides]


def test_two_processes_equal_one(recipe_file: Callable[..., Path], tmp_path: Path):
    """Five pairs on two processes: losses and gradients in float64; the teacher still equals the student."""
    recipe = recipe_file()
    one = probe(recipe, tmp_path, 1, [3], "model.norm=frozen", *OPTIONS)
    two = probe(recipe, tmp_path, 2, [3], "model.norm=frozen", *OPTIONS)
    assert positions(tmp_path, 2)["street/unlabeled"] == list(range(30, 40, 2))
    assert {"street/pixel_consistency", "street/structure_consistency"} <= one["3.losses"].keys()
    compare(one, two, 3)


def test_formula_over_one_and_two_processes(recipe_file: Callable[..., Path], tmp_path: Path):
    """One update after each optimizer step of two micro-steps, computed from the students saved at every step."""
    recipe = recipe_file()
    frozen = ("model.norm=frozen", "steps=4", "accumulate=2")
    python(*train(recipe, "one", *frozen))
    torchrun(2, *train(recipe, "two", *frozen))
    run = tmp_path / "runs" / "one"
    expected = {name: value.double() for name, value in weights(run, 1, "teacher").items()}
    for step in range(1, 4):
        decay = (1 + step) / (10 + step)
        for name, value in weights(run, step + 1, "student").items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    for name, value in weights(run, 4, "teacher").items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-6, atol=1e-6)
    for name, value in weights(tmp_path / "runs" / "two", 4, "teacher").items():
        torch.testing.assert_close(value, weights(run, 4, "teacher")[name], rtol=1e-4, atol=1e-5)
    assert any(not value.equal(weights(run, 4, "student")[name]) for name, value in weights(run, 4, "teacher").items())


def test_a_killed_run_resumes_to_the_bit(recipe_file: Callable[..., Path], tmp_path: Path):
    recipe = recipe_file()
    options = ("evaluate.weights=teacher", "evaluate.every=2", "steps=10")
    python(*train(recipe, "straight", *options))
    process = subprocess.Popen(
        [sys.executable, *train(recipe, "killed", *options)],
        env=environment(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    killed = tmp_path / "runs" / "killed"
    while process.poll() is None and not (killed / "step-00000004").is_dir():
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "results.json").exists()
    python(*train(recipe, "killed", *options))
    for role in ("student", "teacher"):
        expected = weights(tmp_path / "runs" / "straight", 10, role)
        assert all(value.equal(expected[name]) for name, value in weights(killed, 10, role).items()), role


def test_two_processes_resume_to_the_bit(recipe_file: Callable[..., Path], tmp_path: Path):
    """Batch statistics differ by process; the teacher has those of the first process, as the student does."""
    recipe = recipe_file()
    torchrun(2, *train(recipe, "run", "steps=3"))
    run = tmp_path / "runs" / "run"
    expected = weights(run, 3, "teacher")
    for step in (2, 3):
        shutil.rmtree(run / f"step-{step:08d}")
    torchrun(2, *train(recipe, "run", "steps=3"))
    assert all(value.equal(expected[name]) for name, value in weights(run, 3, "teacher").items())
