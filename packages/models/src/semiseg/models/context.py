"""Context modules (PSP, ASPP, FPN, none): encoder features to z, with a chosen number of channels.

PSP, FPN and Projection end in batch norm and ReLU, so z >= 0 for every encoder: CCT's F-Drop ranks cells by their sum over
channels, which is meaningless for signed features. ASPP ends in a plain convolution, as published, and its z is signed.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PSP(nn.Module):
    """Pyramid pooling: averages of the features over 1, 2x2, 3x3 and 6x6 regions, concatenated with the features.

    Each pooled map goes through a 1x1 convolution to `in_channels / len(bins)` channels, BN and ReLU, and is resized to
    the features (bilinear, align_corners=False); the concatenation, twice `in_channels`, goes through a 3x3 convolution
    to `channels`, BN and ReLU. With 2048 -> 512: 23,073,792 parameters.
    Zhao et al. 2017, section 3.2 (1/N of the channels for N bins).
    """

    def __init__(self, in_channels: int, channels: int = 512, bins: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.bins = tuple(bins)
        width = max(1, in_channels // len(self.bins))
        self.branches = nn.ModuleList(_conv_bn_relu(in_channels, width, 1) for _ in self.bins)
        self.fuse = _conv_bn_relu(in_channels + width * len(self.bins), channels, 3)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """[b, in_channels, h, w] -> [b, channels, h, w], >= 0."""
        if 1 in self.bins:
            _refuse_batch_of_one("PSP", x, self.branches[0])
        size = (x.shape[-2], x.shape[-1])
        pooled = pool(x, self.bins)
        maps = [branch(p) for branch, p in zip(self.branches, pooled, strict=True)]
        maps = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps]
        return self.fuse(torch.cat([x, *maps], dim=1))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 3x3 convolutions at several rates, a 1x1 convolution, and the image's average.

    Each branch has `channels` channels, BN and ReLU; the concatenation goes through a 1x1 convolution to `channels`,
    without bias, BN or ReLU. With 4096 -> 256 and three rates: 30,738,944 parameters.

    rates: dilations of the 3x3 convolutions, in cells, not scaled with the output stride: 12, 24, 36 are for stride 8;
    the same reach at stride 16 is 6, 12, 18. Chen et al. 2018, section 3.1; the last
    convolution as in Zhu et al. 2019.
    """

    def __init__(self, in_channels: int, channels: int = 256, rates: Sequence[int] = (12, 24, 36)) -> None:
        super().__init__()
        self.rates = tuple(rates)
        self.point = _conv_bn_relu(in_channels, channels, 1)
        self.atrous = nn.ModuleList(_conv_bn_relu(in_channels, channels, 3, rate) for rate in self.rates)
        self.image = _conv_bn_relu(in_channels, channels, 1)
        self.fuse = nn.Conv2d(channels * (2 + len(self.rates)), channels, 1, bias=False)
        nn.init.kaiming_normal_(self.fuse.weight, nonlinearity="linear")
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """[b, in_channels, h, w] -> [b, channels, h, w]."""
        _refuse_batch_of_one("ASPP", x, self.image)
        around = self.image(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        return self.fuse(torch.cat([self.point(x), *(branch(x) for branch in self.atrous), around], dim=1))


class Projection(nn.Sequential):
    """No context: a 1x1 convolution to `channels`, BN and ReLU, so that z has `channels` channels and z >= 0."""

    def __init__(self, in_channels: int, channels: int = 512) -> None:
        super().__init__(*_conv_bn_relu(in_channels, channels, 1))
        self.channels = channels


class FPN(nn.Module):
    """Fuses features of several strides at the finest one: thin things stay visible, and no stage needs dilation.

    Each level goes through a 1x1 convolution to `width` channels, BN and ReLU, and is upsampled to the finest (bilinear,
    align_corners=False); the concatenation goes through a 3x3 convolution to `channels`, BN and ReLU. Parameters:
    width * (sum of in_channels) + 9 * levels * width * channels, and 2 for each channel of a BN.

    in_channels, strides: of the levels, from fine to coarse; each stride is a multiple of the first. After the semantic
    branch of Kirillov et al. 2019 (Panoptic FPN), with one convolution for all levels instead of a pyramid for each.
    """

    def __init__(
        self, in_channels: Sequence[int], strides: Sequence[int], channels: int = 128, width: int = 64
    ) -> None:
        super().__init__()
        if len(in_channels) != len(strides) or not strides or any(s % strides[0] or s <= 0 for s in strides):
            raise ValueError(
                f"FPN(in_channels={list(in_channels)}, strides={list(strides)}): expected one number of channels for each "
                "stride, and strides that are multiples of the first, such as 8, 16, 32"
            )
        self.strides = tuple(strides)
        self.levels = nn.ModuleList(_conv_bn_relu(own, width, 1) for own in in_channels)
        self.fuse = _conv_bn_relu(width * len(self.strides), channels, 3)
        self.channels = channels

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Features [b, in_channels, ceil(H / stride), ceil(W / stride)] of each level -> z of the first's size, >= 0."""
        height, width = levels[0].shape[-2:]
        maps = []
        for features, level, stride in zip(levels, self.levels, self.strides, strict=True):
            own, factor = level(features), stride // self.strides[0]
            if factor > 1:  # by the exact factor, then cropped: a resize to the finest size would shift cells
                size = [factor * side for side in own.shape[-2:]]
                own = F.interpolate(own, size=size, mode="bilinear", align_corners=False)[..., :height, :width]
            maps.append(own)
        return self.fuse(torch.cat(maps, dim=1))


def pool(x: Tensor, bins: Sequence[int]) -> list[Tensor]:
    """Adaptive average pooling to n x n for each n of `bins`, in one matrix product: [b, c, h, w] -> [b, c, n, n] each.

    Equals `F.adaptive_avg_pool2d` up to rounding at every size, but is also deterministic in the backward pass on GPUs.
    The matrix contains powers of two, also exact in fp16 and bf16; the remaining factor of 1 / count is applied after it.
    """
    height, width = x.shape[-2:]
    columns, gains = [], []
    for n in bins:
        rows, cols = _regions(height, n, x.device), _regions(width, n, x.device)
        count = rows.sum(1)[:, None] * cols.sum(1)[None, :]  # [n, n] cells per region
        power = torch.exp2(-torch.ceil(torch.log2(count)))
        member = rows[:, None, :, None] * cols[None, :, None, :] * power[:, :, None, None]
        columns.append(member.view(n * n, height * width))
        gains.append((1 / (count * power)).view(n * n))
    sums = x.flatten(2) @ torch.cat(columns).to(x.dtype).t()
    means = sums * torch.cat(gains).to(sums.dtype)
    pieces = means.split([n * n for n in bins], dim=-1)
    return [piece.unflatten(-1, (n, n)) for piece, n in zip(pieces, bins, strict=True)]


def _regions(size: int, n: int, device: torch.device) -> Tensor:
    """[n, size], 1 where region i contains the cell: from floor(i size / n) to ceil((i + 1) size / n), as in torch."""
    cell = torch.arange(size, device=device)
    i = torch.arange(n, device=device)[:, None]
    start = torch.div(i * size, n, rounding_mode="floor")
    stop = torch.div((i + 1) * size + n - 1, n, rounding_mode="floor")
    return ((cell >= start) & (cell < stop)).float()


def _conv_bn_relu(in_channels: int, channels: int, kernel: int, rate: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel, padding=rate * (kernel // 2), dilation=rate, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())


def _refuse_batch_of_one(module: str, x: Tensor, branch: nn.Module) -> None:
    if len(x) == 1 and _averages_over_batch(branch):
        raise ValueError(
            f"{module} averages each channel of an image to one number, which batch norm cannot normalise in a training "
            'batch of one image; use at least 2 images per process, norm="frozen" or context="none"'
        )


def _averages_over_batch(branch: nn.Module) -> bool:
    """Whether the branch normalises by this process's batch (not by running statistics or those of all processes)."""
    return any(type(m) is nn.BatchNorm2d and m.training for m in branch.modules())
