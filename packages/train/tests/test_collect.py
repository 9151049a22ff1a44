"""Collected runs: whole, small, without this machine's places; real runs, a killed sweep, every mistake in one sentence."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from base64 import b64decode
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from semiseg.cli.main import build_app
from semiseg.data import SemisegError, ShardSet, replaced
from semiseg.train.loop import train
from semiseg.train.recipe.load import load
from semiseg.train.report.collect import collect, portable, thinned
from semiseg.train.report.index import _method, read_index
from semiseg.train.report.study import read_study
from tests.processes import environment


@pytest.fixture(scope="module")
def runs(scenes: Path, taxonomies: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three real runs of two steps in a folder, and one that was cut off."""
    folder = tmp_path_factory.mktemp("collect") / "big disk" / "runs"
    recipe = folder.parent / "tiny.toml"
    recipe.parent.mkdir()
    recipe.write_text(
        f'name = "t"\nsteps = 2\nprecision = "no"\nruns = "{folder}"\n[data]\nshards = "{scenes}"\nworkers = 0\n'
        f'[data.domains.street]\ntaxonomy = "{taxonomies["street"]}"\naugment = {{ crop = [32, 48] }}\n'
        'labeled = { dataset = "street", split = "train", subset = { count = 6 }, batch_size = 2 }\n'
        'val = { dataset = "street", split = "val" }\n[model]\ncontext = { kind = "none", channels = 16 }\n'
        'encoder = { name = "test_resnet", weights = "none" }\n[[objectives]]\nkind = "supervised"\n'
        '[optimizer]\nkind = "sgd"\nlr = 0.05\n[log]\nevery = 1\n[evaluate]\nevery = 1\n'
    )
    for name, seed in (("plain-labels6-seed0", 0), ("plain-labels6-seed1", 1), ("other-labels6-seed0", 0)):
        train(load(recipe, [f"name={name}", f"seed={seed}", f"clip={2 if name < 'p' else 1}"]), quiet=True)
    cut = folder / "other-labels6-seed1"
    train(load(recipe, [f"name={cut.name}", "seed=1", "clip=2"]), quiet=True)
    (cut / "results.json").unlink()
    return folder


def semiseg(*arguments: object) -> str:
    """What a command says; what it raises."""
    done = CliRunner().invoke(build_app(), [str(each) for each in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_complete_runs_are_taken_without_places_weights_or_images(runs: Path, scenes: Path, tmp_path: Path):
    to = tmp_path / "results"
    told = semiseg("collect", runs, "--to", to, "--predict", 2)
    assert "left out: other-labels6-seed1: not at its end" in told and "3 of 4 runs" in told
    index = read_index(to)
    assert index.axes == {"method": ["other", "plain"], "labels": ["6"], "seed": ["0", "1"]} and index.repeats == "seed"
    files = {path.relative_to(to).as_posix() for path in to.rglob("*") if path.is_file()}
    keys = ShardSet(scenes / "street" / "val").keys()
    chosen = [keys[1], keys[3]]  # of five, evenly spaced
    whole = ("plain-labels6-seed0", "plain-labels6-seed1", "other-labels6-seed0")
    masks = {f"predictions/{name}/{key}.png" for name in (whole[0], whole[2]) for key in chosen}
    kept = {f"{name}/{file}" for name in whole for file in ("results.json", "recipe.toml", "env.json", "metrics.jsonl")}
    assert files == kept | masks | {"runs.json"}
    for path in (path for path in to.rglob("*") if path.suffix in (".json", ".toml", ".jsonl")):
        assert str(runs.parent) not in path.read_text() and str(scenes) not in path.read_text(), path
    for name in whole:
        assert json.loads((to / name / "results.json").read_text()) == json.loads(
            (runs / name / "results.json").read_text()
        )
        before, after = (tomllib.loads((each / name / "recipe.toml").read_text()) for each in (runs, to))
        assert (after["runs"], after["data"]["shards"]) == ("runs", scenes.name)
        assert {**after, "runs": 0, "data": 0} == {**before, "runs": 0, "data": 0}
    assert index.predictions and index.predictions["keys"] == chosen
    semiseg("predict", runs / whole[0], scenes / "street" / "val", "--out", tmp_path / "masks")
    for key in chosen:
        ours, theirs = (
            np.array(Image.open(at / f"{key}.png")) for at in (to / "predictions" / whole[0], tmp_path / "masks")
        )
        assert np.array_equal(ours, theirs)


def test_images_and_truth_come_from_the_shards_alone(runs: Path, scenes: Path, tmp_path: Path):
    to, out = tmp_path / "results", tmp_path / "out"
    collect(runs, to)
    key = ShardSet(scenes / "street" / "val").keys()[2]
    semiseg("collect", runs, "--to", to, "--images", key)
    semiseg("report", to)
    assert "data:image/jpeg" not in (to / "report.html").read_text()
    semiseg("report", to, "--out", out, "--shards", scenes)
    page = (out / "report.html").read_text()
    shown = {
        alt: b64decode(data) for alt, data in re.findall(r"alt='([^']*)' src='data:image/\w+;base64,([^']*)'", page)
    }
    assert list(shown) == [
        f"{key}, the image",
        f"{key}, its true classes",
        f"{key} as other sees it",
        f"{key} as plain sees it",
    ]
    sample = ShardSet(scenes / "street" / "val")[2]
    taxonomy = ShardSet(scenes / "street" / "val").taxonomies[0]
    with Image.open(BytesIO(shown[f"{key}, its true classes"])) as truth:
        assert sample.label is not None and np.array_equal(np.array(truth), taxonomy.map(sample.label))
    with Image.open(BytesIO(shown[f"{key}, the image"])) as photo:
        assert np.abs(np.array(photo, float) - np.array(sample.image.convert("RGB"), float)).mean() < 8
    semiseg("data", "shard", "street", "--to", tmp_path / "other", "--split", "val", "--option", "val_count=1")
    with pytest.raises(SemisegError, match=f"no sample {key}, which was predicted"):
        semiseg("report", to, "--shards", tmp_path / "other")
    with pytest.raises(SemisegError, match="--shards nowhere: no such folder"):
        semiseg("report", to, "--shards", "nowhere")


def test_it_may_be_repeated_and_only_adds_or_replaces(runs: Path, tmp_path: Path):
    to, moved = tmp_path / "results", tmp_path / "runs"
    collect(runs, to)
    first = {path: path.read_bytes() for path in to.rglob("*") if path.is_file()}
    collect(runs, to)
    assert first == {path: path.read_bytes() for path in to.rglob("*") if path.is_file()}
    (moved / "plain-labels6-seed0").mkdir(parents=True)
    for file in ("results.json", "recipe.toml", "env.json", "metrics.jsonl"):
        (moved / "plain-labels6-seed0" / file).write_bytes((runs / "plain-labels6-seed0" / file).read_bytes())
    scores = json.loads((moved / "plain-labels6-seed0" / "results.json").read_text())
    (moved / "plain-labels6-seed0" / "results.json").write_text(json.dumps({**scores, "hours": 7.0}))
    assert collect(moved, to).taken == ["plain-labels6-seed0"]
    assert {run.name: run.results["hours"] == 7 for run in read_study(to).runs} == {
        "plain-labels6-seed0": True, "plain-labels6-seed1": False, "other-labels6-seed0": False,
    }  # fmt: skip
    assert list(read_study(to).missing) == ["other-labels6-seed1"]
    (moved / "plain-labels6-seed0" / "results.json").write_text('{"recipe"')
    assert collect(moved, to).left == {"plain-labels6-seed0": "its results.json is damaged, an earlier one stays"}
    (moved / "plain-labels6-seed0" / "results.json").write_text(json.dumps({**scores, "recipe": "0" * 64}))
    assert "another recipe" in collect(moved, to).left["plain-labels6-seed0"]
    assert next(run for run in read_study(to).runs if run.name == "plain-labels6-seed0").results["hours"] == 7
    (moved / "plain-labels6-seed0" / "results.json").write_text(json.dumps({**scores, "last": {}}))
    (to / "plain-labels6-seed0" / "results.json").write_text("{}")
    assert collect(moved, to).left == {"plain-labels6-seed0": "was never evaluated, an earlier one is damaged"}


def test_a_recipe_that_cannot_be_read_keeps_no_other_run_out(runs: Path, tmp_path: Path):
    folder, to = tmp_path / "runs", tmp_path / "results"
    shutil.copytree(runs, folder)
    recipe = folder / "plain-labels6-seed1" / "recipe.toml"
    recipe.write_text(recipe.read_text() + "\nmomentun = 1\n")
    done = collect(folder, to)
    assert sorted(done.taken) == ["other-labels6-seed0", "plain-labels6-seed0"]
    assert (
        "momentun" in done.left["plain-labels6-seed1"]
        and "momentun" in read_study(folder).missing["plain-labels6-seed1"]
    )
    for run in ("plain-labels6-seed0", "other-labels6-seed0", "other-labels6-seed1"):
        shutil.rmtree(folder / run)
    with pytest.raises(SemisegError, match=r"recipe\.toml:\d+: .*momentun"):
        collect(folder, tmp_path / "none")


def test_what_fails_half_way_leaves_the_earlier_run(tmp_path: Path):
    target = tmp_path / "run"
    target.mkdir()
    (target / "a").write_text("earlier")
    with pytest.raises(RuntimeError), replaced(target) as fresh:
        (fresh / "a").write_text("half")
        raise RuntimeError
    assert [(path.name, path.read_text()) for path in tmp_path.rglob("*") if path.is_file()] == [("a", "earlier")]
    target.rename(tmp_path / ".run.old")  # where a kill between two renames leaves it
    with pytest.raises(RuntimeError), replaced(target) as fresh:
        raise RuntimeError
    assert (target / "a").read_text() == "earlier" and [path.name for path in tmp_path.iterdir()] == ["run"]


def test_runs_whose_labels_were_named_in_a_file_are_at_their_number(runs: Path, tmp_path: Path):
    for name in ("supervised-seed0", "supervised-seed1"):
        shutil.copytree(runs / "plain-labels6-seed0", tmp_path / name)
        recipe = (tmp_path / name / "recipe.toml").read_text()
        assert "subset = { count = 6, seed = 0 }" in recipe
        recipe = recipe.replace("subset = { count = 6, seed = 0 }", 'ids = "labeled.txt"')
        (tmp_path / name / "recipe.toml").write_text(recipe.replace("seed = 0", f"seed = {name[-1]}", 1))
    assert read_index(tmp_path).axes == {"method": ["supervised"], "labels": ["6"], "seed": ["0", "1"]}


def test_a_sweep_says_what_it_plans_before_its_first_run_ends(scenes: Path, tmp_path: Path):
    command = (
        "-m",
        "semiseg.cli",
        "sweep",
        "street_small",
        f"data.shards={scenes}",
        f"runs={tmp_path}",
        "data.workers=0",
        "data.domains.street.labeled.subset.count=6",
    )
    process = subprocess.Popen(
        [sys.executable, *command], env=environment(), stderr=subprocess.DEVNULL, start_new_session=True
    )
    folder, deadline = tmp_path / "street-small", time.monotonic() + 60
    while not (folder / "table.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = collect(folder, tmp_path / "results")
    assert not done.taken and len(done.left) == 8
    assert list(done.index.axes) == ["perturbation", "K", "seed"] and done.index.across == "K"
    assert done.index.methods == ["dropout", "feature_drop"]
    with pytest.raises(SemisegError, match="none of its 8 planned runs is complete"):
        read_study(tmp_path / "results")


def test_thinned_keeps_every_evaluation_and_spreads_the_rest():
    lines = []
    for step in range(1, 1001):
        lines.append(json.dumps({"step": step, "lr": 0.1}))
        lines += [json.dumps({"step": step, "a/miou": 1.0})] * (step % 100 == 0)
    kept = [json.loads(line) for line in thinned(lines)]
    training = [row["step"] for row in kept if "lr" in row]
    assert [row["step"] for row in kept if "a/miou" in row] == list(range(100, 1001, 100))
    assert (len(training), training[0], training[-1]) == (60, 1, 1000)
    assert {b - a for a, b in pairwise(training)} == {16, 17}  # 999 / 59 = 16.93
    assert [row["step"] for row in kept] == sorted(row["step"] for row in kept)
    assert thinned(lines[:50]) == lines[:50]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/me/work/recipes/a.toml", "recipes/a.toml"),
        ("data.shards=/mnt/big disk/shards/", "data.shards=shards"),
        ("runs=/home/me/work/runs/x", "runs=runs/x"),
        ("model.start: /home/you/a/run -> /home/me/work/b", "model.start: run -> b"),
        ("data.domains.a.val={ids='/x/y/val.txt'}", "data.domains.a.val={ids='val.txt'}"),
        ("https://arxiv.org/abs/2003.09005", "https://arxiv.org/abs/2003.09005"),
        ("s3://bucket/shards", "s3://bucket/shards"),
        ("file:///home/me/work/shards", "shards"),
        ("camvid/labeled, 1/2 and a / b", "camvid/labeled, 1/2 and a / b"),
    ],
)
def test_places_of_this_machine_are_left_out(text: str, told: str):
    assert portable({"a": [text, 1]}, Path("/home/me/work")) == {"a": [told, 1]}


def test_a_method_is_what_a_name_says_besides_labels_and_seed():
    names = (
        "labels20-seed0-cct_abce",
        "cct_abce-labels20-seed0",
        "cct_abce_n20_seed3",
        "cct_abce-seed0-labels-20",
        "cct_abce",
    )
    assert {_method(name) for name in names} == {"cct_abce"}
    assert _method("camvid-cct-seed1-lr0.1") == "camvid-cct-lr0.1" and _method("seed0") == "run"


def test_every_mistake_is_told_in_one_sentence(runs: Path, tmp_path: Path):
    to = tmp_path / "results"
    collect(runs, to)
    empty, other = tmp_path / "empty", tmp_path / "other"
    empty.mkdir()
    for run in ("a-K1", "a-K2"):
        (other / run).mkdir(parents=True)
    table = {"sweep": "s", "rows": [{"K": "1"}], "runs": [{"folder": f"x/a-K{k}", "K": k} for k in "12"]}
    (other / "table.json").write_text(
        json.dumps({**table, "runs": [{**run, "recipe": "", "complete": 0} for run in table["runs"]]})
    )
    mistakes: list[tuple[tuple[object, ...], str]] = [
        ((tmp_path / "nowhere", "--to", to), "no such folder"),
        ((empty, "--to", to), "neither a folder of runs"),
        ((to, "--to", tmp_path / "again"), "was collected already"),
        ((runs, "--to", runs), "is the folder of the runs"),
        ((other, "--to", to), "holds runs along method, labels, seed .* these are along K"),
        ((runs, "--to", tmp_path / "new", "--images", "nothing"), "no validation image 'nothing'.* look like 'val-"),
        ((runs, "--to", tmp_path / "new", "--predict", 1, "--shards", empty), "street/val"),
    ]  # fmt: skip
    for arguments, words in mistakes:
        with pytest.raises(SemisegError, match=words):
            semiseg("collect", *arguments)
    (other / "table.json").write_text('{"runs": 3}')
    with pytest.raises(SemisegError, match="not a sweep's table; run the same `semiseg sweep` again"):
        semiseg("collect", other, "--to", tmp_path / "new2")
    (to / "runs.json").write_text('{"study": "a"}')
    with pytest.raises(SemisegError, match="not what `semiseg collect` writes"):
        semiseg("report", to)
