"""The VOC recipes: they differ only in the method, and run on shards of the real pairs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semiseg.data import shard
from semiseg.datasets.voc import VOC

load = pytest.importorskip("semiseg.train.recipe.load", reason="NOT TESTED: recipes; semiseg-train is not installed")
RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture(scope="module")
def shards(voc_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real pairs, 3 of train, 20 of val and 22 of trainaug, in the layout that the recipes expect."""
    folder = tmp_path_factory.mktemp("shards")
    for split in ("train", "val", "trainaug"):
        shard(VOC(voc_root), split, folder)
    return folder


@pytest.fixture
def semiseg(shards: Path) -> Callable[..., str]:
    """semiseg(words...) -> what the command prints; batches as small as the real lists are short, and small crops."""
    from semiseg.cli.main import build_app

    smaller = ["data.domains.voc.labeled.batch_size=2", "data.domains.voc.augment.crop=[97, 97]"]

    def run(*words: str) -> str:
        done = CliRunner().invoke(build_app(), [*words, f"data.shards={shards}", *smaller])
        assert done.exit_code == 0, done.output
        return done.output

    return run


def test_both_recipes_pass_their_check_and_a_dry_run(semiseg: Callable[..., str]) -> None:
    """The network is the paper's: ResNet-50 with a deep stem and PSP, 30 auxiliary decoders of 16,296 parameters."""
    for name in ("voc_cct", "voc_supervised"):
        semiseg("recipe", "check", str(RECIPES / f"{name}.toml"), "model.encoder.weights=none")  # no hub in tests
    cct = semiseg("train", str(RECIPES / "voc_cct.toml"), "--dry-run")
    assert "voc labeled: 3 of 3 images, 2 a step" in cct
    assert "voc unlabeled: 19 of 22 images, 10 a step" in cct
    assert "voc val: 20 images" in cct
    assert "encoder 23,631,808, context 23,073,792, decoders 16,296, objectives 488,880" in cct
    baseline = semiseg("train", str(RECIPES / "voc_supervised.toml"), "--dry-run")
    assert "unlabeled" not in baseline
    assert "voc objectives: Supervised\n" in baseline


def test_the_supervised_baseline_differs_only_in_the_method() -> None:
    from semiseg.train.recipe import CrossConsistency, Supervised
    from semiseg.train.recipe.load import changes

    cct, baseline = (load.load(RECIPES / f"voc_{name}.toml") for name in ("cct", "supervised"))
    supervised, consistency = cct.objectives
    assert isinstance(supervised, Supervised) and isinstance(consistency, CrossConsistency)
    assert sum(perturbation.count for perturbation in consistency.perturbations) == 30
    domain = replace(cct.data.domains["voc"], unlabeled=None)
    alone = replace(cct, objectives=(supervised,), data=replace(cct.data, domains={"voc": domain}))
    assert changes(alone, baseline) == []


def test_after_sharding_the_next_command_is_named(voc_root: Path) -> None:
    dataset = VOC(voc_root)
    assert dataset.next_steps(["train", "val", "trainaug"], "shards/") == [
        "semiseg train voc_supervised",
        "semiseg train voc_cct",
    ]
    assert dataset.next_steps(["train", "val"], "/data/s") == ["semiseg train voc_supervised data.shards=/data/s"]
    assert dataset.next_steps(["trainaug"], "shards/") == []
