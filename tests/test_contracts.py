"""Each import contract is broken on purpose, to prove that it is enforced."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    folder.relative_to(ROOT) for pattern in ("packages/*/src", "datasets/*/src") for folder in ROOT.glob(pattern)
)

# Id of a contract, with a remark if one contract has several: a file, and the import to append to it.
OFFENCES = {
    "torch-free": ("packages/data/src/semiseg/data/order/plan.py", "import torch"),
    "torch-free, indirectly": ("datasets/camvid/src/semiseg/datasets/camvid/__init__.py", "import semiseg.models"),
    "independent": ("packages/models/src/semiseg/models/pretrained.py", "import semiseg.data"),
    "methods-torch-only": ("packages/methods/src/semiseg/methods/ramps.py", "import numpy"),
    "foundations": ("packages/models/src/semiseg/models/decoder.py", "import accelerate"),
    "data-sets-independent": (
        "datasets/camvid/src/semiseg/datasets/camvid/__init__.py",
        "import semiseg.datasets.synthetic",
    ),
    "data-sets-public": (
        "datasets/voc/src/semiseg/datasets/voc/files.py",
        "from semiseg.data.source.tree import Tree as Inner",
    ),
    "no-cycles": (
        "packages/methods/src/semiseg/methods/losses.py",
        "def later():\n    from semiseg.methods.supervised import Supervised",
    ),
    "no-cycles, in a subpackage": (
        "packages/data/src/semiseg/data/format/names.py",
        "from semiseg.data.format.manifest import Manifest",
    ),
    "layers-of-data": ("packages/data/src/semiseg/data/read/pool.py", "import semiseg.data.write.shard"),
    "layers-of-train": ("packages/train/src/semiseg/train/step/update.py", "import semiseg.train.loop"),
    "layers-of-train, a new module": ("packages/train/src/semiseg/train/attic.py", "import semiseg.train.recipe"),
    "entry-points": ("packages/cli/src/semiseg/cli/main.py", "import semiseg.datasets.camvid"),
}


# A namespace is the union of all folders on the path that hold a part of it: without the installed ones, only the copy is left.
LINT = """
import os, semiseg
from importlinter.cli import lint_imports_command
here = os.getcwd() + os.sep
semiseg.__spec__.submodule_search_locations = [folder for folder in semiseg.__path__ if folder.startswith(here)]
lint_imports_command()
"""


def lint(tree: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run lint-imports on a copy of the sources."""
    paths = os.pathsep.join(str(tree / source) for source in SOURCES)
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache", *options],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tmp_path = tmp_path.resolve()
    for source in SOURCES:
        shutil.copytree(ROOT / source, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_has_an_offence():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["id"] for contract in contracts} == {offence.split(",")[0] for offence in OFFENCES}


def test_the_code_keeps_every_contract(tree: Path):
    done = lint(tree)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_contracts_cover_every_data_set(tree: Path):
    packages = sorted(tree.glob("datasets/*/src/semiseg/datasets/*/__init__.py"))
    for package in packages:
        package.write_text("import torch\n")
    done = lint(tree, "--contract", "torch-free")
    assert len(packages) == len(list(ROOT.glob("datasets/*/pyproject.toml")))
    for package in packages:
        assert f"semiseg.datasets.{package.parent.name} -> torch" in done.stdout


@pytest.mark.parametrize("offence", OFFENCES)
def test_a_broken_contract_is_reported(tree: Path, offence: str):
    file, statement = OFFENCES[offence]
    with (tree / file).open("a") as module:
        module.write(f"\n{statement}\n")
    done = lint(tree, "--contract", offence.split(",")[0])
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 kept, 1 broken" in done.stdout
    offender = file.split("/src/")[1].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert offender.rpartition(".")[2] in done.stdout.split("Broken contracts")[1]
