"""Collected runs: complete, small, without this machine's paths; real runs, a killed sweep, every mistake in one sentence."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
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
from semiseg.train.report.index import _method, index_runs
from semiseg.train.report.runs import read_collected, read_predictions, read_run, write_predictions
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
    """What a command prints; what it raises."""
    done = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def edit_run(to: Path, name: str, **changes: object) -> None:
    """Change a collected run, as `{"results": ...}`, in its line."""
    lines = (to / "runs.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[1:]]
    assert name in {row["name"] for row in rows}
    edited = (json.dumps(row | changes if row["name"] == name else row) for row in rows)
    (to / "runs.jsonl").write_text("".join(f"{line}\n" for line in (lines[0], *edited)))


def test_complete_runs_are_taken_without_paths_weights_or_images(runs: Path, scenes: Path, tmp_path: Path):
    to = tmp_path / "results"
    output = semiseg("collect", runs, "--to", to, "--predict", 2)
    assert "left out: other-labels6-seed1: not finished" in output and "3 of 4 runs" in output
    assert sorted(path.name for path in to.iterdir()) == ["predictions.zip", "runs.jsonl"]
    index, found = read_collected(to)
    assert index.axes == {"method": ["other", "plain"], "labels": ["6"], "seed": ["0", "1"]} and index.repeats == "seed"
    assert list(found) == ["other-labels6-seed0", "plain-labels6-seed0", "plain-labels6-seed1"]  # sorted
    text = (to / "runs.jsonl").read_text()
    assert str(runs.parent) not in text and str(scenes) not in text and len(text.splitlines()) == 1 + len(found)
    for name, run in found.items():
        assert run.results == json.loads((runs / name / "results.json").read_text())
        assert run.metrics == [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]
        assert len(run.launches) == 1 and run.launches[0]["processes"] == 1
        before, after = tomllib.loads((runs / name / "recipe.toml").read_text()), tomllib.loads(run.recipe)
        assert (after["runs"], after["data"]["shards"]) == ("runs", scenes.name)
        assert {**after, "runs": 0, "data": 0} == {**before, "runs": 0, "data": 0}
        assert semiseg("report", to, "--recipe", name) == run.recipe
    keys = ShardSet(scenes / "street" / "val").keys()
    chosen = [keys[1], keys[3]]  # of five, evenly spaced
    assert index.predictions and index.predictions["keys"] == chosen
    masks = read_predictions(to)
    predicted = ("plain-labels6-seed0", "other-labels6-seed0")
    assert masks.keys() == {f"{name}/{key}.png" for name in predicted for key in chosen}
    semiseg("predict", runs / predicted[0], scenes / "street" / "val", "--out", tmp_path / "masks")
    for key in chosen:
        ours, theirs = (
            np.array(Image.open(file))
            for file in (BytesIO(masks[f"{predicted[0]}/{key}.png"]), tmp_path / "masks" / f"{key}.png")
        )
        assert np.array_equal(ours, theirs)


def test_predictions_of_methods_on_another_machine_stay(runs: Path, scenes: Path, tmp_path: Path):
    to, other = tmp_path / "results", tmp_path / "runs"
    semiseg("collect", runs, "--to", to, "--predict", 1)
    first, before = (to / "predictions.zip").read_bytes(), read_predictions(to)
    shutil.copytree(runs / "other-labels6-seed0", other / "other-labels6-seed0")
    semiseg("collect", other, "--to", to, "--predict", 1)
    assert (to / "predictions.zip").read_bytes() == first  # the same masks, the same bytes
    (key,) = (read_collected(to)[0].predictions or {})["keys"]
    write_predictions(to, before | {f"plain-labels6-seed0/{key}.png": b"of the other machine"})
    semiseg("collect", other, "--to", to, "--predict", 1)
    after = read_predictions(to)
    assert after.keys() == before.keys() and after[f"plain-labels6-seed0/{key}.png"] == b"of the other machine"
    assert after[f"other-labels6-seed0/{key}.png"] == before[f"other-labels6-seed0/{key}.png"]
    with pytest.raises(SemisegError, match=rf"plain-labels6-seed0/{key}\.png is missing or damaged .*--predict again"):
        semiseg("report", to)
    (to / "predictions.zip").unlink()
    semiseg("collect", other, "--to", to, "--predict", 1)
    assert list((read_collected(to)[0].predictions or {})["runs"]) == ["other"]  # the other's masks are gone


def test_predictions_are_stored_with_no_time_and_sorted(tmp_path: Path):
    write_predictions(tmp_path, {"b/2.png": b"two", "a/1.png": b"one"})
    with zipfile.ZipFile(tmp_path / "predictions.zip") as archive:
        entries = [(entry.filename, entry.date_time, entry.compress_type) for entry in archive.infolist()]
    start = (1980, 1, 1, 0, 0, 0)
    assert entries == [("a/1.png", start, zipfile.ZIP_STORED), ("b/2.png", start, zipfile.ZIP_STORED)]
    assert read_predictions(tmp_path) == {"a/1.png": b"one", "b/2.png": b"two"}
    (tmp_path / "predictions.zip").write_bytes(b"no archive")
    with pytest.raises(SemisegError, match=r"predictions\.zip: cannot be read .*delete it and collect"):
        read_predictions(tmp_path)


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
        f"{key}, its ground truth",
        f"{key} as predicted by other",
        f"{key} as predicted by plain",
    ]
    sample = ShardSet(scenes / "street" / "val")[2]
    taxonomy = ShardSet(scenes / "street" / "val").taxonomies[0]
    with Image.open(BytesIO(shown[f"{key}, its ground truth"])) as truth:
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
    file = to / "runs.jsonl"
    collect(runs, to)
    first = file.read_bytes()
    collect(runs, to)
    assert file.read_bytes() == first
    name = "plain-labels6-seed0"
    (moved / name).mkdir(parents=True)
    for part in ("results.json", "recipe.toml", "env.json", "metrics.jsonl"):
        (moved / name / part).write_bytes((runs / name / part).read_bytes())
    results = moved / name / "results.json"
    scores = json.loads(results.read_text())
    results.write_text(json.dumps({**scores, "hours": 7.0}))
    assert collect(moved, to).taken == [name]
    changed = [a != b for a, b in zip(first.splitlines()[1:], file.read_bytes().splitlines()[1:], strict=True)]
    assert changed == [False, True, False]
    assert {run.name: run.results["hours"] == 7 for run in read_study(to).runs} == {
        "plain-labels6-seed0": True, "plain-labels6-seed1": False, "other-labels6-seed0": False,
    }  # fmt: skip
    assert list(read_study(to).missing) == ["other-labels6-seed1"]
    results.write_text('{"recipe"')
    assert collect(moved, to).left == {name: "its results.json is damaged, an earlier one stays"}
    results.write_text(json.dumps({**scores, "recipe": "0" * 64}))
    assert "another recipe" in collect(moved, to).left[name]
    assert next(run for run in read_study(to).runs if run.name == name).results["hours"] == 7
    results.write_text(json.dumps({**scores, "last": {}}))
    edit_run(to, name, results={})
    assert collect(moved, to).left == {name: "was never evaluated, an earlier one is damaged"}
    results.write_text(json.dumps(scores))
    assert collect(moved, to).taken == [name] and file.read_bytes() == first


def test_collecting_that_is_interrupted_leaves_the_earlier_file(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    to, moved = tmp_path / "results", tmp_path / "runs"
    collect(runs, to)
    first = (to / "runs.jsonl").read_bytes()
    shutil.copytree(runs, moved)
    for results in moved.glob("*/results.json"):
        results.write_text(json.dumps(json.loads(results.read_text()) | {"hours": 7.0}))

    def cut(run: Path):
        if run.name == "plain-labels6-seed1":  # the last one
            raise KeyboardInterrupt
        return read_run(run)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("semiseg.train.report.collect.read_run", cut)
        collect(moved, to)
    assert (to / "runs.jsonl").read_bytes() == first
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):  # all is written, nothing has its name yet
        patched.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        collect(moved, to)
    assert (to / "runs.jsonl").read_bytes() == first and [path.name for path in to.iterdir()] == ["runs.jsonl"]
    collect(moved, to)
    assert {run.results["hours"] for run in read_study(to).runs} == {7.0}


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


def test_a_folder_that_fails_to_be_replaced_stays(tmp_path: Path):
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


def test_labels_named_in_a_file_are_counted(runs: Path, tmp_path: Path):
    for name in ("supervised-seed0", "supervised-seed1"):
        shutil.copytree(runs / "plain-labels6-seed0", tmp_path / name)
        recipe = (tmp_path / name / "recipe.toml").read_text()
        assert "subset = { count = 6, seed = 0 }" in recipe
        recipe = recipe.replace("subset = { count = 6, seed = 0 }", 'ids = "labeled.txt"')
        (tmp_path / name / "recipe.toml").write_text(recipe.replace("seed = 0", f"seed = {name[-1]}", 1))
    assert index_runs(tmp_path).axes == {"method": ["supervised"], "labels": ["6"], "seed": ["0", "1"]}


def test_a_sweep_lists_its_plan_before_its_first_run_ends(scenes: Path, tmp_path: Path):
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
    rows = []
    for step in range(1, 1001):
        rows.append({"step": step, "lr": 0.1})
        rows += [{"step": step, "a/miou": 1.0}] * (step % 100 == 0)
    kept = thinned(rows)
    training = [row["step"] for row in kept if "lr" in row]
    assert [row["step"] for row in kept if "a/miou" in row] == list(range(100, 1001, 100))
    assert (len(training), training[0], training[-1]) == (60, 1, 1000)
    assert {b - a for a, b in pairwise(training)} == {16, 17}  # 999 / 59 = 16.93
    assert [row["step"] for row in kept] == sorted(row["step"] for row in kept)
    assert thinned(rows[:50]) == rows[:50]


@pytest.mark.parametrize(
    ("text", "expected"),
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
def test_paths_of_this_machine_are_left_out(text: str, expected: str):
    assert portable({"a": [text, 1]}, Path("/home/me/work")) == {"a": [expected, 1]}


def test_a_method_is_a_name_without_labels_and_seed():
    names = (
        "labels20-seed0-cct_abce",
        "cct_abce-labels20-seed0",
        "cct_abce_n20_seed3",
        "cct_abce-seed0-labels-20",
        "cct_abce",
    )
    assert {_method(name) for name in names} == {"cct_abce"}
    assert _method("camvid-cct-seed1-lr0.1") == "camvid-cct-lr0.1" and _method("seed0") == "run"


def test_every_mistake_is_reported_in_one_sentence(runs: Path, tmp_path: Path):
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
        ((other, "--to", runs), "is a folder of runs, not one that `semiseg collect` wrote"),
        ((other, "--to", other / ".." / "other"), "is the folder of the runs"),
        ((runs, "--to", tmp_path / "new", "--images", "nothing"), "no validation image 'nothing'.* look like 'val-"),
        ((runs, "--to", tmp_path / "new", "--predict", 1, "--shards", empty), "street/val"),
    ]  # fmt: skip
    for arguments, words in mistakes:
        with pytest.raises(SemisegError, match=words):
            semiseg("collect", *arguments)
    (other / "table.json").write_text('{"runs": 3}')
    with pytest.raises(SemisegError, match="not a sweep's table; rerun the same `semiseg sweep`"):
        semiseg("collect", other, "--to", tmp_path / "new2")
    with pytest.raises(SemisegError, match="unknown run 'plain-labels6-seed'; did you mean 'plain-labels6-seed"):
        semiseg("report", to, "--recipe", "plain-labels6-seed")
    text = (to / "runs.jsonl").read_text()
    index, first, *rest = text.splitlines(keepends=True)
    damage: list[tuple[list[str], str]] = [
        (['{"study": "a"}\n', first, *rest], r"runs\.jsonl:1: not what `semiseg collect` writes.*restore the file"),
        (
            [index, first[:90], *rest],
            r"runs\.jsonl:2: damaged.*restore the line, or delete it and collect its run again",
        ),
        ([index, first, "<<<<<<< ours\n", *rest], r"runs\.jsonl:3: damaged"),  # of a merge in git
        ([index, first, first, *rest], r"runs\.jsonl:3: damaged \(other-labels6-seed0 has two lines\)"),
        ([index, first, "[1]\n", *rest], r"runs\.jsonl:3: damaged"),
    ]
    for lines, words in damage:
        (to / "runs.jsonl").write_text("".join(lines))
        for arguments in (("report", to), ("collect", runs, "--to", to)):
            with pytest.raises(SemisegError, match=words):
                semiseg(*arguments)
        assert (to / "runs.jsonl").read_text() == "".join(lines)
    (to / "runs.jsonl").rename(to / "runs.json")
    for arguments in (("report", to), ("collect", runs, "--to", to), ("collect", to, "--to", tmp_path / "new3")):
        with pytest.raises(SemisegError, match=r"earlier form \(runs\.json\); empty the folder, then collect again"):
            semiseg(*arguments)
