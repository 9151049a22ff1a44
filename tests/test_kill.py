"""Training killed with -9 and started again: the losses that follow are equal to the bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import environment, python


def rows(run: Path) -> list[dict]:
    """metrics.jsonl without what a clock said."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "waited")} for line in lines]


def train(recipe: Path, name: str, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "semiseg.train", str(recipe), f"name={name}", "steps=40", *overrides]


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_continued_equals_undisturbed(recipe_file: Callable[..., Path], tmp_path: Path, workers: int):
    recipe = recipe_file(domains=2)
    options = (f"data.workers={workers}", "evaluate.every=10")
    python(*train(recipe, "straight", *options)[1:])
    straight = rows(tmp_path / "runs" / "straight")
    assert [row["step"] for row in straight if "lr" in row] == list(range(1, 41))

    kills = 0
    seed = random.Random(workers)
    metrics = tmp_path / "runs" / "killed" / "metrics.jsonl"
    for _ in range(3):
        wait_until = (len(metrics.read_text().splitlines()) if metrics.exists() else 0) + seed.randint(3, 9)
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
    assert "complete already" in again.stderr
    assert (tmp_path / "runs" / "tiny" / "results.json").read_bytes() == before


def test_another_recipe_in_the_same_folder_is_refused(recipe_file: Callable[..., Path]):
    recipe = recipe_file()
    python("-m", "semiseg.train", recipe, "steps=2")
    refused = python("-m", "semiseg.train", recipe, "steps=2", "optimizer.lr=0.1", expect=1)
    assert "optimizer.lr" in refused.stderr and "name=" in refused.stderr
    assert "Traceback" not in refused.stderr
