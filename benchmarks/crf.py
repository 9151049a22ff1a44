"""The dense CRF in torch against pydensecrf (C++) on VOC images: seconds per image, and the fraction of equal labels.

    pip install pydensecrf2
    python benchmarks/crf.py VOCdevkit/VOC2012 [--images 10] [--rounds 3] [--threads 1] [--device cpu]

Settings as released for CCT's weak labels: labels are correct with probability 0.7, ten iterations. The labels to refine
are the true ones in blocks of 16 pixels, among the image's own classes or among all 21. Times include building the
kernels; "again" is a second refinement with existing kernels.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semiseg.methods import DenseCrf

BLOCK = 16
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("voc", type=Path)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    masks = sorted((arguments.voc / "SegmentationClass").glob("*.png"))[: arguments.images]
    if not masks:
        parser.error(f"{arguments.voc} has no SegmentationClass/*.png; expected a folder such as VOCdevkit/VOC2012")
    print(f"{len(masks)} images, {arguments.rounds} rounds, {arguments.threads} thread(s), {arguments.device}")
    print(f"{'classes':12} {'torch':>9} {'again':>9} {'pydensecrf':>11} {'torch / pydensecrf':>19} {'agreement':>22}")
    for all_classes in (False, True):
        seconds, agreements = defaultdict(list), []
        for mask in masks:
            image, labels, classes = load(arguments.voc, mask, all_classes)
            for i in range(arguments.rounds):  # interleaved, so that other load affects both
                ours, first, again = time_ours(image, labels, classes, arguments.device)
                theirs, their_time = timed(lambda: pydensecrf(image, labels, classes))  # noqa: B023
                for name, value in (("torch", first), ("again", again), ("pydensecrf", their_time)):
                    seconds[name].append(value)
                if i == 0:
                    agreements.append(float((ours == theirs).float().mean()))
        middle = {name: statistics.median(found) for name, found in seconds.items()}
        print(
            f"{'all 21' if all_classes else 'own':12} {middle['torch']:7.2f} s {middle['again']:7.2f} s"
            f" {middle['pydensecrf']:9.2f} s {middle['torch'] / middle['pydensecrf']:17.2f} x"
            f"   mean {statistics.mean(agreements):.5f}, minimum {min(agreements):.5f}"
        )


def time_ours(image: Tensor, labels: Tensor, classes: int, device: str) -> tuple[Tensor, float, float]:
    pixels = image.permute(2, 0, 1)[None].to(device)
    crf, building = timed(lambda: DenseCrf(pixels))
    refined, refining = timed(lambda: crf.refine(labels[None], classes)[0].cpu())
    return refined, building + refining, refining


def pydensecrf(image: Tensor, labels: Tensor, classes: int) -> Tensor:
    from pydensecrf.densecrf import DenseCRF2D  # pyright: ignore[reportMissingImports]
    from pydensecrf.utils import unary_from_labels  # pyright: ignore[reportMissingImports]

    height, width = labels.shape
    crf = DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(unary_from_labels(labels.numpy(), classes, gt_prob=0.7, zero_unsure=False))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=50, srgb=5, rgbim=image.numpy(), compat=10)
    return torch.tensor(np.array(crf.inference(10))).argmax(0).view(height, width)


def load(voc: Path, mask: Path, all_classes: bool) -> tuple[Tensor, Tensor, int]:
    """Image [h, w, 3], labels in blocks [h, w], and the number of classes."""
    image = np.array(Image.open(voc / "JPEGImages" / f"{mask.stem}.jpg").convert("RGB"))
    truth = np.array(Image.open(mask))
    truth[truth == 255] = 0
    classes = 21
    if not all_classes:
        ids, places = np.unique(truth, return_inverse=True)
        truth, classes = places.reshape(truth.shape), len(ids)
    height, width = image.shape[:2]
    labels = truth[::BLOCK, ::BLOCK].repeat(BLOCK, 0).repeat(BLOCK, 1)[:height, :width]
    return torch.from_numpy(image), torch.from_numpy(labels.astype(np.int64)), classes


def timed(run: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    return run(), time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
