"""The most memory that this process has used."""

import sys

import torch


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
