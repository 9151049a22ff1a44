"""Scales, flip and tiles against plain loops; tiles against the complete image for a network of 1x1 convolutions."""

from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tv

from semiseg.data import ShardSet, Taxonomy
from semiseg.models import Segmenter, create_segmenter
from semiseg.train.score import views as module
from semiseg.train.score.evaluate import evaluate
from semiseg.train.score.views import Views, predict_ids, probabilities, tile_starts

CLASSES = 5


class Small(nn.Module):
    """A network with a receptive field of `kernel` pixels; records the shapes of its batches."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, CLASSES, kernel, padding=kernel // 2)
        self.batches: list[tuple[int, ...]] = []

    def forward(self, images: Tensor, domain: str | None = None) -> Tensor:
        self.batches.append(tuple(images.shape))
        return self.conv(images.float() / 255) * 5


def network(kernel: int) -> Any:
    return cast(Segmenter, Small(kernel).eval())


def picture(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 0.95))
@settings(deadline=None, max_examples=200)
def test_tiles_cover_everything_and_overlap_enough(length: int, side: int, overlap: float) -> None:
    side = min(side, length)
    starts = tile_starts(length, side, overlap)
    assert starts[0] == 0 and starts[-1] == length - side
    shared = [before + side - after for before, after in pairwise(starts)]
    assert all(pixels >= min(side * overlap - 1e-6, side - 1) for pixels in shared)
    fewer = len(starts) - 1  # with one tile less, some overlap would be too small
    if fewer > 1:
        assert (length - side) / (fewer - 1) > max(1, int(side * (1 - overlap)))


@torch.inference_mode()
@pytest.mark.parametrize("overlap", [0.0, 1 / 3, 0.6])
@pytest.mark.parametrize("tile", [(20, 30), (64, 16), (500, 500)])
def test_tiles_equal_the_complete_image_if_pixels_are_independent(
    tile: tuple[int, int], overlap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", 3 * tile[0] * tile[1])
    model, image = network(1), picture(61, 83)
    whole = model(image[None])[0].softmax(0)
    model.batches.clear()
    tiled = probabilities(model, image, domain=None, size=(61, 83), views=Views(tile=tile, overlap=overlap))
    torch.testing.assert_close(tiled, whole, rtol=1e-5, atol=1e-6)
    assert {shape[2:] for shape in model.batches} == {(min(tile[0], 61), min(tile[1], 83))}
    assert all(shape[0] == 3 for shape in model.batches[:-1])
    torch.testing.assert_close(tiled.sum(0), torch.ones(61, 83))


@torch.inference_mode()
def test_a_pixel_is_averaged_over_the_tiles_that_contain_it() -> None:
    """A double loop over pixels and tiles; away from tile borders, the result equals that of the complete image."""
    model, image = network(3), picture(23, 31)
    tile, overlap = (9, 12), 0.4
    found = probabilities(model, image, domain=None, size=(23, 31), views=Views(tile=tile, overlap=overlap))
    boxes = [(y, x) for y in tile_starts(23, 9, overlap) for x in tile_starts(31, 12, overlap)]
    seen = {(y, x): model(image[None, :, y : y + 9, x : x + 12])[0].softmax(0) for y, x in boxes}
    whole = model(image[None])[0].softmax(0)
    inner = 0
    for row in range(23):
        for column in range(31):
            holding = [(y, x) for y, x in boxes if 0 <= row - y < 9 and 0 <= column - x < 12]
            expected = torch.stack([seen[y, x][:, row - y, column - x] for y, x in holding]).mean(0)
            torch.testing.assert_close(found[:, row, column], expected, rtol=1e-5, atol=1e-6)
            if all(0 < row - y < 8 and 0 < column - x < 11 for y, x in holding):
                inner += 1
                torch.testing.assert_close(found[:, row, column], whole[:, row, column], rtol=1e-5, atol=1e-6)
    assert inner > 50


@torch.inference_mode()
def test_scales_and_flip_equal_a_plain_loop() -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"encoder": "test_resnet", "classes": {"street": CLASSES}, "context_channels": 16}
    model = create_segmenter(**settings, weights="none").eval()
    image = picture(45, 66)
    views = Views(scales=(0.5, 1.0, 2.0), flip=True)
    found = probabilities(model, image, domain=None, size=(40, 70), views=views)
    expected = torch.zeros(CLASSES, 40, 70)
    for height, width in ((22, 33), (45, 66), (90, 132)):  # 22.5 rounds to the even number
        scaled = tv.resize(image, [height, width], antialias=True)
        for flip in (False, True):
            logits = model((scaled.flip(-1) if flip else scaled)[None])
            seen = logits.softmax(1).flip(-1) if flip else logits.softmax(1)
            expected += F.interpolate(seen, (40, 70), mode="bilinear", align_corners=False)[0] / 6
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    ids = predict_ids(model, image, domain=None, size=(40, 70), views=views)
    assert ids.dtype == torch.uint8 and torch.equal(ids, found.argmax(0).to(torch.uint8))


@torch.inference_mode()
def test_a_single_view_resizes_logits_then_takes_the_largest() -> None:
    model, image = network(3), picture(20, 30)
    logits = F.interpolate(model(image[None]), (33, 50), mode="bilinear", align_corners=False)
    assert torch.equal(predict_ids(model, image, domain=None, size=(33, 50)), logits[0].argmax(0).to(torch.uint8))


def test_evaluation_uses_the_views(scenes: Path, taxonomies: dict[str, str]) -> None:
    shards = ShardSet(str(scenes / "street" / "val"))
    taxonomy = Taxonomy.get(taxonomies["street"])
    torch.manual_seed(0)
    classes = {"street": len(taxonomy.names)}
    model = create_segmenter(encoder="test_resnet", classes=classes, weights="none", context_channels=16).eval()
    views = Views(scales=(0.75, 1.25), flip=True, tile=(32, 40), overlap=0.25)
    expected = np.zeros((len(taxonomy.names),) * 2, dtype=np.int64)
    for sample in shards:
        assert sample.label is not None
        truth = taxonomy.map(sample.label)
        pixels = torch.from_numpy(np.array(sample.image)).permute(2, 0, 1)
        size = (truth.shape[0], truth.shape[1])
        with torch.inference_mode():
            ids = probabilities(model, pixels, domain=None, size=size, views=views).argmax(0).numpy()
        np.add.at(expected, (truth[truth != 255], ids[truth != 255]), 1)
    scores = evaluate(model, shards, taxonomy, views=views)
    np.testing.assert_array_equal(scores.confusion, expected)
    assert not np.array_equal(scores.confusion, evaluate(model, shards, taxonomy).confusion)
