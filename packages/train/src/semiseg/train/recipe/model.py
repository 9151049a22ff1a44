"""The network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import MinLen

from semiseg.train.recipe.bounds import ByKind, Count, Text


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A timm encoder, or "wide_resnet38".

    weights        "timm" (those it publishes), "none" (random), or the path of a file, a run or a saved model: its encoder
                   alone, whatever its label spaces; to take over its context too, see `start`
    checkpointing  compute blocks again in the backward pass: less memory, more time, the same results to the bit
    """

    name: Text
    output_stride: Literal[8, 16, 32] = 8
    weights: Text = "timm"
    checkpointing: bool = False


@dataclass(frozen=True, kw_only=True)
class PSP:
    """Pyramid pooling on bins 1, 2, 3, 6; `channels` is what the decoders get."""

    kind: Literal["psp"] = "psp"
    channels: Count = 512


@dataclass(frozen=True, kw_only=True)
class ASPP:
    """Atrous spatial pyramid pooling. `rates` are in cells of the encoder's features: half of these at stride 16.

    What decoders get is signed, so that the perturbation feature_drop has nothing to rank cells by.
    """

    kind: Literal["aspp"] = "aspp"
    channels: Count = 256
    rates: Annotated[tuple[Count, ...], MinLen(1)] = (12, 24, 36)


@dataclass(frozen=True, kw_only=True)
class NoContext:
    """A 1x1 convolution to `channels`, batch norm and ReLU."""

    kind: Literal["none"] = "none"
    channels: Count = 512


@dataclass(frozen=True, kw_only=True)
class SubPixel:
    """CCT's decoder: 1x1 convolutions and pixel shuffles to the input's size; `last_relu` as in the released code."""

    kind: Literal["subpixel"] = "subpixel"
    last_relu: bool = False


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A 1x1 convolution, then bilinear upsampling."""

    kind: Literal["linear"] = "linear"


@dataclass(frozen=True, kw_only=True)
class DeepLabV3Plus:
    """Two 3x3 convolutions over z and the encoder's features at `low_stride`, where its logits are."""

    kind: Literal["deeplabv3plus"] = "deeplabv3plus"
    low_stride: Literal[2, 4] = 4


Context = Annotated[PSP | ASPP | NoContext, ByKind()]
Decoder = Annotated[SubPixel | Linear | DeepLabV3Plus, ByKind()]


@dataclass(frozen=True, kw_only=True)
class Model:
    """One encoder and context for all domains, one main decoder for each.

    norm    "batch"; "sync" (statistics over all processes); "frozen" (the weights' own statistics, never updated)
    batches "separate" encodes labeled and unlabeled images one after the other (the released code); "joint" in one pass, so
            that batch statistics are theirs together
    start   a saved model or run to start from: encoder, context and the decoders of its domains; domains of this recipe
            that it lacks get new decoders, domains of its own that this recipe lacks stay as they are
    freeze  "encoder" trains decoders alone: encoder and context keep their weights (needs norm = "frozen")
    """

    encoder: Encoder
    context: Context = PSP()
    decoder: Decoder = SubPixel()
    norm: Literal["batch", "sync", "frozen"] = "batch"
    batches: Literal["separate", "joint"] = "separate"
    start: Text | None = None
    freeze: Literal["none", "encoder"] = "none"
