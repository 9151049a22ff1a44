"""Samples a second from shards: ours against plain webdataset and against loose files, raw and decoded, in one run.

    python benchmarks/reading.py shards/camvid/train [--rounds 5]

The floor is decoding (image and mask PNG or JPEG): whoever decodes cannot be faster, and reading must not be much slower.
Ours reads in random order and checks every member's crc32; webdataset reads in the order of the tar and checks nothing.
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from semiseg.data import Plan, ShardSet


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    shards = ShardSet(arguments.shards)
    with tempfile.TemporaryDirectory() as folder:
        files = unpack(shards, Path(folder))
        tars = [f"{arguments.shards}/{entry.tar}" for entry in shards.manifest.shards]
        contestants = {
            "raw: semiseg, random order, crc32": lambda: ours(shards, decode=False),
            "raw: webdataset, tar order": lambda: webdataset(tars, decode=False),
            "raw: loose files": lambda: loose(files, decode=False),
            "decoded: semiseg, random order, crc32": lambda: ours(shards, decode=True),
            "decoded: webdataset, tar order": lambda: webdataset(tars, decode=True),
            "decoded: loose files": lambda: loose(files, decode=True),
        }
        rates = {name: [] for name in contestants}
        for _ in range(arguments.rounds):  # interleaved, so that what else the machine does hits all alike
            for name, read in contestants.items():
                rates[name].append(rate(read))
    print(f"{len(shards)} samples of {arguments.shards}; one process, warm cache, median of {arguments.rounds} rounds")
    middle = {name: statistics.median(found) for name, found in rates.items()}
    for name, value in middle.items():
        peer = middle[name.split(":")[0] + ": webdataset, tar order"]
        print(f"{name:40} {value:8.0f} samples/s   {value / peer:5.2f} x webdataset")


def rate(read: Callable[[], Iterator[object]]) -> float:
    began = time.perf_counter()
    count = sum(1 for _ in read())
    return count / (time.perf_counter() - began)


def ours(shards: ShardSet, *, decode: bool) -> Iterator[object]:
    for draw in Plan(shards, seed=0).draws(0, len(shards)):
        yield shards[draw.sample] if decode else shards.raw(draw.sample)


def webdataset(tars: list[str], *, decode: bool) -> Iterator[object]:
    from webdataset.compat import WebDataset

    for sample in WebDataset(tars, shardshuffle=False):
        image = sample.get("image.png") or sample["image.jpg"]
        yield decoded(image, sample["label.png"]) if decode else sample


def loose(files: list[tuple[Path, Path]], *, decode: bool) -> Iterator[object]:
    for image, label in files:
        pair = image.read_bytes(), label.read_bytes()
        yield decoded(*pair) if decode else pair


def decoded(image: bytes, label: bytes) -> tuple[Image.Image, np.ndarray]:
    return Image.open(io.BytesIO(image)).convert("RGB"), np.array(Image.open(io.BytesIO(label)))


def unpack(shards: ShardSet, to: Path) -> list[tuple[Path, Path]]:
    files = []
    for number in range(len(shards)):
        members = shards.raw(number)
        assert members.label is not None and json.loads(members.meta)
        pair = to / f"{number}.image", to / f"{number}.label"
        pair[0].write_bytes(members.image)
        pair[1].write_bytes(members.label)
        files.append(pair)
    return files


if __name__ == "__main__":
    sys.exit(main())
