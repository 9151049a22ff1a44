"""Run a sweep: every run a process in a folder of its own, one or several at a time, whatever becomes of the others."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

from rich.console import Console

from semiseg.data import SemisegError, cores
from semiseg.train.sweep.grid import Planned, results_of
from semiseg.train.sweep.progress import SweepProgress

LOG = "output.log"
_LOOK_S = 0.2  # between looks at the runs
_END_S = 10.0  # for a run to end when it is told to


def run_all(runs: Sequence[Planned], folder: Path, *, jobs: int = 1) -> dict[str, str]:
    """Bring every run to its end, `jobs` at a time; returns name -> reason of those that failed.

    Complete runs are left alone, half-done ones continue from their checkpoint. Each is a process of its own, whose
    output goes to its folder's output.log. Several at a time share the cores out: each has OMP_NUM_THREADS = cores / jobs,
    unless that is set already, and takes the next one of several GPUs. Only one sweep works in `folder` at a time: a
    second one waits, also for runs that a killed one left behind. SIGINT and SIGTERM end all runs, and raise
    KeyboardInterrupt.
    """
    say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    failed: dict[str, str] = {}
    with _alone(folder, say) as lock:
        waiting = deque(run for run in runs if results_of(run) is None)
        if len(waiting) < len(runs):
            say.print(f"{len(runs) - len(waiting)} of {len(runs)} runs are complete already")
        going: dict[str, _Going] = {}
        gpus = _gpus() if jobs > 1 else ()
        with SweepProgress(say, runs, jobs) as progress, _told_to_stop() as stopped, _ended(going):
            while waiting or going:
                while waiting and len(going) < jobs:
                    run = waiting.popleft()
                    progress.begin(run)
                    try:
                        going[run.recipe.name] = _start(run, lock, jobs, gpus, {each.place for each in going.values()})
                    except OSError as error:
                        failed[run.recipe.name] = f"{error.filename or run.folder}: {error.strerror or error}"
                        progress.end(run, failed[run.recipe.name])
                progress.look()
                time.sleep(_LOOK_S)
                if stopped:
                    raise KeyboardInterrupt
                for run, process, said, _ in list(going.values()):
                    if process.poll() is None:
                        continue
                    del going[run.recipe.name]
                    reason = _reason(run, process.returncode, said)
                    progress.end(run, reason)
                    if reason:
                        failed[run.recipe.name] = reason
    return failed


class _Going(NamedTuple):
    """A run at work. said: how much of its log is of earlier starts, in bytes; place: its number among `jobs`, from 0."""

    run: Planned
    process: "subprocess.Popen[bytes]"
    said: int
    place: int


def _gpus() -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs that runs may take."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return tuple(filter(None, (name.strip() for name in visible.split(","))))
    import torch

    return tuple(map(str, range(torch.cuda.device_count())))


def _start(run: Planned, lock: IO[str], jobs: int, gpus: Sequence[str], taken: Set[int]) -> _Going:
    """Start one run as a process of its own, which holds the sweep's lock as long as it lives."""
    threads = {} if jobs == 1 else {"OMP_NUM_THREADS": str(max(1, cores() // jobs))}
    place = next(number for number in range(jobs) if number not in taken)
    device = {"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if len(gpus) > 1 else {}
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / LOG).open("ab") as log:
        said = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            [sys.executable, "-m", "semiseg.train", *run.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock.fileno(),),
            env=threads | os.environ | device,
        )
        return _Going(run, process, said, place)


def _reason(run: Planned, code: int, earlier: int) -> str:
    """Why a run that ended failed, or nothing. earlier: bytes of its log that other starts wrote."""
    if code == 0 and results_of(run) is not None:
        return ""
    said = (run.folder / LOG).read_bytes()[earlier:].decode(errors="replace").strip().splitlines()
    errors = [line for line in said if line.startswith("error")]
    last = (errors or said or [""])[-1].removeprefix("error: ")
    why = f"exit code {code}: {last}" if code >= 0 else f"killed by {_signal(-code)}"
    return f"{why} (all of it: {run.folder / LOG})"


def _signal(number: int) -> str:
    """A signal's name; of the one that the system sends where memory ran out, that as well."""
    name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
    return f"{name}, which is also what the system sends where memory runs out" if name == "SIGKILL" else name


@contextmanager
def _told_to_stop() -> Iterator[list[int]]:
    """Signals to stop, as they come: no run is then lost between its start and its entry in a list."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    # ignored ones stay so: a shell starts what it puts into the background without SIGINT
    numbers = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ended(going: dict[str, _Going]) -> Iterator[None]:
    """No run outlives this: those that still go are told to end, and killed if they don't."""
    try:
        yield
    finally:
        for each in going.values():
            each.process.terminate()
        for process in [each.process for each in going.values()]:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _alone(folder: Path, say: Console) -> Iterator[IO[str]]:
    """The sweep's folder, for one sweep at a time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise SemisegError(
            f"{folder} cannot be written ({error.strerror}); choose another place with runs=FOLDER"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say.print(f"waiting: another sweep, or a run that one left, is at work in {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
