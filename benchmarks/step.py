"""A complete step of CCT with ResNet-50 and PSP at 320x320: what auxiliary decoders add, what `precision = "auto"` saves.

    python benchmarks/step.py [--rounds 3] [--batch 2] [--size 320]

Variants take turns in one run: float32 and the precision that "auto" chooses here; supervised, and CCT with K auxiliary
decoders (K = 0: unlabeled images pass through the network and back, without any), with the bank and with the plain loop.
The bank's share is what it adds to the step with K = 0, the median of the rounds' differences; it is also timed alone, on
the same features, which is less noisy but leaves out the update of its parameters. On a GPU, 10 + 10 images and peak memory.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import nn

from semiseg.methods import CrossConsistency, Losses, Objective, Part, Step, Supervised
from semiseg.methods.cross_consistency import PAPER_PERTURBATIONS
from semiseg.models import Segmenter, create_segmenter
from semiseg.train.step.batches import Batch, Samples
from semiseg.train.step.learner import Learner
from semiseg.train.step.precision import arrange, choose

CLASSES = 21
KINDS = [name for name, _ in PAPER_PERTURBATIONS]
SETS = {
    6: [(name, 1) for name in KINDS if name != "object_mask"],
    14: [(name, 2) for name in KINDS],
    30: list(PAPER_PERTURBATIONS),
}


class Encoded(Objective):
    """K = 0: the unlabeled images go through the network and back, without auxiliary decoders."""

    needs = frozenset({"unlabeled"})

    def forward(self, step: Step) -> Losses:
        step.logits("unlabeled")
        return Losses({"nothing": 1e-3 * step.features("unlabeled").deep.float().square().mean()})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, help="images of each kind; default: 2, on a GPU 10")
    parser.add_argument("--size", type=int, default=320)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    count = arguments.batch or (10 if device.type == "cuda" else 2)
    torch.manual_seed(0)
    batch = random_batch(count, arguments.size, device)
    precisions = {"no": network("no", device)}
    auto = choose("auto", precisions["no"].encoder)
    if auto != "no":
        precisions[auto] = network(auto, device)
    steps: dict[str, Callable[[], None]] = {}
    for precision, model in precisions.items():
        label = "float32" if precision == "no" else precision
        optimizer = sgd(model)  # shared by all variants: separate moments would fill the memory that is measured
        make = {"supervised": lambda: None, "CCT K = 0": Encoded}
        make |= {f"CCT K = {k}, bank": lambda k=k: consistency(model, k, "bank") for k in SETS}  # noqa: B023
        make |= {"CCT K = 30, loop": lambda: consistency(model, 30, "loop")}  # noqa: B023
        if precision == "no" and len(precisions) > 1:
            make = {name: make[name] for name in ("supervised", "CCT K = 0", "CCT K = 30, bank", "CCT K = 30, loop")}
        for name, objective in make.items():
            steps[f"{label}, {name}"] = a_step(model, objective(), batch, precision, optimizer)
        steps[f"{label}, bank alone, K = 30"] = bank_alone(model, consistency(model, 30, "bank"), batch, precision)
    report(
        steps,
        measure(steps, arguments.rounds, device),
        device,
        f"{count} + {count} images, {arguments.size}x{arguments.size}",
        auto,
    )


def network(precision: str, device: torch.device) -> Segmenter:
    torch.manual_seed(0)
    model = create_segmenter(encoder="resnet50", classes={"a": CLASSES}, weights="none").to(device)
    arrange(model, precision)
    return model.train()


def consistency(model: Segmenter, k: int, evaluation: str) -> CrossConsistency:
    return CrossConsistency(
        SETS[k],
        channels=model.channels,
        classes=CLASSES,
        stride=model.upsampling,
        foreground=range(1, CLASSES),
        evaluation=evaluation,
    ).to(next(model.parameters()).device)


def random_batch(count: int, size: int, device: torch.device) -> Batch:
    def samples(role: str, masks: bool) -> Samples:
        return Samples(
            f"a/{role}",
            torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, device=device),
            torch.randint(0, CLASSES, (count, size, size), dtype=torch.uint8, device=device) if masks else None,
            torch.full((count,), 1 / count, device=device),
            tuple(range(count)),
        )

    return {"a": {"labeled": samples("labeled", True), "unlabeled": samples("unlabeled", False)}}


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=1e-5, momentum=0.9, weight_decay=1e-4, fused=True)


def a_step(
    model: Segmenter, unlabeled: Objective | None, batch: Batch, precision: str, optimizer: torch.optim.Optimizer
) -> Callable[[], None]:
    """Forward, backward, update."""
    learner = Learner(model, {"a": [Supervised(), *([unlabeled] if unlabeled else [])]})
    own = sgd(unlabeled) if isinstance(unlabeled, CrossConsistency) else None
    device = next(model.parameters()).device.type
    given: Batch = {"a": {role: samples for role, samples in batch["a"].items() if unlabeled or role == "labeled"}}

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            losses = learner(given, step=500, steps=1000)
        losses.total.backward()
        for used in (optimizer, own):
            if used is not None:
                used.step()
                used.zero_grad(set_to_none=True)

    return step


def bank_alone(model: Segmenter, objective: CrossConsistency, batch: Batch, precision: str) -> Callable[[], None]:
    """The objective, forward and backward, on existing features and logits."""
    device = next(model.parameters()).device.type
    images = batch["a"]["unlabeled"].images
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        features = model.encode(images)
        logits = model.decode(features)
    z = features.deep.detach().requires_grad_()
    parts: nn.Module = objective

    def step() -> None:
        request = Step(
            progress=0.5, step=500, parts={"unlabeled": Part(images)},
            encode=lambda _: SimpleNamespace(deep=z), decode=lambda _: logits,
        )  # fmt: skip
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            total = objective(request).total
        total.backward()
        z.grad = None
        parts.zero_grad(set_to_none=True)

    return step


def measure(
    steps: dict[str, Callable[[], None]], rounds: int, device: torch.device
) -> dict[str, tuple[list[float], int]]:
    """name -> (seconds of each round after a warm-up round, on a GPU the peak bytes beyond weights and moments)."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    peak = dict.fromkeys(steps, 0)
    before = 0
    for number in range(rounds + 1):
        for name, step in steps.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            began = time.perf_counter()
            for _ in range(5 if device.type == "cuda" else 1):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize()
                peak[name] = torch.cuda.max_memory_allocated() - before
            if number:
                taken[name].append((time.perf_counter() - began) / (5 if device.type == "cuda" else 1))
    return {name: (taken[name], peak[name]) for name in steps}


def report(
    steps: dict[str, Callable[[], None]],
    found: dict[str, tuple[list[float], int]],
    device: torch.device,
    what: str,
    auto: str,
) -> None:
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    rounds = len(next(iter(found.values()))[0])
    print(f"ResNet-50, stride 8, PSP; {what}; {where}; median of {rounds} interleaved rounds; auto is {auto}")
    middle = {name: statistics.median(times) for name, (times, _) in found.items()}
    peer = "float32, CCT K = 30, loop"
    for name in steps:
        seconds, peak = middle[name], found[name][1]
        line = f"{name:28} {1e3 * seconds:9.1f} ms   {middle[peer] / seconds:6.2f} x faster than the plain float32 step"
        if "bank alone" in name:
            complete = name.replace("bank alone, K", "CCT K") + ", bank"
            line = f"{name:28} {1e3 * seconds:9.1f} ms   {seconds / middle[complete]:6.1%} of its step"
        elif name.endswith("bank"):
            without = found[name.split(", ")[0] + ", CCT K = 0"][0]
            added = statistics.median(b - a for a, b in zip(without, found[name][0], strict=True))
            line += f"; adds {1e3 * added:6.1f} ms to K = 0, {added / seconds:6.1%} of its step"
        if peak:
            line += f"   peak + {peak / 1e9:5.2f} GB, {peak / found[peer][1]:4.2f} of the plain one's"
        print(line)


if __name__ == "__main__":
    sys.exit(main())
