"""Taxonomies that travel with a set: in its manifest, before the installed ones, and no part of its digest."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semiseg.data import DataError, Manifest, Pool, ShardSet, Taxonomy, shard


@pytest.fixture
def folder(adapt, draw, tmp_path) -> Path:
    shard(adapt(draw(3)), "train", tmp_path)
    return tmp_path / "pictures" / "train"


def test_a_set_knows_its_adapters_taxonomy(folder, taxonomy):
    stored = ShardSet(folder)
    assert stored.taxonomies == (taxonomy,)
    assert stored.taxonomy("pictures-3") == taxonomy
    assert np.array_equal(stored.taxonomy("pictures-3").lookup, taxonomy.lookup)
    assert Manifest.from_json(stored.manifest.to_json()).taxonomies == (taxonomy,)
    assert Pool([stored, stored]).taxonomy("pictures-3") == taxonomy


def test_only_those_of_its_raw_space_are_kept(adapt, draw, tmp_path):
    other = replace(adapt([]).raw_space, name="others")
    shard(adapt(draw(2), raw_space=other), "train", tmp_path)
    assert ShardSet(tmp_path / "pictures" / "train").taxonomies == ()


def test_its_own_comes_before_an_installed_one_of_the_same_name(folder, taxonomy):
    (installed,) = [taxonomy for taxonomy in Taxonomy.all().values() if taxonomy.name == "camvid-11"]
    own = replace(taxonomy, name="camvid-11")
    assert Taxonomy.get("camvid-11", [own]) == own != installed
    assert ShardSet(folder).taxonomy("camvid-11") == installed
    with pytest.raises(DataError, match="unknown taxonomy 'pictures-4'; did you mean 'pictures-3'"):
        ShardSet(folder).taxonomy("pictures-4")


def test_a_manifest_without_them_still_reads_and_has_the_same_digest(folder):
    path = folder / "manifest.json"
    fields = json.loads(path.read_text())
    del fields["taxonomies"]
    path.write_text(json.dumps(fields))
    stored = ShardSet(folder)
    assert stored.taxonomies == ()
    assert stored.digest == fields["digest"]


def test_new_names_and_colours_rewrite_the_manifest_of_a_complete_set_and_nothing_else(
    adapt, draw, folder, taxonomy, monkeypatch
):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    renamed = replace(taxonomy, names=("world", "car", "sign"), colours=((9, 9, 9), (200, 0, 0), (0, 0, 200)))
    adapter = adapt(draw(3))
    adapter.taxonomies = (renamed,)  # type: ignore[misc]
    written = shard(adapter, "train", folder.parent.parent)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"manifest.json"}
    assert ShardSet(folder).taxonomies == written.taxonomies == (renamed,)
    assert ShardSet(folder).digest == json.loads(before["manifest.json"])["digest"]


def test_a_pool_refuses_two_meanings_of_one_name(adapt, draw, folder, taxonomy, tmp_path):
    adapter = adapt(draw(3, seed=1))
    adapter.taxonomies = (replace(taxonomy, names=("world", "car", "sign")),)  # type: ignore[misc]
    shard(adapter, "train", tmp_path / "second")
    pool = Pool([ShardSet(folder), ShardSet(tmp_path / "second" / "pictures" / "train")])
    with pytest.raises(DataError, match="different classes or colours in taxonomy 'pictures-3'"):
        pool.taxonomy("pictures-3")


def test_a_damaged_taxonomy_is_a_damaged_manifest(folder):
    path = folder / "manifest.json"
    fields = json.loads(path.read_text())
    fields["taxonomies"][0]["ids"]["77"] = 0
    path.write_text(json.dumps(fields))
    with pytest.raises(DataError, match=r"manifest.json: damaged manifest .*maps raw id 77"):
        ShardSet(folder)


def test_show_and_stats_work_where_no_package_knows_the_data_set(folder, tmp_path):
    for words in (["stats", str(folder)], ["show", str(folder), "--out", str(tmp_path / "sheet.png")]):
        code = f"import sys; from semiseg.data.commands import app; app({words!r})"
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert "pictures-3" in ran.stdout or words[0] == "show"
    assert (tmp_path / "sheet.png").stat().st_size > 1000
