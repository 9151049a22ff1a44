"""Progress on stderr: a live bar on a terminal, plain lines in a pipe."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from semiseg.data.errors import visible
from semiseg.data.sizes import readable

_EVERY_S = 10.0  # between plain lines


class LiveBar:
    """A bar with a note that a terminal shows while the context is open; nothing anywhere else, or when `quiet`.

    `say` prints a line above it, whether the bar is shown or not.
    """

    def __init__(self, title: str, *, quiet: bool = False, transient: bool = True, eta: bool = True) -> None:
        self.title, self.transient, self.eta = title, transient, eta
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True, markup=False)
        self.live: Progress | None = None
        self.task: TaskID | None = None

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        if self.console.is_terminal and not self.console.quiet:
            columns = [TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()]
            columns += [TimeRemainingColumn()] if self.eta else []
            self.live = Progress(
                *columns,
                TextColumn("{task.fields[note]}", markup=False),
                console=self.console,
                transient=self.transient,
            )
            self.live.start()
            self.task = self.live.add_task(self.title, total=None, note="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.live:
            self.live.stop()
            self.live = None

    def show(self, done: int, total: int, note: str | None = None) -> None:
        """Move the bar; without a `note` the last one stays."""
        if self.live and self.task is not None:
            self.live.update(self.task, completed=done, total=total)
            if note is not None:
                self.live.update(self.task, note=note)

    def say(self, text: str, *, style: str | None = None) -> None:
        """Print a line."""
        self.console.print(visible(text, keep="\n\t"), style=style)

    def left(self, done: int, total: int) -> float:
        """Seconds until `total` at the pace so far."""
        return (time.monotonic() - self.began) / max(done, 1) * (total - done)


class Bar(LiveBar):
    """For samples: use as `with Bar("writing train") as bar:` and call `bar(done, total, bytes)`.

    In a pipe: a plain line at the start, at the end and every ten seconds.
    """

    def __enter__(self) -> Self:
        super().__enter__()
        self.printed = self.began
        if not self.live:
            self.say(f"{self.title}: started")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self.live and kind is None:
            self.say(f"{self.title}: done in {clock(time.monotonic() - self.began)}")
        super().__exit__(kind, error, at)

    def __call__(self, done: int, total: int, size: int = 0) -> None:
        """`done` of `total` samples are ready, with `size` bytes."""
        now = time.monotonic()
        seconds = max(now - self.began, 1e-3)
        rate = f"{done / seconds:.0f}/s" + (f", {readable(size / seconds)}/s" if size else "")
        self.show(done, total, rate)
        if not self.live and now - self.printed > _EVERY_S:
            self.printed = now
            self.say(f"{self.title}: {done}/{total} samples, {rate}, {clock(self.left(done, total))} left")


def clock(seconds: float) -> str:
    """A duration for people: "45 s", "3 min 20 s", "2 h 05 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
