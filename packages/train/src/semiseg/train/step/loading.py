"""Processes that load samples: signals are left to the training process, and one that dies is one error with its remedy."""

import multiprocessing
import multiprocessing.queues
import os
import signal
import threading
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from semiseg.data import SemisegError
from semiseg.train.step.stop import SIGNALS

_LOST = ("DataLoader worker", "shared memory", "No space left on device", "Too many open files", "ancdata")


_FULL = 74  # exit code of a process that could not send a batch for want of memory or open files


class LoadingError(SemisegError):
    """A process that loads samples has died."""


def load(data: Dataset[Any], indices: Iterable[int], *, workers: int, pin: bool = False) -> Iterator[Any]:
    """The items of `data` at `indices`, in order, loaded by `workers` processes; an item that is a SemisegError is raised.

    Raises LoadingError if a process dies.
    """
    here = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
    before = signal.getsignal(signal.SIGCHLD) if here else None
    others = set(multiprocessing.active_children())
    loader = DataLoader(
        data,
        batch_size=None,
        sampler=indices,  # type: ignore[arg-type]  # any iterable of indices will do
        num_workers=usable(workers),
        pin_memory=pin,
        worker_init_fn=_begin if workers else None,
    )
    items: Any = iter(loader)
    if here and before is not None:
        # torch's handler raises wherever this process is, such as half-way through a checkpoint; asking for the next
        # item finds a dead process too
        signal.signal(signal.SIGCHLD, before)
    mine = [child for child in multiprocessing.active_children() if child not in others]
    try:
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except (RuntimeError, OSError) as error:
                if any(word in str(error) for word in _LOST):
                    raise _lost(error, mine, workers) from None
                raise
            if isinstance(item, SemisegError):
                raise item
            yield item
    finally:
        del items
        for child in mine:
            if child.is_alive():  # it ignores the signal by which torch would end it
                child.kill()
                child.join()


def usable(workers: int) -> int:
    """As many loading processes as asked for, but not more than there are cores: more only take turns."""
    return min(workers, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _begin(worker: int) -> None:
    """Leave it to the training process to stop: it needs the batch of the step that it is in."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # or a batch that finds no room is lost, with a traceback, and the training process waits for it for ever
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_unsent)  # type: ignore[attr-defined]


def _unsent(error: Exception, item: Any) -> None:
    """End this process, as it could not send a batch."""
    if any(word in str(error) for word in _LOST):
        os._exit(_FULL)
    traceback.print_exception(error)
    os._exit(1)


def _lost(error: Exception, workers: list[Any], count: int) -> LoadingError:
    for worker in workers:
        worker.join(0.1)
    codes = [code for worker in workers if (code := worker.exitcode) not in (None, 0)]
    fewer = f"data.workers={count // 2}" + (" or data.workers=0" if count > 1 else "")
    if codes and codes[0] == -signal.SIGKILL:
        what = "was killed (SIGKILL), as the system does when memory runs out"
        remedy = f"lower their number, as in {fewer}"
    elif not codes or codes[0] in (_FULL, -getattr(signal, "SIGBUS", 0)):
        what = "found no room in shared memory (/dev/shm)"
        remedy = f"enlarge it (docker run --shm-size=8g), or lower their number, as in {fewer}"
        if "Too many open files" in str(error) or "ancdata" in str(error):
            what, remedy = (
                "ran out of open files",
                f"raise the limit (ulimit -n 65536), or lower their number, as in {fewer}",
            )
    else:
        ended = f"by {signal.Signals(-codes[0]).name}" if codes[0] < 0 else f"with exit code {codes[0]}"
        what, remedy = f"ended {ended}", f"lower their number, as in {fewer}"
    return LoadingError(f"a process that loads samples {what}; {remedy}; then rerun the command to resume")
