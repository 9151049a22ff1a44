"""Training killed with -9 and started again: the following losses are bit-identical."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.processes import environment, python, torchrun


def rows(run: Path) -> list[dict]:
    """metrics.jsonl without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "waited")} for line in lines]


def train(recipe: Path, name: str, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "semiseg.train", str(recipe), f"name={name}", "steps=30", *overrides]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(
    recipe_file: Callable[..., Path], tmp_path: Path, workers: int
):
    recipe = recipe_file(domains=2)
    options = [f"data.workers={workers}", "evaluate.every=10"]
    if workers:
        street = "data.domains.street"
        options += [
            f"{street}.augment.crop=[32, 32]",
            f"{street}.labeled.class_uniform={{share=0.5}}",
            "checkpoint.every=4",
        ]
    python(*train(recipe, "straight", *options)[1:])
    straight = rows(tmp_path / "runs" / "straight")
    assert [row["step"] for row in straight if "lr" in row] == list(range(1, 31))

    kills = 0
    seed = random.Random(workers)
    metrics = tmp_path / "runs" / "killed" / "metrics.jsonl"
    for _ in range(3):
        wait_until = (len(metrics.read_text().splitlines()) if metrics.exists() else 0) + seed.randint(3, 7)
        process = subprocess.Popen(
            train(recipe, "killed", *options), env=environment(), stderr=subprocess.DEVNULL, start_new_session=True
        )
        while process.poll() is None:
            if metrics.exists() and len(metrics.read_text().splitlines()) >= wait_until:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        process.wait()
    assert kills >= 2
    python(*train(recipe, "killed", *options)[1:])
    assert rows(tmp_path / "runs" / "killed") == straight
    results = [json.loads((tmp_path / "runs" / name / "results.json").read_text()) for name in ("straight", "killed")]
    assert results[0]["last"] == results[1]["last"] and results[0]["best"] == results[1]["best"]


def test_a_finished_run_says_so(recipe_file: Callable[..., Path], tmp_path: Path):
    recipe = recipe_file()
    python("-m", "semiseg.train", recipe, "steps=2")
    before = (tmp_path / "runs" / "tiny" / "results.json").read_bytes()
    again = python("-m", "semiseg.train", recipe, "steps=2")
    assert "already complete" in again.stderr
    assert (tmp_path / "runs" / "tiny" / "results.json").read_bytes() == before


def test_a_finished_run_is_scored_again_if_its_views_change(recipe_file: Callable[..., Path], tmp_path: Path):
    recipe, run = recipe_file(), tmp_path / "runs" / "tiny"
    python("-m", "semiseg.train", recipe, "steps=4", "evaluate.every=1")
    first = json.loads((run / "results.json").read_text())
    weights = [(run / "step-00000004" / "model.safetensors").read_bytes()]
    other = ("steps=4", "evaluate.scales=[0.5, 1]", "evaluate.flip=true")
    python("-m", "semiseg.train", recipe, *other)
    again = json.loads((run / "results.json").read_text())
    weights.append((run / "step-00000004" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] and first["recipe"] == again["recipe"]
    assert first["last"]["evaluation"] == {"weights": "student", "scales": [1.0], "flip": False}
    assert again["last"]["evaluation"] == {"weights": "student", "scales": [0.5, 1.0], "flip": True}
    assert again["last"] == again["best"] and again["last"]["miou"] != first["last"]["miou"]
    python("-m", "semiseg.train", recipe, *other, "name=fresh", "evaluate.every=1")
    fresh = json.loads((tmp_path / "runs" / "fresh" / "results.json").read_text())
    assert fresh["last"] == again["last"] and fresh["data"] == again["data"]
    assert "already complete" in python("-m", "semiseg.train", recipe, *other).stderr


def test_another_recipe_in_the_same_folder_is_refused(recipe_file: Callable[..., Path]):
    recipe = recipe_file()
    python("-m", "semiseg.train", recipe, "steps=2")
    refused = python("-m", "semiseg.train", recipe, "steps=2", "optimizer.lr=0.1", expect=1)
    assert "optimizer.lr" in refused.stderr and "name=" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_three_processes_resume_to_the_bit(recipe_file: Callable[..., Path], tmp_path: Path):
    """Gradients of three processes are summed in a fixed order, even in the first step after a restart; uneven shares."""
    recipe = recipe_file()
    four = [f"data.domains.street.{role}.batch_size=4" for role in ("labeled", "unlabeled")]
    options = ("model.norm=frozen", "steps=5", "checkpoint.every=1", "checkpoint.keep=9", *four)
    torchrun(3, "-m", "semiseg.train", recipe, *options)
    run = tmp_path / "runs" / "tiny"
    straight = rows(run)
    weights = (run / "step-00000005" / "model.safetensors").read_bytes()
    for step in (3, 4, 5):
        shutil.rmtree(run / f"step-{step:08d}")
    torchrun(3, "-m", "semiseg.train", recipe, *options)
    assert rows(run) == straight
    assert (run / "step-00000005" / "model.safetensors").read_bytes() == weights


def test_what_a_kill_left_is_removed(recipe_file: Callable[..., Path], tmp_path: Path):
    """A best model from after the checkpoint, and folders that were being written."""
    recipe = recipe_file()
    options = ("steps=4", "evaluate.every=1", "checkpoint.every=2")
    python("-m", "semiseg.train", recipe, *options)
    run = tmp_path / "runs" / "tiny"
    (best,) = run.glob("best-*")
    before = (best / "model.safetensors").read_bytes()
    shutil.rmtree(run / "step-00000004")
    (run / "best-00000099").mkdir()
    (run / ".step-00000004.part").mkdir()
    (run / "..step-00000004.part.x.tmp").mkdir()
    python("-m", "semiseg.train", recipe, *options)
    assert [path.name for path in run.glob("best-*")] == [best.name]
    assert (best / "model.safetensors").read_bytes() == before
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_nan_weights_never_replace_a_checkpoint(recipe_file: Callable[..., Path], tmp_path: Path):
    recipe = recipe_file()
    wild = ("optimizer.lr=1e9", "log.every=6", "checkpoint.every=2", "checkpoint.keep=1", "evaluate.every=6", "steps=6")
    stopped = python("-m", "semiseg.train", recipe, *wild, expect=1)
    assert "optimizer.lr" in stopped.stderr and "Traceback" not in stopped.stderr
    for file in (tmp_path / "runs" / "tiny").glob("step-*/model.safetensors"):
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(file).values())


def test_another_selection_of_samples_is_refused(recipe_file: Callable[..., Path], tmp_path: Path, scenes: Path):
    from semiseg.data import ShardSet

    keys = ShardSet(scenes / "street" / "train").keys()
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(keys[:6]))
    options = ("data.domains.street.labeled.subset=", f"data.domains.street.labeled.ids={ids}")
    recipe = recipe_file()
    python("-m", "semiseg.train", recipe, *options, "steps=2")
    ids.write_text("\n".join(keys[6:12]))
    refused = python("-m", "semiseg.train", recipe, *options, "steps=2", expect=1)
    assert "street/labeled (selection)" in refused.stderr and "Traceback" not in refused.stderr


def test_a_launchers_accumulation_does_not_scale_the_loss(
    recipe_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = recipe_file()
    python("-m", "semiseg.train", recipe, "steps=3", "name=plain")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    python("-m", "semiseg.train", recipe, "steps=3", "name=launched")
    assert rows(tmp_path / "runs" / "plain") == rows(tmp_path / "runs" / "launched")
