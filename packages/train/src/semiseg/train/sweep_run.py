"""Run a sweep: one process after another, each run in a folder of its own, whatever becomes of the others."""

import fcntl
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from semiseg.data import SemisegError
from semiseg.train.load import digest
from semiseg.train.sweep import Planned

LOG = "output.log"
_LOOK_S = 0.2  # between looks at a run


def results_of(run: Planned) -> dict[str, Any] | None:
    """What a complete run of this very recipe found; None where it has yet to be run, or run to its end."""
    try:
        found = json.loads((run.folder / "results.json").read_text())
    except (OSError, ValueError):
        return None
    return found if found.get("recipe") == digest(run.recipe) else None


def run_all(runs: Sequence[Planned], folder: Path) -> dict[str, str]:
    """Bring every run to its end; returns name -> reason of those that failed.

    Complete runs are left alone, half-done ones continue from their checkpoint. Each is a process of its own, whose
    output goes to its folder's output.log. Only one sweep works in `folder` at a time: a second one waits, also for a
    run that a killed one left behind.
    """
    say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    failed: dict[str, str] = {}
    with _alone(folder, say) as lock:
        waiting = [run for run in runs if results_of(run) is None]
        if len(waiting) < len(runs):
            say.print(f"{len(runs) - len(waiting)} of {len(runs)} runs are complete already")
        with _Progress(say, runs) as progress:
            for number, run in enumerate(waiting, start=len(runs) - len(waiting) + 1):
                progress.begin(number, run)
                reason = _run(run, lock, progress)
                progress.end(run, reason)
                if reason:
                    failed[run.recipe.name] = reason
    return failed


def _run(run: Planned, lock: IO[str], progress: "_Progress") -> str:
    """One run in a process of its own, which holds the sweep's lock as long as it lives; why it failed, or nothing."""
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        with (run.folder / LOG).open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "semiseg.train", *run.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock.fileno(),),
            )
            try:
                while process.poll() is None:
                    progress.look(run)
                    time.sleep(_LOOK_S)
            except BaseException:
                process.terminate()
                process.wait()
                raise
    except OSError as error:
        return f"{error.filename or run.folder}: {error.strerror or error}"
    if process.returncode == 0 and results_of(run) is not None:
        return ""
    said = (run.folder / LOG).read_text(errors="replace").strip().splitlines()
    errors = [line for line in said if line.startswith("error")]
    last = (errors or said or [""])[-1].removeprefix("error: ")
    how = f"exit code {process.returncode}" if process.returncode >= 0 else f"killed by signal {-process.returncode}"
    return f"{how}: {last} (all of it: {run.folder / LOG})"


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


class _Progress:
    """A live line on a terminal; in a pipe a line when a run begins and when it ends."""

    def __init__(self, say: Console, runs: Sequence[Planned]) -> None:
        self.say, self.total = say, len(runs)
        self.steps = {run.recipe.name: run.recipe.steps for run in runs}
        past = [(run.recipe.steps, found["hours"] * 3600) for run in runs if (found := results_of(run))]
        self.rates = [seconds / steps for steps, seconds in past]  # seconds a step of complete runs
        self.left = sum(run.recipe.steps for run in runs) - sum(steps for steps, _ in past)
        self.live: Progress | None = None

    def __enter__(self) -> "_Progress":
        if self.say.is_terminal and self.left:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self.live = Progress(*columns, console=self.say, transient=True)
            self.live.start()
            self.task = self.live.add_task("", total=self.total)
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def begin(self, number: int, run: Planned) -> None:
        self.number, self.began, self.done_before = number, time.monotonic(), self._steps_done(run)
        if not self.live:
            self.say.print(f"{number}/{self.total} {run.recipe.name}: begins{self._eta(self.left - self.done_before)}")

    def look(self, run: Planned) -> None:
        if self.live:
            done = self._steps_done(run)
            eta = self._eta(self.left - done, done - self.done_before)
            what = f"{run.recipe.name}: step {done}/{run.recipe.steps}{eta}"
            self.live.update(self.task, completed=self.number - 1, description=what)

    def end(self, run: Planned, reason: str) -> None:
        seconds, done = time.monotonic() - self.began, self._steps_done(run) - self.done_before
        if reason:
            self.say.print(f"{self.number}/{self.total} {run.recipe.name}: FAILED, {reason}", style="red")
        else:
            if done > 0:
                self.rates.append(seconds / done)
            score = results_of(run) or {}
            miou = score.get("last", {}).get("miou")
            told = "" if miou is None else f", {miou:.2f} mIoU"
            self.say.print(f"{self.number}/{self.total} {run.recipe.name}: done in {_clock(seconds)}{told}")
        self.left -= run.recipe.steps

    def _eta(self, left: int, done: int = 0) -> str:
        """Time left for all runs, by the median rate of those that ended, or the rate of this one."""
        rate = statistics.median(self.rates) if self.rates else None
        if rate is None and done > 0:
            rate = (time.monotonic() - self.began) / done
        return "" if rate is None else f", {_clock(rate * left)} left"

    @staticmethod
    def _steps_done(run: Planned) -> int:
        """The last step that the run's metrics tell of."""
        try:
            last = (run.folder / "metrics.jsonl").read_bytes().rstrip(b"\n").rsplit(b"\n", 1)[-1]
            return int(json.loads(last)["step"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
