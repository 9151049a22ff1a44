"""The structure loss over all pairs, against dense matrices of pairs and against the paper's random pairs, in one run.

    python benchmarks/structure.py [--rounds 7] [--device cuda] [--threads 1]

First one box of 65 x 65 pixels and 21 classes, where the dense form fits into memory; then an image of 512 x 1024 with 19
classes and 32 boxes, of which the last 16 are compared, where it does not. Forward and backward; memory is the peak beyond
the two inputs.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Generator, Tensor

from semiseg.methods import covered, draw_boxes, structure_loss

Loss = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{arguments.threads} CPU threads"
    print(f"{name}, torch {torch.__version__}, float32, median of {arguments.rounds} rounds")

    student, teacher = probabilities(21, 65, 65, device)
    whole = torch.ones(1, 65, 65, dtype=torch.uint8, device=device)
    compare(
        "one box of 4225 pixels, 21 classes",
        student,
        {
            "dense matrices of pairs": lambda own: dense(own, teacher),
            "all pairs": lambda own: structure_loss(own, teacher, whole),
            "9000 random pairs": lambda own: structure_loss(own, teacher, whole, pairs=9000, random=[Generator()]),
        },
        arguments.rounds,
    )

    student, teacher = probabilities(19, 512, 1024, device)
    boxes = draw_boxes([Generator(device).manual_seed(0)], (512, 1024))
    last = range(17, 33)
    share = float(((boxes >= last.start) & (boxes < last.stop)).float().mean())
    compare(
        f"512 x 1024, 19 classes, 32 boxes over {float(covered(boxes)):.0%} of it, the compared ones over {share:.0%}",
        student,
        {
            "9000 random pairs a box": lambda own: structure_loss(
                own, teacher, boxes, compared=last, pairs=9000, random=[Generator()]
            ),
            "all pairs": lambda own: structure_loss(own, teacher, boxes, compared=last),
        },
        arguments.rounds,
    )


def compare(what: str, student: Tensor, losses: dict[str, Loss], rounds: int) -> None:
    """Print a line for each loss, with ratios to the first."""
    forward, both = ({name: list[float]() for name in losses} for _ in range(2))
    for _ in range(rounds):  # interleaved, so that other load on the machine affects all
        for name, loss in losses.items():
            with torch.no_grad():
                loss(student)  # not timed: fills caches and memory pools, which the loss before it has used
                forward[name].append(clocked(lambda loss=loss: loss(student), student.device))
            both[name].append(clocked(lambda loss=loss: backward(loss, student), student.device))
    print(f"\n{what}\n{'':26}{'forward':>12}{'and backward':>14}{'memory':>12}{'faster than the first':>27}")
    first = [statistics.median(kept[next(iter(losses))]) for kept in (forward, both)]
    for name, loss in losses.items():
        times = [statistics.median(kept[name]) for kept in (forward, both)]
        ratios = " and ".join(f"{was / now:.1f} x" for was, now in zip(first, times, strict=True))
        used = memory(lambda loss=loss: backward(loss, student), student.device)
        print(f"{name:26}{1e3 * times[0]:9.2f} ms{1e3 * times[1]:11.2f} ms{used:>12}{ratios:>27}")


def probabilities(classes: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two predictions that differ by a tenth in their logits."""
    numbers = Generator().manual_seed(0)
    logits = 2 * torch.randn(1, classes, height, width, generator=numbers)
    other = logits + 0.1 * torch.randn(logits.shape, generator=numbers)
    return other.to(device).softmax(1), logits.to(device).softmax(1)


def dense(student: Tensor, teacher: Tensor) -> Tensor:
    """The definition: two N x N matrices of cosines."""
    own, other = (p[0].flatten(1) / p[0].flatten(1).norm(dim=0) for p in (student, teacher))
    return (own.T @ own - other.T @ other).square().mean()


def backward(loss: Loss, student: Tensor) -> None:
    own = student.detach().requires_grad_()
    loss(own).sum().backward()


def clocked(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def memory(run: Callable[[], object], device: torch.device) -> str:
    """Peak memory of a run: of the GPU's allocator, or of the process as Linux counts it."""
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return f"{(torch.cuda.max_memory_allocated() - before) / 1e6:.1f} MB"
    try:
        Path("/proc/self/clear_refs").write_text("5")  # reset the recorded peak
    except OSError:
        return "-"
    before = resident("VmRSS")
    run()
    return f"{(resident('VmHWM') - before) / 1e3:.1f} MB"


def resident(line: str) -> int:
    """kB of /proc/self/status."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(entry for entry in status if line in entry).split()[1])


if __name__ == "__main__":
    sys.exit(main())
