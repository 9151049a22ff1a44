"""The schema, and the recipes in recipes/."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest

from semiseg.data import Taxonomy
from semiseg.train.recipe import CrossConsistency, Labeled, Recipe, Supervised
from semiseg.train.recipe.load import changes, load, schema, to_toml
from semiseg.train.recipe.shipped import find, heading, shipped

ROOT = Path(__file__).parents[3]


def test_the_schema_is_frozen_and_imports_nothing_heavy() -> None:
    labeled = Labeled(dataset="d", split=("a", "b"), batch_size=2)
    assert labeled.splits == ("a", "b")
    with pytest.raises(FrozenInstanceError):
        labeled.batch_size = 3  # type: ignore[misc]
    code = "import sys, semiseg.train.recipe, semiseg.train.commands.recipe; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pydantic", "numpy", "semiseg.train.recipe.load"} & set(loaded)


def test_the_json_schema_of_editors_is_current() -> None:
    """Regenerate it with: semiseg recipe schema > recipes/recipe.schema.json"""
    written = json.loads((ROOT / "recipes" / "recipe.schema.json").read_text())
    assert written == schema()
    assert set(written["properties"]) == {field.name for field in fields(Recipe)}
    assert written["additionalProperties"] is False


def test_all_recipes_of_the_repository_are_shipped() -> None:
    assert set(shipped().values()) == set((ROOT / "recipes").glob("*.toml"))
    assert {"quickstart", "street_room_cct", "camvid_cct", "camvid_supervised"} <= set(shipped())


@pytest.mark.parametrize("name", sorted(shipped()))
def test_an_included_recipe_loads_and_has_a_heading(name: str, tmp_path: Path) -> None:
    path = find(name)
    text = path.read_text(encoding="utf-8")
    recipe = load(path)
    assert recipe.name.replace("-", "_") == name
    assert text.startswith("#:schema recipe.schema.json\n# ")
    assert heading(path) == text.splitlines()[1].removeprefix("# ")
    for domain in recipe.data.domains.values():
        folder = f"semiseg data shard folder PATH --option name={domain.labeled.dataset}"
        assert f"semiseg data shard {domain.labeled.dataset}" in text or folder in text
    resolved = tmp_path / "recipe.toml"
    resolved.write_text(to_toml(recipe), encoding="utf-8")
    assert load(resolved) == recipe


def test_recipes_name_taxonomies_that_exist() -> None:
    known = {*Taxonomy.all(), "mydata"}  # "mydata" stands for the user's data set
    assert {domain.taxonomy for path in shipped().values() for domain in load(path).data.domains.values()} <= known


def test_the_supervised_baseline_differs_only_in_the_method() -> None:
    cct, baseline = load(find("camvid_cct")), load(find("camvid_supervised"))
    domain = replace(cct.data.domains["camvid"], unlabeled=None)
    objectives = tuple(objective for objective in cct.objectives if isinstance(objective, Supervised))
    assert len(cct.objectives) == 2 and isinstance(cct.objectives[1], CrossConsistency)
    supervised = replace(cct, objectives=objectives, data=replace(cct.data, domains={"camvid": domain}))
    assert changes(supervised, baseline) == []
