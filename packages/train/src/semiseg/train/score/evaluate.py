"""Evaluation: one confusion matrix over all pixels of all images, each image once, at the size of its label."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as tv

from semiseg.data import DataError, Pool, SemisegError, ShardSet, Taxonomy
from semiseg.models import Segmenter
from semiseg.train.score.views import SINGLE_VIEW, Views, predict_ids
from semiseg.train.step.loading import load


@dataclass(frozen=True)
class Scores:
    """Scores of a confusion matrix: int64 [C, C], rows are truth, columns prediction, ignored pixels left out."""

    confusion: np.ndarray
    names: tuple[str, ...]
    images: int

    @cached_property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class, float64 [C]; NaN for a class in neither truth nor prediction."""
        hits = np.diag(self.confusion).astype(np.float64)
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        return np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in truth or prediction, in [0, 1]; NaN when there is none."""
        iou = self.iou[~np.isnan(self.iou)]
        return float(iou.mean()) if iou.size else float("nan")

    @property
    def accuracy(self) -> float:
        """Share of labeled pixels that are right."""
        return float(np.diag(self.confusion).sum() / max(1, self.confusion.sum()))

    def to_json(self) -> dict:
        """Numbers in percent, as the field prints them; None stands for NaN."""
        percent = [None if np.isnan(value) else 100 * float(value) for value in self.iou]
        return {
            "miou": None if np.isnan(self.miou) else 100 * self.miou,
            "accuracy": 100 * self.accuracy,
            "iou": dict(zip(self.names, percent, strict=True)),
            "images": self.images,
        }


def confusion_matrix(prediction: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Counts int64 [classes, classes] of (truth, prediction) pairs; truth 255 is left out. Both are ids [..., h, w]."""
    counts = torch.zeros(classes * classes, dtype=torch.int64, device=truth.device)
    for known, seen in zip(truth.flatten().split(1 << 22), prediction.flatten().split(1 << 22), strict=True):
        valid = known != 255  # in parts: 8-byte ids of a large image would not fit
        counts += torch.bincount(known[valid].long() * classes + seen[valid].long(), minlength=classes * classes)
    return counts.reshape(classes, classes)


@torch.inference_mode()
def evaluate(
    model: Segmenter,
    shards: ShardSet | Pool,
    taxonomy: Taxonomy,
    *,
    domain: str | None = None,
    subset: np.ndarray | None = None,
    resize: Sequence[int] | None = None,
    views: Views = SINGLE_VIEW,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score `model` on the labeled samples of `shards`, by default at one scale, without flip or tiles.

    `domain` chooses the decoder (optional if there is only one), `subset` the sample indices (default: all). Images are
    resized to `resize` (height, width) before the network, then predicted in `views`; scores are computed at the size of
    the label. In a process group every rank must call this: each takes every world-th sample, and the matrices are summed.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    indices = range(len(shards)) if subset is None else subset.tolist()
    mine = indices[rank::world]
    classes = len(taxonomy.names)
    counts = torch.zeros(classes, classes, dtype=torch.int64, device=device)
    loader = load(_Labeled(shards, taxonomy, resize), mine, workers=workers)
    for done, (image, truth) in enumerate(loader, start=1):
        try:
            prediction = predict_ids(model, image.to(device), domain=domain, size=tuple(truth.shape), views=views)
        except SemisegError as error:
            raise SemisegError(f"{shards.url}: sample {shards.keys()[mine[done - 1]]}: {error}") from None
        counts += confusion_matrix(prediction, truth.to(device), classes)
        if progress:
            progress(done, len(mine))
    if world > 1:
        dist.all_reduce(counts)
    model.train(was_training)
    return Scores(counts.cpu().numpy(), taxonomy.names, len(indices))


class _Labeled(Dataset[tuple[Tensor, Tensor] | SemisegError]):
    """Image uint8 [3, h, w] and class ids uint8 [H, W] of one sample."""

    def __init__(self, shards: ShardSet | Pool, taxonomy: Taxonomy, resize: Sequence[int] | None) -> None:
        self.shards, self.taxonomy, self.resize = shards, taxonomy, resize
        self.prefetching = False

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | SemisegError:
        if not self.prefetching:  # starts in the process that reads: no thread may run before a fork
            self.prefetching = True
            self.shards.ahead(range(len(self.shards.shard_sizes)))
        try:
            sample = self.shards[index]
            if sample.label is None:
                raise DataError(f"{self.shards.url}: sample {sample.key} has no label; evaluate on a labeled split")
            truth = torch.from_numpy(self.taxonomy.map(sample.label))
        except SemisegError as error:  # a worker would wrap a raised error in a traceback
            return error
        image = torch.from_numpy(np.array(sample.image.convert("RGB"))).permute(2, 0, 1)
        if self.resize is not None:
            image = tv.resize(image, list(self.resize), antialias=True)
        return image, truth
