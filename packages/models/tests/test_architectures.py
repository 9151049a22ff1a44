"""SegmenterContract on encoders that treat image sizes differently."""

from typing import ClassVar

from semiseg.models.testing import SegmenterContract


class TestResNet18(SegmenterContract):
    encoder = "resnet18"


class TestResNet50s(SegmenterContract):
    encoder = "resnet50s"
    strides = (8,)


class TestEfficientNetLite0(SegmenterContract):
    encoder = "tf_efficientnet_lite0"
    settings: ClassVar[dict] = {"context": "none", "decoder": "linear", "context_channels": 16}


class TestDeepLabV3Plus(SegmenterContract):
    """ASPP, whose z is signed, and the decoder with a low-level path, at stride 4."""

    encoder = "resnet18"
    settings: ClassVar[dict] = {
        "context": "aspp",
        "context_channels": 16,
        "context_rates": (2, 4),
        "decoder": "deeplabv3plus",
        "checkpointing": True,
    }


class TestDeepLabV3PlusAtStride2(SegmenterContract):
    encoder = "tf_efficientnet_lite0"
    strides = (16,)
    settings: ClassVar[dict] = {"decoder": "deeplabv3plus", "low_stride": 2, "context_channels": 16, "norm": "frozen"}


class TestMobileNetV3(SegmenterContract):
    encoder = "mobilenetv3_small_100"
    settings: ClassVar[dict] = {"last_relu": True, "context_channels": 16}


class TestConvNeXt(SegmenterContract):
    """Rounds sizes down."""

    encoder = "convnext_atto"


class TestViT(SegmenterContract):
    """One stride, only sizes that are multiples of it, no finer features."""

    encoder = "vit_tiny_patch16_224"
    strides = (16,)


class TestSwin(SegmenterContract):
    """Channels last; a fixed image size by default."""

    encoder = "swin_tiny_patch4_window7_224"
    strides = (32,)
    settings: ClassVar[dict] = {"norm": "frozen", "context_channels": 16}


class TestFPN(SegmenterContract):
    """z at the finest of several levels, and no dilation."""

    encoder = "tf_efficientnet_lite0"
    strides = (32,)
    settings: ClassVar[dict] = {"context": "fpn", "levels": (8, 16, 32), "context_channels": 16, "context_width": 8}


class TestFPNAtStride4(SegmenterContract):
    """Swin's features are channels last; the encoder is dilated in the next."""

    encoder = "swin_tiny_patch4_window7_224"
    strides = (32,)
    settings: ClassVar[dict] = {
        "context": "fpn",
        "levels": (4, 8, 16, 32),
        "context_channels": 16,
        "norm": "frozen",
        "decoder": "linear",
    }


class TestFPNOfADilatedNetwork(SegmenterContract):
    encoder = "resnet18"
    strides = (16,)
    settings: ClassVar[dict] = {
        "context": "fpn",
        "levels": (4, 16),
        "context_channels": 16,
        "decoder": "deeplabv3plus",
        "low_stride": 2,
    }
