"""Lock a file or a folder against other processes of this machine; a lock ends with its process, however that ends.

Object stores and some network file systems have no locks. Nothing relies on one: files appear complete, and two writers of
the same set write the same bytes. A lock turns wasted work into one clear error.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from semiseg.data.errors import DataError, unwritable

try:
    import fcntl
except ImportError:  # Windows: a file may be written or fetched twice, and open files cannot be removed anyway
    fcntl = None

log = logging.getLogger("semiseg.data")


@contextmanager
def held(path: Path, *, busy: str, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold `path`, alone or shared; if another process holds it, wait, or raise DataError with the message `busy`."""
    if fcntl is None or not isinstance(path, Path):  # an object store
        yield
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise unwritable(error, path) from error
    try:
        if not hold(descriptor, shared=shared):
            if not wait:
                raise DataError(f"{path}: {busy}; wait for it to end")
            log.warning("%s: %s; waiting for it to end", path, busy)
            hold(descriptor, shared=shared, wait=True)
        yield
    finally:
        os.close(descriptor)


def only_writer(folder: Path) -> AbstractContextManager[None]:
    """Hold a set's folder against a second writer."""
    return held(folder, busy="another process is writing here")


def hold(file: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file until it is closed; whether that succeeded. On file systems without locks, it always does."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def remove_unheld(path: Path) -> bool:
    """Remove a file unless another process holds it; whether it is gone."""
    if fcntl is None:  # an open file cannot be removed there
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
        return not path.exists()
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        if not hold(file):
            return False
        path.unlink(missing_ok=True)
    except PermissionError:  # of another user's folder
        return False
    finally:
        os.close(file)
    return True
