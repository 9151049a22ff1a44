"""What a run may be continued with: allowed, refused with the difference named, or told to go on and on record."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from semiseg.data import SemisegError
from semiseg.train.loop import train
from semiseg.train.recipe import Recipe
from semiseg.train.run.resume import Topology, data_changes, topology_changes
from semiseg.train.run.revision import revision

Tiny = Callable[..., Recipe]
FROZEN = ("model.norm=frozen", "steps=4", "checkpoint.every=2", "checkpoint.keep=9", "evaluate.every=9")


def rows(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [line for line in lines if "lr" in line]
    return [{name: value for name, value in line.items() if "/" in name or name == "lr"} for line in kept]


@pytest.fixture
def cut(tiny: Tiny, tmp_path: Path) -> Callable[..., tuple[Path, list[dict]]]:
    """Train four steps, then leave what a kill after the checkpoint of step 2 leaves; the folder, and all rows."""

    def cut(*overrides: str) -> tuple[Path, list[dict]]:
        run = train(tiny(*FROZEN, *overrides), quiet=True).folder
        straight = rows(run)
        shutil.rmtree(run / "step-00000004")
        (run / "results.json").unlink()
        return run, straight

    return cut


def test_micro_steps_workers_and_places_may_change(cut: Callable, tiny: Tiny, tmp_path: Path, scenes: Path):
    """With frozen normalisation losses stay equal up to the order of sums; every start is on record."""
    run, straight = cut()
    shutil.copytree(scenes, tmp_path / "moved")
    other = tiny(*FROZEN, "accumulate=3", "data.workers=1", f"data.shards={tmp_path / 'moved'}", "log.every=1")
    results = train(other, quiet=True).results
    assert rows(run)[:2] == straight[:2]
    for one, two in zip(straight, rows(run), strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    told = [(each["start"], each["accumulate"], each["changes"]) for each in results["launches"]]
    assert told == [(0, 1, []), (2, 3, [])]
    launches = json.loads((run / "env.json").read_text())["launches"]
    assert [each["workers"] for each in launches] == [0, 1]
    own = revision()  # other files of the checkout may change while tests run: only the commit is compared
    assert [each["commit"] for each in launches + results["launches"]] == [own["commit"]] * 4
    assert {type(each["dirty"]) for each in launches + results["launches"]} == {type(own["dirty"])}
    assert "accumulate = 3" in (run / "recipe.toml").read_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("seed=1", "seed: 0 -> 1"),
        ("optimizer.lr=0.01", "optimizer.lr: 0.05 -> 0.01"),
        ("data.domains.street.labeled.batch_size=4", r"data\.domains\.street\.labeled\.batch_size: 3 -> 4"),
        ("data.domains.street.labeled.subset.count=5", r"subset\.count: 6 -> 5"),
    ],
)
def test_another_recipe_is_refused_or_goes_on_and_tells(cut: Callable, tiny: Tiny, change: str, told: str):
    run, straight = cut()
    before = (run / "recipe.toml").read_text()
    with pytest.raises(SemisegError, match=rf"{told}.*--allow-changes"):
        train(tiny(*FROZEN, change), quiet=True)
    assert (run / "recipe.toml").read_text() == before
    results = train(tiny(*FROZEN, change), quiet=True, allow_changes=True).results
    assert rows(run)[:2] == straight[:2] and rows(run)[2:] != straight[2:]
    last = results["launches"][-1]
    assert last["start"] == 2 and any(
        each == told.replace("\\", "") or told.split(": ")[-1] in each for each in last["changes"]
    )
    assert results["launches"][0]["changes"] == []


def test_a_rate_that_was_changed_is_in_force(cut: Callable, tiny: Tiny):
    """The optimizer's state is the checkpoint's, its settings are the recipe's."""
    run, straight = cut()
    train(tiny(*FROZEN, "optimizer.lr=0.01"), quiet=True, allow_changes=True)
    rates = [row["lr"] for row in rows(run)]
    assert rates[:2] == [row["lr"] for row in straight[:2]]
    assert rates[2:] == pytest.approx([row["lr"] / 5 for row in straight[2:]])
    import torch

    groups = torch.load(run / "step-00000004" / "optimizer.pt", weights_only=True)["param_groups"]
    assert {group["base_lr"] for group in groups} == {0.01}


def test_weights_of_another_form_are_refused_in_any_case(cut: Callable, tiny: Tiny):
    run, _ = cut()
    for change in ("model.context.channels=16", "optimizer={kind='adamw', lr=0.01}"):
        with pytest.raises(SemisegError, match=r"weights of another form .*model\.start="):
            train(tiny(*FROZEN, change), quiet=True, allow_changes=True)
    fewer = "objectives.1.perturbations=[{kind = 'dropout', count = 1}]"
    with pytest.raises(SemisegError, match=r"does not fit this recipe .*model\.start="):
        train(tiny(*FROZEN, fewer), quiet=True, allow_changes=True)
    assert (run / "step-00000002").is_dir()


def test_batch_norm_depends_on_the_parts_of_a_batch(cut: Callable, tiny: Tiny):
    norm = (
        "model.norm=batch",
        "data.domains.street.labeled.batch_size=4",
        "data.domains.street.unlabeled.batch_size=4",
    )
    run, straight = cut(*norm)
    with pytest.raises(SemisegError, match=r'accumulate: 1 -> 2, while model\.norm = "batch" .*--allow-changes'):
        train(tiny(*FROZEN, *norm, "accumulate=2"), quiet=True)
    results = train(tiny(*FROZEN, *norm, "accumulate=2"), quiet=True, allow_changes=True).results
    assert "accumulate: 1 -> 2" in results["launches"][-1]["changes"][0]
    assert rows(run)[2]["street/supervised"] != pytest.approx(straight[2]["street/supervised"], rel=1e-3)


def test_a_complete_run_is_complete_on_any_topology(tiny: Tiny):
    first = train(tiny(*FROZEN, "model.norm=batch", "steps=2"), quiet=True).results
    again = train(tiny(*FROZEN, "model.norm=batch", "steps=2", "data.workers=1"), quiet=True).results
    assert again == first


@pytest.mark.parametrize(
    ("norm", "before", "now", "equal"),
    [
        ("frozen", (2, 1), (4, 3), True),
        ("sync", (2, 1), (4, 1), True),
        ("sync", (2, 2), (2, 2), True),
        ("sync", (2, 2), (4, 2), False),  # a micro-step is normalised: other images meet in it
        ("sync", (2, 1), (2, 2), False),
        ("batch", (2, 1), (2, 1), True),
        ("batch", (2, 1), (1, 1), False),
        ("batch", (2, 1), (1, 2), False),
    ],
)
def test_which_topologies_see_the_same_images_together(norm: str, before: tuple, now: tuple, equal: bool):
    old, new = (Topology(processes=p, accumulate=a, precision="no") for p, a in (before, now))
    changed = topology_changes(asdict(old), new, norm)
    assert (changed == []) == equal, changed
    assert topology_changes({}, new, norm) == [], "checkpoints that don't tell are taken as they are"


def test_another_precision_and_other_streams_are_named():
    old, new = (
        Topology(processes=1, accumulate=1, precision="bf16"),
        Topology(processes=1, accumulate=1, precision="no"),
    )
    assert topology_changes(asdict(old), new, "frozen") == ["precision: bf16 -> no"]
    found = data_changes({"a": "1" * 64, "b": "2" * 64}, {"a": "1" * 64, "c": "3" * 64})
    assert found == [f"data of b: {'2' * 12} -> none", f"data of c: none -> {'3' * 12}"]
