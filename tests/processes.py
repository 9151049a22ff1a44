"""Start real processes: a single one, or several under torchrun with gloo on the CPU."""

import os
import subprocess
import sys
from pathlib import Path


def environment() -> dict[str, str]:
    """The environment of a child: one thread (so that sums have a fixed order), CPU, no network."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}


def run(*command: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; fails with its output if the exit code is not `expect`."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment(), timeout=300, check=False
    )
    assert done.returncode == expect, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def python(*arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, *arguments, expect=expect)


def torchrun(count: int, *arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """`arguments`: a script or `-m module`, and its own arguments, on `count` processes."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count))
    return run(sys.executable, *launcher, *arguments, expect=expect)
