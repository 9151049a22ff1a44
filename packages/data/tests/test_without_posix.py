"""Without the functions that Windows lacks (simulated), one process writes, verifies and reads, also through the cache."""

import os
import subprocess
import sys
from pathlib import Path

WORK = """
import concurrent.futures.process, importlib, io, os, pkgutil, sys
import fsspec, numpy as np, webdataset
from PIL import Image

sys.modules["fcntl"] = None  # importing it raises ImportError
for name in ("pread", "O_DIRECTORY", "sched_getaffinity", "register_at_fork"):
    if hasattr(os, name):
        delattr(os, name)

import semiseg.data
from semiseg.data import RawSample, RawSpace, ShardSet, Split, Taxonomy, cores, shard, verify

for module in pkgutil.walk_packages(semiseg.data.__path__, "semiseg.data."):
    if module.name != "semiseg.data.testing":  # needs pytest
        importlib.import_module(module.name)
from semiseg.data.storage.lock import remove_unheld

RAW = RawSpace(name="grey", names={0: "dark", 1: "light"})


class Greys:
    name, version, summary, home, root, raw_space = "greys", "1", "", "", None, RAW
    taxonomies = (Taxonomy(name="greys-2", raw=RAW, names=("dark", "light"), colours=((0, 0, 0), (9, 9, 9)),
                           ids={0: 0, 1: 1}, foreground=frozenset()),)

    def splits(self):
        return {"train": Split(name="train", samples=9)}

    def samples(self, split):
        for i in range(9):
            label = (np.arange(64).reshape(8, 8) + i) % 2
            Image.fromarray(np.full((8, 8), i, np.uint8)).save(file := io.BytesIO(), "PNG")
            yield RawSample(key=f"k{i}", image=file.getvalue(), label=label, size=400)


folder, cache = sys.argv[1:]
shard(Greys(), "train", folder, size=1000)
shard(Greys(), "train", "memory://without-posix", size=1000)
left = os.path.join(folder, "greys", "train", ".000000.tar.1.tmp")
open(left, "wb").close()
shard(Greys(), "train", folder, size=1000)  # removes what a killed writer left
assert not os.path.exists(left) and cores() >= 1
assert verify(os.path.join(folder, "greys", "train")).ok
local, remote = ShardSet(os.path.join(folder, "greys", "train")), ShardSet("memory://without-posix/greys/train")
assert local.digest == remote.digest
for _ in range(2):  # the second time from the cache
    for i in (8, 0, 4, 8):
        for stored in (local, remote):
            sample = stored[i]
            assert np.array_equal(sample.label, (np.arange(64).reshape(8, 8) + i) % 2)
            assert np.asarray(sample.image).max() == i
remote._files._fetch("000000.tar")
assert remote[0].key == "k0"
assert sorted(os.listdir(cache)) != ["locks"] and not any(name.endswith(".tmp") for name in os.listdir(cache))
"""


def test_one_process_works_without_posix_functions(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WORK, tmp_path / "shards", cache],
        env={**os.environ, "SEMISEG_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
