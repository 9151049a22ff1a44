"""Copies on this machine: fetched once, checked, held while in use, never more than allowed."""

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
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest

from semiseg.data import DataError, Pool, ShardSet, shard
from semiseg.data.read.prefetch import Cached
from semiseg.data.storage.cache import Cache, cache
from semiseg.data.storage.storage import Storage
from semiseg.data.storage.target import target


def made(number: int, size: int = 1000) -> tuple[str, bytes]:
    data = np.random.default_rng(number).bytes(size)
    return hashlib.sha256(data).hexdigest(), data


def reader(data: bytes):
    return lambda start, stop: data[start:stop]


@pytest.fixture
def copies(tmp_path) -> Cache:
    (tmp_path / "locks").mkdir()
    return Cache(tmp_path, 3500)


def files(copies: Cache) -> set[str]:
    return {path.name for path in copies.folder.iterdir() if path.is_file()}


def put(copies: Cache, number: int) -> str:
    name, data = made(number)
    assert copies.fetch(name, len(data), reader(data)) == "kept"
    return name


def test_a_copy_has_the_fetched_bytes(copies):
    name, data = made(0)
    assert copies.open(name, 1000) is None and not copies.has(name)
    assert copies.fetch(name, 1000, reader(data)) == "kept"
    copy = copies.open(name, 1000)
    assert copy is not None and os.pread(copy.number, 2000, 0) == data and files(copies) == {name}
    calls: list[int] = []
    assert copies.fetch(name, 1000, lambda start, stop: calls.append(start) or b"") == "kept" and not calls
    assert copies.open(name, 999) is None, "another size is another file"


def test_damage_on_the_way_leaves_nothing(copies):
    name, data = made(0)
    for wrong in (data[:-1], b"!" + data[1:], b""):
        with pytest.raises(DataError, match="its bytes have sha256"):
            copies.fetch(name, 1000, reader(wrong))
        assert files(copies) == set()


def test_the_oldest_that_nobody_reads_goes_first(copies):
    first, second, third = (put(copies, number) for number in range(3))
    for age, name in enumerate((third, second, first)):
        os.utime(copies.folder / name, (age, age))
    held = copies.open(third, 1000)  # the oldest; opening makes it the newest
    assert held is not None
    fourth = put(copies, 3)
    assert files(copies) == {first, third, fourth}
    os.utime(copies.folder / third, (1, 1))
    fifth = put(copies, 4)
    assert third in files(copies), "a copy in use stays, however old"
    assert len(files(copies)) == 3 and fifth in files(copies)
    holders = [copies.open(name, 1000) for name in files(copies)]
    name, data = made(5)
    assert copies.fetch(name, 1000, reader(data)) == "full" and all(holders) and len(files(copies)) == 3
    del holders
    assert copies.fetch(name, 1000, reader(data)) == "kept"
    big, data = made(6, 4000)
    assert copies.fetch(big, 4000, reader(data)) == "full", "a file above the limit is never kept"


def fetch_all(folder: str, log: str, numbers: list[int]) -> None:
    """In a separate process: fetch all copies, and note every file that this process fetched."""
    copies = Cache(Path(folder), 10**6)
    for number in numbers:
        name, data = made(number)

        def read(start: int, stop: int, data: bytes = data, number: int = number) -> bytes:
            with Path(log).open("a") as file:
                file.write(f"{number}\n")
            time.sleep(0.002)
            return data[start:stop]

        while copies.fetch(name, 1000, read) != "kept":
            time.sleep(0.001)


def test_many_processes_fetch_every_file_once(tmp_path):
    (tmp_path / "cache" / "locks").mkdir(parents=True)
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    numbers = list(range(20))
    workers = [
        context.Process(target=fetch_all, args=(str(tmp_path / "cache"), str(log), numbers[turn:] + numbers[:turn]))
        for turn in (0, 0, 7, 13)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert sorted(map(int, log.read_text().split())) == numbers
    assert len(files(Cache(tmp_path / "cache", 1))) == 20


def test_threads_never_exceed_the_limit(copies):
    """Four threads fetch and read; the bytes on disk are watched."""
    most, stop = [0], threading.Event()

    def work(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(0, 12, 40):
            name, data = made(int(number))
            if copies.fetch(name, 1000, reader(data)) == "kept" and (copy := copies.open(name, 1000)) is not None:
                assert os.pread(copy.number, 1000, 0) == data

    def watch() -> None:
        while not stop.is_set():
            before = files(copies)
            try:
                sizes = sum(path.stat().st_size for name in before if (path := copies.folder / name).is_file())
            except FileNotFoundError:
                continue
            if files(copies) == before:  # else it changed under the count
                most[0] = max(most[0], sizes)

    watcher = threading.Thread(target=watch)
    watcher.start()
    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    stop.set()
    watcher.join()
    left = sum((copies.folder / name).stat().st_size for name in files(copies))
    assert 1000 <= left <= 3500 and not [name for name in files(copies) if name.startswith(".")]
    assert 1000 <= most[0] <= 4500, "3,500, and one file that was renamed or removed while they were counted"


def test_a_folder_of_other_files_keeps_them(copies):
    """The user may choose the home folder, or a scratch disk."""
    others = {".bashrc", "thesis.pdf", f"{'a' * 64}.txt", f".{'a' * 64}.tmp", "." + "b" * 64}
    for name in others:
        (copies.folder / name).write_bytes(bytes(3000))
        os.utime(copies.folder / name, (1, 1))
    for number in range(5):
        put(copies, number)
    assert others < files(copies) and len(files(copies)) == len(others) + 3


def test_leftovers_of_a_killed_process_are_removed_and_fetched_again(copies):
    name, data = made(0)
    script = f"""
        import os, sys, time
        from pathlib import Path
        from semiseg.data.storage.cache import Cache
        def read(start, stop):
            print("reading", flush=True)
            time.sleep(60)
        Cache(Path({str(copies.folder)!r}), 3500).fetch({name!r}, 1000, read)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None and process.stdout.readline() == "reading\n"
        assert copies.fetch(name, 1000, reader(data)) == "busy"
        other = put(copies, 1)
        assert len(files(copies)) == 2, "what is being fetched stays"
        process.send_signal(signal.SIGKILL)
    assert any(left.startswith(".") for left in files(copies))
    assert copies.fetch(name, 1000, reader(data)) == "kept"
    assert files(copies) == {name, other}


def test_a_part_of_the_disk_is_left_to_others(small_disk):
    """600 kB, of which copies take at most 95 %, whatever the limit."""
    (small_disk / "locks").mkdir()
    copies = Cache(small_disk, 10**9)
    for number in range(12):
        name, data = made(number, 100_000)
        assert copies.fetch(name, len(data), reader(data)) == "kept"
        disk = shutil.disk_usage(small_disk)
        assert disk.free >= 0.04 * disk.total and copies.has(name)
    assert len(files(copies)) >= 4
    name, data = made(99, 590_000)
    assert copies.fetch(name, len(data), reader(data)) == "full"


def test_settings_of_the_environment(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("SEMISEG_CACHE", "off")
    assert cache() is None
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "mine"))
    monkeypatch.setenv("SEMISEG_CACHE_SIZE", "2MiB")
    found = cache()
    assert found is not None and (found.folder, found.limit) == (tmp_path / "mine", 2 << 20)
    monkeypatch.setenv("SEMISEG_CACHE_SIZE", "much")
    with pytest.raises(DataError, match="SEMISEG_CACHE_SIZE is 'much': write it as 50GB"):
        cache()
    monkeypatch.delenv("SEMISEG_CACHE_SIZE")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "file" / "x"))
    with pytest.raises(DataError, match=r"SEMISEG_CACHE: .*cannot be created .*'off' to read without"):
        cache()
    monkeypatch.delenv("SEMISEG_CACHE")
    monkeypatch.setattr("semiseg.data.storage.cache.sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "semiseg.data"):
        assert cache() is None
    assert "shards are not cached" in caplog.text
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    found = cache()
    assert found is not None and (found.folder, found.limit) == (tmp_path / "home" / "semiseg" / "shards", 50 * 10**9)


@pytest.fixture
def stored(adapt, draw, tmp_path, monkeypatch):
    """A set of 4 shards and more in fsspec's memory, read through a cache below tmp_path."""
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "cache"))
    shard(adapt(draw(23)), "train", "memory://cache-tests", size="6KB")
    yield ShardSet("memory://cache-tests/pictures/train")
    fsspec.filesystem("memory").rm("/cache-tests", recursive=True)


def wait_for(copies: Cache, entries) -> None:
    deadline = time.monotonic() + 30
    while not all(copies.has(entry.sha256) for entry in entries):
        assert time.monotonic() < deadline, "nothing was fetched"
        time.sleep(0.002)


def keys(shards: ShardSet | Pool) -> list[tuple[str, bytes]]:
    return [(shards.raw(number).key, shards.raw(number).image) for number in range(len(shards))]


def test_shards_that_come_next_are_fetched_and_then_read_from_here(stored):
    expected = keys(stored)
    copies, entries = stored._files.copies, stored.manifest.shards
    assert isinstance(stored._files, Cached) and len(entries) > 3
    assert not any(copies.has(entry.sha256) for entry in entries), "single samples are read in ranges"
    stored.ahead(range(len(entries)))
    wait_for(copies, entries)
    system = fsspec.filesystem("memory")
    system.rm("/cache-tests/pictures/train/000000.tar")
    for entry in entries[1:]:
        system.pipe_file(f"/cache-tests/pictures/train/{entry.tar}", b"")
    assert keys(stored) == expected, "nothing is requested from the store"
    assert keys(Pool([stored])) == expected == keys(ShardSet(stored.url)) == keys(pickle.loads(pickle.dumps(stored)))


def test_the_cache_changes_nothing_when_it_is_small_or_off(stored, monkeypatch):
    expected = keys(stored)
    entries = stored.manifest.shards
    for settings in (
        {"SEMISEG_CACHE": "off"},
        {"SEMISEG_CACHE_SIZE": str(entries[0].bytes * 2)},
        {"SEMISEG_CACHE_SIZE": "9"},
    ):
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            again = ShardSet(stored.url)
            found = []
            for number in np.random.default_rng(0).permutation(len(again)):
                again.ahead(range(len(entries)))
                found.append((int(number), again.raw(int(number)).image))
            assert [image for _, image in sorted(found)] == [image for _, image in expected]
            assert isinstance(again._files, Storage) == (settings.get("SEMISEG_CACHE") == "off")


def test_a_copy_that_the_disk_damaged_is_read_again(stored, caplog):
    expected = keys(stored)
    copies, entries = stored._files.copies, stored.manifest.shards
    stored.ahead(range(len(entries)))
    wait_for(copies, entries)
    for entry in entries:
        for sha256, size in ((entry.sha256, entry.bytes), (entry.index_sha256, entry.index_bytes)):
            (copies.folder / sha256).write_bytes(bytes(size))
    with caplog.at_level(logging.WARNING, "semiseg.data"):
        assert keys(ShardSet(stored.url)) == expected
    assert "its copy in" in caplog.text and "is damaged" in caplog.text
    target(f"{stored.url}/000001.tar").unlink()
    with pytest.raises(DataError, match=r"000001\.tar: cannot be read"):
        keys(ShardSet(stored.url))


def test_a_copy_that_cannot_be_read_is_read_from_the_store(stored, tmp_path):
    """As on a failing disk, or a network file system on which another machine has removed it."""
    expected = keys(stored)
    stored.ahead([0])
    wait_for(stored._files.copies, stored.manifest.shards[:1])
    assert stored.raw(0).image == expected[0][1]
    folder = os.open(tmp_path, os.O_RDONLY)
    os.dup2(folder, stored._files._open["000000.tar"].number)  # reads fail from now on: it is a folder
    os.close(folder)
    assert keys(stored) == expected


def test_a_failure_in_the_background_is_raised_when_the_file_is_read(stored, caplog):
    target(f"{stored.url}/000001.tar").unlink()
    first = sum(stored.shard_sizes[:1])
    with caplog.at_level(logging.WARNING, "semiseg.data"):
        stored.ahead([1, 0])
        wait_for(stored._files.copies, stored.manifest.shards[:1])
    assert "000001.tar: not fetched ahead (FileNotFoundError" in caplog.text
    stored.raw(0)
    with pytest.raises(DataError, match=r"000001\.tar: cannot be read"):
        stored.raw(first)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT TESTED: there is no fork here")
def test_forked_processes_read_and_fetch_for_themselves(stored):
    """Forked while copies are open, the thread is running, and its lock is held."""
    expected = keys(stored)
    entries = stored.manifest.shards
    stored.ahead([0])
    wait_for(stored._files.copies, entries[:1])
    stored.raw(0)

    def child(queue) -> None:
        stored.ahead(range(len(entries)))
        wait_for(stored._files.copies, entries)
        queue.put(keys(stored) == expected)

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with stored._files._lock:
        workers = [context.Process(target=child, args=(queue,)) for _ in range(2)]
        for worker in workers:
            worker.start()
    assert [queue.get(timeout=60) for _ in workers] == [True, True]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert keys(stored) == expected
