"""Stop a run by a signal: all ranks leave after the same step, with a checkpoint of it.

A signal may reach one rank or all of them. Ranks agree by a reduction of one number, which begins once the batch of a step is
loaded and is read after the step: nothing waits for it.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

# sent by Ctrl-C; kill, SLURM, Kubernetes; a closed terminal; batch systems that announce the end; a limit on CPU time
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """A signal ended this process; `code` is its exit code, 128 plus the signal's number: 130, 143, 129."""

    def __init__(self, number: int, where: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} {where}; rerun the same command to resume")
        self.code = 128 + number


class Stop:
    """Whether to stop. Until `defer`, a signal raises Stopped where it arrives; from then on, ranks ask `agreed`."""

    def __init__(self) -> None:
        self.number = 0  # of the signal that this rank received, or that all agreed on
        self.deferred = False
        self.quiet = False
        self._flag: Any = None
        self._work: Any = None

    def defer(self, device: Any, world: int, *, quiet: bool) -> None:
        """From here on, there is something to save: note signals only."""
        self.deferred, self.quiet = True, quiet
        if world > 1:
            import torch

            self._flag = torch.zeros(1, dtype=torch.int32, device=device)

    def start(self) -> None:
        """Begin to agree. All ranks call this equally often."""
        if self._flag is not None:
            import torch.distributed as dist

            self._finish()
            self._flag.fill_(self.number)
            self._work = dist.all_reduce(self._flag, dist.ReduceOp.MAX, async_op=True)

    def agreed(self) -> bool:
        """Whether a signal had reached any rank when all had called `start`. All ranks call this."""
        if self._flag is None:
            return self.number != 0
        return self._finish() != 0

    @contextmanager
    def at_once(self, alone: bool) -> Iterator[None]:
        """Within this, a signal raises Stopped where it arrives, if there is one process: nothing is half done."""
        if not alone:
            yield
            return
        if self.number:
            raise Stopped(self.number, "while loading")
        self.deferred = False
        try:
            yield
        finally:
            self.deferred = True

    def _finish(self) -> int:
        if self._work is not None:
            self._work.wait()
            self._work = None
            self._agreed = int(self._flag.item())
            self.number = max(self.number, self._agreed)
            return self._agreed
        return 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the process at once, whatever it does
        if self.number:
            return
        self.number = number
        if not self.deferred:
            raise Stopped(number, "before the next step")
        if not self.quiet:
            again = " (Ctrl-C again: at once, without it)" if number == signal.SIGINT else ""
            with suppress(OSError, ValueError):  # a closed terminal
                os.write(sys.stderr.fileno(), f"\nsaving a checkpoint after this step{again}\n".encode())


@contextmanager
def listening() -> Iterator[Stop]:
    """Receive the signals that end a run; those that are ignored (nohup) stay ignored, as do all outside the main thread."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    mine = [
        number
        for number, handler in before.items()
        if handler in (signal.SIG_DFL, signal.default_int_handler)  # not what an embedding program listens to
    ]
    for number in mine:
        signal.signal(number, stop._note)
    try:
        yield stop
    finally:
        for number in mine:
            signal.signal(number, before[number])
