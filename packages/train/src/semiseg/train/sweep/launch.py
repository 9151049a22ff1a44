"""Run a sweep: each run is a separate process, one or several at a time; a run that fails does not stop the others."""

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

from semiseg.data import LiveBar, SemisegError, cores, hold
from semiseg.train.sweep.grid import Planned, results_of
from semiseg.train.sweep.progress import SweepProgress

LOG = "output.log"
_POLL_S = 0.2
_TERMINATE_S = 60.0  # before a run that was asked to end is killed: it ends its step and writes a checkpoint


def run_all(runs: Sequence[Planned], folder: Path, *, jobs: int = 1) -> dict[str, str]:
    """Complete every run, `jobs` at a time; returns name -> reason of those that failed.

    Complete runs are left alone, partial ones resume from their checkpoint. Each is a separate process, whose output goes
    to output.log in its folder. Concurrent runs divide the CPU: each has OMP_NUM_THREADS = cores / jobs, unless that is
    set already, and takes the next one of several GPUs. Only one sweep works in `folder` at a time: a second one waits,
    also for runs that a killed one left behind (except on Windows). SIGINT, SIGTERM and SIGHUP end all runs, each
    with a checkpoint, and raise Stopped, which is a KeyboardInterrupt.
    """
    bar = LiveBar("runs", eta=False)
    failed: dict[str, str] = {}
    with _locked(folder, bar) as lock:
        waiting = deque(run for run in runs if results_of(run) is None)
        if len(waiting) < len(runs):
            bar.say(f"{len(runs) - len(waiting)} of {len(runs)} runs are already complete")
        running: dict[str, _Running] = {}
        gpus = _gpus() if jobs > 1 else ()
        progress = SweepProgress(bar, runs, jobs)
        with bar, _stop_signals() as stopped, _ended_on_exit(running, stopped):
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.popleft()
                    progress.start(run)
                    slots = {other.slot for other in running.values()}
                    try:
                        running[run.recipe.name] = _start(run, lock, jobs, gpus, slots)
                    except OSError as error:
                        failed[run.recipe.name] = f"{error.filename or run.folder}: {error.strerror or error}"
                        progress.end(run, failed[run.recipe.name])
                progress.update()
                time.sleep(_POLL_S)
                if stopped:
                    bar.say("stopping: every run ends its step and writes a checkpoint (Ctrl-C again: at once)")
                    raise Stopped(stopped[0])
                for run, process, log_start, _ in list(running.values()):
                    if process.poll() is None:
                        continue
                    del running[run.recipe.name]
                    reason = _reason(run, process.returncode, log_start)
                    progress.end(run, reason)
                    if reason:
                        failed[run.recipe.name] = reason
    return failed


class Stopped(KeyboardInterrupt):
    """A signal ended the sweep; `code` is its exit code."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


class _Running(NamedTuple):
    """A run in progress. log_start: length of its log when it started, in bytes; slot: its number among `jobs`, from 0."""

    run: Planned
    process: "subprocess.Popen[bytes]"
    log_start: int
    slot: int


def _gpus() -> tuple[str, ...]:
    """The GPUs that runs may take, as in CUDA_VISIBLE_DEVICES."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return tuple(filter(None, (name.strip() for name in visible.split(","))))
    import torch

    return tuple(map(str, range(torch.cuda.device_count())))


def _start(run: Planned, lock: IO[str], jobs: int, gpus: Sequence[str], taken: Set[int]) -> _Running:
    """Start one run as a process that holds the sweep's lock as long as it lives."""
    threads = {} if jobs == 1 else {"OMP_NUM_THREADS": str(max(1, cores() // jobs))}
    slot = next(number for number in range(jobs) if number not in taken)
    device = {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if len(gpus) > 1 else {}
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / LOG).open("ab") as log:
        log_start = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            [sys.executable, "-m", "semiseg.train", *run.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock.fileno(),) if os.name == "posix" else (),
            env=threads | os.environ | device,
        )
        return _Running(run, process, log_start, slot)


def _reason(run: Planned, code: int, log_start: int) -> str:
    """Why a run that ended failed; "" if it did not. log_start: bytes of its log that are from earlier starts."""
    if code == 0 and results_of(run) is not None:
        return ""
    output = (run.folder / LOG).read_bytes()[log_start:].decode(errors="replace").strip().splitlines()
    errors = [line for line in output if line.startswith("error")]
    last = (errors or output or [""])[-1].removeprefix("error: ")
    why = f"exit code {code}: {last}" if code >= 0 else f"killed by {_signal(-code)}"
    return f"{why} (full output: {run.folder / LOG})"


def _signal(number: int) -> str:
    name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
    return f"{name}, which the system also sends when memory runs out" if name == "SIGKILL" else name


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Signals to stop, collected as they arrive, so that none comes between the start of a run and its entry in a list."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    # ignored ones stay ignored: a shell starts background processes without SIGINT
    signals = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
    numbers = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ended_on_exit(running: dict[str, _Running], stopped: list[int]) -> Iterator[None]:
    """No run outlives this: those still in progress are terminated, and killed if they do not end, or at a second Ctrl-C."""
    try:
        yield
    finally:
        processes = [run.process for run in running.values()]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + _TERMINATE_S
        while any(process.poll() is None for process in processes):
            if time.monotonic() > deadline or stopped.count(signal.SIGINT) > 1:
                for process in processes:
                    process.kill()
            time.sleep(_POLL_S)


@contextmanager
def _locked(folder: Path, bar: LiveBar) -> Iterator[IO[str]]:
    """The folder of a sweep, for one sweep at a time; its lock file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise SemisegError(
            f"{folder} cannot be written ({error.strerror}); choose another place with runs=FOLDER"
        ) from None
    with lock:
        if not hold(lock.fileno()):
            bar.say(f"waiting: another sweep, or a run that one left behind, is using {folder}")
            hold(lock.fileno(), wait=True)
        yield lock
