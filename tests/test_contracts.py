"""Each import rule is broken on purpose, to prove that its contract bites."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    folder.relative_to(ROOT) for pattern in ("packages/*/src", "datasets/*/src") for folder in ROOT.glob(pattern)
)

OFFENCES = {
    "torch-free": ("packages/data/src/semiseg/data/order/plan.py", "import torch"),
    "torch-free, not directly": ("datasets/camvid/src/semiseg/datasets/camvid/__init__.py", "import semiseg.models"),
    "strangers": ("packages/models/src/semiseg/models/zoo.py", "import semiseg.data"),
    "methods-torch-only": ("packages/methods/src/semiseg/methods/ramps.py", "import numpy"),
    "foundations": ("packages/models/src/semiseg/models/decoder.py", "import accelerate"),
    "data-sets-apart": (
        "datasets/camvid/src/semiseg/datasets/camvid/__init__.py",
        "import semiseg.datasets.synthetic",
    ),
    "data-sets-public": (
        "datasets/voc/src/semiseg/datasets/voc/files.py",
        "from semiseg.data.source.tree import Tree as Inner",
    ),
    "no-circles": (
        "packages/methods/src/semiseg/methods/losses.py",
        "def later():\n    from semiseg.methods.supervised import Supervised",
    ),
    "no-circles, in a room": (
        "packages/data/src/semiseg/data/format/names.py",
        "from semiseg.data.format.manifest import Manifest",
    ),
    "rooms-of-data": ("packages/data/src/semiseg/data/read/pool.py", "import semiseg.data.write.shard"),
    "rooms-of-train": ("packages/train/src/semiseg/train/step/update.py", "import semiseg.train.loop"),
    "rooms-of-train, a new room": ("packages/train/src/semiseg/train/attic.py", "import semiseg.train.recipe"),
    "entry-points": ("packages/cli/src/semiseg/cli/main.py", "import semiseg.datasets.camvid"),
}


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """lint-imports over a copy of the sources, which stands before the installed ones."""
    paths = os.pathsep.join(str(tree / source) for source in SOURCES)
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
        "--no-cache",
    ]
    return subprocess.run(
        command, cwd=tree, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for source in SOURCES:
        shutil.copytree(ROOT / source, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_tree_keeps_every_contract(tree: Path):
    done = lint(tree)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("rule", OFFENCES)
def test_a_contract_bites(tree: Path, rule: str):
    file, offence = OFFENCES[rule]
    with (tree / file).open("a") as module:
        module.write(f"\n{offence}\n")
    done = lint(tree)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout
    offender = file.split("/src/")[1].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert offender.rpartition(".")[2] in done.stdout.split("Broken contracts")[1]
