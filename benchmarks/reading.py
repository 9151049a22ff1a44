"""Samples per second from shards: semiseg against plain webdataset and against loose files with Pillow, in one run.

    semiseg data shard camvid ROOT --split train --to shards/
    semiseg data shard camvid ROOT --split train --to jpeg/ --format jpeg
    python benchmarks/reading.py shards/camvid/train --jpeg jpeg/camvid/train [--rounds 5]

semiseg reads in random order and checks everything: every header, padding byte and crc32, sizes, ids. webdataset reads in
the order of the tar and checks nothing. The loose files are the members of the first set, read and decoded by Pillow.
`--jpeg` is the same set written with `--format jpeg`; the change of its pixels is printed too. Last come the times to
decode one image and one label, which are the floor.
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

from semiseg.data import Plan, ShardSet, decode_image, decode_label

LOOSE = "decoded: loose files, Pillow"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("--jpeg", help="the same set, written with --format jpeg")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    shards = ShardSet(arguments.shards)
    with tempfile.TemporaryDirectory() as folder:
        files = unpack(shards, Path(folder))
        tars = [f"{arguments.shards}/{entry.tar}" for entry in shards.manifest.shards]
        contestants: dict[str, tuple[Callable[[], Iterator[object]], str]] = {
            "raw: semiseg, random order, all checks": (
                lambda: ours(shards, decode=False),
                "raw: webdataset, tar order",
            ),
            "raw: webdataset, tar order": (lambda: webdataset(tars, decode=False), "raw: webdataset, tar order"),
            "raw: loose files": (lambda: loose(files, decode=False), "raw: webdataset, tar order"),
            "decoded: semiseg, random order, all checks": (lambda: ours(shards, decode=True), LOOSE),
            "decoded: webdataset, tar order, Pillow": (lambda: webdataset(tars, decode=True), LOOSE),
            LOOSE: (lambda: loose(files, decode=True), LOOSE),
        }
        if arguments.jpeg:
            jpeg = ShardSet(arguments.jpeg)
            contestants["decoded: semiseg, --format jpeg"] = (lambda: ours(jpeg, decode=True), LOOSE)
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(arguments.rounds):  # interleaved, so that other load affects all
            for name, (read, _peer) in contestants.items():
                rates[name].append(rate(read))
    print(f"{len(shards)} samples of {arguments.shards}; one process, warm cache, median of {arguments.rounds} rounds")
    middle = {name: statistics.median(found) for name, found in rates.items()}
    for name, (_read, peer) in contestants.items():
        print(f"{name:44} {middle[name]:8.0f} samples/s   {middle[name] / middle[peer]:5.2f} x {peer.split(': ')[1]}")
    if arguments.jpeg:
        cost(shards, ShardSet(arguments.jpeg))
    parts(shards, "PNG")
    if arguments.jpeg:
        parts(ShardSet(arguments.jpeg), "JPEG")


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


def cost(exact: ShardSet, jpeg: ShardSet) -> None:
    """How JPEG changes pixels, over the samples of both sets."""
    squared, absolute, largest, pixels = 0.0, 0, 0, 0
    for one, other in zip(exact, jpeg, strict=True):
        assert one.key == other.key and np.array_equal(one.label, other.label)  # pyright: ignore[reportArgumentType]
        difference = np.asarray(one.image, np.int16) - np.asarray(other.image, np.int16)
        squared += float(np.square(difference, dtype=np.float64).sum())
        absolute, largest = absolute + int(np.abs(difference).sum()), max(largest, int(np.abs(difference).max()))
        pixels += difference.size
    size, decibel = exact.manifest.bytes / jpeg.manifest.bytes, 10 * np.log10(255**2 * pixels / squared)
    print(
        f"--format jpeg: {size:.2f} x fewer bytes ({jpeg.manifest.bytes / 1e6:.1f} MB); PSNR {decibel:.1f} dB, "
        f"absolute difference {absolute / pixels:.2f} on average, {largest} at most, of 255; labels equal"
    )


def parts(shards: ShardSet, kind: str) -> None:
    """Milliseconds to decode members in memory, the minimum of five rounds: semiseg, and Pillow alone."""
    members = [shards.raw(number) for number in range(min(len(shards), 60))]
    labels = [member.label for member in members if member.label is not None]
    images = [member.image for member in members]
    for name, data, *decoders in (
        (f"{kind} image", images, decode_image, lambda encoded: Image.open(io.BytesIO(encoded)).load()),
        (f"label of the {kind} set", labels, decode_label, lambda encoded: np.array(Image.open(io.BytesIO(encoded)))),
    ):
        fast, plain = (least(decode, data) for decode in decoders)
        print(f"  {name:24} {fast:.3f} ms, Pillow {plain:.3f} ms")


def least(decode: Callable[[bytes], object], data: list[bytes]) -> float:
    return 1000 / max(rate(lambda: map(decode, data)) for _ in range(5))


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
