"""One training at a time in a run's folder."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from semiseg.train.run import lock as module
from semiseg.train.run.lock import LOCK, LockError, RunLock

HOLD = """
import sys, time
from pathlib import Path
from semiseg.train.run.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the folder."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_training_is_refused_until_the_first_is_gone(tmp_path: Path, holder: "subprocess.Popen[str]"):
    with pytest.raises(
        LockError, match=rf"is being trained by process {holder.pid} on \S+ since .*kill {holder.pid}.*-2"
    ):
        RunLock(tmp_path)
    with pytest.raises(LockError):  # --take-over is for other hosts
        RunLock(tmp_path, take_over=True)
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, but its parent has not asked for its exit code
    second = RunLock(tmp_path)
    second.check()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_a_reused_process_number_does_not_hold(tmp_path: Path):
    own = RunLock(tmp_path)
    with pytest.raises(LockError):
        RunLock(tmp_path)
    text = json.loads((tmp_path / LOCK).read_text())
    (tmp_path / LOCK).write_text(json.dumps(text | {"birth": "1", "token": "other"}))
    RunLock(tmp_path).release()
    own.release()


def other_host(folder: Path, *, age: float, **more: object) -> None:
    lock = {
        "host": "node7",
        "pid": 1,
        "machine": "another",
        "birth": "5",
        "started": "2026-01-01 00:00:00",
        "token": "x",
    }
    (folder / LOCK).write_text(json.dumps(lock | more))
    now = (folder / LOCK).stat().st_mtime
    os.utime(folder / LOCK, (now - age, now - age))


def test_a_training_on_another_host_is_believed_to_be_alive_for_a_while(tmp_path: Path):
    other_host(tmp_path, age=30)
    with pytest.raises(LockError, match=r"process 1 on node7 .*alive 30 s ago.*--take-over, or in 90 s$"):
        RunLock(tmp_path)
    RunLock(tmp_path, take_over=True).release()
    other_host(tmp_path, age=module.DEAD_S + 1)
    RunLock(tmp_path).release()


def test_a_requeued_job_takes_its_run_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    other_host(tmp_path, age=1, job=["77", 0])
    with pytest.raises(LockError):  # two processes of one start, both as rank 0
        RunLock(tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    RunLock(tmp_path).release()


def test_what_was_taken_over_is_not_written_to(tmp_path: Path):
    own = RunLock(tmp_path)
    other_host(tmp_path, age=0)
    with pytest.raises(LockError, match=r"was taken over by process 1 on node7"):
        own.check()
    own.release()
    assert (tmp_path / LOCK).exists()


def test_the_lock_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "BEAT_S", 0.02)
    own = RunLock(tmp_path)
    other_host(tmp_path, age=100)
    before = (tmp_path / LOCK).stat().st_mtime
    for _ in range(200):
        if (tmp_path / LOCK).stat().st_mtime > before + 50:
            break
        time.sleep(0.01)
    else:
        pytest.fail("not renewed")
    own.release()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": "x", "machine": 3}', "\x00"])
def test_a_damaged_lock_does_not_hold_for_ever(tmp_path: Path, text: str):
    (tmp_path / LOCK).write_text(text)
    os.utime(tmp_path / LOCK, (1, 1))
    RunLock(tmp_path).release()


def test_other_ranks_only_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in (("MASTER_ADDR", "a"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    first = RunLock(tmp_path)
    monkeypatch.setenv("RANK", "1")
    assert not RunLock(tmp_path).held
    monkeypatch.setenv("MASTER_PORT", "2")
    with pytest.raises(LockError):
        RunLock(tmp_path)
    first.release()
