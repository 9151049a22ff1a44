"""Weak labels, stage 2: pseudo-labels from class activation maps, thresholds and a dense CRF, and their scores."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from semiseg.data import OverlaySet, ShardSet, Taxonomy, contact_sheet, write_overlay
from semiseg.methods import DenseCrf, class_activation_maps, class_activations, pseudo_labels
from semiseg.methods.pseudo import Refine
from semiseg.models.encoder import Encoder
from semiseg.models.segmenter import reflected
from semiseg.train.recipe.shards import label_conflict
from semiseg.train.weak.classifier import FILE, WeakError, build, read, tagged
from semiseg.train.weak.stored import load_weights

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Labeling:
    """All settings of pseudo-labels, besides the classifier; stored in the overlay. See `semiseg.methods.pseudo_labels`."""

    rule: str = "released"
    low: float = 0.05
    high: float = 0.30
    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    flip: bool = True
    crf: bool = True
    confidence: float = 0.7
    iterations: int = 10


class Labeler:
    """Makes the pseudo-labels of a split with a fitted classifier, on a GPU if there is one."""

    def __init__(self, folder: Path, shards: ShardSet, taxonomy: Taxonomy, labeling: Labeling) -> None:
        saved = read(folder / FILE)
        settings = saved["settings"]
        if saved["step"] < settings["steps"]:
            raise WeakError(
                f"{folder / FILE} is at step {saved['step']} of {settings['steps']}; rerun the `semiseg weak fit` that "
                "started it to complete it"
            )
        if shards.labeled and (conflict := label_conflict(taxonomy, shards)):
            raise WeakError(f"{shards.url}: {conflict}; choose one with --taxonomy")
        self.shards, self.labeling = shards, labeling
        self.tags = tagged(shards, taxonomy, masks=settings["masks"], least=settings["least"])
        names = [taxonomy.names[number] for number in self.tags.classes]
        if names != settings["classes"]:
            raise WeakError(
                f"{folder / FILE} was fitted for {', '.join(settings['classes'])}, but taxonomy '{taxonomy.name}' has "
                f"{', '.join(names)}; use --taxonomy {settings['taxonomy']}, with which it was fitted"
            )
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = build(settings, pretrained=False)
        try:
            load_weights(self.model, saved, folder / FILE)
        except ValueError as error:
            raise WeakError(f"{error}; delete it and fit again") from error
        self.model.eval().to(self.device)
        self.settings = {
            **asdict(labeling),
            "scales": list(labeling.scales),
            "classifier": weights_digest(saved["model"]),
        }

    @torch.no_grad()
    def maps(self, row: int) -> tuple[Tensor, Tensor, list[int]]:
        """An image, uint8 [3, h, w]; the maps of its tagged classes [k, h, w]; their ids in the taxonomy."""
        pixels = np.array(self.shards.read(row, label=False).image.convert("RGB"))
        image = torch.from_numpy(pixels).permute(2, 0, 1).to(self.device)
        tagged_classes = np.flatnonzero(self.tags.present[row])
        ids = [self.tags.classes[number] for number in tagged_classes]
        if not ids:
            return image, torch.zeros(0, *image.shape[1:], device=self.device), ids
        weight = self.model.head.weight[torch.from_numpy(tagged_classes).to(self.device)]
        maps = class_activation_maps(
            image[None].float() / 255,
            torch.ones(1, len(ids), dtype=torch.bool),
            lambda x: activations(self.model.encoder, x, weight),
            scales=self.labeling.scales,
            flip=self.labeling.flip,
        )
        return image, maps[0], ids

    def label(self, image: Tensor, maps: Tensor, ids: Sequence[int], *, refine: bool) -> np.ndarray:
        """Class ids [h, w], uint8, 255 where the class is unknown."""
        refined = self._refine(image) if refine else None
        rule, low, high = self.labeling.rule, self.labeling.low, self.labeling.high
        background = self.tags.background
        labels = pseudo_labels(maps, ids, background=background, rule=rule, low=low, high=high, refine=refined)
        return labels.cpu().numpy()

    def _refine(self, image: Tensor) -> Refine:
        crf, chosen = DenseCrf(image[None]), self.labeling
        options = {"confidence": chosen.confidence, "iterations": chosen.iterations}
        return lambda labels, count: crf.refine(labels[None], count, **options)[0]

    def __call__(self, row: int) -> np.ndarray:
        return self.label(*self.maps(row), refine=self.labeling.crf)


def activations(encoder: Encoder, images: Tensor, weight: Tensor) -> Tensor:
    """`class_activations` of images [b, 3, H, W]; where a cell would reach beyond the image, at the image's own size.

    Maps of ceil(H / stride) cells, resized to H pixels, would be shifted against the image, by up to a cell: such images are
    extended by reflection, and their maps upsampled and cropped.
    """
    height, width = images.shape[-2:]
    extended = reflected(images, encoder.stride)
    maps = class_activations(encoder(extended).deep, weight)
    if extended.shape == images.shape:
        return maps
    maps = F.interpolate(maps.relu(), extended.shape[-2:], mode="bilinear")  # ReLU first, as for all other maps
    return maps[..., :height, :width]


def weights_digest(weights: dict[str, Tensor]) -> str:
    """sha256 (hex) of names and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_labels(
    labeler: Labeler, taxonomy: Taxonomy, name: str, *, size: str = "1MB", progress: Progress | None = None
) -> OverlaySet:
    """Write the overlay `<split>@<name>` beside the split, or finish writing it."""
    shards, rows = labeler.shards, labeler.tags.rows.tolist()
    tick = (lambda done, total, size: progress(done, total)) if progress else None
    write_overlay(shards, name, taxonomy, labeler, settings=labeler.settings, rows=rows, size=size, progress=tick)
    return OverlaySet(f"{shards.url.rstrip('/')}@{name}")


@dataclass(frozen=True)
class Quality:
    """Pseudo-labels against dense ones. counts: int64 [C, C + 1]: truth by label; the last column has no label."""

    counts: np.ndarray
    names: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """In percent: coverage (fraction of pixels with a pseudo-label), precision (fraction of those correct), IoU.

        IoU of a class counts its pixels without a pseudo-label as missed; None for a class that does not occur.
        """
        hits = np.diag(self.counts).astype(float)
        truth, labeled = self.counts.sum(1), self.counts[:, :-1].sum(0)
        union = truth + labeled - hits
        ious = [100 * hit / total if total else None for hit, total in zip(hits, union, strict=True)]
        known = [iou for iou in ious if iou is not None]
        precisions = [100 * hit / total if total else None for hit, total in zip(hits, labeled, strict=True)]
        return {
            "coverage": 100 * float(labeled.sum() / max(truth.sum(), 1)),
            "precision": 100 * float(hits.sum() / max(labeled.sum(), 1)),
            "miou": float(np.mean(known)) if known else None,
            "classes": {
                name: {"precision": precision, "iou": iou}
                for name, precision, iou in zip(self.names, precisions, ious, strict=True)
            },
        }


def compare(truth: np.ndarray, labels: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """Counts [C, C + 1] of one image's (truth, label) pairs; pixels whose truth is ignored are left out."""
    count = len(taxonomy.names)
    valid = truth != taxonomy.ignore
    columns = np.where(labels == taxonomy.ignore, count, labels)[valid].astype(np.int64)
    return np.bincount(truth[valid] * np.int64(count + 1) + columns, minlength=count * (count + 1)).reshape(count, -1)


def score_labels(
    labeler: Labeler,
    overlay: OverlaySet,
    taxonomy: Taxonomy,
    to: Path,
    *,
    limit: int = 200,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare an overlay with the split's dense labels, before and after refinement: <to>.json and a contact sheet <to>.png.

    Scores at most `limit` images, evenly spaced; their maps are computed again.
    """
    count = len(taxonomy.names)
    numbers = np.unique(np.linspace(0, len(overlay) - 1, min(limit, len(overlay))).round().astype(int)).tolist()
    before, after = (np.zeros((count, count + 1), np.int64) for _ in range(2))
    shown = []
    for done, number in enumerate(numbers, start=1):
        sample = labeler.shards.read(overlay.row(number))
        labels = overlay.read(number).label
        if sample.label is None or labels is None:
            raise WeakError(
                f"{labeler.shards.url}: sample '{sample.key}' has no label; leave out the scores with --report 0"
            )
        truth = taxonomy.map(sample.label)
        image, maps, ids = labeler.maps(overlay.row(number))
        rough = labeler.label(image, maps, ids, refine=False)
        before += compare(truth, rough, taxonomy)
        after += compare(truth, labels, taxonomy)
        if len(shown) < 6:
            shown.append([sample.image, _heat(maps), rough, labels, truth])
        if progress:
            progress(done, len(numbers))
    report = {
        "overlay": overlay.url,
        "digest": overlay.digest,
        "images": len(numbers),
        "before": Quality(before, taxonomy.names).to_json(),
        "after": Quality(after, taxonomy.names).to_json(),
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    to.with_name(f"{to.name}.json").write_text(json.dumps(report, indent=2) + "\n")
    titles = ["image", "activation", "thresholds", "refined", "truth"]
    contact_sheet(shown, titles=titles, taxonomy=taxonomy).save(to.with_name(f"{to.name}.png"))
    return report


def _heat(maps: Tensor) -> Image.Image:
    """The largest activation at each pixel, from black over red to yellow."""
    strongest = (maps.amax(0) if len(maps) else maps.new_zeros(maps.shape[1:])).cpu().numpy()
    channels = [np.clip(2 * strongest - shift, 0, 1) for shift in (0, 1)] + [np.zeros_like(strongest)]
    return Image.fromarray((255 * np.stack(channels, -1)).astype(np.uint8))
