"""Class-uniform crops on real CamVid, and what a run reports of them, on one process and on two."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from semiseg.data import ClassUniformPlan, Plan, ShardSet, open_dataset, shard
from semiseg.train.step.augment import Augmentation
from tests.processes import python, torchrun


@pytest.fixture(scope="module")
def camvid(camvid_root: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    to = tmp_path_factory.mktemp("camvid")
    shard(open_dataset("camvid", camvid_root), "val", to)
    return ShardSet(to / "camvid" / "val")


def test_classes_of_camvid_come_equally_often_and_every_anchor_is_in_its_crop(camvid: ShardSet):
    taxonomy = camvid.taxonomies[0]
    anchors = camvid.anchors(taxonomy)
    label_of = {
        (*row[0::2], row[3]): row[1]
        for row in zip(*(column.tolist() for column in vars(anchors).values()), strict=True)
    }
    plan = ClassUniformPlan(Plan(camvid, 0), anchors, share=0.5)
    draws = [draw for draw in plan.draws(0, 4000) if draw.anchor]
    assert len(draws) == 2000
    counts = Counter(label_of[(draw.sample, *draw.anchor)] for draw in draws if draw.anchor)
    assert set(counts) == set(range(11))
    assert max(counts.values()) - min(counts.values()) <= 1

    augmentation = Augmentation(scale=(0.5, 2.0), crop=(180, 240), flip=0.5)
    for draw in draws:  # a mark in place of the pixels must survive any scale, crop and flip
        assert draw.anchor
        mark = torch.zeros(360, 480, dtype=torch.uint8)
        row, column = draw.anchor
        mark[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = 1
        _, moved, _ = augmentation(mark.expand(3, -1, -1), mark, key=("crop", draw.position), anchor=draw.anchor)
        assert moved is not None and bool((moved == 1).any())


def test_a_run_reports_the_classes_of_its_crops(recipe_file: Callable[..., Path], tmp_path: Path):
    """As counted by hand from the plan and the crops; the same on two processes."""
    recipe = recipe_file()
    street = "data.domains.street"
    options = (
        f"{street}.augment.crop=[32, 32]",
        f"{street}.labeled.class_uniform={{share=0.5}}",
        *(f"{street}.{role}.batch_size=4" for role in ("labeled", "unlabeled")),
        "steps=4",
        "log.every=2",
        "checkpoint.every=4",
    )
    python("-m", "semiseg.train", recipe, *options, "name=one")
    torchrun(2, "-m", "semiseg.train", recipe, *options, "name=two")
    shares = []
    for name in ("one", "two"):
        rows = [json.loads(line) for line in (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()]
        shares.append(
            [
                {key: value for key, value in row.items() if "/crops_with/" in key or "/pixels_of/" in key}
                for row in rows
            ]
        )
    assert shares[0] == shares[1]

    from semiseg.train.assemble.sources import build_sources
    from semiseg.train.recipe.load import load

    stream = build_sources(load(recipe, options), fill=(0, 0, 0)).streams["street"]["labeled"]
    assert stream.taxonomy
    masks = [
        stream.load(draw)[1] for draw in stream.plan.draws(stream.batch_size, 2 * stream.batch_size)
    ]  # of the second step
    second = [row for row in shares[0] if row][1]
    for place, name in enumerate(stream.taxonomy.names):
        held = np.mean([bool((mask == place).any()) for mask in masks if mask is not None])
        assert second[f"street/crops_with/{name}"] == pytest.approx(held)
    assert sum(value for key, value in second.items() if "/pixels_of/" in key) == pytest.approx(1)
