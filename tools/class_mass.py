"""Soft targets by class: how much probability a model gives each class, and whether it is at the right pixels.

    python tools/class_mass.py runs/a/step-00000600 runs/a/step-00000600/teacher --shards shards/camvid/train \
        --keys runs/a/subsets/camvid.unlabeled.txt --scale 0.75

For each class: its true fraction of the pixels; relative to that, the probability it gets everywhere ("mass") and the
pixels predicted as this class ("named"); and the mean probability on its own pixels. Void pixels are left out.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from semiseg.data import Sample, ShardSet, Taxonomy
from semiseg.models import Segmenter
from semiseg.train.score.saved import choose_domain, open_model
from semiseg.train.score.views import Views, probabilities


@dataclass
class Sums:
    """Sums over pixels for each of C classes, float64 [C]; `sure` is the sum of the largest probability of any class."""

    classes: int
    true: torch.Tensor = field(init=False)
    mass: torch.Tensor = field(init=False)
    named: torch.Tensor = field(init=False)
    own: torch.Tensor = field(init=False)
    sure: float = 0

    def __post_init__(self) -> None:
        self.true, self.mass, self.named, self.own = torch.zeros(4, self.classes, dtype=torch.float64)

    def add(self, predicted: torch.Tensor, truth: torch.Tensor) -> None:
        """Probabilities [C, h, w] and class ids uint8 [h, w], 255 = void."""
        valid = truth != 255
        p, ids = predicted[:, valid].double(), truth[valid].long()
        self.true += torch.bincount(ids, minlength=self.classes)
        self.mass += p.sum(1)
        self.named += torch.bincount(p.argmax(0), minlength=self.classes)
        self.own.index_add_(0, ids, p.gather(0, ids[None])[0])
        self.sure += float(p.amax(0).sum())


@torch.inference_mode()
def measure(model: Segmenter, samples: list[Sample], taxonomy: Taxonomy, domain: str, views: Views) -> Sums:
    sums = Sums(len(taxonomy.names))
    for sample in track(samples, "images", console=Console(stderr=True), transient=True):
        if sample.label is None:
            raise typer.BadParameter(f"{sample.key} has no label; choose labeled samples", param_hint="--keys")
        truth = torch.from_numpy(taxonomy.map(sample.label))
        height, width = truth.shape
        image = torch.from_numpy(np.array(sample.image.convert("RGB"))).permute(2, 0, 1)
        sums.add(probabilities(model, image, domain=domain, size=(height, width), views=views), truth)
    return sums


def main(
    models: list[str],
    shards: str = typer.Option(),
    taxonomy: str = "camvid-11",
    keys: Path | None = None,
    count: int = 40,
    scale: float = 1.0,
) -> None:
    shard_set, classes = ShardSet(shards), Taxonomy.get(taxonomy)
    chosen = set(shard_set.keys() if keys is None else keys.read_text(encoding="utf-8").split())
    places = [place for place, key in enumerate(shard_set.keys()) if key in chosen]
    if not places:
        raise typer.BadParameter(f"{shards} contains none of the samples in {keys}", param_hint="--keys")
    spread = np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int)
    samples = [shard_set[places[place]] for place in spread]
    for name in models:
        model, _ = open_model(name)
        sums = measure(model, samples, classes, choose_domain(model, None), Views(scales=(scale,)))
        table = Table("class", "true share", "mass / true", "named / true", "probability on its own pixels", title=name)
        for number, class_name in enumerate(classes.names):
            true = float(sums.true[number])
            parts = (sums.mass, sums.named, sums.own)
            ratios = (f"{float(part[number]) / true:.2f}" if true else "" for part in parts)
            table.add_row(class_name, f"{true / float(sums.true.sum()):.2%}", *ratios)
        Console(width=110).print(
            table, f"{len(samples)} images, mean of the largest: {sums.sure / float(sums.true.sum()):.3f}"
        )


if __name__ == "__main__":
    typer.run(main)
