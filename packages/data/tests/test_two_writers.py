"""Two writers of one set on an object store: with equal settings they write the same bytes, with others one is refused."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from semiseg.data import DataError, ShardSet, Storage, open_dataset, shard, verify
from semiseg.data.storage.target import RemotePath
from semiseg.data.write.claim import confirm
from semiseg.data.write.layout import lay_out
from tests.object_store import make_bucket, s3_server, use

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

WRITER = """
import sys, time
from semiseg.data import open_dataset, shard, DataError
street = open_dataset("street", size="64x48", train_count=18, val_count=1)
print("ready", flush=True)
sys.stdin.readline()
try:
    shard(street, "train", sys.argv[1], size=sys.argv[2], progress=lambda *_: time.sleep(float(sys.argv[3])))
except DataError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with s3_server() as port:
        yield port


def writers(to: str, *sizes: str, pause: float = 0.02) -> "list[tuple[int, str]]":
    """Exit code and stderr of writers that start at the same time."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, to, size, str(pause)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for size in sizes
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [(process.wait(), told[1]) for process in processes for told in [process.communicate(timeout=60)]]


def test_of_two_writers_with_other_settings_one_is_refused(
    server: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    make_bucket(server, "two")
    use(monkeypatch, server)
    street = open_dataset("street", size="64x48", train_count=18, val_count=1)
    for turn in range(1):
        to = f"s3://two/{turn}"
        ended = writers(to, "20KB", "40KB")
        assert sorted(code for code, _ in ended) == [0, 1], ended
        refused = next(told for code, told in ended if code)
        assert "size of shards: " in refused and " there, " in refused
        assert "write to another folder (--to)" in refused and "Traceback" not in refused
        assert verify(f"{to}/street/train").ok
        won = ["20KB", "40KB"][[code for code, _ in ended].index(0)]
        shard(street, "train", tmp_path / str(turn), size=won)
        assert ShardSet(f"{to}/street/train").digest == ShardSet(tmp_path / str(turn) / "street" / "train").digest


def test_writers_with_equal_settings_write_one_set(server: int, monkeypatch: pytest.MonkeyPatch):
    make_bucket(server, "equal")
    use(monkeypatch, server)
    assert [code for code, _ in writers("s3://equal", "20KB", "20KB", pause=0)] == [0, 0]
    assert verify("s3://equal/street/train").ok


def test_the_plan_of_a_killed_writer_is_named_and_ends(server: int, monkeypatch: pytest.MonkeyPatch):
    """Killed before its first shard; it might also be running on another machine."""
    make_bucket(server, "killed")
    use(monkeypatch, server)
    street = open_dataset("street", size="64x48", train_count=18, val_count=1)
    plan = RemotePath("s3://killed/street/train/plan.json")
    assert plan.created(lay_out(street, "train", size="40KB").plan_json) and not plan.created(b"another")
    with pytest.raises(
        DataError, match=r"is being written by another process(.|\n)*delete s3://killed/street/train/plan\.json"
    ):
        shard(street, "train", "s3://killed", size="20KB")
    assert Storage("s3://killed/street/train").names() == ["plan.json"]
    plan.unlink()
    shard(street, "train", "s3://killed", size="20KB")
    assert verify("s3://killed/street/train").ok


def test_replaced_shards_are_noticed_before_the_manifest(server: int, monkeypatch: pytest.MonkeyPatch):
    """As on a store that ignores the condition of a request."""
    make_bucket(server, "replaced")
    use(monkeypatch, server)
    street = open_dataset("street", size="64x48", train_count=18, val_count=1)
    entries = shard(street, "train", "s3://replaced", size="20KB").shards
    folder, layout = RemotePath("s3://replaced/street/train"), lay_out(street, "train", size="20KB")
    confirm(folder, layout, entries)
    (folder / "plan.json").created(lay_out(street, "train", size="40KB").plan_json)
    with pytest.raises(DataError, match=r"with another configuration:(.|\n)*size of shards: "):
        confirm(folder, layout, entries)
    (folder / "plan.json").unlink()
    (folder / f"{entries[1].name}.index.parquet").unlink()
    with pytest.raises(DataError, match=rf"replaced 1 shards .*first {entries[1].name}"):
        confirm(folder, layout, entries)
