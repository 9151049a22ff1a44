"""A trained network scores the same whatever remainder an image's sides leave by the stride."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.models import Segmenter, create_segmenter

STRIDE, SIDE = 8, 72


def scenes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images [n, 3, 72, 72] of three textures in rectangles, and their classes: 0 behind, 1 and 2 in front."""
    random = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    for mask in masks:
        for label in (1, 2, 1, 2):
            top, left = torch.randint(0, SIDE - 16, (2,), generator=random).tolist()
            height, width = torch.randint(12, 40, (2,), generator=random).tolist()
            mask[top : top + height, left : left + width] = label
    colours = torch.tensor([[0.3, 0.4, 0.5], [0.6, 0.4, 0.3], [0.4, 0.6, 0.4]])
    return colours[masks].permute(0, 3, 1, 2) + 0.1 * torch.randn(count, 3, SIDE, SIDE, generator=random), masks


def miou(predict: Callable[[Tensor], Tensor], images: Tensor, masks: Tensor) -> float:
    pairs = 3 * masks + predict(images).argmax(1)
    counts = torch.bincount(pairs.flatten(), minlength=9).view(3, 3).double()
    return float(100 * (counts.diag() / (counts.sum(0) + counts.sum(1) - counts.diag())).mean())


def squeezed(model: Segmenter, images: Tensor) -> Tensor:
    """What resizing a decoder's logits to the image gives."""
    return F.interpolate(model.decode(model.encode(images)), images.shape[-2:], mode="bilinear", align_corners=True)


def test_the_score_does_not_depend_on_the_remainder() -> None:
    torch.manual_seed(0)
    model = create_segmenter(
        encoder="test_resnet",
        classes={"toy": 3},
        output_stride=STRIDE,
        weights="none",
        context="none",
        context_channels=32,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(120):
        images, masks = scenes(8, seed=step)
        optimizer.zero_grad()
        F.cross_entropy(model(images), masks).backward()
        optimizer.step()
    model.eval()
    images, masks = scenes(60, seed=10_000)
    scores, naive = [], []
    with torch.no_grad():
        for remainder in range(STRIDE):
            side = SIDE - remainder
            cut = images[..., :side, :side], masks[:, :side, :side]
            scores.append(miou(model, *cut))
            naive.append(miou(lambda x: squeezed(model, x), *cut))
    assert max(scores) - min(scores) < 1  # 0.45 where this was written
    assert max(naive) - min(naive) > 3  # 5.4
