"""Training stopped by signals, and resumed: as if it had never been stopped. Real processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from semiseg.train import load, train
from tests.processes import environment, torchrun

STEPS = 48


def rows(run: Path) -> list[dict]:
    """metrics.jsonl without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "waited")} for line in lines]


def started(*arguments: str | Path, **options: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen,
        **options,  # type: ignore[call-overload]
    )


def listen() -> None:
    """Signals that whoever runs the tests ignores, as nohup and shells in the background do, would stay ignored."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def count(metrics: Path) -> int:
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    while process.poll() is None and not condition():
        time.sleep(0.002)


@pytest.mark.parametrize(("workers", "signals"), [(0, [signal.SIGTERM]), (2, [signal.SIGHUP, signal.SIGINT])])
def test_stopped_and_resumed_runs_equal_an_uninterrupted_one(
    recipe_file: Callable[..., Path], tmp_path: Path, workers: int, signals: list[signal.Signals]
):
    """Stops at random places: while loading, in a step, in an evaluation, by every signal; none loses a step.

    SEMISEG_FUZZ_EXAMPLES: how many stops; beyond the default, with other places in every run.
    """
    recipe = recipe_file()
    options = [
        *(f"steps={STEPS}", f"data.workers={workers}", "evaluate.every=3", "checkpoint.every=100", "log.every=4"),
        "data.domains.street.labeled.class_uniform={share=0.5}",
    ]
    train(load(recipe, ["name=straight", *options]), quiet=True)
    straight = rows(tmp_path / "runs" / "straight")
    run, at = tmp_path / "runs" / "stopped", []
    chance = random.Random(None if "SEMISEG_FUZZ_EXAMPLES" in os.environ else workers)
    for turn in range(min(int(os.environ.get("SEMISEG_FUZZ_EXAMPLES", len(signals))), STEPS // 4)):
        number = signals[turn % len(signals)]
        lines = count(run / "metrics.jsonl") + chance.randint(1, 3)
        # the whole group, as a terminal and batch systems do: its loading processes too
        process = started("-m", "semiseg.train", recipe, "name=stopped", *options, start_new_session=True)
        wait_for(lambda lines=lines: count(run / "metrics.jsonl") >= lines, process)
        time.sleep(chance.random() / 10)
        os.killpg(process.pid, number)
        told = process.communicate(timeout=60)[1]
        assert process.returncode == 128 + number, told
        assert f"stopped by {signal.Signals(number).name} at step" in told and "Traceback" not in told
        step = int(max(run.glob("step-*")).name[5:])
        assert f"at step {step};" in told
        at.append(step)
    assert at == sorted(at) and at[-1] > 0 and (len(at) == 1 or at[-1] > at[0])
    assert not (run / "lock.json").exists()
    train(load(recipe, ["name=stopped", *options]), quiet=True)
    assert rows(run) == straight
    results = [json.loads((tmp_path / "runs" / name / "results.json").read_text()) for name in ("straight", "stopped")]
    assert results[0]["last"] == results[1]["last"] and results[0]["best"] == results[1]["best"]
    models = [tmp_path / "runs" / name / f"step-{STEPS:08d}" / "model.safetensors" for name in ("straight", "stopped")]
    assert models[0].read_bytes() == models[1].read_bytes()


def test_two_processes_stop_after_the_same_step(recipe_file: Callable[..., Path], tmp_path: Path):
    """Stopped by a signal to one rank, resumed, stopped by a signal to the launcher, and resumed."""
    recipe = recipe_file()
    options = ("steps=30", "model.norm=frozen", "evaluate.every=4", "checkpoint.every=100", "data.workers=1")
    torchrun(2, "-m", "semiseg.train", recipe, "name=straight", *options)
    run = tmp_path / "runs" / "stopped"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    for whom in ("rank", "launcher"):
        process = started(*launcher, "-m", "semiseg.train", recipe, "name=stopped", *options)
        lines = count(run / "metrics.jsonl") + 5
        wait_for(lambda lines=lines: count(run / "metrics.jsonl") >= lines, process)
        ranks = [child for child in psutil.Process(process.pid).children() if "semiseg.train" in child.cmdline()]
        assert len(ranks) == 2
        if whom == "rank":
            rank = next(child for child in ranks if child.environ()["RANK"] == "1")
            rank.send_signal(signal.SIGTERM)
        else:
            process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=60)[1]
        step = int(max(run.glob("step-*")).name[5:])
        assert step < 30 and f"stopped by SIGTERM at step {step};" in told, told
        assert count(run / "metrics.jsonl") >= step
    torchrun(2, "-m", "semiseg.train", recipe, "name=stopped", *options)
    assert rows(run) == rows(tmp_path / "runs" / "straight")


def test_a_second_ctrl_c_ends_at_once(recipe_file: Callable[..., Path], tmp_path: Path):
    recipe = recipe_file()
    run = tmp_path / "runs" / "tiny"
    process = started("-m", "semiseg.train", recipe, "steps=400", "data.domains.street.labeled.batch_size=6")
    wait_for(lambda: count(run / "metrics.jsonl") >= 2, process)
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    assert process.stderr is not None
    wait_for(lambda: "Ctrl-C again" in str(process.stderr and process.stderr.readline()), process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode in (-signal.SIGINT, 130)


def test_a_signal_before_the_first_step_leaves_nothing_to_save(recipe_file: Callable[..., Path], tmp_path: Path):
    recipe = recipe_file()
    run = tmp_path / "runs" / "tiny"
    process = started("-m", "semiseg.train", recipe)
    wait_for((run / "lock.json").exists, process)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 143 and "Traceback" not in told
    assert "stopped by SIGTERM" in told and not (run / "lock.json").exists()
