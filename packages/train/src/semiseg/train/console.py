"""What a person sees of a run: a live line on a terminal, plain lines in a pipe; and metrics.jsonl, always."""

import sys
import time
from collections.abc import Collection
from types import TracebackType
from typing import Any, Self

from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SLOW = 0.2  # share of the time spent waiting for data from which on the console tells
SETTLED = 20  # steps before it judges


class Console:
    """Progress of a run on stderr. Silent when `quiet` (every rank but the first)."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.terminal = Terminal(file=sys.stderr, quiet=quiet, highlight=False, soft_wrap=True)
        self.live: Progress | None = None
        self.began = time.monotonic()
        self.start = self.steps = 0
        self.waited, self.told_of_waiting = 0.0, False

    def say(self, text: str) -> None:
        self.terminal.print(text)

    def training(self, start: int, steps: int) -> "Console":
        """Use as `with console.training(start, steps):` around the loop."""
        self.start, self.steps = start, steps
        return self

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        if self.terminal.is_terminal and not self.terminal.quiet:
            columns = (
                TextColumn("[bold]step"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self.live = Progress(*columns, console=self.terminal)
            self.live.start()
            self.task = self.live.add_task("", total=self.steps, completed=self.start, note="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.live:
            self.live.stop()
            self.live = None

    def stepped(self, step: int, *, waited: float = 0.0) -> None:
        """`step` steps are done; the last one waited so many seconds for its batch."""
        self.waited += waited
        if self.live:
            self.live.update(self.task, completed=step)

    def losses(self, step: int, row: dict[str, Any], terms: Collection[str]) -> None:
        """A row of metrics after `step` steps; `terms` are the losses among them."""
        self._tell_of_waiting(step)
        losses = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name in terms)
        if self.live:
            self.live.update(self.task, completed=step, note=losses)
        else:
            self.say(f"step {step}/{self.steps}  {losses}  left {_clock(self._left(step))}")

    def scores(self, step: int, scores: dict[str, Any], *, best: bool) -> None:
        """mIoU of every domain after `step` steps."""
        named = {domain: each["miou"] for domain, each in scores.items()}
        text = "  ".join(f"{domain}/miou {'-' if miou is None else f'{miou:.2f}'}" for domain, miou in named.items())
        self.say(f"step {step}/{self.steps}  {text}{'  (best so far)' if best else ''}")

    def _tell_of_waiting(self, step: int) -> None:
        """Once, and not before the loading processes have had time to start."""
        share = self.waited / max(time.monotonic() - self.began, 1e-9)
        if share > SLOW and step - self.start >= SETTLED and not self.told_of_waiting:
            self.told_of_waiting = True
            self.say(f"data is the slower side: {share:.0%} of the time goes into waiting for it; raise data.workers")

    def _left(self, step: int) -> float:
        return (time.monotonic() - self.began) / max(1, step - self.start) * (self.steps - step)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
