"""The most memory that this process has used, and what is left to it."""

import re
import sys
from pathlib import Path

import torch

UNKNOWN = 1 << 62  # where the system does not say


def peak_memory(*, cuda: bool) -> int:
    """Bytes at the peak so far: of the GPU's memory with `cuda`, else of this process; 0 where the system does not say."""
    if cuda:
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_memory(device: torch.device) -> int:
    """Bytes that this process may still use: of the GPU, or of the machine within the limits of its cgroup and `ulimit -v`."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    left = [_left_in_machine(), *_left_in_cgroups()]
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            left.append(limit - _field("/proc/self/status", "VmSize"))
    except (ImportError, OSError):
        pass
    return max(0, min(left))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or torch says that memory could not be allocated."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "could not create a memory")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def _left_in_machine() -> int:
    try:
        return _field("/proc/meminfo", "MemAvailable")
    except OSError:
        pass
    try:
        import psutil
    except ImportError:
        return UNKNOWN
    return psutil.virtual_memory().available


def _left_in_cgroups() -> list[int]:
    """What the limit of this process's cgroup (version 1 or 2), and of each above it, leaves; pages of files count as free."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        inner = root / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if not folder.is_relative_to(root):
                break
            try:
                limit, used = ((folder / name).read_text().strip() for name in names)
                cached = re.search(
                    r"^(?:total_)?inactive_file (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE
                )
            except OSError:
                continue
            if limit != "max":
                found.append(int(limit) - int(used) + (int(cached[1]) if cached else 0))
    return found


def _field(file: str, name: str) -> int:
    """A field of a file in /proc that is given in kB, as bytes. Raises OSError where there is none."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(file).read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{file} has no {name}")
    return int(found[1]) * 1024
