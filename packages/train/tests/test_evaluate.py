"""Scores against a brute-force count; every image is counted once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from semiseg.data import ShardSet, Taxonomy
from semiseg.models import create_segmenter
from semiseg.train.score.evaluate import Scores, confusion_matrix, evaluate


def brute_force(prediction: np.ndarray, truth: np.ndarray, classes: int) -> list[float]:
    iou = []
    for c in range(classes):
        both = either = 0
        for p, t in zip(prediction.flat, truth.flat, strict=True):
            if t == 255:
                continue
            both += p == c and t == c
            either += p == c or t == c
        iou.append(both / either if either else float("nan"))
    return iou


@pytest.mark.parametrize("seed", range(5))
def test_iou_against_a_double_loop(seed: int):
    draw = np.random.default_rng(seed)
    classes = 5
    truth = draw.choice([0, 1, 2, 3, 255], size=(2, 7, 9), p=[0.3, 0.3, 0.2, 0.1, 0.1]).astype(np.uint8)
    prediction = draw.integers(0, 4, size=truth.shape).astype(np.uint8)  # class 4 occurs nowhere
    counts = confusion_matrix(torch.from_numpy(prediction), torch.from_numpy(truth), classes)
    scores = Scores(counts.numpy(), tuple("abcde"), 2)
    expected = brute_force(prediction, truth, classes)
    np.testing.assert_allclose(scores.iou, expected, rtol=1e-12)
    assert np.isnan(scores.iou[4])
    assert scores.miou == pytest.approx(np.nanmean(expected), rel=1e-12)
    valid = truth != 255
    assert scores.accuracy == pytest.approx((prediction == truth)[valid].mean(), rel=1e-12)
    assert scores.to_json()["iou"]["e"] is None


def test_torchmetrics_counts_the_same():
    from torchmetrics.functional import confusion_matrix as peer

    draw = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 4, (3, 20, 20), generator=draw)
    truth[0, :5] = 255
    prediction = torch.randint(0, 4, truth.shape, generator=draw)
    expected = peer(prediction, truth, task="multiclass", num_classes=4, ignore_index=255)
    assert torch.equal(confusion_matrix(prediction, truth, 4), expected)


def test_every_image_counts_once_at_its_labels_size(scenes: Path, taxonomies: dict[str, str]):
    shards = ShardSet(str(scenes / "street" / "val"))
    taxonomy = Taxonomy.get(taxonomies["street"])
    model = create_segmenter(
        encoder="test_resnet", classes={"street": len(taxonomy.names)}, weights="none", context_channels=16
    )
    valid = 0
    expected = np.zeros((len(taxonomy.names),) * 2, dtype=np.int64)
    model.eval()
    for sample in shards:
        assert sample.label is not None
        truth = taxonomy.map(sample.label)
        valid += int((truth != 255).sum())
        pixels = torch.from_numpy(np.array(sample.image)).permute(2, 0, 1)[None]
        prediction = model(pixels)[0].argmax(0).numpy()
        np.add.at(expected, (truth[truth != 255], prediction[truth != 255]), 1)
    model.train()
    scores = evaluate(model, shards, taxonomy)
    assert model.training
    assert scores.images == len(shards)
    assert int(scores.confusion.sum()) == valid
    np.testing.assert_array_equal(scores.confusion, expected)
    resized = evaluate(model, shards, taxonomy, resize=(24, 32), workers=2)
    assert int(resized.confusion.sum()) == valid


def test_a_sample_without_a_label_is_named(
    tmp_path: Path, write_unlabeled: Callable[[Path], str], taxonomies: dict[str, str]
):
    from semiseg.data import DataError

    url = write_unlabeled(tmp_path)
    taxonomy = Taxonomy.get(taxonomies["street"])
    model = create_segmenter(encoder="test_resnet", classes={"street": len(taxonomy.names)}, weights="none")
    with pytest.raises(DataError, match="has no label"):
        evaluate(model, ShardSet(url), taxonomy)
