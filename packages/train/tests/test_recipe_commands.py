"""`semiseg recipe ...`, as a user runs it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semiseg.train.commands.recipe import app
from semiseg.train.recipe.load import RecipeError, load
from semiseg.train.recipe.shipped import find, shipped


def run(*arguments: str) -> str:
    """Standard output of a command that succeeds."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_ls_names_every_shipped_recipe() -> None:
    assert [recipe["name"] for recipe in json.loads(run("ls", "--json"))] == list(shipped())
    text = run("ls")
    assert all(name in text for name in shipped())


def test_cp_keeps_comments_and_overwrites_nothing(tmp_path: Path) -> None:
    assert run("cp", "quickstart", str(tmp_path)).strip() == str(tmp_path / "quickstart.toml")
    copied, source = (tmp_path / "quickstart.toml").read_text(), find("quickstart").read_text()
    assert source == f"#:schema recipe.schema.json\n{copied}"
    with pytest.raises(Exception, match="already exists; choose another name, or overwrite it with --force"):
        run("cp", "quickstart", str(tmp_path))
    run("cp", "camvid_cct", str(tmp_path / "quickstart.toml"), "--force")
    assert load(tmp_path / "quickstart.toml").name == "camvid-cct"


def test_show_prints_a_recipe_that_loads(tmp_path: Path) -> None:
    path = tmp_path / "shown.toml"
    path.write_text(run("show", "quickstart", "seed=3"))
    assert load(path) == load(find("quickstart"), ["seed=3"])
    assert json.loads(run("show", "quickstart", "seed=3", "--json"))["seed"] == 3


def test_check_prints_ok_or_every_fault(scenes: Path) -> None:
    here = f"data.shards={scenes}"
    assert run("check", "quickstart", here, "data.domains.street.labeled.subset.count=5").startswith("ok: quickstart: ")
    result = CliRunner().invoke(app, ["check", "quickstart", here, "--json"])
    assert result.exit_code == 1
    (fault,) = json.loads(result.stdout)["faults"]
    assert fault.endswith("asks for 20 of 18 samples; ask for 18 at most")
    with pytest.raises(RecipeError, match="asks for 20 of 18 samples"):
        run("check", "quickstart", here)


def test_diff_names_keys() -> None:
    found = run("diff", "camvid_cct", "camvid_supervised").splitlines()
    assert 'name: "camvid-cct" -> "camvid-supervised"' in found
    assert all(line.startswith(("name", "paper", "data.domains.camvid.unlabeled", "objectives.1")) for line in found)
    assert run("diff", "quickstart", "quickstart") == ""


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'quickstart'"):
        run("show", "quikstart")
