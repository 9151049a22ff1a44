"""The torch-free packages, installed from wheels, in an environment without torch."""

import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from semiseg.data import Plan, ShardSet, Taxonomy, open_dataset, shard, verify

ROOT = Path(__file__).parents[2]


def semiseg(*arguments: str | Path, cwd: Path) -> str:
    command = Path(sys.executable).with_name("semiseg")
    done = subprocess.run([command, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_torch_is_absent_and_the_packages_are_not_editable():
    import semiseg.data

    assert find_spec("torch") is None
    assert semiseg.data.__file__ is not None and str(ROOT / "packages") not in semiseg.data.__file__


@pytest.mark.parametrize("name", sorted(entry.name for entry in entry_points(group="semiseg.datasets")))
def test_every_adapter_loads(name: str):
    (entry,) = entry_points(group="semiseg.datasets", name=name)
    assert entry.load().taxonomies is not None


@pytest.mark.parametrize("name", ["street", "room"])
def test_write_verify_and_iterate(name: str, tmp_path: Path):
    adapter = open_dataset(name, size="64x48", train_count=6, val_count=2)
    shard(adapter, "train", tmp_path, size="20KB")
    report = verify(tmp_path / name / "train")
    assert report.ok and report.samples == 6
    shards = ShardSet(tmp_path / name / "train")
    taxonomy = Taxonomy.get(adapter.taxonomies[0].name)
    seen = [shards[draw.sample] for draw in Plan(shards, seed=0).draws(0, 6)]
    assert {sample.key for sample in seen} == set(shards.keys())
    for sample in seen:
        assert sample.label is not None and sample.image.size == (64, 48)
        assert np.isin(taxonomy.map(sample.label), [*range(len(taxonomy.names)), 255]).all()


def test_the_command_line(tmp_path: Path):
    assert "data" in semiseg("--help", cwd=tmp_path)
    semiseg("data", "shard", "room", "--option", "train_count=3", "--option", "val_count=2", cwd=tmp_path)
    assert ": ok" in semiseg("data", "verify", "room", cwd=tmp_path)
    assert "wall" in semiseg("data", "stats", "room", "--split", "val", cwd=tmp_path)
    semiseg("data", "show", "room", "--split", "val", "--count", "2", "--out", "sheet.png", cwd=tmp_path)
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    missing = subprocess.run(
        [Path(sys.executable).with_name("semiseg"), "train", "x.toml"], capture_output=True, text=True, check=False
    )
    assert missing.returncode == 1 and "pip install 'semiseg[train]'" in missing.stderr


def test_the_readme_example_runs_unchanged(
    camvid_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    code = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    monkeypatch.chdir(tmp_path)
    exec(code.replace("path/to/CamVid", str(camvid_root)), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4 and all("(480, 360) (360, 480)" in line for line in printed)
