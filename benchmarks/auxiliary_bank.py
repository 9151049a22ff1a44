"""The paper's 30 auxiliary decoders, forward and backward: all together, against one after the other.

    python benchmarks/auxiliary_bank.py [--batches 2 4] [--rounds 3] [--classes 21] [--size 40] [--device cuda]

Both sides are `semiseg.methods.CrossConsistency` with the same features, main logits, draws and result; only
`evaluation` differs. Features have 512 channels at 1/8. Time: the median of interleaved rounds, after one warm-up round.
Memory: the peak beyond features, logits and parameters, in a fresh process for each side (Linux).
The floor is the least that any evaluation computes: the matrix products, forward and backward, and one exponential for
each logit, on pieces that fit into a core's cache; without the products of I-VAT and without random numbers.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from semiseg.methods import CrossConsistency, Part, Ramp, Step
from semiseg.methods.cross_consistency import PAPER_PERTURBATIONS

CHANNELS, STRIDE = 512, 8
SIDES = ("bank", "loop")
SIX = ("context_mask", "vat", "feature_drop", "feature_noise", "dropout", "guided_cutout")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--size", type=int, default=40, help="height and width of z")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peak", nargs=2, metavar=("SIDE", "COUNT"), help="print one side's memory and stop")
    options = parser.parse_args()
    if options.peak:
        print(peak(options, options.peak[0], int(options.peak[1])))
        return
    threads = f", {torch.get_num_threads()} threads" if options.device == "cpu" else ""
    print(
        f"30 decoders, {options.classes} classes, z {CHANNELS}x{options.size}x{options.size}, {options.device}{threads}"
    )
    print(f"{'batch':>5} {'':6} {'seconds':>9} {'x faster':>9} {'extra MB':>9} {'x less':>7} {'loss to':>9}")
    for batch in options.batches:
        table(options, batch)
    few, many = (fresh_peak(options, options.batches[0], "bank", count) for count in (6, 60))
    print(f"bank, batch {options.batches[0]}: {few:.0f} MB extra with 6 decoders, {many:.0f} MB with 60")


def table(options: argparse.Namespace, batch: int) -> None:
    sides = {side: problem(options, batch, side) for side in SIDES}
    results = {side: run() for side, run in sides.items()}
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(options.rounds):  # interleaved, so that other load on the machine affects both sides
        for side, run in sides.items():
            seconds[side].append(timed(run, options.device))
    middle = {side: statistics.median(found) for side, found in seconds.items()}
    memory = {side: fresh_peak(options, batch, side, 30) for side in SIDES}
    difference = (results["bank"] - results["loop"]).abs() / results["loop"]
    for side in SIDES:
        same = f"{difference:9.0e}" if side == "bank" else ""
        print(
            f"{batch:5} {side:6} {middle[side]:9.2f} {middle['loop'] / middle[side]:8.1f}x "
            f"{memory[side]:9.0f} {memory['loop'] / memory[side]:6.1f}x {same}"
        )
    least = floor(options, batch)
    least()
    found = statistics.median(timed(least, options.device) for _ in range(options.rounds))
    print(
        f"{batch:5} {'floor':6} {found:9.2f} {middle['loop'] / found:8.1f}x   (only matrix products and exponentials)"
    )


def problem(options: argparse.Namespace, batch: int, side: str, count: int = 30) -> Callable[[], Tensor]:
    """A function that computes one step: returns the loss and leaves all gradients."""
    torch.manual_seed(0)
    foreground = range(1, options.classes)
    method = CrossConsistency(
        PAPER_PERTURBATIONS if count == 30 else [(name, count // 6) for name in SIX],
        channels=CHANNELS,
        classes=options.classes,
        foreground=foreground,
        weight=Ramp(30.0, shape="constant"),
        evaluation=side,
    ).to(options.device)
    z = torch.randn(batch, CHANNELS, options.size, options.size).relu().to(options.device).requires_grad_()
    coarse = 4 * torch.randn(batch, options.classes, 6, 6)
    size = (STRIDE * options.size, STRIDE * options.size)
    logits = torch.nn.functional.interpolate(coarse, size, mode="bilinear").to(options.device)
    images = torch.zeros(batch, 3, 1, 1, device=options.device)

    def run() -> Tensor:
        z.grad = None
        method.zero_grad()
        step = Step(
            progress=0.5,
            step=0,
            parts={"unlabeled": Part(images)},
            encode=lambda _: SimpleNamespace(deep=z),
            decode=lambda _: logits,
            random=lambda name, _: [
                torch.Generator(options.device).manual_seed(1000 * i + sum(map(ord, name))) for i in range(batch)
            ],
        )
        total = method(step).total
        total.backward()
        return total.detach()

    return run


def floor(options: argparse.Namespace, batch: int) -> Callable[[], None]:
    """Every matrix product of 30 decoders: outputs, gradients by inputs, gradients by weights; and the exponentials."""
    cells, classes = batch * options.size**2, options.classes
    stages = [(4 * classes, classes, cells * 4**stage, 30) for stage in range(3)]
    work = []
    for rows, inner, columns, times in [(30 * classes, CHANNELS, cells, 1), *stages]:
        width = min(columns, 3072) if options.device == "cpu" else columns
        shapes = ((rows, inner), (inner, width), (rows, width), (inner, width), (rows, inner))
        tensors = [torch.randn(shape, device=options.device) for shape in shapes]
        work.append((round(times * columns / width), tensors))
    logits = work[-1][1][2].clone()

    def run() -> None:
        for times, (weight, x, slope, by_x, by_weight) in work:
            for _ in range(times):
                torch.mm(weight, x, out=slope)
                torch.mm(weight.T, slope, out=by_x)
                torch.mm(slope, x.T, out=by_weight)
        for _ in range(work[-1][0]):
            torch.exp(logits, out=work[-1][1][2])

    return run


def timed(run: Callable[[], object], device: str) -> float:
    began = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def fresh_peak(options: argparse.Namespace, batch: int, side: str, count: int) -> float:
    """MB of one side, measured in a separate process."""
    command = [sys.executable, __file__, "--batches", str(batch), "--classes", str(options.classes)]
    command += ["--size", str(options.size), "--device", options.device, "--peak", side, str(count)]
    # On both sides, freed memory returns to the system at once; otherwise the allocator's cache would be measured.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout)


def peak(options: argparse.Namespace, side: str, count: int) -> float:
    run = problem(options, options.batches[0], side, count)
    if options.device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    before = resident("VmRSS")
    run()
    return (resident("VmHWM") - before) / 1e6


def resident(which: str) -> int:
    """Resident bytes of this process: VmRSS now, VmHWM at most. Linux only; ru_maxrss would start at the parent's."""
    found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


if __name__ == "__main__":
    main()
