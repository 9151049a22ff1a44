"""Typical mistakes at the command line, with the words that come back. One line each, no traceback, exit code 1 or 2."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import run

import pytest

from semiseg.train.recipe.load import RecipeError, load

MISTAKES = {  # arguments after `semiseg train RECIPE` -> exit code and words
    "--steps 100": (2, "unknown option '--steps 100'; write steps=100"),
    "--epochs 6": (
        2,
        "a recipe counts steps (batches), not epochs: write steps=12 for 6 epochs of the 6 labeled images in ",
    ),
    "epochs=10": (
        1,
        "argument 'epochs=10': unknown key; a recipe counts steps (batches), not epochs: write steps=20 for 10 ",
    ),
    "epochs=many": (1, "a recipe counts steps (batches), not epochs: write steps=N"),
    "--device cuda": (
        2,
        "unknown option '--device cuda'; a GPU is used if there is one; for several: accelerate launch",
    ),
    "--gpu": (2, "unknown option '--gpu'; a GPU is used if there is one"),
    "lr=0.1": (1, "argument 'lr=0.1': unknown key; write optimizer.lr=0.1"),
    "batch_size=8": (1, "unknown key; write data.domains.street.labeled.batch_size=8, and so for each other source"),
    "--batch-size=8": (2, "unknown option '--batch-size=8'; write data.domains.street.labeled.batch_size=8"),
    "model=resnet50": (
        1,
        "argument 'model=resnet50': expected a table, found \"resnet50\"; write model.encoder.name=resnet50",
    ),
    "--data photos": (2, "unknown option '--data photos'; write data.shards=photos if it contains shards"),
    "--resume": (2, "unknown option '--resume'; to resume a run, rerun the command that started it"),
    "--output out": (2, "unknown option '--output out'; write runs=out; a run's folder is <runs>/<name>"),
    "--seed 3": (2, "unknown option '--seed 3'; write seed=3"),
    "--dryrun": (2, "unknown option '--dryrun'; did you mean '--dry-run'?"),
    "--crop 64": (2, "write data.domains.street.augment.crop=[64, 64]"),
    "--momentum 0.9": (2, "unknown option '--momentum 0.9'; options: --allow-changes, --dry-run, --"),
    "stepz=3": (1, "argument 'stepz=3': unknown key; did you mean 'steps'?"),
    "100": (1, "argument '100': expected key=value, such as steps=100"),
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_settings_typed_as_in_other_programs(
    arguments: str, recipe_file: Callable[..., Path], invoke: Callable[..., tuple[int, str]]
) -> None:
    code, words = MISTAKES[arguments]
    found, text = invoke("train", str(recipe_file()), *arguments.split())
    assert words in text and (found, text.count("\n")) == (code, 1), text


@pytest.fixture
def invoke() -> Callable[..., tuple[int, str]]:
    """Exit code and messages of a command, with SemisegErrors as `semiseg` prints them."""
    from typer.testing import CliRunner

    from semiseg.cli.main import build_app
    from semiseg.data import SemisegError

    def call(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(build_app(), list(arguments))
        if isinstance(done.exception, SemisegError):
            return 1, f"error: {done.exception}\n"
        return done.exit_code, done.stderr

    return call


def test_what_is_given_in_place_of_a_recipe(invoke: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    code, text = invoke("train", str(folder))
    assert code == 1 and f"{folder}: a folder, expected a recipe (a TOML file or a name); in it: none; " in text
    assert text.endswith(f"to write shards of its images: semiseg data shard folder {folder} --to shards/\n")
    (folder / "mine.toml").write_text("")
    assert f"in it: {folder}/mine.toml\n" in invoke("train", str(folder))[1]
    (folder / "mine.yaml").write_text("steps: 3")
    code, text = invoke("train", str(folder / "mine.yaml"))
    assert code == 1 and "mine.yaml: a recipe is a TOML file, NAME.toml; copy one to edit: semiseg recipe cp" in text
    assert "did you mean 'camvid_cct'?" in invoke("train", "camvid_cc")[1]


def test_the_module_explains_options_as_the_command_does(recipe_file: Callable[..., Path]) -> None:
    command = [sys.executable, "-m", "semiseg.train", str(recipe_file()), "--steps", "100", "--seed=3"]
    done = run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert (
        done.stderr == "error: unknown option '--steps 100'; write steps=100\nunknown option '--seed=3'; write seed=3\n"
    )


def test_an_item_of_a_list_is_removed_and_the_others_move_up(recipe_file: Callable[..., Path]) -> None:
    path = recipe_file()
    whole = load(path)
    assert load(path, ["objectives.1="]).objectives == whole.objectives[:1]
    perturbations = whole.objectives[1].perturbations  # type: ignore[union-attr]
    (_, left) = load(path, ["objectives.1.perturbations.0="]).objectives
    assert left.perturbations == perturbations[1:]  # type: ignore[union-attr]
    line = 1 + path.read_text().splitlines().index('kind = "cross_consistency"') + 1
    with pytest.raises(RecipeError) as caught:
        load(path, ["objectives.0=", "objectives.0.weight.value=-1"])
    assert caught.value.faults[0].startswith("argument 'objectives.0.weight.value=-1': ")
    path.write_text(path.read_text().replace("value = 10,", "value = -1,"))
    with pytest.raises(RecipeError) as caught:
        load(path, ["objectives.0="])
    assert caught.value.faults[0].startswith(f"{path}:{line}: objectives.0.weight.value: ")


def test_recipes_are_listed_on_80_columns(
    invoke: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from semiseg.cli.main import build_app

    monkeypatch.setenv("COLUMNS", "80")
    lines = CliRunner().invoke(build_app(), ["recipe", "ls"]).stdout.splitlines()
    names = [
        recipe["name"] for recipe in json.loads(CliRunner().invoke(build_app(), ["recipe", "ls", "--json"]).stdout)
    ]
    assert max(map(len, lines)) <= 80 and "arxiv" not in "".join(lines)
    assert len(lines) <= 3 * len(names) and set(names) <= {line.split(" ")[0] for line in lines}
