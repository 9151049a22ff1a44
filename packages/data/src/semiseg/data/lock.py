"""Hold a file or a folder against other processes of this machine; the system lets go of it, however a process ends.

Object stores and some network file systems have no locks. Nothing relies on one: files appear whole, and two writers of
the same work write the same bytes. A lock turns wasted work into one clear error.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from semiseg.data.errors import DataError
from semiseg.data.storage import unwritable


@contextmanager
def held(path: Path, *, told: str, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold `path`, alone or with others that share it; where somebody has it, wait, or raise DataError with `told`."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    if not isinstance(path, Path):  # an object store
        yield
        return
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise unwritable(error, path) from error
    try:
        try:
            fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{path}: {told}; wait for it to end") from error
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        os.close(descriptor)


def only_writer(folder: Path) -> AbstractContextManager[None]:
    """Hold a set's folder against a second writer, which would take our temp files for leftovers."""
    return held(folder, told="another process is writing here")
