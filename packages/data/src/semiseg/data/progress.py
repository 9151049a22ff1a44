"""Progress on stderr: a bar on a terminal, in a pipe a plain line at the start, the end and every ten seconds."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from semiseg.data.sizes import readable

_EVERY_S = 10.0  # between plain lines


class Bar:
    """Use as `with Bar("train") as bar:` and call `bar(done, total, bytes)`."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.live: Progress | None = None
        self.task: TaskID | None = None

    def __enter__(self) -> Self:
        self.began = self.told = time.monotonic()
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
            )
            self.live = Progress(*columns, console=self.console, transient=True)
            self.live.start()
            self.task = self.live.add_task(self.title, total=None, rate="")
        else:
            self.console.print(f"{self.title}: begins")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.live:
            self.live.stop()
        elif kind is None:
            self.console.print(f"{self.title}: done in {time.monotonic() - self.began:.0f} s")

    def __call__(self, done: int, total: int, size: int = 0) -> None:
        now = time.monotonic()
        seconds = max(now - self.began, 1e-3)
        rate = f"{done / seconds:.0f}/s" + (f", {readable(size / seconds)}/s" if size else "")
        if self.live and self.task is not None:
            self.live.update(self.task, completed=done, total=total, rate=rate)
        elif now - self.told > _EVERY_S:
            self.told = now
            left = round(seconds / max(done, 1) * (total - done))
            self.console.print(f"{self.title}: {done}/{total} samples, {rate}, {left // 60}:{left % 60:02} left")
