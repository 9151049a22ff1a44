"""From tags to a trained model with the commands in `recipes/street_weak.toml`, each killed once and rerun."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from semiseg.data import OverlaySet, ShardSet, open_dataset, shard, verify
from semiseg.train.weak.classifier import FILE, Fitting, fit, read
from tests.processes import environment

RECIPE = Path(__file__).parents[1] / "recipes" / "street_weak.toml"
# Makes them small enough for a test; a later option takes precedence over an earlier one.
SMALL = {
    "fit": "--encoder test_resnet --stride 16 --steps 8 --batch-size 4 --crop 48 --workers 0 --save-every 3",
    "labels": "--shard-size 10KB --report 4",
    "launch": "model.encoder.name=test_resnet steps=6 data.workers=0 checkpoint.every=2 evaluate.every=6 log.every=1 "
    "schedule.warmup=2 data.domains.street.augment.crop=[32,48] data.domains.street.labeled.subset.count=6",
}
PROGRAMS = {"semiseg": "semiseg.cli", "accelerate": "accelerate.commands.accelerate_cli"}


def documented() -> dict[str, list[str]]:
    """The commands after sharding: fit, labels and launch."""
    typed = [
        line[2:].split() for line in RECIPE.read_text().splitlines() if line.startswith(("# semiseg", "# accelerate"))
    ]
    known = {words[1] if words[0] == "accelerate" else words[2]: words for words in typed}
    return {stage: [sys.executable, "-m", PROGRAMS[known[stage][0]], *known[stage][1:], *shlex.split(small)]
            for stage, small in SMALL.items()}  # fmt: skip


def test_from_tags_to_a_model_killed_in_each_stage(tmp_path: Path):
    adapter = open_dataset("street", size="64x48", train_count=16, val_count=2)
    for split in ("train", "val"):
        shard(adapter, split, tmp_path / "shards", size="40KB")
    (tmp_path / "recipes").symlink_to(RECIPE.parent)
    metrics = tmp_path / "runs" / "street-weak" / "metrics.jsonl"
    begun = {
        "fit": lambda: (tmp_path / "runs" / "street-tags" / FILE).exists(),
        "labels": lambda: (tmp_path / "shards" / "street" / "train@cam" / "000000.index.parquet").exists(),
        "launch": lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 3,
    }
    output = {}
    for stage, command in documented().items():
        kill(command, tmp_path, once=begun[stage])
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{stage}\n{done.stdout}\n{done.stderr}"
        output[stage] = done.stdout + done.stderr
    assert f"resuming runs/street-tags/{FILE} from step" in output["fit"]
    assert "resuming runs/street-weak from step" in output["launch"]

    street = ShardSet(tmp_path / "shards" / "street" / "train")
    overlay = OverlaySet(f"{street.url}@cam")
    assert len(overlay) == 16 and len(overlay.shard_sizes) > 2 and verify(overlay.url).ok
    report = json.loads((tmp_path / "runs" / "street-tags" / "train@cam.json").read_text())
    assert report["images"] == 4 and report["digest"] == overlay.digest
    assert all(0 < report[stage]["precision"] <= 100 for stage in ("before", "after"))
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    trained = [row for row in rows if "lr" in row]
    assert [row["step"] for row in trained] == list(range(1, 7))
    assert all(row["street/weak_unweighted"] > 0 for row in trained)
    assert json.loads((metrics.parent / "results.json").read_text())["last"]["step"] == 6

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the commands: sums in a fixed order
    settings = {"masks": True, "least": 0.15, "encoder": "test_resnet", "weights": "none", "lr": 0.05}
    fitting = Fitting(**settings, stride=16, steps=8, batch_size=4, crop=48)
    uninterrupted = fit(street, street.taxonomies[0], tmp_path / "again", fitting, workers=0, quiet=True)
    torch.set_num_threads(threads)
    killed = read(tmp_path / "runs" / "street-tags" / FILE)
    for name, value in read(uninterrupted)["model"].items():
        assert torch.equal(value, killed["model"][name]), name


def kill(command: list[str], folder: Path, *, once: Callable[[], bool]) -> None:
    """Start a command and kill it (-9), with all its processes, as soon as `once` holds and before it has finished."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )  # fmt: skip
    while process.poll() is None and not once():
        time.sleep(0.002)
    assert process.poll() is None, f"{command} finished before it could be killed: {process.returncode}"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
