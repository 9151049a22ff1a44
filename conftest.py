"""Fixtures for all tests of the repository. Imports are lazy: some tests run where torch is not installed."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

with suppress(ImportError):  # before a test module under datasets/ makes pytest take that folder for the package
    import datasets  # noqa: F401

if TYPE_CHECKING:
    import numpy as np

    from semiseg.train.recipe import Recipe

ROOT = Path(__file__).parent
REAL_IMAGES = "SEMISEG_TEST_DATA"  # names a folder with camvid/, VOCdevkit/VOC2012/ and nyuv2_13/; see CONTRIBUTING.md


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Every test starts from the same state of the global random generator."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real images; tests that need it are skipped, loudly, if SEMISEG_TEST_DATA is not set."""
    if not os.environ.get(REAL_IMAGES):
        pytest.skip(f"NO REAL DATA: set {REAL_IMAGES} to a folder of real images to run this test")
    folder = Path(os.environ[REAL_IMAGES]).expanduser().absolute()
    if not folder.is_dir():
        pytest.fail(f"{REAL_IMAGES}={folder} is not a folder; correct it, or unset it to skip tests on real images")
    return folder


@pytest.fixture(scope="session")
def camvid_root(test_data: Path) -> Path:
    """CamVid in SegNet's layout (train and val)."""
    return test_data / "camvid"


RECIPE = """
name = "tiny"
steps = 8
precision = "no"
runs = "{runs}"

[data]
shards = "{shards}"
workers = 0

[data.domains.street]
taxonomy = "{street}"
augment = {{ scale = [0.8, 1.5], crop = [32, 48], flip = 0.5 }}
labeled = {{ dataset = "street", split = "train", subset = {{ count = 6 }}, batch_size = 3 }}
unlabeled = {{ dataset = "street", split = "train", minus = "labeled", batch_size = 3 }}
val = {{ dataset = "street", split = "val" }}
{room}
[model]
encoder = {{ name = "test_resnet", output_stride = 8, weights = "none" }}
context = {{ kind = "psp", channels = 32 }}
norm = "batch"

[[objectives]]
kind = "supervised"

[[objectives]]
kind = "cross_consistency"
weight = {{ value = 10, over = 0.3 }}
perturbations = [
  {{ kind = "dropout" }}, {{ kind = "feature_drop" }}, {{ kind = "feature_noise" }}, {{ kind = "guided_cutout" }},
  {{ kind = "vat" }}, {{ kind = "context_mask" }}, {{ kind = "object_mask" }},
]

[optimizer]
kind = "sgd"
lr = 0.05

[log]
every = 1

[evaluate]
every = 4

[checkpoint]
every = 2
"""

ROOM = """
[data.domains.room]
taxonomy = "{room}"
augment = {{ crop = [40, 32], flip = 0.5 }}
labeled = {{ dataset = "room", split = "train", subset = {{ count = 5 }}, batch_size = 2 }}
unlabeled = {{ dataset = "room", split = "train", batch_size = 2 }}
val = {{ dataset = "room", split = "val" }}
"""


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of both generated data sets: 18 training and 5 validation scenes each, 64x48."""
    from semiseg.data import open_dataset, shard

    shards = tmp_path_factory.mktemp("scenes")
    for name in ("street", "room"):
        adapter = open_dataset(name, size="64x48", train_count=18, val_count=5)
        for split in ("train", "val"):
            shard(adapter, split, shards, size="20KB")
    return shards


@pytest.fixture(scope="session")
def taxonomies() -> dict[str, str]:
    """The name of the taxonomy of each generated data set."""
    from semiseg.data import open_dataset

    return {name: open_dataset(name).taxonomies[0].name for name in ("street", "room")}


@pytest.fixture
def recipe_file(scenes: Path, taxonomies: dict[str, str], tmp_path: Path) -> Callable[..., Path]:
    """A function that writes the tiny recipe, with one domain or two; run folders go below tmp_path."""

    def write(*, domains: int = 1) -> Path:
        room = ROOM.format(**taxonomies) if domains == 2 else ""
        path = tmp_path / f"tiny{domains}.toml"
        text = RECIPE.format(runs=tmp_path / "runs", shards=scenes, street=taxonomies["street"], room=room)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def tiny(recipe_file: Callable[..., Path]) -> "Callable[..., Recipe]":
    """A function that loads the tiny recipe with overrides."""
    from semiseg.train.recipe.load import load

    def make(*overrides: str, domains: int = 1) -> "Recipe":
        return load(recipe_file(domains=domains), overrides)

    return make


@pytest.fixture
def write_unlabeled(scenes: Path) -> Callable[[Path], str]:
    """A function that writes the images of training scenes, without labels, as a shard set and returns its URL."""
    from dataclasses import replace

    from semiseg.data import open_dataset, shard

    def write(to: Path) -> str:
        street = open_dataset("street", size="64x48", train_count=4, val_count=1)
        plain, splits = street.samples, street.splits
        street.samples = lambda split: (replace(sample, label=None) for sample in plain(split))  # type: ignore[method-assign]
        street.splits = lambda: {name: replace(split, labeled=False) for name, split in splits().items()}  # type: ignore[method-assign]
        shard(street, "train", to)
        return str(to / "street" / "train")

    return write


@pytest.fixture
def weak_scenes(scenes: Path, tmp_path: Path) -> Path:
    """A copy of the shards of `street`, in which all training scenes but the last three have an overlay `cam`.

    Labels of the overlay are the true ones, with the upper third ignored.
    """
    import shutil

    from semiseg.data import ShardSet, write_overlay

    shards = tmp_path / "weak_scenes"
    shutil.copytree(scenes / "street", shards / "street", ignore=shutil.ignore_patterns("photos", "sizes"))
    street = ShardSet(shards / "street" / "train")
    taxonomy = street.taxonomies[0]

    def label(row: int) -> "np.ndarray":
        truth = street.read(row).label
        assert truth is not None
        ids = taxonomy.map(truth)
        ids[: len(ids) // 3] = taxonomy.ignore
        return ids

    write_overlay(street, "cam", taxonomy, label, settings={"made": "from masks"}, rows=range(len(street) - 3))
    return shards
