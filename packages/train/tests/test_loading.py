"""Loading processes that die: one error with its remedy, and signals that are not theirs to follow."""

import faulthandler
import os
import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from torch.utils.data import Dataset

from semiseg.train.step.loading import LoadingError, load


class Numbers(Dataset[int]):
    """Item n is n; `fatal` at item 3 sends the loading process a signal, or ends it."""

    def __init__(self, fatal: int = 0) -> None:
        self.fatal = fatal

    def __getitem__(self, index: int) -> int:
        if index == 3 and self.fatal:
            faulthandler.disable()  # pytest's, which would print where it was
            os.kill(os.getpid(), self.fatal)
            time.sleep(1)
        return index


Children = Callable[[], list[psutil.Process]]


@pytest.fixture
def children() -> Children:
    """The processes that this one started during the test."""
    before = psutil.Process().children()
    return lambda: [child for child in psutil.Process().children() if child not in before]


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (signal.SIGKILL, r"was killed \(SIGKILL\), as the system does when memory runs out; .*data\.workers=1 or "),
        (
            signal.SIGBUS,
            r"no room in shared memory \(/dev/shm\); enlarge it \(docker run --shm-size=8g\), or .*data\.workers=1",
        ),
        (signal.SIGABRT, r"ended by SIGABRT; .*data\.workers=1"),
    ],
)
def test_a_process_that_dies_is_one_error(number: int, told: str, children: Children):
    items = load(Numbers(number), range(9), workers=2)
    assert next(items) == 0
    with pytest.raises(LoadingError, match=told) as caught:
        assert list(items) is None
    assert "\n" not in str(caught.value)
    assert not children()


def test_signals_to_the_group_leave_loading_processes_at_work(children: Children):
    before = signal.getsignal(signal.SIGCHLD)
    items: Iterator[int] = load(Numbers(), range(100), workers=2)
    found = [next(items), next(items)]  # one of each process, so both listen
    workers = children()
    assert len(workers) == 2
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        for worker in workers:
            worker.send_signal(number)
    assert found + list(items) == list(range(100))
    assert signal.getsignal(signal.SIGCHLD) == before  # torch's raises in the middle of anything


class Unsent(Dataset["Unsent"]):
    """Items that find no room when they are sent."""

    def __getitem__(self, index: int) -> "Unsent":
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


def test_a_batch_that_finds_no_room_is_not_waited_for():
    with pytest.raises(LoadingError, match=r"no room in shared memory \(/dev/shm\)"):
        list(load(Unsent(), range(3), workers=1))


def test_leaving_early_ends_the_processes(children: Children):
    items = load(Numbers(), range(1000), workers=2)
    assert next(items) == 0
    del items
    assert not children()
