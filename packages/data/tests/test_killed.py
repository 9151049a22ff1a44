"""Writing that is cut off from outside: killed processes, full disks, folders that can't be written."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest

from semiseg.data import DataError, shard

WRITER = """
    import sys, time
    from functools import partial
    from pathlib import Path
    from semiseg.data import RawSample, RawSpace, Split, shard

    def read(path):
        time.sleep(0.01)
        return path.read_bytes()

    class Slow:
        name, version, root, taxonomies = "slow", "1", None, ()
        raw_space = RawSpace(name="ids", names=dict.fromkeys(range(12), ""))
        def __init__(self, pairs): self.pairs = pairs
        def splits(self): return {"train": Split(name="train", samples=len(self.pairs))}
        def samples(self, split):
            for i, (image, label) in enumerate(self.pairs):
                image, label = partial(read, Path(image)), partial(read, Path(label))
                yield RawSample(key=f"k{i:03}", image=image, label=label, size=300_000)

    if __name__ == "__main__":
        to, workers, *paths = sys.argv[1:]
        shard(Slow(list(zip(paths[::2], paths[1::2])) * 3), "train", to, size="1MB", workers=int(workers))
"""


@pytest.fixture
def writer(tmp_path, camvid_files):
    """writer(folder, workers) starts a process of its own that writes 36 real samples into 12 shards, slowly."""
    script = tmp_path / "writer.py"
    script.write_text(textwrap.dedent(WRITER))
    paths = [str(path) for pair in camvid_files for path in pair]
    # As on a machine without torch: webdataset would import it into every process, 2 s each.
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    started: list[subprocess.Popen[bytes]] = []

    def writer(to: Path, workers: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, str(script), str(to), str(workers), *paths]
        started.append(subprocess.Popen(command, env=environment, start_new_session=True))
        return started[-1]

    yield writer
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_killed_at_random_moments_it_continues_to_the_same_bytes(writer, tmp_path):
    assert writer(tmp_path / "straight", 1).wait() == 0
    whole = sums(tmp_path / "straight" / "slow" / "train")
    assert len(whole) == 2 * 12 + 1
    folder = tmp_path / "killed" / "slow" / "train"
    chance = random.Random(0)
    for workers, progress in ((1, 0), (2, 1), (1, 2), (2, 2)):
        before = names(folder)
        process = writer(tmp_path / "killed", workers)
        deadline = time.monotonic() + 60
        # A first temp file, or a few tars with their final names; then any moment of the next shards.
        wanted = ".tar" if progress else ".tmp"
        while time.monotonic() < deadline:
            if len([name for name in names(folder) - before if ".tar" in name and name.endswith(wanted)]) >= max(
                progress, 1
            ):
                break
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        process.wait()
        await_end_of_group(process.pid)
        left = sums(folder)
        assert "manifest.json" not in left, "killed too late to prove anything"
        for name in set(left) & set(whole):
            assert left[name] == whole[name], f"{name} has its final name, so it must be whole"
    assert len([name for name in left if name.endswith(".tar")]) >= 5, "each run must have come further"
    assert writer(tmp_path / "killed", 1).wait() == 0
    assert sums(folder) == whole


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def await_end_of_group(group: int) -> None:
    """The writer's own processes must go with it, although nobody told them."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("processes outlived the writer that was killed")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_error_and_continues_when_there_is_room(adapt, draw, small_disk, tmp_path, workers):
    adapter = adapt(draw(24, height=100, width=150))  # about 1.1 MB
    with pytest.raises(
        DataError, match=r"000\d\d\d\.\w+.*: cannot be written \(No space left on device\): .* free some"
    ):
        shard(adapter, "train", small_disk, size="150KB", workers=workers)
    folder = small_disk / "pictures" / "train"
    left = sums(folder)
    assert not [name for name in left if name.endswith(".tmp")]
    assert "manifest.json" not in left and "000000.tar" in left
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    shard(adapter, "train", small_disk, size="150KB", workers=workers)
    shard(adapter, "train", tmp_path / "straight", size="150KB")
    whole = sums(tmp_path / "straight" / "pictures" / "train")
    assert sums(folder) == whole
    assert all(whole[name] == left[name] for name in left if name.endswith(".parquet"))


def test_a_disk_that_is_full_from_the_start(adapt, draw, small_disk):
    (small_disk / "filler").write_bytes(bytes(590_000))
    with pytest.raises(DataError, match="No space left on device"):
        shard(adapt(draw(3, height=200, width=200)), "train", small_disk)
    assert not [path for path in small_disk.rglob("*") if path.name.endswith((".tmp", ".tar", "manifest.json"))]


def test_a_read_only_disk_is_one_error(adapt, draw, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(DataError, match=r"cannot be written \(Read-only file system\): .*name another folder"):
        shard(adapt(draw(2)), "train", small_disk)


def test_a_file_in_place_of_a_folder_is_one_error(adapt, draw, tmp_path):
    (tmp_path / "pictures").write_text("not a folder")
    with pytest.raises(
        DataError, match=r"pictures/train: cannot be written \(Not a directory\): .*name another folder"
    ):
        shard(adapt(draw(2)), "train", tmp_path)
    (tmp_path / "pictures").unlink()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "train").write_text("not a folder")
    with pytest.raises(DataError, match=r"pictures/train: cannot be written \(File exists\): a file is in the place"):
        shard(adapt(draw(2)), "train", tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="NOT TESTED: permissions do not bind root")
def test_a_folder_without_permission_is_one_error(adapt, draw, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match=r"cannot be written \(Permission denied\)"):
        shard(adapt(draw(2)), "train", tmp_path)
