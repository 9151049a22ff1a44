"""From photographs to a trained model by the commands a user types, on real images with realistic names."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data import ShardSet

# The commands after `data shard`, in one process, where no data set package can be found: as on another machine.
WITHOUT_PACKAGES = """
import json, sys
from semiseg.data import registry
registry.entry_points = lambda group: ()
from semiseg.cli.main import build_app
for words in json.loads(sys.argv[1]):
    print("$", *words, flush=True)
    build_app()(words, standalone_mode=False)
"""
QUICK = [
    "steps=2", "schedule.warmup=0", "model.encoder.name=test_resnet", "model.encoder.weights=none", "data.workers=0",
    "model.context.channels=16", "data.domains.own.augment.crop=[48, 64]", "data.domains.own.labeled.batch_size=2",
    "data.domains.own.unlabeled.batch_size=2", "log.every=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def sharded(untidy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder where `semiseg data shard folder` ran, and its output."""
    here = tmp_path_factory.mktemp("here")
    command = ["semiseg.cli", "data", "shard", "folder", str(untidy), "--option", "name=cambridge", "--workers", "1"]
    ran = subprocess.run([sys.executable, "-m", *command], cwd=here, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return here, ran.stdout.splitlines()


def test_one_command_to_shards(sharded: tuple[Path, list[str]]) -> None:
    here, lines = sharded
    sets = {split: ShardSet(here / "shards" / "cambridge" / split) for split in ("train", "val", "unlabeled")}
    counts = {split: len(found) for split, found in sets.items()}
    assert counts["train"] + counts["val"] == 10 and counts["unlabeled"] == 20 and counts["val"] >= 1
    assert len(sets["train"].taxonomy("cambridge").names) == 12
    assert lines[-1].startswith("      semiseg train folder_cct name=cambridge-cct ")
    assert lines[-2] == "next: semiseg data show cambridge --split train --shards shards/"


def test_one_command_to_a_trained_model_without_the_package(sharded: tuple[Path, list[str]], untidy: Path) -> None:
    here, lines = sharded
    _, *train = shlex.split(lines[-1])
    run = "runs/cambridge-cct"
    commands = [
        ["data", "stats", "cambridge"],
        ["data", "show", "cambridge", "--split", "train", "--count", "2", "--out", "sheet.png"],
        [*train, *QUICK],
        ["eval", run, "--json", "--workers", "0"],
        ["eval", run, "--dataset", "cambridge", "--split", "train", "--json", "--workers", "0"],
        ["predict", run, str(untidy / "Images" / "Straße früh" / "Tag 2"), "--out", "predictions"],
    ]
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGES, json.dumps(commands)], cwd=here, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    said = dict(part.split("\n", 1) for part in ran.stdout.split("$ ")[1:])
    assert "class_11" in said["data stats cambridge"]
    assert (here / "sheet.png").stat().st_size > 10_000
    results = json.loads((here / run / "results.json").read_text())
    scores = json.loads(said[f"eval {run} --json --workers 0"])["own"]
    assert scores["miou"] == pytest.approx(results["last"]["domains"]["own"]["miou"], abs=1e-3)
    lines = [json.loads(line) for line in (here / run / "metrics.jsonl").read_text().splitlines()]
    assert any("own/consistency" in line for line in lines), "the images without masks were used"
    predictions = list((here / "predictions").rglob("*.png"))
    assert len(predictions) == len(list((untidy / "Images" / "Straße früh" / "Tag 2").glob("[!.]*")))
    assert all(np.asarray(Image.open(path)).max() < 12 for path in predictions)


def test_a_second_call_does_nothing_and_one_more_mask_is_refused_with_the_remedy(
    sharded: tuple[Path, list[str]], untidy: Path
) -> None:
    here, _ = sharded
    command = [
        sys.executable,
        "-m",
        "semiseg.cli",
        "data",
        "shard",
        "folder",
        str(untidy),
        "--option",
        "name=cambridge",
    ]
    ran = subprocess.run(command, cwd=here, capture_output=True, text=True)
    assert ran.stdout.count("already complete") == 3, ran.stderr
    changed = subprocess.run([*command, "--option", "val=0.5"], cwd=here, capture_output=True, text=True)
    assert changed.returncode == 1 and "another configuration" in changed.stderr and "delete" in changed.stderr
