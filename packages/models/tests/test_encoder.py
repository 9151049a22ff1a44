"""Encoders against timm's networks, and errors for unsupported ones."""

import re

import pytest
import timm
import torch
import torch.nn.functional as F

from semiseg.models import Encoder
from semiseg.models.testing import images


def test_resnet50s_has_the_published_number_of_parameters() -> None:
    encoder = Encoder("resnet50s", 8)
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == 23_631_808
    assert (encoder.channels, encoder.low_channels, encoder.low_stride) == (2048, 256, 4)


@pytest.mark.parametrize(("name", "padded"), [("resnet18", (65, 71)), ("convnext_atto", (72, 72))])
def test_features_equal_timm_s_on_normalised_images(name: str, padded: tuple[int, int]) -> None:
    encoder = Encoder(name, 8).eval()
    plain = timm.create_model(name, features_only=True, output_stride=8).eval()
    plain.load_state_dict(encoder.body.state_dict())
    x = images(2, 65, 71)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    stages = plain(F.pad(normalised, (0, padded[1] - 71, 0, padded[0] - 65)))
    features = encoder(x)
    torch.testing.assert_close(features.deep, stages[-1])
    low = next(s for s in stages if s.shape[-1] == -(-padded[1] // 4))
    assert features.low is not None
    torch.testing.assert_close(features.low, low[..., :17, :18])


def test_uint8_and_float_images_give_the_same_features() -> None:
    encoder = Encoder("resnet18", 32).eval()
    pixels = (images(1, 64, 64) * 255).round().to(torch.uint8)
    assert torch.equal(encoder(pixels).deep, encoder(pixels.float() / 255).deep)


def test_mean_and_std_are_those_of_the_pretraining() -> None:
    assert Encoder("tf_efficientnet_lite0", 16).moments == ([0.5] * 3, [0.5] * 3)
    assert Encoder("resnet18", 32, mean=(0, 0.1, 0.2), std=(1, 2, 3)).std.flatten().tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "stride", "message"),
    [
        ("resnet5O", 8, r"unknown encoder 'resnet5O'; did you mean .*'resnet50'"),
        ("qqqqqqqq", 8, r"unknown encoder 'qqqqqqqq'; use one such as resnet50s"),
        (
            "resnet50s.gluon_in2k",
            8,
            r"unknown weights 'gluon_in2k' of encoder 'resnet50s'; known: resnet50s.gluon_in1k",
        ),
        ("resnet18", 4, r"output stride 4 of encoder 'resnet18': expected one of 8, 16, 32"),
        ("dla46_c", 8, r"encoder 'dla46_c' has no output stride 8; it has 32: set that, or use another"),
        ("vit_tiny_patch16_224", 8, r"'vit_tiny_patch16_224' has no output stride 8; it has 16"),
        ("vit_small_patch14_dinov2", 16, r"no output stride 16; nor any of 8, 16, 32: use another"),
        ("coatnet_nano_rw_224", 32, r"'coatnet_nano_rw_224' does not accept images of any size"),
    ],
)
def test_unknown_or_unsupported_encoders_raise(name: str, stride: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Encoder(name, stride)


def test_images_of_wrong_shape_or_type_raise() -> None:
    encoder = Encoder("resnet18", 32)
    with pytest.raises(ValueError, match=re.escape("[1, 1, 8, 8]: expected [batch, 3, height, width]")):
        encoder(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"torch.int64: expected uint8"):
        encoder(torch.zeros(1, 3, 8, 8, dtype=torch.int64))


def test_weights_that_cannot_be_fetched_raise_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"weights of encoder 'resnet18' cannot be fetched.*weights = \"none\""):
        Encoder("resnet18", 32, pretrained=True)
