"""From z, [b, channels, h, w], to class logits at the decoder's resolution, [b, classes, stride * h, stride * w].

A decoder never mixes neighbouring cells of z before its upsampling: that is what lets auxiliary decoders be evaluated
together.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SubpixelDecoder(nn.Module):
    """CCT's decoder: a 1x1 convolution to the classes, then one sub-pixel stage for each doubling of the resolution.

    A stage is a 1x1 convolution C -> 4C, ReLU and PixelShuffle(2). Parameters at stride 2^s:
    channels * C + s (4 C^2 + 4 C), so 16,296 for 512 channels, 21 classes and stride 8.

    The stages start as ICNR has it (the four kernels of a sub-pixel equal, biases zero): the output is then exactly the
    nearest-neighbour upsampling of one value a cell. Ouali et al. 2020, section 4.1; Aitken et al. 2017.

    Args:
        channels, classes: of z and of the logits. stride: a power of two.
        last_relu: keep the ReLU of the last stage, as the authors' released code does; logits are then >= 0 and those
            below zero get no gradient. Off by default.
    """

    def __init__(self, channels: int, classes: int, stride: int = 8, *, last_relu: bool = False) -> None:
        super().__init__()
        if stride < 2 or stride & (stride - 1):
            raise ValueError(f"stride {stride} of a sub-pixel decoder: expected a power of two, at least 2")
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


@torch.no_grad()
def icnr_(weight: Tensor, upscale: int = 2) -> Tensor:
    """Fill the weight of a convolution before PixelShuffle(upscale) so that the pixels of a cell start equal.

    weight: [upscale^2 * C, C', ...], in place; the kernels are He-normal. Aitken et al. 2017, section 3.
    """
    kernels = torch.empty_like(weight[:: upscale**2])
    nn.init.kaiming_normal_(kernels, nonlinearity="relu")
    return weight.copy_(kernels.repeat_interleave(upscale**2, dim=0))
