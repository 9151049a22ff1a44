"""Sweeps: what a file expands to, every mistake in one, means and intervals, a real sweep killed and continued."""

import fcntl
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import t

from semiseg.data import cores
from semiseg.train.recipe.load import load
from semiseg.train.recipe.problems import RecipeError
from semiseg.train.recipe.shipped import find_sweep
from semiseg.train.sweep.figures import LIGHT
from semiseg.train.sweep.grid import expand, read_sweep
from semiseg.train.sweep.intervals import t975
from semiseg.train.sweep.launch import _reason
from semiseg.train.sweep.plot import plot
from semiseg.train.sweep.progress import Pace
from semiseg.train.sweep.table import Row
from tests.processes import environment, python


def test_the_sweep_of_the_paper_is_every_combination_once():
    runs = expand(read_sweep(find_sweep("camvid_perturbations")))
    assert len(runs) == 7 * 4 * 3 * 3 == len({run.recipe.name for run in runs})
    run = next(run for run in runs if run.recipe.name == "vat-K6-labels50-seed2")
    perturbations = run.recipe.objectives[1].perturbations  # type: ignore[union-attr]
    assert [(perturbation.kind, perturbation.count) for perturbation in perturbations] == [("vat", 6)]
    assert run.recipe.data.domains["camvid"].labeled.subset.count == 50 and run.recipe.seed == 2  # type: ignore[union-attr]
    assert load(run.command[0], run.command[1:]) == run.recipe
    assert str(run.folder) == "runs/camvid-perturbations/vat-K6-labels50-seed2"
    assert len(expand(read_sweep(find_sweep("street_small")))) == 8


def test_the_protocol_compares_equals():
    """Seven methods, three label counts, three seeds: all else of data, model and schedule is one."""
    runs = expand(read_sweep(find_sweep("camvid_protocol")))
    assert len(runs) == 7 * 3 * 3 == len({run.recipe.name for run in runs})
    assert {run.recipe.evaluate.scales for run in runs} == {(0.75,)}
    assert (
        len({(run.recipe.steps, run.recipe.optimizer, run.recipe.schedule, run.recipe.model.encoder) for run in runs})
        == 1
    )
    for count, seed in ((20, 0), (50, 1), (100, 2)):
        at = [run.recipe for run in runs if run.at["labels"] == str(count) and run.recipe.seed == seed]
        domains = [recipe.data.domains["camvid"] for recipe in at]
        assert len(at) == 7 and {domain.labeled.subset.count for domain in domains if domain.labeled.subset} == {count}
        assert len({(domain.labeled, domain.val, domain.augment) for domain in domains}) == 1
        assert {domain.val.splits for domain in domains if domain.val} == {("val",)}
    kinds = [{objective.kind for objective in run.recipe.objectives} for run in runs]
    assert sum("cross_consistency" in found for found in kinds) == 3 * 9


def test_sets_may_name_other_recipes(tmp_path: Path):
    file = tmp_path / "methods.toml"
    sets = '{ CCT = ["recipe=camvid_cct"], supervised = ["recipe=camvid_supervised"] }'
    file.write_text(
        f'name = "m"\nrecipe = "camvid_cct"\n[axes.method]\nsets = {sets}\n[axes.seed]\nkey="seed"\nvalues=[0, 1]'
    )
    runs = expand(read_sweep(file), ["steps=100"])
    assert [(run.recipe.name, len(run.recipe.objectives), run.recipe.steps) for run in runs] == [
        ("CCT-seed0", 2, 100), ("CCT-seed1", 2, 100), ("supervised-seed0", 1, 100), ("supervised-seed1", 1, 100)
    ]  # fmt: skip
    with pytest.raises(RecipeError, match="argument 'name=mine': runs of a sweep are named after their axes"):
        expand(read_sweep(file), ["name=mine"])
    with pytest.raises(RecipeError, match="CCT-seed0 and CCT-seed1 are the same training"):
        expand(read_sweep(file), ["seed=3"])
    file.write_text(file.read_text().replace("CCT =", '"super-vised" =').replace("supervised =", "super_vised ="))
    with pytest.raises(RecipeError, match="would share the folder super_vised-seed0"):
        expand(read_sweep(file), ["steps=100"])


def test_every_mistake_in_a_sweep_has_its_line(tmp_path: Path):
    file = tmp_path / "wrong.toml"
    file.write_text(
        'nam = "a"\nrecipe = 3\nrepeats = "sed"\n[axes.seed]\nkey = "seed"\nvalues = []\n[plot]\nx = "sede"\n'
    )
    with pytest.raises(RecipeError) as caught:
        read_sweep(file)
    faults = "\n".join(caught.value.faults)
    for words in (":1: nam: unknown key", "name: missing", ":2: recipe: expected a string", ":3: repeats", ":6: axes.seed",
                  ":8: plot.x", "did you mean 'seed'"):  # fmt: skip
        assert words in faults, faults
    file.write_text(
        'name = "a"\nrecipe = "quickstart"\nrepeats = ["seed"]\n[axes.recipe]\nkey = "seed"\nvalues = [1]\n[plot]\nx = ["K"]\n'
    )
    with pytest.raises(RecipeError) as caught:
        read_sweep(file)
    faults = "\n".join(caught.value.faults)
    for path, found in ((":3: repeats", '["seed"]'), (":8: plot.x", '["K"]')):
        assert f"{path}: expected a string, found {found}" in faults, faults
    assert ":4: axes.recipe: tables have a column of that name" in faults
    file.write_text(
        'name = "a"\nrecipe = "quickstart"\n[axes.method.sets]\n# plain = []\n[axes.seed]\nkey = "seed"\nvalues = [1, 2, 1]\n'
    )
    with pytest.raises(RecipeError, match=r":3: axes\.method\.sets: empty(.|\n)*:7: axes\.seed\.values: has 1 twice"):
        read_sweep(file)
    file.write_text(
        'name = "a b"\nrecipe = "quickstart"\n[axes.seed]\nkey = "seed"\n[axes.method.sets]\nlong = ["steps"]\n'
        '[axes.lr]\nkey = "optimizer.lr"\nvalues = [1]\nsets = { a = [] }\n'
    )
    with pytest.raises(RecipeError) as caught:
        read_sweep(file)
    faults = "\n".join(caught.value.faults)
    for words in (
        ":1: name: 'a b' cannot name a folder",
        ":3: axes.seed: expected 'key' and 'values', or 'sets' alone; found 'key'",
        ":6: axes.method.sets.long: expected a list of changes",
        ":7: axes.lr: expected 'key' and 'values', or 'sets' alone; found 'key', 'sets', 'values'",
    ):
        assert words in faults, faults
    file.write_text(
        'name = "a"\nrecipe = "quickstart"\n[axes.seed]\nkey = "seed"\nvalues = [1]\n[plot]\nlines = "seed"\n'
    )
    with pytest.raises(RecipeError, match=r"plot\.x: missing"):
        read_sweep(file)
    file.write_text('name = "a"\nrecipe = "quickstart"\n[axes.seed]\nkey = "seed"\nvalues = [1\n')
    with pytest.raises(RecipeError, match=r"wrong\.toml:\d: not TOML"):
        read_sweep(file)
    file.write_text('name = "a"\nrecipe = "quickstart"\n[axes.seed]\nkey = "seed"\nvalues = [1]\n[plot]\nx = "seed"\n')
    with pytest.raises(RecipeError, match=r":7: plot\.x: means are taken over 'seed'"):
        read_sweep(file)
    file.write_text(
        'name = "a"\nrecipe = "quickstart"\n[axes.lr]\nkey = "optimizer.weigth_decay"\nvalues = [0.1, 0.2]\n'
    )
    with pytest.raises(
        RecipeError,
        match=r"wrong\.toml: argument 'optimizer\.weigth_decay=0\.1': .*did you mean 'optimizer\.weight_decay'",
    ):
        expand(read_sweep(file))


def test_intervals_are_students():
    for freedom in (1, 2, 5, 16, 17, 30, 100):
        assert t975(freedom) == pytest.approx(t.ppf(0.975, freedom), abs=1e-3)
    scores = (41.0, 42.5, 44.0)
    row = Row(at={}, domain="a", scores=scores, planned=3)
    assert row.mean and row.half and row.sd and row.sd == statistics.stdev(scores)
    low, high = t.interval(0.95, 2, loc=statistics.mean(scores), scale=row.sd / 3**0.5)
    assert (row.mean - row.half, row.mean + row.half) == pytest.approx((low, high), abs=1e-3)


def test_the_papers_figure_has_a_panel_for_each_label_count(tmp_path: Path):
    sweep = read_sweep(find_sweep("camvid_perturbations"))
    rows = [
        Row(at={"perturbation": name, "K": k, "labels": labels}, domain="camvid", planned=3,
            scores=tuple(35 + 4 * i + int(k) ** 0.5 + 0.4 * number + 0.5 * seed for seed in range(3)))
        for number, name in enumerate(sweep.axes[0].points) for k in sweep.axes[1].points
        for i, labels in enumerate(sweep.axes[2].points)
    ]  # fmt: skip
    assert plot(sweep, rows, tmp_path / "plot.png")
    width, height = size_of(tmp_path / "plot.png")
    assert width > 2.5 * height  # three panels and a legend
    with Image.open(tmp_path / "plot.png") as opened:
        pixels = np.array(opened.convert("RGB"))
    for panel in range(3):  # left of the legend
        seen = {
            tuple(pixel) for pixel in pixels[:, panel * width * 2 // 8 : (panel + 1) * width * 2 // 8].reshape(-1, 3)
        }
        assert {tuple(bytes.fromhex(LIGHT[f"s{number}"][1:])) for number in range(7)} <= seen
    assert not plot(
        sweep, [Row(at=row.at, domain="camvid", scores=(), planned=3) for row in rows], tmp_path / "none.png"
    )


TINY = (
    "steps=6", "precision=no", "model.encoder.name=test_resnet", "data.domains.street.labeled.subset.count=6",
    "data.domains.street.augment={crop=[32,48]}", "data.workers=0", "log.every=1", "schedule.warmup=0", "checkpoint.every=1",
)  # fmt: skip


def test_a_sweep_killed_and_continued_runs_nothing_twice(scenes: Path, tmp_path: Path):
    """Two runs at a time: killed with them, killed without them (the next sweep waits), terminated; then one at a time."""
    file, folder = tmp_path / "small.toml", tmp_path / "small"
    sets = "\n".join(f"{k} = [\"objectives.1.perturbations=[{{kind='dropout', count={k}}}]\"]" for k in (1, 2))
    seeds = '[axes.seed]\nkey = "seed"\nvalues = [0, 1]'
    file.write_text(f'name = "small"\nrecipe = "quickstart"\n[axes.K.sets]\n{sets}\n{seeds}\n[plot]\nx = "K"\n')
    command = ("-m", "semiseg.cli", "sweep", file, f"data.shards={scenes}", f"runs={tmp_path}", *TINY)
    runs = [folder / f"{k}-seed{seed}" for k in (1, 2) for seed in (0, 1)]
    starts = dict.fromkeys(runs, 1)

    def open_among(some: list[Path], file: str) -> list[Path]:
        """Those without results that have a file."""
        return [run for run in some if any(run.glob(file)) and not (run / "results.json").exists()]

    for end, at_work in (("kill all", runs[:2]), ("kill", runs[:2]), ("terminate", runs[2:])):
        threads_are_free = {name: value for name, value in environment().items() if name != "OMP_NUM_THREADS"}
        threads_are_free["CUDA_VISIBLE_DEVICES"] = "3, 5"  # of a machine that has them
        output = tmp_path / f"{end}.txt"
        with output.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, *command, "--jobs", "2"], env=threads_are_free, stderr=stderr, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while not (
            open_among(at_work, "step-*")
            and output.read_text().count("started") == 2
            and {variable(child, "CUDA_VISIBLE_DEVICES") for child in children(process.pid)} == {"3", "5"}
        ):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        if end == "kill all":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.send_signal(signal.SIGKILL if end == "kill" else signal.SIGTERM)
        code, text = process.wait(), output.read_text()
        assert "done in" not in text  # both were at work
        if end == "terminate":
            assert code == 143 and "stopped; rerun the command to resume" in text
            assert "waiting: another sweep" in text and "2 of 4 runs are already complete" in text
            with (folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # no run was left behind
        if end != "kill":
            for run in open_among(at_work, "step-*"):
                starts[run] += 1
    (runs[0] / "results.json").write_text("{}")  # a run that cannot be read as complete is looked after, no other is
    starts[runs[0]] += 1
    before = {run: (run / "results.json").stat().st_mtime_ns for run in runs[:2]}
    done = python(*command)
    assert "1 of 4 runs are already complete" in done.stderr and f"{folder}/plot.png" in done.stderr
    assert [run for run in before if (run / "results.json").stat().st_mtime_ns != before[run]] == [runs[0]]
    table = json.loads((folder / "table.json").read_text())
    assert [row["n"] for row in table["rows"]] == [2, 2] and all(run["complete"] for run in table["runs"])
    scores = []
    for run in runs:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows if "lr" in row] == [1, 2, 3, 4, 5, 6]
        launches = json.loads((run / "env.json").read_text())["launches"]
        assert len(launches) == starts[run], run
        assert launches[0]["threads"] == max(1, cores() // 2)
        scores.append(json.loads((run / "results.json").read_text())["last"]["miou"])
    assert [row["scores"] for row in table["rows"]] == [scores[:2], scores[2:]]
    assert table["rows"][0]["mean"] == statistics.fmean(scores[:2])
    assert size_of(folder / "plot.png")[0] > 400
    assert len((folder / "table.csv").read_text().splitlines()) == 3
    (runs[3] / "results.json").unlink()
    for more in ((), ("--dry-run",)):  # the sweep was changed: nothing is trained, no table is touched
        refused = python(*command, "steps=8", *more, expect=1).stderr
        assert f"{runs[0]} holds a run of another recipe (steps: 6 -> 8)" in refused and str(runs[3]) in refused
        assert "give the sweep another name or runs=FOLDER" in refused and "Traceback" not in refused
        assert json.loads((folder / "table.json").read_text()) == table


def children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def variable(process: int, name: str) -> str:
    """Of a process; "" if it has ended."""
    with suppress(OSError):
        variables = Path(f"/proc/{process}/environ").read_text().split("\0")
        return next((text.removeprefix(f"{name}=") for text in variables if text.startswith(f"{name}=")), "")
    return ""


def test_a_run_that_fails_does_not_end_the_sweep(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nor does matplotlib that is not installed."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "matplotlib.py").write_text("raise ImportError('not installed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"), prepend=os.pathsep)
    file = tmp_path / "lr.toml"
    file.write_text(
        'name = "lr"\nrecipe = "quickstart"\n[axes.lr]\nkey = "optimizer.lr"\nvalues = [1e30, 0.01]\n[plot]\nx = "lr"\n'
    )
    changes = (f"data.shards={scenes}", f"runs={tmp_path}", *TINY, "steps=3")
    stderr = python("-m", "semiseg.cli", "sweep", file, *changes, "--jobs", "3", expect=1).stderr
    assert "1 of 2 runs failed" in stderr and "Lower optimizer.lr" in stderr and "Traceback" not in stderr
    assert "1/2 lr1e_30: FAILED" in stderr and "2/2 lr0.01: done" in stderr
    assert "no plot.png (not installed); pip install 'semiseg-train[plots]'" in stderr
    assert [row["n"] for row in json.loads((tmp_path / "lr" / "table.json").read_text())["rows"]] == [0, 1]


def test_a_failed_run_gives_the_reason_of_its_own_start(tmp_path: Path):
    run = expand(read_sweep(find_sweep("street_small")), [f"runs={tmp_path}"])[0]
    run.folder.mkdir(parents=True)
    (run.folder / "output.log").write_text("error: no space left on device\nstep 1\n")
    assert _reason(run, 1, 0).startswith("exit code 1: no space left on device (full output: ")
    assert _reason(run, 1, 31).startswith("exit code 1: step 1 (full output: ")
    assert _reason(run, -9, 0).startswith("killed by SIGKILL, which the system also sends when memory runs out (")


def test_a_run_is_expected_to_take_as_long_as_those_of_its_method():
    """Otherwise, the slow methods at the end of each seed would make the time left vary by half."""
    runs = expand(read_sweep(find_sweep("camvid_protocol")))
    pace = Pace(runs)
    assert pace.of("labels20-seed0-cct") is None
    pace.add("labels20-seed0-supervised", 1.0)
    assert pace.of("labels20-seed0-cct") == 1.0  # nothing nearer is known
    for method, seconds in (("cct", 2.0), ("cct_structured", 3.0)):
        for seed, longer in enumerate((0.0, 0.5, 0.1)):
            pace.add(f"labels20-seed{seed}-{method}", seconds + longer)
    assert pace.of("labels100-seed2-cct") == 2.1 and pace.of("labels50-seed1-cct_structured") == 3.1
    assert pace.of("labels50-seed0-supervised") == pace.of("labels20-seed1-supervised_abce") == 1.0


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as opened:
        return opened.size
