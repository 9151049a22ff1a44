"""The segmentation network: one encoder and context, and one main decoder per domain (set of classes)."""

import copy
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from semiseg.models.context import ASPP, FPN, PSP, Projection
from semiseg.models.decoder import DeepLabV3PlusDecoder, LinearDecoder, SubpixelDecoder
from semiseg.models.encoder import Encoder, Features
from semiseg.models.norm import synchronised

ContextKind = Literal["psp", "aspp", "fpn", "none"]
DecoderKind = Literal["subpixel", "linear", "deeplabv3plus"]
Norm = Literal["batch", "sync", "frozen"]


class Segmenter(nn.Module):
    """A segmentation network with one main decoder per domain (set of classes): images in, class logits out.

    Args:
        encoder: computes the features. z has its stride, or with "fpn" that of its finest level.
        classes: number of classes of each domain, such as {"cityscapes": 19, "sunrgbd": 13}.
        context: "psp" (pyramid pooling), "aspp" (atrous pyramid; z is signed), "fpn" (fuses the encoder's `levels`) or
            "none" (a 1x1 convolution, BN and ReLU).
        context_channels: channels of z, the features that decoders see.
        context_rates: dilations of "aspp", in cells of z. context_width: channels of each level of "fpn".
        decoder: "subpixel" (CCT's), "linear" (1x1 convolution and bilinear upsampling) or "deeplabv3plus", which also
            sees the encoder's low-level features and works at their stride.
        last_relu: the sub-pixel decoder ends in a ReLU, as in CCT's released code.
        norm: "batch" normalises by the batch of this process in training; "sync" by the batch of all processes;
            "frozen" always by the running statistics, while scale and shift are still trained: for small batches and
            pretrained weights. The BN of parts with random weights is then the identity at the start.

    Raises ValueError if a setting is not one of these.
    """

    encoder: Encoder
    context: PSP | ASPP | FPN | Projection

    def __init__(
        self,
        encoder: Encoder,
        classes: Mapping[str, int],
        *,
        context: ContextKind = "psp",
        context_channels: int = 512,
        context_rates: Sequence[int] = (12, 24, 36),
        context_width: int = 64,
        decoder: DecoderKind = "subpixel",
        last_relu: bool = False,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        _check_kind("context", context, get_args(ContextKind))
        _check_kind("decoder", decoder, get_args(DecoderKind))
        _check_kind("norm", norm, get_args(Norm))
        if last_relu and decoder != "subpixel":
            raise ValueError(f"last_relu=True with decoder={decoder!r}: only the sub-pixel decoder has a last ReLU")
        if context_channels < 1:
            raise ValueError(f"context_channels={context_channels}: expected at least 1")
        if not context_rates or min(context_rates) < 1:
            raise ValueError(f"context_rates={list(context_rates)}: expected at least one rate, all at least 1")
        if decoder == "deeplabv3plus" and encoder.low_channels is None:
            raise ValueError(
                f"encoder {encoder.name!r} has no features finer than its output, which decoder='deeplabv3plus' needs; "
                "use another encoder, or decoder='subpixel' or 'linear'"
            )
        if context == "fpn" and (not encoder.levels or encoder.levels[-1] != encoder.stride):
            raise ValueError(
                f'context="fpn" with levels {list(encoder.levels)} of an encoder at stride {encoder.stride}: expected strides '
                f"from fine to coarse that end in {encoder.stride}, such as levels=[8, 16, 32] for 32"
            )
        _check_classes(classes)
        self.encoder = encoder
        match context:
            case "psp":
                self.context = PSP(encoder.channels, context_channels)
            case "aspp":
                self.context = ASPP(encoder.channels, context_channels, context_rates)
            case "fpn":
                self.context = FPN(encoder.level_channels, encoder.levels, context_channels, context_width)
            case "none":
                self.context = Projection(encoder.channels, context_channels)
        self.decoders = nn.ModuleDict()
        self.classes: dict[str, int] = {}
        self.channels, self.norm = context_channels, norm
        self.stride = encoder.levels[0] if context == "fpn" else encoder.stride  # of z
        self.metadata: dict[str, Any] = {}  # set by from_pretrained: the metadata given to save_pretrained
        self._kinds = {"context": context, "decoder": decoder, "last_relu": last_relu}
        self._rates = [int(rate) for rate in context_rates] if context == "aspp" else None
        self._width = context_width if context == "fpn" else None
        if norm == "sync":  # in place, since neither is a batch norm itself
            synchronised(self.encoder)
            synchronised(self.context)
        for domain, count in classes.items():
            self.add_domain(domain, count)
        self.train(self.training)

    def add_domain(self, domain: str, classes: int) -> None:
        """Add a main decoder, with random weights, for another domain; the others do not change.

        Raises ValueError for a name that is taken or not valid, or fewer than 2 classes.
        """
        if domain in self.classes:
            raise ValueError(
                f"this model already has a domain {domain!r}, with {self.classes[domain]} classes; use another name"
            )
        _check_classes({domain: classes})
        kind = self._kinds["decoder"]
        if kind == "subpixel":
            last_relu = bool(self._kinds["last_relu"])
            head = SubpixelDecoder(self.channels, classes, self.upsampling, last_relu=last_relu)
        elif kind == "linear":
            head = LinearDecoder(self.channels, classes, self.upsampling)
        else:
            assert self.encoder.low_channels is not None
            head = DeepLabV3PlusDecoder(self.channels, self.encoder.low_channels, classes, self.upsampling)
        if self.norm == "sync":
            synchronised(head)
        self.decoders[domain] = head.to(self.encoder.mean.device)
        self.classes[domain] = classes
        self.train(self.training)

    def only(self, domain: str) -> "Segmenter":
        """A copy with the decoder of one domain only: the same logits for it, without the others' weights."""
        alone = copy.deepcopy(self)
        for other in set(self.classes) - {self._domain(domain)}:
            del alone.decoders[other], alone.classes[other]
        return alone

    @property
    def upsampling(self) -> int:
        """Size of a decoder's logits over that of z: the stride of z, or with "deeplabv3plus" that over low_stride."""
        if self._kinds["decoder"] != "deeplabv3plus":
            return self.stride
        return self.stride // (self.encoder.low_stride or 1)

    @property
    def mean(self) -> Tensor:
        """[3, 1, 1], which the encoder subtracts from images in [0, 1]."""
        return self.encoder.mean

    @property
    def std(self) -> Tensor:
        """[3, 1, 1], by which the encoder then divides."""
        return self.encoder.std

    @property
    def config(self) -> dict[str, Any]:
        """Everything needed to build this network again without a download, as plain JSON values."""
        mean, std = self.encoder.moments
        return {
            "encoder": self.encoder.name,
            "output_stride": self.encoder.stride,
            "low_stride": self.encoder.low_stride,
            "levels": list(self.encoder.levels),
            "mean": mean,
            "std": std,
            "classes": dict(self.classes),
            "context": self._kinds["context"],
            "context_channels": self.channels,
            "context_rates": self._rates,
            "context_width": self._width,
            "decoder": self._kinds["decoder"],
            "last_relu": self._kinds["last_relu"],
            "norm": self.norm,
        }

    def forward(self, images: Tensor, domain: str | None = None) -> Tensor:
        """uint8, or floating point in [0, 1], [b, 3, H, W] -> logits [b, C, H, W] of the domain, for any H and W.

        Sides that are not multiples of the encoder's stride are extended by reflection to the right and below, and the logits
        cropped: logits resized to the image would be shifted against it, by up to a cell. Logits of "deeplabv3plus", which
        are coarser than the image, are resized bilinearly with align_corners=True. `domain` may be omitted if there is only
        one.
        """
        height, width = images.shape[-2:]
        features = self.encode(reflected(images, self.encoder.stride))
        logits = self.decode(features, domain)
        if logits.shape[-2:] != features.size:
            logits = F.interpolate(logits, size=features.size, mode="bilinear", align_corners=True)
        return logits[..., :height, :width]

    def encode(self, images: Tensor) -> Features:
        """Images -> Features whose `deep` is z, [b, channels, ceil(H / stride), ceil(W / stride)]; >= 0 except for "aspp"."""
        features = self.encoder(images)
        z = self.context(features.levels if isinstance(self.context, FPN) else features.deep)
        return Features(z, features.low, features.size, features.levels)

    def decode(self, features: Features, domain: str | None = None) -> Tensor:
        """Features -> logits at decoder resolution, [b, C, u h, u w] with u = `upsampling`.

        At stride 8, an image of 65 pixels has 72 logits with "subpixel" and "linear", 72 / low_stride with "deeplabv3plus".
        """
        decoder = self.decoders[self._domain(domain)]
        if isinstance(decoder, DeepLabV3PlusDecoder):
            return decoder(features.deep, features.low)
        return decoder(features.deep)

    def train(self, mode: bool = True) -> "Segmenter":
        super().train(mode)
        if self.norm == "frozen":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _domain(self, domain: str | None) -> str:
        if domain is None and len(self.classes) == 1:
            return next(iter(self.classes))
        if domain in self.classes:
            return domain
        known = ", ".join(self.classes)
        if domain is None:
            raise ValueError(f"this model has {len(self.classes)} domains: pass domain=..., one of {known}")
        raise ValueError(f"unknown domain {domain!r}{_near(domain, self.classes)}; this model has {known}")


def reflected(images: Tensor, multiple: int) -> Tensor:
    """Images [..., H, W] of any dtype, extended to multiples of `multiple` by reflection (without the edge) right and below."""
    for axis in (-2, -1):
        side = images.shape[axis]
        if missing := -side % multiple:
            period = max(2 * (side - 1), 1)
            places = torch.arange(side + missing, device=images.device) % period
            images = images.index_select(axis, torch.where(places < side, places, period - places))
    return images


def _check_kind(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}{_near(value, known)}; known: {', '.join(known)}")


def _check_classes(classes: Mapping[str, int]) -> None:
    if not classes:
        raise ValueError(
            'classes is empty: expected at least one domain and its number of classes, such as {"voc": 21}'
        )
    reserved = nn.ModuleDict()
    for domain, count in classes.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]+", domain) or hasattr(reserved, domain):
            reason = "torch reserves it" if hasattr(reserved, domain) else "it becomes part of parameter names"
            raise ValueError(
                f"{domain!r} cannot be the name of a domain ({reason}); use letters, digits, '_' and '-', "
                f"such as {re.sub(r'[^A-Za-z0-9_-]+', '-', domain).strip('-') or 'domain'}-1"
            )
        if isinstance(count, bool) or not isinstance(count, int) or count < 2:
            raise ValueError(f"classes[{domain!r}] = {count!r}: expected an integer, at least 2")


def _near(name: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
