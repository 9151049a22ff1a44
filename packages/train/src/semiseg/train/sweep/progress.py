"""How far a sweep is: a live line or plain ones, and the time left."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from semiseg.train.recipe.resolved import leaves
from semiseg.train.sweep.grid import Planned, results_of


@dataclass(frozen=True)
class _Begun:
    """A run at work: its number in the sweep, when this process began it, and after which step."""

    run: Planned
    number: int
    at: float
    after: int


class SweepProgress:
    """A live line on a terminal; in a pipe a line when a run begins and when it ends."""

    def __init__(self, say: Console, runs: Sequence[Planned], jobs: int) -> None:
        self.say, self.total, self.jobs = say, len(runs), jobs
        complete = {run.recipe.name: found for run in runs if (found := results_of(run))}
        self.left = {run.recipe.name: run.recipe.steps for run in runs if run.recipe.name not in complete}
        self.ended = self.begun = len(complete)
        self.pace = Pace(runs)
        for name, found in complete.items():
            self.pace.add(name, found["hours"] * 3600 / found["steps"])
        self.going: dict[str, _Begun] = {}
        self.live: Progress | None = None

    def __enter__(self) -> "SweepProgress":
        if self.say.is_terminal and self.left:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self.live = Progress(*columns, console=self.say, transient=True)
            self.live.start()
            self.task = self.live.add_task("", total=self.total)
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def begin(self, run: Planned) -> None:
        self.begun += 1
        self.going[run.recipe.name] = _Begun(run, self.begun, time.monotonic(), _steps_done(run))
        if not self.live:
            done = {name: _steps_done(each.run) for name, each in self.going.items()}
            eta = self._eta(done)
            self.say.print(f"{self.begun}/{self.total} {run.recipe.name}: begins{eta and f', {eta}'}")

    def look(self) -> None:
        if self.live:
            done = {name: _steps_done(each.run) for name, each in self.going.items()}
            steps = [f"{name}: step {done[name]}/{each.run.recipe.steps}" for name, each in self.going.items()]
            # what is too long for the terminal is cut at its end
            self.live.update(
                self.task, completed=self.ended, description=", ".join([self._eta(done), *steps]).lstrip(", ")
            )

    def end(self, run: Planned, reason: str) -> None:
        begun = self.going.pop(run.recipe.name)
        seconds, done = time.monotonic() - begun.at, _steps_done(run) - begun.after
        which = f"{begun.number}/{self.total} {run.recipe.name}"
        if reason:
            self.say.print(f"{which}: FAILED, {reason}", style="red")
        else:
            if done > 0:
                self.pace.add(run.recipe.name, seconds / done)
            score = results_of(run) or {}
            miou = score.get("last", {}).get("miou")
            told = "" if miou is None else f", {miou:.2f} mIoU"
            self.say.print(f"{which}: done in {_clock(seconds)}{told}")
        del self.left[run.recipe.name]
        self.ended += 1

    def _eta(self, done: dict[str, int]) -> str:
        """Time left for all runs; `done`: the last step of each that goes. Empty as long as nothing is known."""
        now = time.monotonic()
        new = {name: done[name] - each.after for name, each in self.going.items()}
        going = [(now - each.at) / new[name] for name, each in self.going.items() if new[name] > 0]
        left = {name: steps - done.get(name, 0) for name, steps in self.left.items()}
        seconds = [(self.pace.of(name) or (statistics.median(going) if going else 0)) * left[name] for name in left]
        if not any(seconds):
            return ""
        # shared out evenly, and no run is cut in two
        return f"{_clock(max([sum(seconds) / self.jobs, *seconds]))} left"


class Pace:
    """Seconds a step, expected of each run as of the complete ones that are most like it: a grid's methods differ much."""

    def __init__(self, runs: Sequence[Planned]) -> None:
        self.recipes = {run.recipe.name: leaves(run.recipe) for run in runs}
        self.nearest: dict[str, tuple[int, list[float]]] = {}  # how many keys differ, and what runs so near have taken

    def add(self, complete: str, seconds: float) -> None:
        """A run that is complete, and its seconds a step."""
        known = self.recipes[complete]
        for name, keys in self.recipes.items():
            differ = sum(known.get(key) != keys.get(key) for key in (known.keys() | keys.keys()) - {"name", "seed"})
            least, found = self.nearest.get(name, (differ, []))
            if differ <= least:
                self.nearest[name] = (differ, [*found, seconds] if differ == least else [seconds])

    def of(self, name: str) -> float | None:
        """None as long as no run is complete."""
        return statistics.median(self.nearest[name][1]) if name in self.nearest else None


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
