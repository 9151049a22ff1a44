"""A set written in parts, by functions, by real processes, on an object store: the bytes of a single writer, or an error."""

import hashlib
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from semiseg.data import DataError, ShardSet, merge, shard, shard_part, verify
from semiseg.data.storage.atomic import atomic
from semiseg.data.storage.lock import held
from semiseg.data.write.layout import part_numbers
from semiseg.data.write.parts import parse_part

SIZE = "2KB"  # of shards: two samples each

# A task as started by Ray, Dask or a SLURM array: it has only the arguments of `shard_part`.
TASK = """
    import sys, time
    from functools import partial
    import numpy as np
    from semiseg.data import RawSample, RawSpace, Split, merge, shard, shard_part

    def read(path, delay):
        time.sleep(delay)
        return open(path, "rb").read()

    class Slow:
        name, version, root, taxonomies = "slow", "1", None, ()
        raw_space = RawSpace(name="ids", names=dict.fromkeys(range(12), ""))
        def __init__(self, pairs, delay): self.pairs, self.delay = pairs, delay
        def splits(self): return {"train": Split(name="train", samples=len(self.pairs))}
        def samples(self, split):
            for i, (image, label) in enumerate(self.pairs):
                yield RawSample(key=f"k{i:03}", image=partial(read, image, self.delay),
                                label=partial(read, label, self.delay), size=300_000)

    if __name__ == "__main__":
        to, number, count, delay, *paths = sys.argv[1:]
        adapter = Slow(list(zip(paths[::2], paths[1::2])) * 3, float(delay))
        if int(count):
            shard_part(adapter, "train", to, part=(int(number), int(count)), size="1MB")
        else:
            shard(adapter, "train", to, size="1MB")
"""


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture
def task(tmp_path, camvid_files):
    """task(to, i, n, delay) starts a process that writes part i of n of 36 real samples in 12 shards; n = 0: all."""
    script = tmp_path / "task.py"
    script.write_text(textwrap.dedent(TASK))
    paths = [str(path) for pair in camvid_files for path in pair]
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError")  # or webdataset imports it into every process
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    started: list[subprocess.Popen[str]] = []

    def task(to: Path, number: int, count: int, delay: float = 0.0) -> "subprocess.Popen[str]":
        command = [sys.executable, str(script), str(to), str(number), str(count), str(delay), *paths]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield task
    for process in started:
        process.kill()
        process.communicate()


def test_a_part_that_is_killed_is_named_and_its_call_completes_the_set(task, tmp_path):
    """Three processes write a part each at the same time, the second is killed with -9 among its shards."""
    folder = tmp_path / "parts" / "slow" / "train"
    straight = task(tmp_path / "straight", 0, 0)
    first, second, third = (
        task(tmp_path / "parts", 1, 3),
        task(tmp_path / "parts", 2, 3, 0.2),
        task(tmp_path / "parts", 3, 3),
    )
    deadline = time.monotonic() + 100
    while not (folder / "000004.index.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    assert [process.wait() for process in (first, third, straight, second)] == [0, 0, 0, -signal.SIGKILL]
    whole = sums(tmp_path / "straight" / "slow" / "train")
    left = sums(folder)
    assert "manifest.json" not in left
    assert all(left[name] == whole[name] for name in left if name in whole), "a file with its final name is complete"
    with pytest.raises(DataError) as caught:
        merge(folder)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and "nothing is merged" in lines[0] and " of 12 shards are complete" in lines[0]
    assert lines[1].startswith("  part 2/3: shard") and "7 missing: semiseg data shard slow" in lines[1]
    assert lines[1].endswith("--part 2/3")
    assert sums(folder) == left
    assert task(tmp_path / "parts", 2, 3).wait() == 0
    manifest = merge(folder)
    assert sums(folder) == whole
    assert manifest == ShardSet(tmp_path / "straight" / "slow" / "train").manifest
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert merge(folder) == manifest
    assert task(tmp_path / "parts", 1, 3).wait() == 0, "a part of a complete set has nothing to do"
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 9])
def test_any_number_of_parts_in_any_order_gives_the_bytes_of_one_writer(adapt, draw, tmp_path, count):
    adapter = adapt(draw(12))
    whole = shard(adapter, "train", tmp_path / "one", size=SIZE)
    entries = {}
    for number in sorted(range(1, count + 1), key=lambda number: number * 7 % 11):
        entries[number] = shard_part(adapter, "train", tmp_path / "parts", part=(number, count), size=SIZE)
    assert sum((entries[number] for number in range(1, count + 1)), ()) == whole.shards
    sizes = [len(part) for part in entries.values()]
    assert max(sizes) - min(sizes) <= 1
    (problem,) = verify(tmp_path / "parts" / "pictures" / "train").problems
    assert "some parts are written" in problem.what and "semiseg data merge" in problem.remedy
    with pytest.raises(DataError, match=r"some parts are written .*merge them with: semiseg data merge"):
        ShardSet(tmp_path / "parts" / "pictures" / "train")
    assert merge(tmp_path / "parts" / "pictures" / "train") == whole
    assert sums(tmp_path / "parts" / "pictures" / "train") == sums(tmp_path / "one" / "pictures" / "train")


def test_an_object_store_gets_the_same_bytes(adapt, draw, tmp_path):
    adapter, url = adapt(draw(12)), f"memory://parts-{os.getpid()}"
    shard(adapter, "train", tmp_path, size=SIZE)
    for number in (3, 1):
        shard_part(adapter, "train", url, part=(number, 3), size=SIZE)
    with pytest.raises(
        DataError, match=rf"  part 2/3 \(not started, or failed\): shards 2\.\.3 missing: .* --to {url} .*--part 2/3"
    ):
        merge(f"{url}/pictures/train")
    shard_part(adapter, "train", url, part=(2, 3), size=SIZE)
    manifest = merge(f"{url}/pictures/train")
    assert merge(f"{url}/pictures/train") == manifest
    system, root = fsspec.url_to_fs(f"{url}/pictures/train")
    found = {
        path.rsplit("/", 1)[-1]: hashlib.sha256(system.cat_file(path)).hexdigest() for path in system.ls(root, False)
    }
    assert found == sums(tmp_path / "pictures" / "train")
    assert verify(f"{url}/pictures/train").ok


def test_parts_share_the_shards_without_gap_or_overlap():
    for shards in range(20):
        for count in range(1, 9):
            ranges = [part_numbers(shards, (number, count)) for number in range(1, count + 1)]
            assert [shard for part in ranges for shard in part] == list(range(shards))


def test_parts_of_several_counts_may_be_mixed(adapt, draw, tmp_path):
    adapter, folder = adapt(draw(12)), tmp_path / "pictures" / "train"
    shard_part(adapter, "train", tmp_path, part=(1, 3), size=SIZE)
    shard_part(adapter, "train", tmp_path, part=(4, 4), size=SIZE)
    with pytest.raises(
        DataError, match=r"\n  shards 2\.\.3 missing: semiseg data shard pictures [^\n]*--shard-size 2000$"
    ):
        merge(folder)
    shard_part(adapter, "train", tmp_path, part=(2, 3), size=SIZE)
    merge(folder)
    assert verify(folder).ok


def test_a_part_spares_the_temp_files_of_writers_at_work(adapt, draw, tmp_path):
    """Parts of several counts overlap: 2/3 may start while 1/1 is writing."""
    adapter, folder = adapt(draw(12)), tmp_path / "pictures" / "train"
    folder.mkdir(parents=True)
    (folder / ".000002.tar.1-killed.tmp").write_bytes(b"half")
    with atomic(folder / "000002.tar") as file:
        file.write(b"at work")
        shard_part(adapter, "train", tmp_path, part=(2, 3), size=SIZE)
        assert [path.name[:11] for path in folder.glob(".*.tmp")] == [".000002.tar"]
    assert (folder / "000002.tar").read_bytes() == b"at work"


def test_of_many_parts_a_few_plans_are_read(adapt, draw, tmp_path, monkeypatch):
    adapter = adapt(draw(40))
    for number in range(1, 20):
        shard_part(adapter, "train", tmp_path, part=(number, 20), size=SIZE)
    read: list[str] = []
    plain = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(self.name) or plain(self))
    shard_part(adapter, "train", tmp_path, part=(20, 20), size=SIZE)
    assert len([name for name in read if name.startswith("plan.")]) <= 3 * 8


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"version": "2"}, "version: 2 there, 1 in part 1/3"),
        ({"size": "4KB"}, "size of shards: 4,000 bytes there, 2,000 bytes in part 1/3"),
        ({"count": 11}, "samples: 11 there, 12 in part 1/3"),
        ({"seed": 1, "width": 18}, "keys, sizes, tags, meta and stamps of the source's samples"),
        ({"classes": "renamed"}, "names or colours of classes: different"),
    ],
)
def test_a_part_of_another_configuration_is_named(adapt, draw, taxonomy, tmp_path, change, expected):
    """Machines that start together do not see one another, so the merge detects the conflict. A later one is refused."""
    change = dict(change)
    size, count = change.pop("size", SIZE), change.pop("count", 12)
    other = adapt(draw(count, **{name: change.pop(name) for name in ("seed", "width") if name in change}))
    if change.pop("classes", None):
        other.taxonomies = (replace(taxonomy, names=("scene", "auto", "sign")),)
    other.version = change.pop("version", "1")
    folder = tmp_path / "pictures" / "train"
    for number in (1, 3):
        shard_part(adapt(draw(12)), "train", tmp_path, part=(number, 3), size=SIZE)
    shard_part(other, "train", tmp_path / "elsewhere", part=(2, 3), size=size)
    if "classes" not in expected:
        with pytest.raises(DataError, match="holds shards of another configuration"):
            shard_part(other, "train", tmp_path, part=(2, 3), size=size)
    for path in (tmp_path / "elsewhere" / "pictures" / "train").iterdir():
        shutil.copy(path, folder)
    before = sums(folder)
    with pytest.raises(DataError, match="parts of different configurations") as caught:
        merge(folder)
    assert f"  part 2/3: {expected}" in str(caught.value) or expected in str(caught.value).splitlines()[1]
    assert "part 2/3" in str(caught.value).splitlines()[1]
    assert sums(folder) == before


def test_shards_that_do_not_fit_are_named(adapt, draw, tmp_path):
    adapter, folder = adapt(draw(12)), tmp_path / "pictures" / "train"
    for number in (1, 2):
        shard_part(adapter, "train", tmp_path, part=(number, 2), size=SIZE)
    shard(adapt(draw(12), version="2"), "train", tmp_path / "other", size=SIZE)
    (folder / "000001.tar").write_bytes((folder / "000001.tar").read_bytes()[:-512])
    (folder / "000002.index.parquet").write_bytes(b"PAR1")
    (folder / "000004.index.parquet").unlink()
    shutil.copy(tmp_path / "other" / "pictures" / "train" / "000005.index.parquet", folder)
    with pytest.raises(DataError) as caught:
        merge(folder)
    head, first, second = str(caught.value).splitlines()
    assert "2 of 6 shards are complete" in head
    assert first.startswith("  part 1/2: shard 1 cut off or damaged, shard 2 with a damaged index: semiseg data shard")
    assert second.startswith("  part 2/2: shard 4 missing, shard 5 of another configuration: semiseg data shard")
    for number in (1, 2):
        shard_part(adapter, "train", tmp_path, part=(number, 2), size=SIZE)
    merge(folder)
    shard(adapter, "train", tmp_path / "one", size=SIZE)
    assert sums(folder) == sums(tmp_path / "one" / "pictures" / "train")


def test_racing_merges_all_succeed(adapt, draw, tmp_path):
    adapter, folder = adapt(draw(12)), tmp_path / "pictures" / "train"
    for number in (1, 2):
        shard_part(adapter, "train", tmp_path, part=(number, 2), size=SIZE)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.map(merge, [str(folder)] * 8, chunksize=1)
    assert len({manifest.digest for manifest in found}) == 1
    shard(adapter, "train", tmp_path / "one", size=SIZE)
    assert sums(folder) == sums(tmp_path / "one" / "pictures" / "train")


def test_a_part_excludes_itself_and_complete_writers_but_not_other_parts(adapt, draw, tmp_path):
    adapter, met = adapt(draw(12)), []

    def meanwhile(done: int, total: int, size: int) -> None:
        if met:
            return
        met.append(done)
        with pytest.raises(DataError, match=r"another process is writing part 1/2 here; wait"):
            shard_part(adapter, "train", tmp_path, part=(1, 2), size=SIZE)
        with pytest.raises(DataError, match="another process is writing here"):
            shard(adapter, "train", tmp_path, size=SIZE)
        shard_part(adapter, "train", tmp_path, part=(2, 2), size=SIZE)

    shard_part(adapter, "train", tmp_path, part=(1, 2), size=SIZE, progress=meanwhile)
    assert met
    merge(tmp_path / "pictures" / "train")


def test_a_merge_waits_for_a_part_at_work_and_says_so(adapt, draw, tmp_path, caplog):
    adapter, folder = adapt(draw(12)), tmp_path / "pictures" / "train"
    shard_part(adapter, "train", tmp_path, part=(1, 1), size=SIZE)
    with ThreadPoolExecutor() as pool, caplog.at_level(logging.WARNING, "semiseg.data"):
        with held(folder, busy="", shared=True):  # as a part does
            merging = pool.submit(merge, folder)
            while not caplog.records:
                time.sleep(0.005)
            assert "it is being written; waiting for it to end" in caplog.text and not merging.done()
        assert merging.result(60).samples == 12


def test_a_complete_writer_completes_what_parts_started(adapt, draw, tmp_path):
    adapter, folder = adapt(draw(12)), tmp_path / "pictures" / "train"
    shard_part(adapter, "train", tmp_path, part=(2, 3), size=SIZE)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    with pytest.raises(DataError, match="version: 1 there, 2 now"):
        shard(adapt(draw(12), version="2"), "train", tmp_path, size=SIZE)
    shard(adapter, "train", tmp_path, size=SIZE)
    assert all((folder / name).stat().st_mtime_ns == time for name, time in before.items())
    shard(adapter, "train", tmp_path / "one", size=SIZE)
    assert sums(folder) == sums(tmp_path / "one" / "pictures" / "train")


def test_a_part_that_fails_before_its_first_shard_leaves_the_others_alone(adapt, draw, tmp_path):
    samples, folder = draw(12), tmp_path / "pictures" / "train"
    broken = [replace(sample, image=sample.image[:-50]) if i == 6 else sample for i, sample in enumerate(samples)]
    shard_part(adapt(broken), "train", tmp_path, part=(1, 2), size=SIZE)
    (folder / ".000001.tar.99.tmp").write_bytes(b"of a part that is at work")
    before = sums(folder)
    with pytest.raises(DataError, match=r"'p006'.*truncated or broken"):
        shard_part(adapt(broken), "train", tmp_path, part=(2, 2), size=SIZE)
    assert sums(folder) == before


def test_more_parts_than_shards_is_not_an_error(adapt, draw, tmp_path):
    adapter = adapt(draw(2))
    assert [len(shard_part(adapter, "train", tmp_path, part=(number, 3))) for number in (1, 2, 3)] == [0, 0, 1]
    assert merge(tmp_path / "pictures" / "train").samples == 2


def test_the_functions_are_tasks_that_travel():
    assert pickle.loads(pickle.dumps((shard_part, merge))) == (shard_part, merge)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", "write the third of eight parts as 3/8"),
        ("a/b", "write the third of eight parts as 3/8"),
        ("-1/8", "write the third of eight parts as 3/8"),
        ("0/8", r"no part 0/8: parts count from 1 to 8; if your scheduler counts from 0, add 1"),
        ("9/8", "no part 9/8: parts count from 1 to 8"),
        ("1/0", "no part 1/0"),
    ],
)
def test_parts_are_counted_from_one(adapt, draw, tmp_path, text, expected):
    assert parse_part("3/8") == (3, 8)
    with pytest.raises(DataError, match=expected):
        parse_part(text)


def test_the_part_of_a_call_is_checked_before_anything_is_written(adapt, draw, tmp_path):
    for part in ((0, 2), (3, 2)):
        with pytest.raises(DataError, match="parts count from 1 to 2"):
            shard_part(adapt(draw(3)), "train", tmp_path / "to", part=part)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("text", "expected"), [("{", "Expecting property name"), ("{}", "it has no dataset"), ("3", "not iterable")]
)
def test_a_damaged_plan_is_one_error(adapt, draw, tmp_path, text, expected):
    folder = tmp_path / "pictures" / "train"
    for number in (1, 2):
        shard_part(adapt(draw(4)), "train", tmp_path, part=(number, 2), size=SIZE)
    (folder / "plan.2-of-2.json").write_text(text)
    with pytest.raises(
        DataError,
        match=rf"plan\.2-of-2\.json: the plan file can't be read \(.*{expected}.*\); delete it and write the part again",
    ):
        merge(folder)
    (folder / "plan.2-of-2.json").unlink()
    merge(folder)


def test_there_is_nothing_to_merge(tmp_path):
    (tmp_path / "pictures" / "train").mkdir(parents=True)
    for folder in (tmp_path / "nowhere" / "train", tmp_path / "pictures" / "train"):
        with pytest.raises(DataError, match=r"no shards at .*semiseg data shard"):
            merge(folder)
