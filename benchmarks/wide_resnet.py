"""Time and memory of one forward and backward of DeepLabV3+ on WideResNet38, with and without gradient checkpointing.

    python benchmarks/wide_resnet.py [--rounds 3]
    python benchmarks/wide_resnet.py --encoder resnet50s --context psp --decoder subpixel --size 512 1024   # CCT's network

On a GPU: bf16, 896x896; on a CPU: fp32, 256x256; 19 classes, forward and backward of one image, batch norm with running
statistics. Each variant runs in a separate process, so that peaks are separate; rounds alternate. Peak: of the GPU's
allocations, or of the process's resident memory, minus the amount before the step. The peer is the same network without
checkpointing.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from semiseg.models import create_segmenter


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoder", default="wide_resnet38")
    parser.add_argument("--context", default="aspp")
    parser.add_argument("--decoder", default="deeplabv3plus")
    parser.add_argument("--size", type=int, nargs="+", default=[896 if cuda else 256], help="side, or height and width")
    parser.add_argument("--rounds", type=int, default=3 if cuda else 1)
    parser.add_argument("--measure", choices=("plain", "checkpointed"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    height, width = (arguments.size * 2)[:2]
    if arguments.measure:
        parts = {name: getattr(arguments, name) for name in ("encoder", "context", "decoder")}
        print(json.dumps(measure(parts, height, width, checkpointing=arguments.measure == "checkpointed")))
        return
    found: dict[str, list[dict[str, float]]] = {"plain": [], "checkpointed": []}
    for _ in range(arguments.rounds):
        for name, results in found.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--measure", name]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    where = f"{torch.cuda.get_device_name()}, bf16" if cuda else f"CPU, fp32, {torch.get_num_threads()} threads"
    network = f"{arguments.encoder}, {arguments.context}, {arguments.decoder}"
    print(f"{network}, {height}x{width}, one image, {where}; median of {arguments.rounds} rounds")
    middle = {
        name: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for name, results in found.items()
    }
    for name, cost in middle.items():
        slower, leaner = (cost[key] / middle["plain"][key] for key in ("seconds", "bytes"))
        print(f"{name:14}{cost['seconds']:9.3f} s {slower:6.2f} x   {cost['bytes'] / 2**30:7.2f} GiB {leaner:6.2f} x")


def measure(parts: dict[str, Any], height: int, width: int, *, checkpointing: bool) -> dict[str, float]:
    """Seconds and peak bytes of a step beyond parameters and their gradients."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(0)
    model = create_segmenter(
        **parts,
        classes={"cityscapes": 19},
        weights="none",
        context_channels=256 if parts["context"] == "aspp" else 512,
        low_stride=2,
        norm="frozen",
        checkpointing=checkpointing,
    ).to(device)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    images = torch.rand(1, 3, height, width, device=device)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            loss = model(images).float().square().mean()
        loss.backward()
        if cuda:
            torch.cuda.synchronize()

    if cuda:
        step()  # the first step chooses kernels
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    began = time.perf_counter()
    step()
    seconds = time.perf_counter() - began
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "bytes": float(peak - before)}


if __name__ == "__main__":
    main()
