"""Training from an object store that fails: losses are bit-identical to those from local shards, even after a kill."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from semiseg.data import ShardSet, Storage
from tests.object_store import Proxy, make_bucket, s3_server, use
from tests.processes import environment, torchrun

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

OPTIONS = ("steps=12", "data.workers=1", "evaluate.every=6", "checkpoint.every=2", "model.norm=frozen")


def rows(run: Path) -> list[dict]:
    """metrics.jsonl without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "waited")} for line in lines]


def test_two_processes_with_workers_train_from_a_store_that_fails(
    recipe_file: Callable[..., Path], scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """More than two epochs of 18 scenes, shards fetched by forked workers into one cache; killed once and resumed."""
    recipe = recipe_file()
    torchrun(2, "-m", "semiseg.train", recipe, "name=local", *OPTIONS)
    straight = rows(tmp_path / "runs" / "local")
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEMISEG_CACHE_SIZE", "150KB")  # smaller than the shards, so that some are evicted
    with s3_server() as server:
        make_bucket(server, "bucket")
        use(monkeypatch, server)
        upload(scenes / "street", "s3://bucket/shards/street")
        with Proxy.before(server, share=0.2) as proxy:
            use(monkeypatch, proxy.port)
            arguments = ("-m", "semiseg.train", recipe, "name=remote", "data.shards=s3://bucket/shards", *OPTIONS)
            log = kill_after(random.Random(0).randint(3, 8), arguments, tmp_path / "runs" / "remote" / "metrics.jsonl")
            log += torchrun(2, *arguments).stderr
            assert sum(proxy.seen[fault] for fault in proxy.faults) > 10, proxy.seen
    assert rows(tmp_path / "runs" / "remote") == straight
    assert len(re.findall(r"s3://bucket/shards/street/\S+: attempt \d+ of 10: .*; retrying in", log)) >= 5
    kept = {path.name: path.stat().st_size for path in (tmp_path / "cache").iterdir() if path.is_file()}
    tars = {entry.sha256 for entry in ShardSet(scenes / "street" / "train").manifest.shards}
    assert tars & set(kept), "complete shards were fetched"
    assert sum(kept.values()) <= 150_000


def upload(folder: Path, url: str) -> None:
    for path in folder.glob("*/*"):
        Storage(f"{url}/{path.parent.name}").put(path, path.name)


def kill_after(count: int, arguments: tuple[str | Path, ...], metrics: Path) -> str:
    """Start two processes and kill them (-9) when `count` lines are logged; returns their stderr."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *map(str, arguments),
    ]
    with subprocess.Popen(
        command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (metrics.exists() and len(metrics.read_text().splitlines()) >= count):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline, "it hangs"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate(timeout=60)[1]
