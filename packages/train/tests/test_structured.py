"""Recipes with a teacher: their mistakes, what is evaluated, what is saved and used."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from semiseg.data import Taxonomy
from semiseg.models import from_pretrained
from semiseg.train.assemble.learner import build_learner
from semiseg.train.assemble.model import build_model
from semiseg.train.assemble.sources import build_sources
from semiseg.train.commands import score as commands
from semiseg.train.loop import train
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.load import RecipeError, changes, load
from semiseg.train.recipe.preflight import preflight
from semiseg.train.recipe.shards import classes_of
from semiseg.train.recipe.shipped import find

Tiny = Callable[..., Recipe]
CROSS = "{kind='cross_consistency', perturbations=[{kind='dropout'}, {kind='vat'}]}"
SHORT = ("steps=2", "evaluate.every=2", "precision=no")


def objectives(structured: str = "", loss: str = "{kind='cross_entropy'}", *more: str) -> str:
    """The override for a supervised and a structured objective, and others."""
    settings = ", ".join(["kind='structured_consistency'", *([structured] if structured else [])])
    supervised = f"{{kind='supervised', loss={loss}}}"
    return f"objectives=[{', '.join([supervised, f'{{{settings}}}', *more])}]"


def taxonomy_of(recipe: Recipe) -> Taxonomy:
    return build_sources(recipe, fill=(0, 0, 0)).taxonomies["street"]


@pytest.fixture
def faults(recipe_file: Callable[..., Path]) -> Callable[..., list[str]]:
    def find(*overrides: str, domains: int = 1) -> list[str]:
        try:
            preflight(load(recipe_file(domains=domains), overrides))
        except RecipeError as error:
            return list(error.faults)
        return []

    return find


def test_rules(faults: Callable[..., list[str]]) -> None:
    assert faults(objectives()) == faults(objectives("pairs=9000"), "evaluate.weights=both") == []
    expected = {
        objectives("boxes={count=8}"):
            "boxes.compared: compares the last 16 of only 8 boxes; lower it to 8, or raise boxes.count",
        objectives("structure={value=3, shape='linear', start=0.95}"): "structure: the ramp ends after training",
        objectives("", "{kind='relaxed', window=4}"):
            "loss.window: a window of 4 pixels has no central pixel; set an odd",
        objectives("", "{kind='relaxed', strict=['road', 'poles']}"): "unknown class 'poles'; did you mean 'pole'?",
        objectives("pairs='al'"): 'pairs: expected "all" or an integer >= 1, found "al"',
        "evaluate.weights=teacher": "there is no teacher; set \"student\", or add a section",
        "data.domains.street.unlabeled=": "objectives.1 (cross_consistency) needs it",
    }  # fmt: skip
    for override, message in expected.items():
        found = faults(override)
        assert len(found) == 1 and message in found[0], (override, found)
    (missing,) = faults(objectives(), "data.domains.street.unlabeled=")
    assert "objectives.1 (structured_consistency) needs it" in missing


def test_one_teacher_for_all_domains(faults: Callable[..., list[str]]) -> None:
    both = objectives(
        "domains=['street']", "{kind='ohem'}", "{kind='structured_consistency', domains=['room'], teacher_decay=0.9}"
    )
    (found,) = faults(both, domains=2)
    assert "objectives.2.teacher_decay: 0.9, but objectives.1 has 0.999, and all share one teacher" in found


def test_a_teacher_of_the_recipe_serves_all(tiny: Tiny, faults: Callable[..., list[str]]) -> None:
    """Supervised training has one too, and an objective's own settings must not contradict it."""
    section = "teacher={decay=0.9, rule='average', buffers='copy'}"
    for chosen in (objectives(), "objectives=[{kind='supervised'}]"):
        recipe = tiny(chosen, section, "evaluate.weights=teacher", *SHORT)
        learner = build_learner(recipe, build_model(recipe.model, classes_of(recipe)), {"street": taxonomy_of(recipe)})
        assert learner.teacher is not None and learner.teacher.buffered == "copy"
        assert [learner.teacher.decay_at(step) for step in (0, 1, 3, 99)] == [0, 0.5, 0.75, 0.9]
    folder = train(recipe, quiet=True).folder
    last = folder / "step-00000002"
    student, teacher = (load_file(path / "model.safetensors") for path in (last / "student", last))
    assert any(not student[name].equal(teacher[name]) for name in student)
    (found,) = faults(objectives("teacher_decay=0.5"), section)
    assert "objectives.1.teacher_decay: 0.5, but all objectives share the teacher of [teacher]; remove this" in found


def test_a_pair_needs_one_size_even_alone(faults: Callable[..., list[str]], scenes: Path, tmp_path: Path) -> None:
    """One student a step is two images."""
    from semiseg.data import open_dataset, shard

    shard(open_dataset("street", size="40x32", train_count=4, val_count=1), "train", tmp_path)
    (tmp_path / "street" / "train").rename(tmp_path / "street" / "small")
    for split in ("train", "val"):
        (tmp_path / "street" / split).symlink_to(scenes / "street" / split)
    alone = ("data.domains.street.augment={}", "model.context.kind=none", f"data.shards={tmp_path}",
             "data.domains.street.unlabeled={dataset='street', split=['train', 'small'], batch_size=1}")  # fmt: skip
    assert faults(*alone) == []
    (found,) = faults(*alone, objectives())
    assert "unlabeled.batch_size: images of 2 sizes" in found


@pytest.mark.parametrize("weights", ["student", "teacher", "both"])
def test_what_is_judged_is_what_is_saved_and_used(tiny: Tiny, tmp_path: Path, weights: str) -> None:
    recipe = tiny(objectives("", "{kind='relaxed'}", CROSS), f"evaluate.weights={weights}", *SHORT)
    folder = train(recipe, quiet=True).folder
    step = folder / "step-00000002"
    other = "student" if weights == "teacher" else "teacher"
    assert [path.name for path in step.iterdir() if path.is_dir()] == [other]
    first, second = load_file(step / "model.safetensors"), load_file(step / other / "model.safetensors")
    assert first.keys() == second.keys() and any(not first[name].equal(second[name]) for name in first)
    (best,) = folder.glob("best-*")
    assert all(value.equal(first[name]) for name, value in load_file(best / "model.safetensors").items())
    assert all(value.equal(first[name]) for name, value in from_pretrained(folder).state_dict().items())

    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert ("street/teacher/miou" in lines[-1]) == (weights == "both")
    result = json.loads((folder / "results.json").read_text())
    assert ("teacher" in result["last"]) == (weights == "both")
    scored = CliRunner().invoke(_app(), ["evaluate", str(folder), "--json", "--workers", "0"])
    assert json.loads(scored.stdout)["street"]["miou"] == pytest.approx(result["last"]["miou"], abs=1e-3)
    exported = CliRunner().invoke(_app(), ["export", str(folder), "--to", str(tmp_path / "out")])
    assert exported.exit_code == 0
    assert all(value.equal(first[name]) for name, value in load_file(tmp_path / "out" / "model.safetensors").items())


def test_weight_zero_equals_supervised_training(tiny: Tiny) -> None:
    """Losses and gradients; frozen normalisation, so that the further passes leave no trace."""
    zero = "pixel={value=0, shape='constant'}, structure={value=0, shape='constant'}"
    gradients = []
    for chosen in (objectives(zero), "objectives=[{kind='supervised'}]"):
        recipe = tiny(chosen, "model.norm=frozen")
        torch.manual_seed(0)
        model = build_model(recipe.model, classes_of(recipe))
        sources = build_sources(recipe, fill=(0, 0, 0))
        learner = build_learner(recipe, model, sources.taxonomies).train()
        from semiseg.train.step.batches import StepData

        batch = StepData(sources.streams)[0]
        assert isinstance(batch, dict)
        learner(batch, step=0, steps=4).total.backward()
        gradients.append({name: p.grad for name, p in learner.model.named_parameters()})
    assert all(g is not None and g.equal(gradients[1][name]) for name, g in gradients[0].items())


def test_the_recipes_differ_in_their_method_alone() -> None:
    """Of equal data and updates as CCT's; what is evaluated beside the student is no part of that."""
    structured, cutmix, cross, both = (
        load(find(f"camvid_{name}")) for name in ("structured", "cutmix", "cct", "cct_structured")
    )
    assert changes(structured, cutmix) == ["objectives.1.structure.value: 0.45 -> 0.0"]
    assert changes(structured, replace(cross, objectives=structured.objectives)) == []
    assert changes(both, replace(cross, objectives=(*cross.objectives, structured.objectives[1]))) == []


def _app():
    import typer

    app = typer.Typer()
    app.command()(commands.evaluate)
    app.command()(commands.export)
    return app
