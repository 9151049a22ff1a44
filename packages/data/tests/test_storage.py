"""Folders behind URLs: ranges, names, secrets, servers that misbehave."""

import io
import logging
import os
import pickle
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest

from semiseg.data import DataError, ShardSet, shard, verify
from semiseg.data.storage.atomic import atomic
from semiseg.data.storage.lock import hold
from semiseg.data.storage.storage import PART, Storage
from semiseg.data.storage.target import target


@pytest.fixture
def memory() -> Iterator[str]:
    """The URL of a folder in fsspec's memory, removed afterwards."""
    yield "memory://storage-tests/folder"
    fsspec.filesystem("memory").rm("/storage-tests", recursive=True)


def test_a_remote_folder_reads_as_a_local_one(memory, tmp_path):
    data = np.random.default_rng(0).bytes(PART + 1000)  # more than one request
    local, remote = Storage(tmp_path), Storage(memory)
    for folder in (tmp_path, target(memory)):
        for name, content in (("a.bin", data), ("b", b""), ("c", b"xyz")):
            with atomic(folder / name) as file:
                file.write(content)
    assert local.names() == remote.names() == ["a.bin", "b", "c"]
    random = np.random.default_rng(1)
    ranges = [
        (0, 0),
        (5, 5),
        (0, len(data)),
        (PART - 3, PART + 3),
        (len(data) - 5, len(data) + 5),
        (len(data), len(data) + 9),
    ]
    ranges += [sorted(random.integers(0, len(data) + 50, 2).tolist()) for _ in range(50)]
    for start, stop in ranges:
        assert local.read_range("a.bin", start, stop) == remote.read_range("a.bin", start, stop) == data[start:stop]
    for name in ("a.bin", "b", "c"):
        assert local.read(name) == remote.read(name)
        assert local.size(name) == remote.size(name)
    assert remote.exists("a.bin") and not remote.exists("d")
    for action in (remote.read, remote.size, lambda name: remote.read_range(name, 0, 5)):
        with pytest.raises(FileNotFoundError, match="memory://storage-tests/folder/d"):
            action("d")
    assert pickle.loads(pickle.dumps(remote)).read("c") == b"xyz"


def test_a_remote_path_behaves_like_a_path_for_the_writer(memory):
    folder = target(memory)
    assert not folder.exists() and list(folder.glob("*.tar")) == []
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / "x.tar") as file:
        file.write(b"12345")
    with pytest.raises(RuntimeError), atomic(folder / "y.tar") as file:
        file.write(b"half")
        raise RuntimeError
    with atomic(folder / "notes.json") as file:
        file.write(b"{}")
    assert folder.exists() and folder.absolute() == folder and str(folder) == os.fspath(folder) == memory
    assert [path.name for path in folder.iterdir()] == ["notes.json", "x.tar"], (
        "a file that failed halfway never appears"
    )
    assert list(folder.glob("*.tar")) == [folder / "x.tar"] == [(folder / "notes.json").with_name("x.tar")]
    tar = folder / "x.tar"
    assert tar.stat().st_size == 5 and tar.read_bytes() == b"12345" and tar.read_text() == "12345"
    with tar.open("rb") as file:
        assert file.read(2) == b"12" and file.read() == b"345"
    tar.unlink()
    tar.unlink(missing_ok=True)
    assert not tar.exists() and tar.parent == folder


def test_leftovers_of_a_killed_upload_are_removed(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    hour_ago = time.time() - 3600
    for name in ("semiseg-upload-killed", "semiseg-upload-held", "semiseg-upload-young", "other"):
        (tmp_path / name).write_bytes(b"x")
        if not name.endswith("young"):
            os.utime(tmp_path / name, (hour_ago, hour_ago))
    with (tmp_path / "semiseg-upload-held").open("rb") as file:
        assert hold(file.fileno(), shared=False)
        with atomic(target(memory) / "c") as upload:
            upload.write(b"xyz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "semiseg-upload-held", "semiseg-upload-young"]
    assert Storage(memory).read("c") == b"xyz"


def test_shards_are_written_to_a_url(adapt, draw, memory, tmp_path):
    adapter = adapt(draw(9))
    here, there = shard(adapter, "train", tmp_path, size="3KB"), shard(adapter, "train", memory, size="3KB")
    assert here == there and len(there.shards) > 2
    local, remote = Storage(tmp_path / "pictures" / "train"), Storage(f"{memory}/pictures/train")
    assert local.names() == remote.names()
    assert all(local.read(name) == remote.read(name) for name in local.names())
    assert shard(adapter, "train", memory, size="3KB") == there, "a complete set is left as it is"
    with pytest.raises(DataError, match="another configuration"):
        shard(adapter, "train", memory, size="4KB")
    assert verify(remote.url).ok


@pytest.mark.parametrize(
    "url",
    [
        "s3://KEY:hush@bucket/x",
        "s3://KEY:hu/hush@bucket/x",  # half of all AWS secrets hold a "/"
        "https://user:hush@host:8080/x",
        "gs://hush@bucket",
    ],
)
def test_secrets_in_urls_are_refused_and_not_repeated(url):
    for action in (Storage, ShardSet):
        with pytest.raises(DataError, match=r"must not contain credentials.*AWS_ACCESS_KEY_ID") as caught:
            action(url)
        assert "hush" not in str(caught.value) and "KEY:" not in str(caught.value)
    Storage("hf://datasets/somebody/shards@main/voc/train")  # a revision is not a secret
    Storage("http://host:8080/mail@home/x")
    with pytest.raises(DataError, match=r"https://host/x\?\.\.\.: a signed URL names one file") as caught:
        Storage("https://host/x?signature=hush")
    assert "hush" not in str(caught.value)


def test_urls_that_cannot_be_opened_say_why(monkeypatch):
    with pytest.raises(DataError, match=r"Protocol not known: nowhere.* s3://, gs://"):
        Storage("nowhere://x").read("y")
    with pytest.raises(DataError, match=r"chained file systems are not supported.*SEMISEG_CACHE.*write s3://"):
        Storage("simplecache::s3://bucket/x")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(DataError, match=r"a package is missing .* pip install 'semiseg-data\[s3\]'"):
        Storage("s3://bucket-that-nobody-asked/x").read("y")


class Plain(SimpleHTTPRequestHandler):
    """Python's server, which sends only complete files."""

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


class Ranged(Plain):
    """A server that supports ranges."""

    def send_head(self):
        requested = self.headers.get("Range")
        if requested is None:
            return super().send_head()
        data = Path(self.translate_path(self.path)).read_bytes()
        start, _, stop = requested.removeprefix("bytes=").partition("-")
        part = data[int(start) : int(stop) + 1]
        self.send_response(206 if part else 416)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}")
        self.end_headers()
        return io.BytesIO(part)


class Unlisted(Ranged):
    """A server that does not list folders."""

    def list_directory(self, path):
        self.send_error(403)


@contextmanager
def web(folder: Path, kind: type[Plain]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(kind, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_shards_are_read_from_a_web_server(adapt, draw, tmp_path, monkeypatch, caplog):
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("SEMISEG_CACHE", "off")
    shard(adapt(draw(9)), "train", tmp_path, size="3KB")
    local = ShardSet(tmp_path / "pictures" / "train")
    with web(tmp_path, Ranged) as url:
        read = list(ShardSet(f"{url}/pictures/train"))
        assert [sample.key for sample in read] == local.keys()
        for ours, theirs in zip(read, local, strict=True):
            assert ours.image.tobytes() == theirs.image.tobytes()
        with pytest.raises(DataError, match="no shards at http"):
            ShardSet(f"{url}/pictures/val")
        assert verify(f"{url}/pictures/train").ok
    with web(tmp_path, Unlisted) as url, caplog.at_level(logging.WARNING, "semiseg.data"):
        assert verify(f"{url}/pictures/train").ok
    assert "pictures/train cannot be listed, so unexpected files are not reported" in caplog.text
    with (
        web(tmp_path, Plain) as url,
        pytest.raises(DataError, match=r"it ignores ranges; serve the folder by one that"),
    ):
        list(ShardSet(f"{url}/pictures/train"))
