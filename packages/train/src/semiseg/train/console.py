"""What a person sees of a run: a live bar on a terminal, plain lines in a pipe."""

import time
from collections.abc import Collection
from types import TracebackType
from typing import Any, Self

from semiseg.data import LiveBar, clock

SLOW = 0.2  # share of the time spent waiting for data from which the console says so
SETTLED = 20  # steps before it does


class Console:
    """Progress of a run on stderr. Silent when `quiet` (every rank but the first)."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.bar = LiveBar("step", quiet=quiet, transient=False)
        self.began = time.monotonic()
        self.start = self.steps = 0
        self.waited, self.warned_of_waiting = 0.0, False
        self.remarks: dict[str, str] = {}  # domain -> what was last said of its classes at 0

    def say(self, text: str) -> None:
        self.bar.say(text)

    def training(self, start: int, steps: int) -> "Console":
        """Use as `with console.training(start, steps):` around the loop."""
        self.start, self.steps = start, steps
        return self

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        self.bar.__enter__()
        self.bar.show(self.start, self.steps)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.__exit__(kind, error, at)

    def stepped(self, step: int, *, waited: float = 0.0) -> None:
        """`step` steps are done; the last one waited so many seconds for its batch."""
        self.waited += waited
        self.bar.show(step, self.steps)

    def losses(self, step: int, row: dict[str, Any], terms: Collection[str]) -> None:
        """A row of metrics after `step` steps; `terms` are the losses among them."""
        self._warn_of_waiting(step)
        losses = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name in terms)
        self.bar.show(step, self.steps, losses)
        if not self.bar.live:
            left = self.bar.left(step - self.start, self.steps - self.start)
            self.say(f"step {step}/{self.steps}  {losses}  {clock(left)} left")

    def scores(self, step: int, scores: dict[str, Any], *, best: bool) -> None:
        """mIoU of every domain after `step` steps."""
        named = {domain: found["miou"] for domain, found in scores.items()}
        text = "  ".join(f"{domain}/miou {'-' if miou is None else f'{miou:.2f}'}" for domain, miou in named.items())
        remarks = []
        for domain, found in scores.items():
            never_right, told = remark(found), self.remarks.get(domain, "")
            self.remarks[domain] = never_right
            if never_right and never_right != told:
                remarks.append(f"{domain}: {never_right}")
            elif never_right and best:
                remarks.append(f"{domain}: still {_zeros(found)} classes at IoU 0")
        notes = "; ".join(["best so far"] * best + remarks)
        self.say(f"step {step}/{self.steps}  {text}" + (f"  ({notes})" if notes else ""))

    def _warn_of_waiting(self, step: int) -> None:
        """Once, and not before the loading processes have had time to start."""
        share = self.waited / max(time.monotonic() - self.began, 1e-9)
        if share > SLOW and step - self.start >= SETTLED and not self.warned_of_waiting:
            self.warned_of_waiting = True
            self.say(
                f"loading is the bottleneck: {share:.0%} of the time is spent waiting for data; raise data.workers"
            )


def remark(scores: dict[str, Any]) -> str:
    """Which classes have IoU 0, whether only one class is ever right, or that no pixel is labeled; else ""."""
    known = {name: value for name, value in scores.get("iou", {}).items() if value is not None}
    if scores.get("iou") and not known:
        return "no pixel of these images has a label, so there is no score; choose a split with masks"
    missed, right = [name for name, value in known.items() if value == 0], [name for name in known if known[name] > 0]
    if not missed:
        return ""
    names = ", ".join(missed[:6]) + (f" and {len(missed) - 6} more" if len(missed) > 6 else "")
    if len(right) == 1 and len(known) > 1:
        return f"only '{right[0]}' is ever right, IoU 0 for {names}"
    return f"IoU 0 for {names}"


def _zeros(scores: dict[str, Any]) -> int:
    return sum(value == 0 for value in scores["iou"].values())
