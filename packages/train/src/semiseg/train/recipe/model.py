"""The network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import MinLen

from semiseg.train.recipe.bounds import ByKind, Channels, Count, Side, Text

__all__ = [
    "ASPP",
    "FPN",
    "PSP",
    "Context",
    "Decoder",
    "DeepLabV3Plus",
    "Encoder",
    "Linear",
    "Model",
    "NoContext",
    "SubPixel",
]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A timm encoder, or "wide_resnet38".

    weights        "timm" (pretrained), "none" (random), or the path of a file, a run or a saved model, of which only the
                   encoder is used, whatever its sets of classes; to use its context as well, see `start`
    checkpointing  recompute blocks in the backward pass: less memory, more time, bit-identical results
    """

    name: Text
    output_stride: Literal[8, 16, 32] = 8
    weights: Text = "timm"
    checkpointing: bool = False


@dataclass(frozen=True, kw_only=True)
class PSP:
    """Pyramid pooling with bins 1, 2, 3, 6; `channels` is the number of output channels, which decoders see."""

    kind: Literal["psp"] = "psp"
    channels: Channels = 512


@dataclass(frozen=True, kw_only=True)
class ASPP:
    """Atrous spatial pyramid pooling. `rates` are in cells of the encoder's features: halve them at stride 16.

    Its output is signed, so that the perturbation feature_drop cannot rank cells by it.
    """

    kind: Literal["aspp"] = "aspp"
    channels: Channels = 256
    rates: Annotated[tuple[Side, ...], MinLen(1)] = (12, 24, 36)


@dataclass(frozen=True, kw_only=True)
class FPN:
    """Fuses features of several strides at the finest one: finer borders and thin things, and a stride of 32 without dilation.

    levels    strides of the encoder, from fine to coarse; the last is `output_stride`
    channels  number of output channels, which decoders see
    width     channels of each level before they are fused
    """

    kind: Literal["fpn"] = "fpn"
    levels: Annotated[tuple[Count, ...], MinLen(1)] = (8, 16, 32)
    channels: Channels = 128
    width: Channels = 64


@dataclass(frozen=True, kw_only=True)
class NoContext:
    """A 1x1 convolution to `channels`, batch norm and ReLU."""

    kind: Literal["none"] = "none"
    channels: Channels = 512


@dataclass(frozen=True, kw_only=True)
class SubPixel:
    """CCT's decoder: 1x1 convolutions and pixel shuffles up to the size of the input; `last_relu`: as in the released code."""

    kind: Literal["subpixel"] = "subpixel"
    last_relu: bool = False


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A 1x1 convolution, then bilinear upsampling."""

    kind: Literal["linear"] = "linear"


@dataclass(frozen=True, kw_only=True)
class DeepLabV3Plus:
    """Two 3x3 convolutions over z and the encoder's features at `low_stride`, the stride of its logits."""

    kind: Literal["deeplabv3plus"] = "deeplabv3plus"
    low_stride: Literal[2, 4] = 4


Context = Annotated[PSP | ASPP | FPN | NoContext, ByKind()]
Decoder = Annotated[SubPixel | Linear | DeepLabV3Plus, ByKind()]


@dataclass(frozen=True, kw_only=True)
class Model:
    """One encoder and context for all domains, one main decoder for each.

    norm    "batch"; "sync" (statistics over all processes); "frozen" (the statistics of the weights, never updated)
    batches "separate" encodes labeled and unlabeled images one after the other (the released code); "joint" in one pass,
            with common batch statistics
    start   a saved model or run to start from: encoder, context and the decoders of its domains. New domains of this recipe
            get new decoders; domains of the model that this recipe lacks stay as they are
    freeze  "encoder" trains only decoders: encoder and context keep their weights (needs norm = "frozen")
    """

    encoder: Encoder
    context: Context = PSP()
    decoder: Decoder = SubPixel()
    norm: Literal["batch", "sync", "frozen"] = "batch"
    batches: Literal["separate", "joint"] = "separate"
    start: Text | None = None
    freeze: Literal["none", "encoder"] = "none"
