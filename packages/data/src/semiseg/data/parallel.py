"""Work on shards in several processes: one failure stops all of them, and they end with their parent."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from semiseg.data.errors import DataError

Progress = Callable[[int, int, int], None]
"""Called with samples done, samples in total, bytes done."""

Tick = Callable[[int, int], None]
"""Called with the samples and bytes that were just done; may raise to stop the work."""

_SAMPLES, _BYTES, _STOP = range(3)  # indices of the shared counters
_MOST_WORKERS = 61 if sys.platform == "win32" else 1_000_000  # Windows waits for at most 63 handles
_POLL_S = 0.2
_GRACE_S = 5.0  # a worker that was asked to stop ends by itself, or is ended after one to two of these

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def run_all(
    work: Callable[[_Item, Tick], _Result],
    items: Sequence[_Item],
    *,
    workers: int,
    samples: int,
    progress: Progress | None = None,
    preload: Sequence[str] = (),
) -> list[_Result]:
    """What `work(item, tick)` returns for each item, in order; `work` is a function of a module.

    It runs in other processes, or in this one if one is enough. `samples` is the number in all items; `preload` names
    modules that are slow to import. DataError for the first failure, after every process has cleaned up.
    """
    report = progress or (lambda done, total, size: None)
    workers = min(workers, len(items), _MOST_WORKERS)
    if workers <= 1:
        return _in_turn(work, items, samples, report)
    # forkserver rather than fork: this process may run threads. It imports slow modules once for all workers.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload([*preload, "pyarrow.parquet", __name__])
    shared = context.Array("q", 3)
    counters = shared.get_obj()  # without the lock, which a killed worker may hold forever
    futures: list[Future[_Result]] = []
    with ProcessPoolExecutor(workers, context, _begin, (shared, dict(os.environ), _GRACE_S)) as pool:
        try:
            pending: set[Future[_Result]] = set()
            while pending or len(futures) < len(items):
                while len(futures) < len(items) and len(pending) < 2 * workers:
                    futures.append(pool.submit(_run, work, _packed(items[len(futures)])))
                    pending.add(futures[-1])
                done, pending = wait(pending, _POLL_S, FIRST_COMPLETED)
                report(counters[_SAMPLES], samples, counters[_BYTES])
                for future in done:
                    future.result()
        except BaseException as error:
            counters[_STOP] = 1
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise _died() from error
            if isinstance(error, Exception):
                raise _first(futures, error) from None
            raise
    return [future.result() for future in futures]


def _in_turn(
    work: Callable[[_Item, Tick], _Result], items: Sequence[_Item], samples: int, report: Progress
) -> list[_Result]:
    done = [0, 0]

    def tick(count: int, size: int) -> None:
        done[0] += count
        done[1] += size
        report(done[0], samples, done[1])

    return [work(item, tick) for item in items]


def _packed(item: Any) -> bytes:
    """A pickled job. A pool that fails to pickle a job itself may hang (CPython 94777)."""
    try:
        return pickle.dumps(item)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise DataError(
            f"a sample of shard {item.name} can't be sent to another process ({error}); make its members bytes or "
            "functools.partial of module-level functions, or write with one worker"
        ) from error


class _Stopped(Exception):
    """Another shard failed, or the user interrupted the work."""


_counters: Any = None


def _begin(counters: Any, environment: dict[str, str], grace_s: float) -> None:
    """Prepare a worker: it leaves Ctrl-C to its parent, and ends with it.

    A fork server keeps the environment that it was started in: credentials may have been set since.
    """
    global _counters
    _counters = counters
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel, grace_s), daemon=True).start()


def _follow(sentinel: int, grace_s: float) -> None:
    """End this process with its parent, or some time after it was asked to stop: a request may hang on a dead network."""
    while not wait_for([sentinel], grace_s):
        if _counters.get_obj()[_STOP]:
            wait_for([sentinel], grace_s)
            break
    os._exit(1)


def _run(work: Callable[[Any, Tick], _Result], packed: bytes) -> _Result:
    return work(pickle.loads(packed), _tick)


def _tick(samples: int, size: int) -> None:
    if _counters.get_obj()[_STOP]:
        raise _Stopped
    with _counters.get_lock():
        _counters[_SAMPLES] += samples
        _counters[_BYTES] += size


def _first(futures: list[Future[Any]], error: Exception) -> Exception:
    """The failure of the first shard that failed, so that the same fault always gives the same message."""
    for future in futures:
        if future.done() and not future.cancelled():
            found = future.exception()
            if isinstance(found, Exception) and not isinstance(found, _Stopped | BrokenProcessPool):
                return found
    return error


def _died() -> DataError:
    return DataError(
        "a process that wrote or verified shards died (killed, or out of memory?); run it again to resume, with fewer "
        "workers to save memory. "
        'In a script, call it below `if __name__ == "__main__":`'
    )


def share(start: int, stop: int, rank: int, world: int) -> range:
    """A rank's contiguous share of the positions start <= p < stop; the shares' sizes differ by at most one."""
    if not 0 <= rank < world:
        raise DataError(f"rank {rank} is not one of {world} processes; ranks are 0..{world - 1}")
    count = max(stop - start, 0)
    return range(start + count * rank // world, start + count * (rank + 1) // world)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
