"""Writing that is interrupted: killed processes, full disks, folders that can't be written."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from semiseg.data import DataError, shard

PAUSE_S = 0.01  # for a member to be read, so that there are moments to be killed at
WRITER = """
    import os, sys, time
    from functools import partial
    from pathlib import Path
    import webdataset.writer, pyarrow.parquet
    from semiseg.data import RawSample, RawSpace, Split, shard

    pause = 0

    def read(path):
        time.sleep(pause)
        return path.read_bytes()

    class Slow:
        name, version, root, taxonomies = "slow", "1", None, ()
        raw_space = RawSpace(name="ids", names=dict.fromkeys(range(256), ""))
        def __init__(self, pairs): self.pairs = pairs
        def splits(self): return {"train": Split(name="train", samples=len(self.pairs))}
        def samples(self, split):
            for i, (image, label) in enumerate(self.pairs):
                image, label = partial(read, Path(image)), partial(read, Path(label))
                yield RawSample(key=f"k{i:03}", image=image, label=label, size=300_000)

    if __name__ == "__main__":
        pairs = list(zip(sys.argv[1::2], sys.argv[2::2]))
        print("ready", flush=True)
        for line in sys.stdin:
            to, workers, pause = line.split()
            pause = float(pause)
            child = os.fork()  # a separate process, without the second that importing takes
            if child:
                print(child, flush=True)
                os.waitpid(child, 0)
                print("gone", flush=True)
                continue
            os.setsid()
            shard(Slow(pairs), "train", to, size="1MB", workers=int(workers))
            os._exit(0)
"""


@pytest.fixture
def writer(tmp_path, draw):
    """writer(folder, workers) has a process write 24 samples into 8 shards; returns its id and a function to wait for it."""
    script = tmp_path / "writer.py"
    script.write_text(textwrap.dedent(WRITER))
    paths = []
    for sample in draw(24):
        for name, data in ((f"{sample.key}.png", sample.image), (f"{sample.key}.label.png", sample.label)):
            (tmp_path / name).write_bytes(data)
            paths.append(str(tmp_path / name))
    # As on a machine without torch: webdataset would import it into every process, 2 s each.
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, str(script), *paths], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    commands, answers = parent.stdin, parent.stdout
    assert commands is not None and answers is not None
    assert answers.readline() == "ready\n"
    started: list[int] = []

    def writer(to: Path, workers: int, pause: float = 0) -> tuple[int, Callable[[], object]]:
        print(to, workers, pause, file=commands, flush=True)
        started.append(int(answers.readline()))
        return started[-1], answers.readline

    yield writer
    parent.kill()
    parent.communicate()
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_killed_at_twenty_random_moments_it_resumes_to_the_same_bytes(writer, tmp_path):
    began = time.monotonic()
    writer(tmp_path / "straight", 1, PAUSE_S)[1]()
    whole, seconds = sums(tmp_path / "straight" / "slow" / "train"), time.monotonic() - began
    assert len(whole) == 2 * 8 + 1
    chance = random.Random(0)
    kills = completed = found = 0
    while kills < 20:
        folder = tmp_path / f"killed{completed}" / "slow" / "train"
        process, wait = writer(folder.parents[1], 2 if kills % 4 == 3 else 1, PAUSE_S)
        if kills % 4 == 3:
            await_first_file(folder)  # the start of its processes takes longer than all of its work
        time.sleep(chance.uniform(0, 0.6 * seconds))
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        wait()
        await_end_of_group(process)
        left = sums(folder) if folder.exists() else {}
        for name in set(left) & set(whole):
            assert left[name] == whole[name], f"{name} has its final name, so it must be whole"
        if "manifest.json" in left:
            assert left == whole  # killed after all was done: start again
            completed += 1
            continue
        kills += 1
        found += sum(name.endswith(".tar") for name in left)
        if left:
            copy = tmp_path / f"copy{kills}" / "slow" / "train"
            shutil.copytree(folder, copy)
            writer(copy.parents[1], 1)[1]()
            assert sums(copy) == whole, f"after kill {kills}"
    assert found >= 5, "kills before anything is written prove nothing"
    print(f"{kills} kills, after each of them a completion to equal bytes; {found} shards were there already")


def await_first_file(folder: Path) -> None:
    deadline = time.monotonic() + 60
    before = names(folder)
    while time.monotonic() < deadline and not names(folder) - before - {"plan.json"}:
        time.sleep(0.002)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def await_end_of_group(group: int) -> None:
    """The writer's processes must end with it, although nobody asks them to."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("processes outlived the writer that was killed")


def test_a_process_that_hangs_goes_when_another_fails(tmp_path):
    """As in a request to a dead network: the writer does not wait for it, nor after Ctrl-C."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import time
            from semiseg.data import DataError, parallel

            def work(hangs, tick):
                time.sleep(600 if hangs else 0.3)
                raise DataError("the fault of the other")

            if __name__ == "__main__":
                parallel._GRACE_S = 0.2
                parallel.run_all(work, [True, False], workers=2, samples=2, progress=lambda *now: None)
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.splitlines()[-1] == "semiseg.data.errors.DataError: the fault of the other"


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
    with pytest.raises(
        DataError, match=r"pictures/train: cannot be written \(File exists\): a file has the name of the folder"
    ):
        shard(adapt(draw(2)), "train", tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="NOT TESTED: permissions do not bind root")
def test_a_folder_without_permission_is_one_error(adapt, draw, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match=r"cannot be written \(Permission denied\)"):
        shard(adapt(draw(2)), "train", tmp_path)
