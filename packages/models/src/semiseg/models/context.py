"""What looks around: turns encoder features into z, non-negative features of a chosen number of channels.

Both modules end in batch norm and ReLU, so z >= 0 whatever the encoder: CCT's F-Drop ranks cells by their sum over
channels, which means nothing for signed features.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PSP(nn.Module):
    """Pyramid pooling: averages of the features over 1, 2x2, 3x3 and 6x6 regions beside the features themselves.

    Each pooled map goes through a 1x1 convolution to `in_channels / len(bins)` channels, BN and ReLU, and is resized to
    the features (bilinear, align_corners=False); the concatenation, twice `in_channels`, goes through a 3x3 convolution
    to `channels`, BN and ReLU. With 2048 -> 512: 23,073,792 parameters.
    Zhao et al. 2017, section 3.2, which speaks of 1/N of the channels for N bins.
    """

    def __init__(self, in_channels: int, channels: int = 512, bins: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.bins = tuple(bins)
        each = max(1, in_channels // len(self.bins))
        self.branches = nn.ModuleList(_conv_bn_relu(in_channels, each, 1) for _ in self.bins)
        self.fuse = _conv_bn_relu(in_channels + each * len(self.bins), channels, 3)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """[b, in_channels, h, w] -> [b, channels, h, w], >= 0."""
        if len(x) == 1 and 1 in self.bins and _averages_over_batch(self.branches[0]):
            raise ValueError(
                "PSP averages each channel of an image to one number, which batch norm can't normalise over a training "
                'batch of one image; use at least 2 images a process, or norm="frozen", or context="none"'
            )
        size = (x.shape[-2], x.shape[-1])
        pooled = pool(x, self.bins)
        maps = [branch(p) for branch, p in zip(self.branches, pooled, strict=True)]
        maps = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps]
        return self.fuse(torch.cat([x, *maps], dim=1))


class Projection(nn.Sequential):
    """No context: a 1x1 convolution to `channels`, BN and ReLU, so that z has its width and its sign."""

    def __init__(self, in_channels: int, channels: int = 512) -> None:
        super().__init__(*_conv_bn_relu(in_channels, channels, 1))
        self.channels = channels


def pool(x: Tensor, bins: Sequence[int]) -> list[Tensor]:
    """Adaptive average pooling to n x n for each n of `bins`, in one matrix product: [b, c, h, w] -> [b, c, n, n] each.

    Equals `F.adaptive_avg_pool2d` up to rounding at every size, but has a deterministic backward pass on GPUs, which
    that one has not. The matrix holds powers of two, exact in fp16 and bf16 too; what is left of 1 / count follows.
    """
    height, width = x.shape[-2:]
    columns, gains = [], []
    for n in bins:
        rows, cols = _regions(height, n, x.device), _regions(width, n, x.device)
        count = rows.sum(1)[:, None] * cols.sum(1)[None, :]  # [n, n] cells a region
        power = torch.exp2(-torch.ceil(torch.log2(count)))
        member = rows[:, None, :, None] * cols[None, :, None, :] * power[:, :, None, None]
        columns.append(member.view(n * n, height * width))
        gains.append((1 / (count * power)).view(n * n))
    sums = x.flatten(2) @ torch.cat(columns).to(x.dtype).t()
    means = sums * torch.cat(gains).to(sums.dtype)
    pieces = means.split([n * n for n in bins], dim=-1)
    return [piece.unflatten(-1, (n, n)) for piece, n in zip(pieces, bins, strict=True)]


def _regions(size: int, n: int, device: torch.device) -> Tensor:
    """[n, size], 1 where region i holds the cell: cells floor(i size / n) up to ceil((i + 1) size / n), as in torch."""
    cell = torch.arange(size, device=device)
    i = torch.arange(n, device=device)[:, None]
    start = torch.div(i * size, n, rounding_mode="floor")
    stop = torch.div((i + 1) * size + n - 1, n, rounding_mode="floor")
    return ((cell >= start) & (cell < stop)).float()


def _conv_bn_relu(in_channels: int, channels: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())


def _averages_over_batch(branch: nn.Module) -> bool:
    """Whether the branch's norm uses this process's batch (not running statistics, not those of all processes)."""
    return any(type(m) is nn.BatchNorm2d and m.training for m in branch.modules())
