"""Decoders: from z, [b, channels, h, w], to class logits [b, classes, stride * h, stride * w].

The sub-pixel and linear decoders never mix neighbouring cells of z before the upsampling, so auxiliary decoders of these
kinds can be evaluated together. DeepLabV3+'s also sees low-level features, and can only be a main decoder.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SubpixelDecoder(nn.Module):
    """CCT's decoder: a 1x1 convolution to the classes, then one sub-pixel stage per doubling of the resolution.

    A stage is a 1x1 convolution C -> 4C, ReLU and PixelShuffle(2). Parameters at stride 2^s:
    channels * C + s (4 C^2 + 4 C), so 16,296 for 512 channels, 21 classes and stride 8.

    The stages are initialised by ICNR (the four kernels of a cell are equal, biases zero), so that the initial output is
    exactly the nearest-neighbour upsampling of one value per cell. Ouali et al. 2020, section 4.1; Aitken et al. 2017.

    Args:
        channels, classes: of z and of the logits. stride: a power of two.
        last_relu: keep the ReLU of the last stage, as the authors' released code does; logits are then >= 0, and
            negative ones get no gradient.
    """

    def __init__(self, channels: int, classes: int, stride: int = 8, *, last_relu: bool = False) -> None:
        super().__init__()
        if stride < 2 or stride & (stride - 1):
            raise ValueError(f"sub-pixel decoder with stride {stride}: expected a power of two, at least 2")
        self.last_relu = last_relu
        self.project = nn.Conv2d(channels, classes, 1, bias=False)
        self.stages = nn.ModuleList(nn.Conv2d(classes, 4 * classes, 1) for _ in range(stride.bit_length() - 1))
        nn.init.kaiming_normal_(self.project.weight, nonlinearity="relu")
        for stage in self.stages:
            assert isinstance(stage, nn.Conv2d) and stage.bias is not None
            icnr_(stage.weight)
            nn.init.zeros_(stage.bias)

    def forward(self, z: Tensor) -> Tensor:
        """[b, channels, h, w] -> [b, classes, stride * h, stride * w]."""
        x = self.project(z)
        for i, stage in enumerate(self.stages, 1):
            x = stage(x)
            if i < len(self.stages) or self.last_relu:
                x = F.relu(x)
            x = F.pixel_shuffle(x, 2)
        return x


class LinearDecoder(nn.Module):
    """A 1x1 convolution to the classes and bilinear upsampling (align_corners=False) by `stride`.

    Logits start near zero: weights are normal with standard deviation 0.01, the bias is zero.
    """

    def __init__(self, channels: int, classes: int, stride: int = 8) -> None:
        super().__init__()
        self.stride = stride
        self.project = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(self.project.weight, std=0.01)
        assert self.project.bias is not None
        nn.init.zeros_(self.project.bias)

    def forward(self, z: Tensor) -> Tensor:
        """[b, channels, h, w] -> [b, classes, stride * h, stride * w]."""
        size = (z.shape[-2] * self.stride, z.shape[-1] * self.stride)
        return F.interpolate(self.project(z), size=size, mode="bilinear", align_corners=False)


class DeepLabV3PlusDecoder(nn.Module):
    """Refines z by low-level features: a 1x1 convolution of these to 48 channels, two 3x3 ones of both to 256, classes.

    No convolution has a bias; the 3x3 ones have BN and ReLU. Parameters: 48 low_channels + 9 * 256 (channels + 48) +
    9 * 256^2 + 4 * 256 + 256 classes. Chen et al. 2018, section 3.1, without BN on the 48 channels, as in Zhu et al.
    2019.

    Args:
        channels, low_channels, classes: of z, of the low-level features, of the logits.
        stride: stride of z over that of the low-level features.
    """

    def __init__(self, channels: int, low_channels: int, classes: int, stride: int = 4) -> None:
        super().__init__()
        self.stride = stride
        self.low = nn.Conv2d(low_channels, 48, 1, bias=False)
        layers: list[nn.Module] = []
        for width in (channels + 48, 256):
            layers += [nn.Conv2d(width, 256, 3, padding=1, bias=False), nn.BatchNorm2d(256), nn.ReLU()]
        self.refine = nn.Sequential(*layers)
        self.classify = nn.Conv2d(256, classes, 1, bias=False)
        for conv in (self.low, *(layer for layer in layers if isinstance(layer, nn.Conv2d))):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.normal_(self.classify.weight, std=0.01)  # logits start near zero

    def forward(self, z: Tensor, low: Tensor) -> Tensor:
        """[b, channels, h, w] and [b, low_channels, h', w'] -> [b, classes, stride * h, stride * w].

        If the image's sides are multiples of the network's stride, its low-level features have exactly that size; others
        are resized to it (bilinear, align_corners=True, as z is).
        """
        size = (z.shape[-2] * self.stride, z.shape[-1] * self.stride)
        fine = self.low(low)
        if fine.shape[-2:] != size:
            fine = F.interpolate(fine, size, mode="bilinear", align_corners=True)
        coarse = F.interpolate(z, size, mode="bilinear", align_corners=True)
        return self.classify(self.refine(torch.cat([fine, coarse], dim=1)))


@torch.no_grad()
def icnr_(weight: Tensor, upscale: int = 2) -> Tensor:
    """Initialise the weight of a convolution before PixelShuffle(upscale) so that the pixels of a cell are equal.

    weight: [upscale^2 * C, C', ...], in place; the kernels are He-normal. Aitken et al. 2017, section 3.
    """
    kernels = torch.empty_like(weight[:: upscale**2])
    nn.init.kaiming_normal_(kernels, nonlinearity="relu")
    return weight.copy_(kernels.repeat_interleave(upscale**2, dim=0))
