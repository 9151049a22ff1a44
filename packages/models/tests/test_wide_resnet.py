"""WideResNet38: parameters against a closed form, a block against its definition, shapes, and use as an encoder."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.models import Encoder, Segmenter, create_segmenter
from semiseg.models.testing import images
from semiseg.models.wide_resnet import Block, WideResNet38


def test_parameters_follow_the_closed_form() -> None:
    def pair(before: int, a: int, b: int) -> int:  # two 3x3 convolutions, a projection where the width changes, two BN
        return 9 * before * a + 9 * a * b + (before * b if before != b else 0) + 2 * before + 2 * a

    def bottleneck(before: int, a: int, b: int, c: int) -> int:
        return before * a + 9 * a * b + b * c + before * c + 2 * (before + a + b)

    expected = 27 * 64
    expected += pair(64, 128, 128) + 2 * pair(128, 128, 128)
    expected += pair(128, 256, 256) + 2 * pair(256, 256, 256)
    expected += pair(256, 512, 512) + 5 * pair(512, 512, 512)
    expected += pair(512, 512, 1024) + 2 * pair(1024, 512, 1024)
    expected += bottleneck(1024, 512, 1024, 2048) + bottleneck(2048, 1024, 2048, 4096)
    with torch.device("meta"):
        body = WideResNet38()
    assert expected == 105_062_720
    assert sum(p.numel() for p in body.parameters()) == expected
    names = body.state_dict()
    assert {"mod1.conv1.weight", "mod2.block1.bn1.0.weight", "mod7.block1.convs.conv3.weight"} <= names.keys()


def test_dilations_strides_and_dropout_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        body = WideResNet38()
    modules = dict(body.named_modules())
    found = {
        number: {
            (m.stride[0], m.dilation[0])
            for name, m in modules.items()
            if name.startswith(f"mod{number}.") and isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)
        }
        for number in range(2, 8)
    }
    assert found == {2: {(1, 1)}, 3: {(1, 1)}, 4: {(2, 1), (1, 1)}, 5: {(1, 2)}, 6: {(1, 4)}, 7: {(1, 4)}}
    dropped = {name: m.p for name, m in modules.items() if isinstance(m, torch.nn.Dropout2d)}
    assert dropped == {"mod6.block1.convs.dropout": 0.3, "mod7.block1.convs.dropout": 0.5}


@pytest.mark.parametrize("widths", [(6, 6), (5, 8), (4, 5, 9)])
def test_a_block_is_pre_activated(widths: tuple[int, ...]) -> None:
    block = Block(6, widths, stride=2, dilation=2, dropout=0.5).double().eval()
    for name, buffer in block.named_buffers():
        if "running" in name:
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    state = block.state_dict()

    def activated(x: Tensor, name: str) -> Tensor:
        mean, variance = state[f"{name}.0.running_mean"], state[f"{name}.0.running_var"]
        return ((x - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]).relu()

    x = torch.randn(2, 6, 9, 7, dtype=torch.float64)
    first = activated(x, "bn1")
    y = first
    for i in range(1, len(widths) + 1):
        weight = state[f"convs.conv{i}.weight"]
        dilation = 2 if weight.shape[-1] == 3 else 1
        padding = dilation * (weight.shape[-1] // 2)
        y = y if i == 1 else activated(y, f"convs.bn{i}")
        y = F.conv2d(y, weight, stride=2 if i == 1 else 1, padding=padding, dilation=dilation)
    expected = y + F.conv2d(first, state["proj_conv.weight"], stride=2)
    torch.testing.assert_close(block(x), expected)
    assert expected.shape == (2, widths[-1], 5, 4)


def test_it_trains_in_a_segmenter_with_aspp_and_the_deeplab_decoder() -> None:
    """The whole network once: shapes on an odd size, a gradient for every parameter."""
    settings = {"context": "aspp", "context_channels": 32, "decoder": "deeplabv3plus", "norm": "frozen"}
    model: Segmenter = create_segmenter(
        encoder="wide_resnet38", classes={"street": 5}, weights="none", low_stride=2, checkpointing=True, **settings
    )
    assert model.encoder.pads is False
    assert model.upsampling == 4
    features = model.encode(images(1, 65, 40))
    assert features.deep.shape == (1, 32, 9, 5)
    assert features.low is not None and features.low.shape == (1, 128, 33, 20)
    logits = model.decode(features)
    assert logits.shape == (1, 5, 36, 20)
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    stem = next(model.encoder.parameters())
    assert stem.grad is not None and stem.grad.abs().max() > 0
    assert model.config["low_stride"] == 2


def test_unsupported_settings_raise() -> None:
    with pytest.raises(ValueError, match="'wide_resnet38' has no output stride 16; it has 8: set that"):
        Encoder("wide_resnet38", 16)
    with pytest.raises(ValueError, match=r"timm has no weights for encoder 'wide_resnet38'; set .*\"none\""):
        create_segmenter(encoder="wide_resnet38", classes={"voc": 21})
    with pytest.raises(ValueError, match=r"unknown encoder 'wide_resnet83'; did you mean .*'wide_resnet38'"):
        Encoder("wide_resnet83", 8)
