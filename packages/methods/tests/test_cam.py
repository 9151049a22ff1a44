import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.methods import class_activation_maps, class_activations


def network() -> tuple[nn.Module, Tensor]:
    generator = torch.Generator().manual_seed(1)
    encoder = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU())
    weight = torch.rand(4, 6, generator=generator) - 0.3
    return encoder.requires_grad_(False), weight


def test_activations_are_the_classifiers_scores_at_each_position():
    features, weight = torch.randn(2, 5, 3, 4), torch.randn(3, 5)
    found = class_activations(features, weight)
    for b in range(2):
        for c in range(3):
            for y in range(3):
                for x in range(4):
                    assert found[b, c, y, x] == pytest.approx(float(features[b, :, y, x] @ weight[c]), abs=1e-5)
    pooled = nn.functional.linear(features.mean((2, 3)), weight)  # averaging and classifying commute
    torch.testing.assert_close(found.mean((2, 3)), pooled)


def test_maps_equal_a_loop():
    encoder, weight = network()
    images = torch.rand(3, 3, 19, 26)
    tags = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
    found = class_activation_maps(images, tags, lambda x: class_activations(encoder(x), weight))

    for image, own, maps in zip(images, tags, found, strict=True):
        for c in range(4):
            total = torch.zeros(19, 26)
            for scale, size in [(1, (19, 26)), (0.5, (10, 13)), (1.5, (28, 39)), (2, (38, 52))]:
                for flipped in (False, True):
                    scaled = F.interpolate(image[None], size, mode="bilinear", antialias=scale < 1)
                    if flipped:
                        scaled = scaled.flip(3)
                    features = encoder(scaled)[0]
                    scores = sum(weight[c, k] * features[k] for k in range(6))
                    assert isinstance(scores, Tensor)
                    score = scores.clamp(min=0)
                    if flipped:
                        score = score.flip(1)
                    total += F.interpolate(score[None, None], (19, 26), mode="bilinear")[0, 0]
            expected = total / total.max() if own[c] and total.max() > 0 else torch.zeros(19, 26)
            torch.testing.assert_close(maps[c], expected)
    assert found[:2].amax((2, 3))[tags[:2]].tolist() == [1, 1, 1]  # otherwise the loop above proves nothing


def test_a_class_without_activation_is_zero_and_finite():
    maps = class_activation_maps(torch.rand(1, 3, 8, 8), torch.tensor([[True]]), lambda x: -x[:, :1], scales=[1])
    assert torch.equal(maps, torch.zeros(1, 1, 8, 8))


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match=r"\[2, 3, 8, 8\] for tags \[2, 5\]"):
        class_activation_maps(torch.rand(2, 3, 8, 8), torch.ones(2, 5), lambda x: x)
