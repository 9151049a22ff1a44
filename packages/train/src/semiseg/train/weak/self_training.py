"""Self-training, stage 1: a trained model's confident classes as pseudo-labels of a split, and what they are."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from semiseg.data import OverlaySet, ShardSet, Taxonomy, contact_sheet, write_overlay
from semiseg.models import Segmenter
from semiseg.train.score.views import Views, probabilities
from semiseg.train.weak.labels import Quality, compare, weights_digest

Progress = Callable[[int, int], None]
BINS = 1000  # of confidences, for thresholds by share


@dataclass(frozen=True, kw_only=True)
class Naming:
    """Which pixels get a label; stored in the overlay.

    confidence: least probability of the most probable class. share: of each class, label only this share of the pixels that
    the model gives it, over the split, the most confident ones: common classes then cannot drown the others (class-balanced
    self-training, Zou et al. 2018); 1 labels all that are confident.
    """

    confidence: float = 0.6
    share: float = 1.0


class Namer:
    """Makes the pseudo-labels of a split with a trained model, on the model's device."""

    def __init__(
        self, model: Segmenter, shards: ShardSet, taxonomy: Taxonomy, *, domain: str, views: Views, naming: Naming
    ) -> None:
        self.model, self.shards, self.taxonomy = model.eval(), shards, taxonomy
        self.domain, self.views, self.naming = domain, views, naming
        self.resize = model.metadata.get("resize", {}).get(domain)
        self.device = next(model.parameters()).device
        self.thresholds = torch.full((len(taxonomy.names),), naming.confidence)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the labels depend on, for the overlay."""
        return {
            **asdict(self.naming),
            "domain": self.domain,
            "views": json.loads(json.dumps(asdict(self.views))),
            "model": weights_digest({name: own.cpu() for name, own in self.model.state_dict().items()}),
        }

    @torch.no_grad()
    def named(self, row: int) -> tuple[Tensor, Tensor]:
        """The most probable classes of an image, int64 [h, w], and their probabilities, float32 [h, w]."""
        image = self.shards.read(row, label=False).image.convert("RGB")
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(self.device)
        if self.resize is not None:
            pixels = tv.resize(pixels, list(self.resize), antialias=True)
        size = (image.height, image.width)
        confidence, classes = probabilities(self.model, pixels, domain=self.domain, size=size, views=self.views).max(0)
        return classes, confidence

    def balance(self, progress: Progress | None = None) -> None:
        """Set the threshold of each class so that its share of pixels is labeled; predicts every image once, unless it is 1."""
        if self.naming.share == 1:
            return
        counts = torch.zeros(len(self.taxonomy.names), BINS, dtype=torch.int64)
        for row in range(len(self.shards)):
            classes, confidence = (own.flatten().cpu() for own in self.named(row))
            places = classes * BINS + (confidence * BINS).long().clamp(max=BINS - 1)
            counts += places.bincount(minlength=counts.numel()).view_as(counts)
            if progress:
                progress(row + 1, len(self.shards))
        above = counts.flip(1).cumsum(1).flip(1)  # pixels in a bin and all more confident ones
        enough = above >= self.naming.share * counts.sum(1, keepdim=True)
        bins = (enough * torch.arange(BINS)).amax(1)  # the highest bin that still holds the share
        self.thresholds = torch.maximum(bins / BINS, torch.tensor(self.naming.confidence))

    def __call__(self, row: int) -> np.ndarray:
        """Class ids [h, w], uint8, 255 where the model is not confident."""
        classes, confidence = self.named(row)
        kept = confidence >= self.thresholds.to(confidence)[classes]
        return classes.where(kept, self.taxonomy.ignore).to(torch.uint8).cpu().numpy()


def name_split(namer: Namer, name: str, *, size: str = "1MB", progress: Progress | None = None) -> OverlaySet:
    """Write the overlay `<split>@<name>` beside the split, or finish writing it. `namer`: balanced, if it has a share."""
    tick = (lambda done, total, size: progress(done, total)) if progress else None
    shards = namer.shards
    write_overlay(shards, name, namer.taxonomy, namer, settings=namer.settings, size=size, progress=tick)
    return OverlaySet(f"{shards.url.rstrip('/')}@{name}")


def report_names(
    namer: Namer, overlay: OverlaySet, to: Path, *, limit: int = 200, progress: Progress | None = None
) -> dict[str, Any]:
    """What was named: shares of classes over all images, and, where the split has masks, how right the labels are.

    Compares at most `limit` images with their masks, evenly spaced. Writes <to>.json and a contact sheet <to>.png.
    """
    taxonomy, names = namer.taxonomy, namer.taxonomy.names
    pixels = overlay.class_pixels(overlay.taxonomies[0])
    areas = overlay.sizes().astype(np.int64).prod(1).sum()
    report: dict[str, Any] = {
        "overlay": overlay.url,
        "digest": overlay.digest,
        "images": len(overlay),
        "labeled": 100 * float(pixels.sum() / max(areas, 1)),
        "classes": {
            label: {
                "pixels": 100 * float(pixels[:, number].sum() / max(pixels.sum(), 1)),
                "images": int((pixels[:, number] > 0).sum()),
                "threshold": round(float(namer.thresholds[number]), 3),
            }
            for number, label in enumerate(names)
        },
    }
    counts, shown, titles = np.zeros((len(names), len(names) + 1), np.int64), [], ["image", "named"]
    chosen = np.unique(np.linspace(0, len(overlay) - 1, min(limit, len(overlay))).round().astype(int)).tolist()
    if namer.shards.labeled:
        titles.append("truth")
    else:
        chosen = chosen[:: max(1, len(chosen) // 6)][:6]
    for done, number in enumerate(chosen, start=1):
        sample, labels = namer.shards.read(overlay.row(number)), overlay.read(number).label
        assert labels is not None
        row = [sample.image, labels]
        if sample.label is not None:
            truth = taxonomy.map(sample.label)
            counts += compare(truth, labels, taxonomy)
            row.append(truth)
        if len(shown) < 6:
            shown.append(row)
        if progress:
            progress(done, len(chosen))
    if namer.shards.labeled:
        report["against_masks"] = {"images": len(chosen), **Quality(counts, names).to_json()}
    to.parent.mkdir(parents=True, exist_ok=True)
    to.with_name(f"{to.name}.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    contact_sheet(shown, titles=titles, taxonomy=taxonomy).save(to.with_name(f"{to.name}.png"))
    return report
