"""Progress of a sweep: a live line on a terminal, plain lines in a pipe, and the time left."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from semiseg.data import LiveBar, clock, parse_json
from semiseg.train.recipe.resolved import leaves
from semiseg.train.sweep.grid import Planned, results_of


@dataclass(frozen=True)
class _Started:
    """A run in progress: its number in the sweep, when this process started it, and at which step."""

    run: Planned
    number: int
    time: float
    step: int


class SweepProgress:
    """A live line on a terminal; in a pipe, a line when a run starts and when it ends."""

    def __init__(self, bar: LiveBar, runs: Sequence[Planned], jobs: int) -> None:
        self.bar, self.total, self.jobs = bar, len(runs), jobs
        complete = {run.recipe.name: results for run in runs if (results := results_of(run))}
        self.steps = {run.recipe.name: run.recipe.steps for run in runs if run.recipe.name not in complete}
        self.ended = self.started = len(complete)
        self.pace = Pace(runs)
        for name, results in complete.items():
            self.pace.add(name, results["hours"] * 3600 / results["steps"])
        self.running: dict[str, _Started] = {}

    def start(self, run: Planned) -> None:
        self.started += 1
        self.running[run.recipe.name] = _Started(run, self.started, time.monotonic(), _last_step(run))
        if not self.bar.live:
            left = self._left(self._last_steps())
            self.bar.say(f"{self.started}/{self.total} {run.recipe.name}: started{left and f', {left}'}")

    def update(self) -> None:
        if self.bar.live:
            done = self._last_steps()
            steps = [f"{name}: step {done[name]}/{started.run.recipe.steps}" for name, started in self.running.items()]
            # a note that is too long for the terminal is cut at its end
            self.bar.show(self.ended, self.total, ", ".join([self._left(done), *steps]).lstrip(", "))

    def end(self, run: Planned, reason: str) -> None:
        """`reason`: why it failed, or ""."""
        started = self.running.pop(run.recipe.name)
        seconds, steps = time.monotonic() - started.time, _last_step(run) - started.step
        label = f"{started.number}/{self.total} {run.recipe.name}"
        if reason:
            self.bar.say(f"{label}: FAILED, {reason}", style="red")
        else:
            if steps > 0:
                self.pace.add(run.recipe.name, seconds / steps)
            miou = (results_of(run) or {}).get("last", {}).get("miou")
            score = "" if miou is None else f", {miou:.2f} mIoU"
            self.bar.say(f"{label}: done in {clock(seconds)}{score}")
        del self.steps[run.recipe.name]
        self.ended += 1

    def _last_steps(self) -> dict[str, int]:
        return {name: _last_step(started.run) for name, started in self.running.items()}

    def _left(self, done: dict[str, int]) -> str:
        """Time left for all runs, given the last steps of those in progress; "" if nothing is known yet."""
        now = time.monotonic()
        new = {name: done[name] - started.step for name, started in self.running.items()}
        paces = [(now - started.time) / new[name] for name, started in self.running.items() if new[name] > 0]
        pace = statistics.median(paces) if paces else 0
        seconds = [(self.pace.of(name) or pace) * (steps - done.get(name, 0)) for name, steps in self.steps.items()]
        if not any(seconds):
            return ""
        # runs are spread evenly over the jobs, and a run is not divided
        return f"{clock(max([sum(seconds) / self.jobs, *seconds]))} left"


class Pace:
    """Expected seconds per step of each run: those of the complete runs most like it, as methods of a grid differ a lot."""

    def __init__(self, runs: Sequence[Planned]) -> None:
        self.recipes = {run.recipe.name: leaves(run.recipe) for run in runs}
        self.nearest: dict[str, tuple[int, list[float]]] = {}  # run -> differing keys, seconds per step of runs so near

    def add(self, complete: str, seconds: float) -> None:
        """A complete run and its seconds per step."""
        known = self.recipes[complete]
        for name, keys in self.recipes.items():
            differ = sum(known.get(key) != keys.get(key) for key in (known.keys() | keys.keys()) - {"name", "seed"})
            least, found = self.nearest.get(name, (differ, []))
            if differ <= least:
                self.nearest[name] = (differ, [*found, seconds] if differ == least else [seconds])

    def of(self, name: str) -> float | None:
        """None as long as no run is complete."""
        return statistics.median(self.nearest[name][1]) if name in self.nearest else None


def _last_step(run: Planned) -> int:
    """The last step in the run's metrics."""
    try:
        last = (run.folder / "metrics.jsonl").read_bytes().rstrip(b"\n").rsplit(b"\n", 1)[-1]
        return int(parse_json(last)["step"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return 0
