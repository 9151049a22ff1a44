"""One training at a time in a run's folder: lock.json says which process holds it, on which host, and that it is alive.

On the same machine a lock ends with its process, however that ends. A process of another host is believed to be alive while
the file's time is young: the holder renews it every few seconds.
"""

import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from semiseg.data import SemisegError, hold, parse_json, write_text

LOCK = "lock.json"
BEAT_S, DEAD_S = 10.0, 120.0  # network file systems show a file's new time up to a minute later


class LockError(SemisegError):
    """Another process trains in this folder."""


class RunLock:
    """A run's folder, held by the first rank of one training until `release`. Other ranks only look."""

    def __init__(self, folder: Path, *, take_over: bool = False) -> None:
        """LockError if another training holds the folder; `take_over`: even if it may be alive on another host.

        A folder that cannot be written to is not locked: what has to be written there fails with its own error.
        """
        self.path, self.take_over = folder / LOCK, take_over
        self._over = threading.Event()
        self._mine = _self()
        self.held = False
        if os.environ.get("RANK", "0") != "0":
            holder = _read(self.path)
            if holder is not None and holder.get("launch") != self._mine["launch"]:
                self._refuse(holder)
            return
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                hold(descriptor, wait=True)  # for a moment, against a training that starts at the same time
                if (holder := _read(self.path)) is not None:
                    self._refuse(holder)
                try:
                    self.held = True
                    write_text(self.path, json.dumps(self._mine, indent=2) + "\n")
                except SemisegError:
                    self.held = False
                    return
                except BaseException:  # a signal
                    self.release()
                    raise
            finally:
                os.close(descriptor)
        if self.held:
            threading.Thread(target=self._beat, name="semiseg-lock", daemon=True).start()

    def check(self) -> None:
        """LockError if another training has taken the folder over: what this one would write is no longer wanted."""
        if not self.held:
            return
        holder = _read(self.path)
        if holder is not None and holder.get("token") != self._mine["token"]:
            raise LockError(
                f"{self.path.parent} was taken over by {_named(holder)}; this training stops without saving"
            )

    def release(self) -> None:
        """Let others train here."""
        self._over.set()
        if self.held and (_read(self.path) or {}).get("token") == self._mine["token"]:
            self.path.unlink(missing_ok=True)
        self.held = False

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            with suppress(OSError):
                os.utime(self.path)

    def _refuse(self, holder: dict[str, Any]) -> None:
        """LockError if the holder is alive, or may be."""
        folder = self.path.parent
        other = f"give this run another name, as in name={folder.name}-2"
        if holder.get("machine") == self._mine["machine"]:
            if holder.get("birth") is not None and _birth(holder.get("pid")) == holder["birth"]:
                raise LockError(
                    f"{folder} is being trained by {_named(holder)}; stop that one (kill {holder['pid']}), or {other}"
                )
            return
        age = _age(self.path)
        if age < DEAD_S and not self.take_over and not _requeued(holder, self._mine):
            raise LockError(
                f"{folder} is being trained by {_named(holder)}, alive {max(age, 0):.0f} s ago; stop that one or {other}. "
                f"If it is gone: rerun with --take-over, or in {DEAD_S - age:.0f} s"
            )


def _self() -> dict[str, Any]:
    """What lock.json says about this process."""
    variables = os.environ.get
    job = variables("SLURM_JOB_ID")
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "birth": _birth(os.getpid()),
        "machine": _machine(),
        "launch": f"{variables('MASTER_ADDR')}:{variables('MASTER_PORT')}" if variables("MASTER_PORT") else None,
        "job": None if job is None else [job, int(variables("SLURM_RESTART_COUNT") or 0)],
        "token": secrets.token_hex(8),
    }


def _requeued(holder: dict[str, Any], mine: dict[str, Any]) -> bool:
    """Whether the holder is an earlier start of this job of SLURM, which ended before this one began."""
    match holder.get("job"), mine["job"]:
        case [str(before), int(earlier)], [str(now), int(later)]:
            return before == now and earlier < later
    return False


def _birth(pid: Any) -> str | None:
    """When a process was started, in the system's own words; None if it is not running. Tells reused numbers apart."""
    if not Path("/proc/self/stat").exists():
        if os.name == "nt":
            return None  # to ask for a process by its number would end it
        try:
            os.kill(int(pid), 0)
        except (OSError, ValueError, TypeError):
            return None
        return "unknown"
    try:
        fields = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError, TypeError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _machine() -> str:
    """Equal for processes that see each other: of one boot, and one namespace of process numbers (a container)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return socket.gethostname()


def _age(path: Path) -> float:
    """Seconds since a file was renewed, by the clock of its file system."""
    now = time.time()
    probe = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with suppress(OSError):
        probe.touch()
        now = probe.stat().st_mtime
    with suppress(OSError):
        probe.unlink()
    try:
        return now - path.stat().st_mtime
    except OSError:
        return DEAD_S


def _read(path: Path) -> dict[str, Any] | None:
    """What lock.json says; None if there is none, or one that a power cut left unreadable."""
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _named(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('started')}"
