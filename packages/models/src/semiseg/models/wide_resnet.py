"""WideResNet38 (A2) with pre-activated blocks, the only encoder of the papers that timm does not have."""

from collections.abc import Sequence
from typing import Any

from timm.models import FeatureInfo
from torch import Tensor, nn

# (blocks, channels of a block's convolutions, stride of the first, dilation, dropout)
MODULES = (
    (3, (128, 128), 1, 1, 0.0),
    (3, (256, 256), 1, 1, 0.0),
    (6, (512, 512), 2, 1, 0.0),
    (3, (512, 1024), 1, 2, 0.0),
    (1, (512, 1024, 2048), 1, 4, 0.3),
    (1, (1024, 2048, 4096), 1, 4, 0.5),
)


class WideResNet38(nn.Module):
    """Normalised images [b, 3, H, W] -> features at strides 2, 4 and 8, of 128, 256 and 4096 channels.

    A 3x3 convolution to 64 channels, then six modules: max-pooling before the first two, a strided convolution in the
    third, dilation 2 and 4 in the last three, which keep stride 8. The last features are a plain sum, without a final
    batch norm and ReLU. 105,062,720 parameters. Dropout drops channels, as in the released code, before the last
    convolution of each of the last two blocks.

    It has the attributes of timm's feature networks (`feature_info`, `pretrained_cfg`) and the published weights' names
    ("mod2.block1.convs.conv1.weight"), so that `load_encoder` reads the published file. Wu et al. 2016 (model A2), as
    Zhu et al. 2019 use it.
    """

    mod2: nn.Sequential
    mod3: nn.Sequential
    mod4: nn.Sequential
    mod5: nn.Sequential
    mod6: nn.Sequential
    mod7: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        self.mod1 = nn.Sequential()
        self.mod1.add_module("conv1", _conv(3, 64, 3))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = 64
        for number, (blocks, widths, stride, dilation, dropout) in enumerate(MODULES, start=2):
            module = nn.Sequential()
            for i in range(1, blocks + 1):
                first = stride if i == 1 else 1
                block = Block(channels, widths, stride=first, dilation=dilation, dropout=dropout)
                module.add_module(f"block{i}", block)
                channels = widths[-1]
            self.add_module(f"mod{number}", module)
        features = [(128, 2, "mod2"), (256, 4, "mod3"), (4096, 8, "mod7")]
        described = [{"num_chs": n, "reduction": stride, "module": name} for n, stride, name in features]
        self.feature_info = FeatureInfo(described, (0, 1, 2))
        self.pretrained_cfg: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.mod2(self.pool(self.mod1(x)))
        middle = self.mod3(self.pool(fine))
        deep = self.mod7(self.mod6(self.mod5(self.mod4(middle))))
        return [fine, middle, deep]


class Block(nn.Module):
    """A pre-activated residual block: two 3x3 convolutions, or with three widths a 1x1, a 3x3 and a 1x1 one."""

    def __init__(
        self, in_channels: int, widths: Sequence[int], *, stride: int = 1, dilation: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        kernels = (3, 3) if len(widths) == 2 else (1, 3, 1)
        self.bn1 = _bn_relu(in_channels)
        self.convs = nn.Sequential()
        before = in_channels
        for i, (width, kernel) in enumerate(zip(widths, kernels, strict=True), start=1):
            if i > 1:
                self.convs.add_module(f"bn{i}", _bn_relu(before))
            if i == len(widths) and dropout:
                self.convs.add_module("dropout", nn.Dropout2d(dropout))
            conv = _conv(before, width, kernel, stride=stride if i == 1 else 1, dilation=dilation)
            self.convs.add_module(f"conv{i}", conv)
            before = width
        projects = stride > 1 or in_channels != before
        self.proj_conv = _conv(in_channels, before, 1, stride=stride) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        """[b, in_channels, h, w] -> [b, widths[-1], ceil(h / stride), ceil(w / stride)]."""
        activated = self.bn1(x)
        shortcut = x if self.proj_conv is None else self.proj_conv(activated)
        return self.convs(activated) + shortcut


def _bn_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _conv(in_channels: int, channels: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    dilation = dilation if kernel > 1 else 1
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, dilation, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv
