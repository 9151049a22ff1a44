"""Shards on S3, against moto's server on loopback, through a proxy that fails on purpose: the same bytes, and no hang."""

import hashlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from semiseg.data import DataError, ShardSet, shard, verify
from semiseg.data.storage.atomic import atomic
from semiseg.data.storage.retry import Patience
from semiseg.data.storage.storage import Storage
from semiseg.data.storage.target import target
from tests.object_store import FAULTS, Proxy, make_bucket, s3_server, use

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with s3_server() as port:
        yield port


@pytest.fixture
def bucket(server, monkeypatch, tmp_path) -> str:
    """The URL of a bucket for this test, reached without faults; the cache is below tmp_path."""
    name = f"b{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]}"
    make_bucket(server, name)
    use(monkeypatch, server)
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "cache"))
    return f"s3://{name}"


def sums(url: str | Path) -> dict[str, str]:
    storage = Storage(url)
    return {name: hashlib.sha256(storage.read(name)).hexdigest() for name in storage.names()}


def same(url: str, folder: Path) -> None:
    """Every sample of two sets is equal, in a random order."""
    there, here = ShardSet(url), ShardSet(folder)
    assert there.digest == here.digest
    for number in np.random.default_rng(0).permutation(len(here)).tolist():
        assert there.raw(number) == here.raw(number)


def test_written_verified_and_read_through_faults(server, bucket, adapt, draw, tmp_path, monkeypatch, caplog):
    adapter = adapt(draw(12))
    manifest = shard(adapter, "train", tmp_path, size="6KB")
    folder, url = tmp_path / "pictures" / "train", f"{bucket}/shards/pictures/train"
    with Proxy.before(server) as proxy, caplog.at_level(logging.WARNING, "semiseg.data"):
        use(monkeypatch, proxy.port)
        assert shard(adapter, "train", f"{bucket}/shards", size="6KB", workers=2) == manifest
        assert sums(url) == sums(folder)
        assert verify(url).ok
        for cache in ("off", str(tmp_path / "cache")):
            monkeypatch.setenv("SEMISEG_CACHE", cache)
            same(url, folder)
        assert all(proxy.seen[fault] for fault in FAULTS), f"faults that never came: {proxy.seen}"
    use(monkeypatch, server)
    retries = [record.getMessage() for record in caplog.records if "attempt" in record.getMessage()]
    assert len(retries) >= 5 and all("retrying in" in message and bucket in message for message in retries)
    shard(adapter, "train", f"{bucket}/shards", size="6KB")  # complete: nothing happens
    assert sums(url) == sums(folder)


WRITER = """
    import sys
    from pathlib import Path
    from functools import partial
    from semiseg.data import RawSample, RawSpace, Split, shard

    class Files:
        name, version, root, taxonomies = "files", "1", None, ()
        raw_space = RawSpace(name="ids", names=dict.fromkeys(range(12), ""))
        def __init__(self, pairs): self.pairs = pairs
        def splits(self): return {"train": Split(name="train", samples=len(self.pairs))}
        def samples(self, split):
            for i, (image, label) in enumerate(self.pairs):
                image, label = partial(Path.read_bytes, Path(image)), partial(Path.read_bytes, Path(label))
                yield RawSample(key=f"k{i:03}", image=image, label=label, size=300_000)

    if __name__ == "__main__":
        to, *paths = sys.argv[1:]
        shard(Files(list(zip(paths[::2], paths[1::2]))), "train", to, size="600KB")
"""


@pytest.fixture
def writer(tmp_path, camvid_files) -> Iterator[Callable[[str | Path], "subprocess.Popen[bytes]"]]:
    """writer(to) starts a process that writes 12 real samples into 6 shards."""
    (tmp_path / "writer.py").write_text(textwrap.dedent(WRITER))
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError")  # webdataset would import it: 2 s each
    paths = [str(path) for pair in camvid_files for path in pair]
    started: list[subprocess.Popen[bytes]] = []

    def start(to: str | Path) -> "subprocess.Popen[bytes]":
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, str(tmp_path / "writer.py"), str(to), *paths]
        started.append(subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_killed_writer_continues_to_the_same_bytes(server, bucket, writer, tmp_path, monkeypatch):
    assert writer(tmp_path / "straight").wait() == 0
    whole = sums(tmp_path / "straight" / "files" / "train")
    url = f"{bucket}/shards/files/train"
    chance = random.Random(0)
    with Proxy.before(server, ("error", "reset", "delay"), share=0.15) as proxy:
        use(monkeypatch, proxy.port)
        process = writer(f"{bucket}/shards")
        use(monkeypatch, server)
        deadline = time.monotonic() + 60
        while len([name for name in listed(url) if name.endswith(".tar")]) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.wait()
        left = sums(url)
        assert "manifest.json" not in left, "killed too late to prove anything"
        assert all(left[name] == whole[name] for name in set(left) & set(whole)), (
            "a file with its final name is complete"
        )
        stamps = modified(url)
        use(monkeypatch, proxy.port)
        # A file is not taken for a finished shard because of its name.
        damaged = target(f"{url}/000000.tar")
        with atomic(damaged) as file:
            file.write(bytes(Storage(url).size("000000.tar")))
        assert writer(f"{bucket}/shards").wait() == 0
        assert sums(url) == whole
        kept = [name for name, stamp in modified(url).items() if stamp == stamps.get(name)]
        assert "000001.tar" in kept and "000000.tar" not in kept, "finished shards are not written again"


def listed(url: str) -> list[str]:
    try:
        return Storage(url).names()
    except FileNotFoundError:
        return []


def modified(url: str) -> dict[str, object]:
    system, root = Storage(url)._remote.open()
    return {entry["name"].rsplit("/", 1)[-1]: entry["LastModified"] for entry in system.ls(root, detail=True)}


def test_damage_on_the_store_is_found(bucket, adapt, draw):
    shard(adapt(draw(9)), "train", bucket, size="3KB")
    url = f"{bucket}/pictures/train"
    data = bytearray(Storage(url).read("000001.tar"))
    data[len(data) // 2] ^= 1
    with atomic(target(f"{url}/000001.tar")) as file:
        file.write(data)
    target(f"{url}/000002.tar").unlink()
    problems = {problem.shard for problem in verify(url).problems}
    assert {"000001.tar", "000002.tar"} <= problems and "000000.tar" not in problems
    with pytest.raises(DataError, match=rf"{url}/00000[12]\.tar"):
        list(ShardSet(url))


def test_commands_read_from_the_store(bucket, adapt, draw, tmp_path):
    from semiseg.data.commands import app

    shard(adapt(draw(9)), "train", f"{bucket}/shards", size="3KB")
    url = f"{bucket}/shards/pictures/train"

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    (report,) = json.loads(run("verify", url, "--json"))
    assert report["ok"] and report["samples"] == 9
    assert json.loads(run("stats", "pictures", "--shards", f"{bucket}/shards", "--json"))[0]["samples"] == 9
    run("show", url, "--out", str(tmp_path / "sheet.png"))
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    listing = json.loads(run("list", "--shards", f"{bucket}/shards", "--json"))
    assert "train" in {dataset["name"]: dataset for dataset in listing["datasets"]}["pictures"]["shards"]


def test_a_refused_request_is_one_error_at_once(server, bucket, monkeypatch, caplog):
    with pytest.raises(DataError, match=r"there is no such bucket; create it"):
        ShardSet("s3://no-such-bucket-here/x/y")
    with pytest.raises(
        DataError, match=rf"no shards at {bucket}/voc/val .*semiseg data shard voc --split val --to {bucket}$"
    ):
        ShardSet(f"{bucket}/voc/val")
    with Proxy.before(server, ("forbidden",), share=1.0, streak=99) as proxy:
        use(monkeypatch, proxy.port)
        for action in (ShardSet, lambda url: Storage(url).names()):
            with pytest.raises(DataError, match="access is refused"):
                action(f"{bucket}/voc/val")
        assert proxy.seen["forbidden"] <= 4, "requested once or twice, not repeatedly"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(DataError, match=r"no usable credentials .* set AWS_ACCESS_KEY_ID"):
        ShardSet(f"{bucket}/voc/val")
    assert not caplog.records


def test_a_server_that_is_down_is_an_error_and_a_stalled_request_is_retried(
    server, bucket, adapt, draw, tmp_path, monkeypatch
):
    monkeypatch.setattr("semiseg.data.storage.retry.PATIENCE", Patience(attempts=4, first_s=0.01))
    with Proxy.before(server, ("error",), share=1.0, streak=99) as proxy:
        use(monkeypatch, proxy.port)
        with pytest.raises(DataError, match=r"cannot be reached, 4 attempts in .*check the network"):
            ShardSet(f"{bucket}/x/y")
        assert proxy.seen["error"] == 4, "no other layer retries"
    use(monkeypatch, 9)  # nothing listens there
    with pytest.raises(DataError, match="cannot be reached, 4 attempts"):
        ShardSet(f"{bucket}/x/y")
    use(monkeypatch, server)
    with atomic(target(f"{bucket}/x/file")) as file:
        file.write(b"12345")
    monkeypatch.setattr("semiseg.data.storage.remote.SILENT_S", 0.3)
    with Proxy.before(server, ("delay",), share=0.6, streak=2) as proxy:
        proxy.delay_s = 2.0
        use(monkeypatch, proxy.port)
        began = time.monotonic()
        for _ in range(3):
            assert Storage(f"{bucket}/x").read_range("file", 1, 4) == b"234"
        assert proxy.seen["delay"] > 0 and time.monotonic() - began < 15


def test_plain_webdataset_reads_our_shards_from_the_store(bucket, adapt, draw):
    """As docs/storage.md shows."""
    import fsspec
    from webdataset.compat import WebDataset
    from webdataset.gopen import gopen_schemes

    samples = draw(9)
    shard(adapt(samples), "train", bucket, size="3KB")

    def open_url(url: str, mode: str = "rb", bufsize: int = 8192):
        system, path = fsspec.core.url_to_fs(url)
        return system.open(path, mode)

    gopen_schemes["s3"] = open_url
    try:
        urls = [
            f"{bucket}/pictures/train/{entry.tar}" for entry in ShardSet(f"{bucket}/pictures/train").manifest.shards
        ]
        read = list(WebDataset(urls, shardshuffle=False))
    finally:
        del gopen_schemes["s3"]
    assert [(row["__key__"], row["image.png"]) for row in read] == [(sample.key, sample.image) for sample in samples]
