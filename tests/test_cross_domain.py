"""recipes/cs_sun.toml on shards made from trees with the official layout.

Pixels are real (CamVid's street scenes, NYU's rooms), in the encodings of Cityscapes and SUN RGB-D.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.processes import python

ROOT = Path(__file__).parents[1]
# CamVid's classes in Cityscapes' ids: sky building pole road sidewalk vegetation sign fence car person bicycle, void.
CITYSCAPES_IDS = np.array([23, 11, 17, 7, 8, 21, 20, 13, 26, 24, 33, 0], np.uint8)
SMALL = (  # makes tests small and fast; everything else is as in the recipe
    "data.domains.cityscapes.labeled.subset.count=4",
    "data.domains.sunrgbd.labeled.subset.count=3",
    *(f"data.domains.{domain}.labeled.batch_size=2" for domain in ("cityscapes", "sunrgbd")),
    *(f"data.domains.{domain}.unlabeled.batch_size=2" for domain in ("cityscapes", "sunrgbd")),
    "data.domains.cityscapes.augment.resize=[48, 96]",
    "data.domains.sunrgbd.augment.resize=[48, 64]",
    "data.workers=0",
    "model.encoder.name=test_resnet",
    "model.encoder.weights=none",
    "model.context.channels=32",
    "log.every=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def shards(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both data sets as shards, written by the commands."""
    folder = tmp_path_factory.mktemp("cs_sun")
    cityscapes, sun = folder / "cityscapes", folder / "sunrgbd"
    for split, city, names in (("train", "aachen", 8), ("val", "munster", 3)):
        for number, image in enumerate(sorted((test_data / "camvid" / split).glob("*.png"))[:names]):
            stem = f"{city}_000000_{number:06}"
            picture = cityscapes / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
            label = cityscapes / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            label.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, picture)
            ids = np.array(Image.open(test_data / "camvid" / f"{split}annot" / image.name))
            Image.fromarray(CITYSCAPES_IDS[ids]).save(label)
    pictures, masks = pairs(test_data / "nyuv2_13")
    for number, (picture, mask) in enumerate(zip(pictures, masks, strict=True), start=1):
        split, place = ("train", number) if number <= 5 else ("test", number - 5)
        target = sun / f"SUNRGBD-{split}_images" / f"img-{place:06}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(picture).convert("RGB").save(target, quality=95)
        label = sun / f"{split}13labels" / f"img13labels-{place:06}.png"
        label.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(mask, label)
    for name in ("cityscapes", "sunrgbd"):
        python("-m", "semiseg.cli", "data", "shard", name, folder / name, "--to", folder / "shards")
    return folder / "shards"


def pairs(folder: Path) -> tuple[list[Path], list[Path]]:
    """Images and masks of the NYU sample, in the same order."""
    parts = sorted(path for path in folder.iterdir() if path.is_dir())
    masks = next(part for part in parts if any(word in part.name.lower() for word in ("mask", "label", "annot")))
    images = next(part for part in parts if part != masks)
    return sorted(images.iterdir()), sorted(masks.iterdir())


def rows(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "waited")} for line in lines]


def test_cs_sun_trains_evaluates_both_domains_and_resumes(shards: Path, tmp_path: Path):
    taxonomy = "data.domains.sunrgbd.taxonomy=sunrgbd-13-export"  # the sample has 13-class labels, not 37
    common = (ROOT / "recipes" / "cs_sun.toml", f"data.shards={shards}", f"runs={tmp_path}", taxonomy, *SMALL)
    preview = python("-m", "semiseg.cli", "train", *common, "--dry-run").stdout
    assert "4 of 8 images" in preview and "3 of 5 images" in preview
    python("-m", "semiseg.train", *common, "steps=6", "checkpoint.every=2")
    run = tmp_path / "cs-sun"
    results = json.loads((run / "results.json").read_text())
    scores = results["last"]["domains"]
    assert scores["cityscapes"]["images"] == 3 and scores["sunrgbd"]["images"] == 3
    assert len(scores["cityscapes"]["iou"]) == 19 and len(scores["sunrgbd"]["iou"]) == 13
    straight = rows(run)
    turns = [{name.split("/")[0] for name in row if name.endswith("/supervised")} for row in straight if "lr" in row]
    assert turns == [{"cityscapes"}, {"sunrgbd"}] * 3  # domains alternate, as in the paper
    for step in sorted(run.glob("step-*"))[1:]:  # as after a kill that follows the first checkpoint
        shutil.rmtree(step)
    (run / "results.json").unlink()
    again = python("-m", "semiseg.train", *common, "steps=6", "checkpoint.every=2")
    assert "resuming" in again.stderr
    assert rows(run) == straight


@pytest.mark.parametrize("name", ["cs_sun", "cs_camvid"])
def test_baselines_differ_only_in_the_method(name: str):
    diff = python("-m", "semiseg.cli", "recipe", "diff", f"{name}", f"{name}_supervised").stdout
    keys = {line.split(":")[0] for line in diff.splitlines()}
    allowed = ("name", "expect.", "objectives.1.", "data.domains.")
    assert all(key.startswith(allowed) for key in keys), keys
    assert all(".unlabeled." in key for key in keys if key.startswith("data.domains."))
