"""As many files as the publishers have, tiny ones: the right counts, in little memory."""

import gzip
import io
import random
import tarfile
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.datasets.voc import VOC

IDS = [f"20{8 + i % 4:02}_{i:06}" for i in range(1464 + 1449 + 9118)]  # 12,031 images with masks
TRAIN, VAL, FURTHER = IDS[:1464], IDS[1464:2913], IDS[2913:]
SBD = [*FURTHER, *TRAIN[:1133], *VAL[:1104]]  # 11,355


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory, write_mat: Callable[[np.ndarray], bytes]) -> Path:
    """VOC's tar of 17,862 files and SBD's tgz of 22,710, in arbitrary orders."""
    folder = tmp_path_factory.mktemp("many")
    image, mask = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (3, 2)).save(image, "JPEG")
    Image.fromarray(np.full((2, 3), 255, np.uint8)).save(mask, "PNG")
    mat = write_mat(np.ones((2, 3), np.uint8))
    shuffled = random.Random(0).sample(IDS, len(IDS))
    top, lists = "VOCdevkit/VOC2012", "VOCdevkit/VOC2012/ImageSets/Segmentation"
    texts = {"train": TRAIN, "val": VAL, "trainval": sorted(TRAIN + VAL)}
    voc = [(f"{lists}/{name}.txt", "\n".join(ids).encode()) for name, ids in texts.items()]
    voc += [(f"{top}/JPEGImages/{id}.jpg", image.getvalue()) for id in shuffled]
    voc += [(f"{top}/SegmentationClass/{id}.png", mask.getvalue()) for id in TRAIN + VAL]
    (folder / "VOCtrainval_11-May-2012.tar").write_bytes(_tar(voc))
    dataset = "benchmark_RELEASE/dataset"
    sbd = [(f"{dataset}/img/{id}.jpg", image.getvalue()) for id in SBD]
    sbd += [(f"{dataset}/cls/{id}.mat", mat) for id in random.Random(1).sample(SBD, len(SBD))]
    (folder / "benchmark.tgz").write_bytes(gzip.compress(_tar(sbd), compresslevel=1))
    return folder


def test_12_031_images_give_the_published_counts(archives: Path) -> None:
    dataset = VOC(archives)
    splits = dataset.splits()
    assert {name: split.samples for name, split in splits.items() if split.missing is None} == {
        "train": 1464,
        "val": 1449,
        "trainval": 2913,
        "trainaug": 10_582,
    }
    assert all(split.samples == split.expected for split in splits.values() if split.missing is None)
    overlap = "1,133 are in VOC's train, for which VOC's masks are used, and 1,104 in VOC's val, which are left out"
    assert dataset.notes()[0].endswith(overlap)
    samples = list(dataset.samples("trainaug"))
    assert Counter(sample.meta["mask"] for sample in samples) == {"SegmentationClass": 1464, "SBD": 9118}
    for sample in random.Random(2).sample(samples, 200):
        assert callable(sample.image) and callable(sample.label)
        assert sample.image().startswith(b"\xff\xd8")
        label = sample.label()
        assert isinstance(label, bytes if sample.meta["mask"] != "SBD" else np.ndarray)


def test_listing_is_flat_in_memory(archives: Path) -> None:
    """Samples are handed out one by one: what stays is the listing, some 3 kB an image."""
    dataset = VOC(archives)
    tracemalloc.start()
    assert sum(1 for _ in dataset.samples("trainaug")) == 10_582
    used, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 40e6
    assert peak < 60e6


def _tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    blocks = []
    for name, data in members:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        blocks += [info.tobuf(), data.ljust(-(-len(data) // 512) * 512, b"\0")]
    return b"".join([*blocks, bytes(1024)])
