"""What entering an order far from its start costs: a run that continues at 90 % of an epoch, and a set of 100 million samples.

    python benchmarks/resume.py [--rounds 5]

Every figure is from a process of its own, and the contestants take turns. A first batch is timed from the moment that
everything is imported until its tensors are there: shards opened, order computed, images read, decoded, augmented.
The plain way to enter an order is to read and skip what comes before; the plain order of all samples is one permutation.
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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_samples(folder)
        print(
            f"first batch of {BATCH}, {SAMPLES:,} samples of 64x48 in {len(list(folder.glob('tiny/train/*.tar')))} shards, ",
            end="",
        )
        print(f"processes of their own, median of {arguments.rounds} rounds")
        found = measure([COLD, RESUMED, SKIPPED], folder, arguments.rounds)
        for each, facts in found.items():
            ratio = facts["seconds"] / found[COLD]["seconds"]
            print(f"  {each:34} {1000 * facts['seconds']:8.1f} ms  {ratio:6.2f} x a cold start")
        write_manifest(folder)
        print(
            f"first {BATCH} draws, {SHARDS * A_SHARD:,} samples in {SHARDS:,} shards, manifest read and checked included"
        )
        found = measure([START, DEEP, SUBSET, PLAIN], folder, arguments.rounds)
        for each, facts in found.items():
            print(f"  {each:40} {facts['seconds']:6.3f} s  {facts['bytes'] / 1e6:6.0f} MB in all", end="")
            print(f"  {facts['seconds'] / found[PLAIN]['seconds']:6.3f} x numpy's permutation")


def measure(names: list[str], folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """The medians of what each child says; interleaved, so that what else the machine does hits all alike."""
    said: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            command = [sys.executable, __file__, "--child", name, "--folder", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            said[name].append(json.loads(done.stdout))
    return {
        name: {key: statistics.median(each[key] for each in found) for key in found[0]} for name, found in said.items()
    }


# ---- a run that continues --------------------------------------------------------------------------------------------


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
    """Ten thousand samples of a hundred small pictures."""

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
        pictures = [png(random.integers(0, 64, (48, 64, 3), np.uint8)) for _ in range(100)]
        labels = [png(random.integers(0, 2, (48, 64), np.uint8)) for _ in range(100)]
        for number in range(SAMPLES):
            image, label = pictures[number % 100], labels[number % 100]
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
    """Bytes that the process had at most, interpreter and libraries included."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux ru_maxrss begins with what the parent had at the fork
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
