"""The cost of starting far into the sample order: a run resumed at 90 % of an epoch, and a set of 100 million samples.

    python benchmarks/resume.py [--rounds 5]

Every figure is from a separate process, and the variants take turns. The first batch is timed after all imports, until
its tensors exist: shards opened, order computed, images read, decoded, augmented. The peers are reading and skipping all
samples before the position, and one permutation of all samples.
"""

import argparse
import hashlib
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

SAMPLES, BATCH = 10_000, 16
SHARDS, A_SHARD = 100_000, 1_000
LATE = SAMPLES * 9 // 10 // BATCH  # the step at 90 % of the first epoch
COLD, RESUMED, SKIPPED = "cold start: step 0", f"resumed: step {LATE}", "webdataset: read and skip 90 %"
START, DEEP, SUBSET, PLAIN = (
    "position 0",
    "deep in epoch 3",
    "a tenth of the samples, deep in epoch 3",
    "numpy: one permutation",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(CHILDREN[arguments.child](Path(arguments.folder))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_samples(folder)
        print(
            f"first batch of {BATCH}, {SAMPLES:,} samples of 64x48 in {len(list(folder.glob('tiny/train/*.tar')))} shards, ",
            end="",
        )
        print(f"separate processes, median of {arguments.rounds} rounds")
        found = measure([COLD, RESUMED, SKIPPED], folder, arguments.rounds)
        for name, cost in found.items():
            ratio = cost["seconds"] / found[COLD]["seconds"]
            print(f"  {name:34} {1000 * cost['seconds']:8.1f} ms  {ratio:6.2f} x a cold start")
        write_manifest(folder)
        print(f"first {BATCH} draws, {SHARDS * A_SHARD:,} samples in {SHARDS:,} shards, including the manifest")
        found = measure([START, DEEP, SUBSET, PLAIN], folder, arguments.rounds)
        for name, cost in found.items():
            print(f"  {name:40} {cost['seconds']:6.3f} s  {cost['bytes'] / 1e6:6.0f} MB in all", end="")
            print(f"  {cost['seconds'] / found[PLAIN]['seconds']:6.3f} x numpy's permutation")


def measure(names: list[str], folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """The medians of what each child measures; interleaved, so that other load on the machine affects all."""
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            command = [sys.executable, __file__, "--child", name, "--folder", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            costs[name].append(json.loads(done.stdout))
    return {
        name: {key: statistics.median(cost[key] for cost in found) for key in found[0]} for name, found in costs.items()
    }


# ---- a resumed run ---------------------------------------------------------------------------------------------------


def first_batch(folder: Path, step: int) -> dict[str, float]:
    from semiseg.data import Plan, ShardSet
    from semiseg.train.step.augment import Augmentation
    from semiseg.train.step.batches import StepData, Stream, steps_from

    began = time.perf_counter()
    shards = ShardSet(folder / "tiny" / "train")
    stream = Stream(
        name="tiny/labeled",
        shards=shards,
        plan=Plan(shards, seed=0),
        batch_size=BATCH,
        augmentation=Augmentation(scale=(0.5, 2.0), crop=(40, 40), flip=0.5),
        taxonomy=shards.taxonomies[0],
        seed=0,
    )
    batch = next(steps_from(StepData({"tiny": {"labeled": stream}}), step, step + 1, workers=0))
    assert batch["tiny"]["labeled"].positions[0] == step * BATCH
    return {"seconds": time.perf_counter() - began}


def skipped(folder: Path) -> dict[str, float]:
    import torch
    from PIL import Image
    from webdataset.compat import WebDataset

    began = time.perf_counter()
    tars = sorted(map(str, (folder / "tiny" / "train").glob("*.tar")))
    samples = iter(WebDataset(tars, shardshuffle=False))
    for _ in range(LATE * BATCH):
        next(samples)
    taken = [next(samples) for _ in range(BATCH)]
    images = [np.array(Image.open(io.BytesIO(sample["image.png"])).convert("RGB")) for sample in taken]
    assert len(torch.from_numpy(np.stack(images))) == BATCH
    return {"seconds": time.perf_counter() - began}


def write_samples(folder: Path) -> None:
    from semiseg.data import Adapter, shard

    shard(cast(Adapter, Tiny()), "train", folder, size="250KB")


class Tiny:
    """Ten thousand samples made of a hundred small images."""

    name, summary, home, version, root = "tiny", "", "", "1", None

    def __init__(self) -> None:
        from semiseg.data import RawSpace, Taxonomy

        self.raw_space = RawSpace(name="tiny", names={0: "ground", 1: "thing"})
        colours = ((0, 0, 0), (255, 255, 255))
        classes = Taxonomy(
            name="tiny",
            raw=self.raw_space,
            names=("ground", "thing"),
            colours=colours,
            ids={0: 0, 1: 1},
            foreground=frozenset(),
        )
        self.taxonomies = (classes,)

    def splits(self) -> dict[str, Any]:
        from semiseg.data import Split

        return {"train": Split(name="train", samples=SAMPLES)}

    def samples(self, split: str) -> Iterator[Any]:
        from PIL import Image

        from semiseg.data import RawSample

        def png(pixels: np.ndarray) -> bytes:
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            return stream.getvalue()

        random = np.random.default_rng(0)
        images = [png(random.integers(0, 64, (48, 64, 3), np.uint8)) for _ in range(100)]
        labels = [png(random.integers(0, 2, (48, 64), np.uint8)) for _ in range(100)]
        for number in range(SAMPLES):
            image, label = images[number % 100], labels[number % 100]
            yield RawSample(key=f"s{number:05}", image=image, label=label, size=len(image) + len(label))


# ---- a set of 100 million samples ------------------------------------------------------------------------------------


def first_draws(folder: Path, position: int, part: int = 1) -> dict[str, float]:
    from semiseg.data import Plan, ShardSet

    subset = np.arange(0, SHARDS * A_SHARD, part) if part > 1 else None
    began = time.perf_counter()
    shards = ShardSet(folder / "huge" / "train")
    draws = Plan(shards, seed=0, subset=subset).draws(position, position + BATCH)
    seconds = time.perf_counter() - began
    assert [draw.position for draw in draws] == list(range(position, position + BATCH))
    return {"seconds": seconds, "bytes": peak()}


def permuted(folder: Path) -> dict[str, float]:
    began = time.perf_counter()
    order = np.random.default_rng(0).permutation(SHARDS * A_SHARD)[:BATCH]
    assert len(order) == BATCH
    return {"seconds": time.perf_counter() - began, "bytes": peak()}


def peak() -> int:
    """Peak bytes of the process, including interpreter and libraries."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux ru_maxrss starts at the parent's value at the fork
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def write_manifest(folder: Path) -> None:
    from semiseg.data import Manifest, ShardEntry

    def entry(number: int) -> ShardEntry:
        tar, index, content = (
            hashlib.sha256(f"{what} {number}".encode()).hexdigest() for what in ("tar", "index", "content")
        )
        return ShardEntry(
            name=f"{number:06d}",
            samples=A_SHARD,
            bytes=256_000_000 + number,
            sha256=tar,
            index_bytes=100_000 + number,
            index_sha256=index,
            content=content,
        )

    manifest = Manifest(
        dataset="huge",
        version="1",
        split="train",
        raw_space="huge",
        raw_ids={number: f"class {number}" for number in range(20)},
        labeled=True,
        image="jpg",
        settings={"size": 256_000_000},
        listing="0" * 64,
        shards=tuple(entry(number) for number in range(SHARDS)),
    )
    path = folder / "huge" / "train" / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(manifest.to_json())


CHILDREN = {
    COLD: lambda folder: first_batch(folder, 0),
    RESUMED: lambda folder: first_batch(folder, LATE),
    SKIPPED: skipped,
    START: lambda folder: first_draws(folder, 0),
    DEEP: lambda folder: first_draws(folder, int(3.7 * SHARDS * A_SHARD)),
    SUBSET: lambda folder: first_draws(folder, int(0.37 * SHARDS * A_SHARD), part=10),
    PLAIN: permuted,
}


if __name__ == "__main__":
    sys.exit(main())
