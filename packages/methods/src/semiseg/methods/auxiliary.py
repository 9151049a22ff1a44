"""The auxiliary decoders of cross-consistency training: K small decoders, each behind its own perturbation of z."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from semiseg.methods.choices import check_choice
from semiseg.methods.fused import Sweep
from semiseg.methods.operators import Operator
from semiseg.methods.perturb import Perturbation, Vat
from semiseg.methods.precision import full, without_autocast
from semiseg.methods.prediction import View
from semiseg.methods.tails import LinearTail, SubpixelTail, Tail

DECODERS = ("subpixel", "linear")


class Compared(NamedTuple):
    """What K decoders' predictions of b images are like.

    consistency: the sum over images of weight times the mean distance from the main prediction over decoders. spread:
    that sum of the variance among some of them, or None. weak: that sum of the cross entropy with labels, with weights
    of its own, or None. These are scalars in the graph.
    agreement: the share of pixels where the most probable class is the main one's. distances, entropies (None without
    labels): the mean distance, the mean cross entropy. These are [b], means over decoders, detached.
    """

    consistency: Tensor
    spread: Tensor | None
    agreement: Tensor
    weak: Tensor | None
    distances: Tensor
    entropies: Tensor | None


class AuxiliaryBank(nn.Module):
    """K auxiliary decoders (CCT section 3.2.2), their parameters stacked over K.

    perturbations: K of them, one a decoder. channels: Cz of z. classes: C. stride: how much larger the logits are than
    z.
    decoder: "subpixel" is a 1x1 convolution to C channels without bias, then log2(stride) stages of 1x1 convolution
    C -> 4C, ReLU, PixelShuffle(2); Cz C + stages (4 C^2 + 4 C) parameters each. Its kernels start as ICNR has it
    (He-normal, the four of a sub-pixel equal), biases 0. "linear" is a 1x1 convolution (normal, 0.01; bias 0) and
    bilinear upsampling.
    last_relu: keep the ReLU of the last sub-pixel stage, as the authors' code does.
    kernel: 3 makes the first convolution 3x3, so that a decoder sees around a masked cell. With 1, decoders are
    pointwise up to the upsampling: a mask then only chooses which cells teach.
    weights: [K, C, Cz], or [K, C, Cz, 3, 3], then a [K, 4C, C] for each stage. biases: a [K, 4C] for each stage; [K, C]
    for "linear".
    Each decoder has its own initial values, from torch's global generator. Everything is computed in float32 (float64 z
    stays float64) also under autocast: adversarial shifts would vanish in half precision.
    """

    def __init__(
        self,
        perturbations: Sequence[Perturbation],
        channels: int,
        classes: int,
        *,
        stride: int = 8,
        decoder: str = "subpixel",
        last_relu: bool = False,
        kernel: int = 1,
    ) -> None:
        super().__init__()
        check_choice("AuxiliaryBank(decoder=...)", decoder, DECODERS)
        if kernel not in (1, 3):
            raise ValueError(f"AuxiliaryBank(kernel={kernel}): expected 1 or 3")
        if not perturbations:
            raise ValueError("AuxiliaryBank(perturbations=[]): expected at least one perturbation")
        if decoder == "subpixel" and (stride < 2 or stride & (stride - 1)):
            raise ValueError(
                f"AuxiliaryBank(stride={stride}): expected a power of two, at least 2; or decoder='linear'"
            )
        self.perturbations = tuple(perturbations)
        self.classes = classes
        self.stride = stride
        self.decoder = decoder
        self.last_relu = last_relu
        self.kernel = kernel
        count = len(self.perturbations)
        stages = stride.bit_length() - 1 if decoder == "subpixel" else 0
        window = (kernel, kernel) if kernel > 1 else ()
        self.weights = nn.ParameterList(
            [
                torch.empty(count, classes, channels, *window),
                *(torch.empty(count, 4 * classes, classes) for _ in range(stages)),
            ]
        )
        self.biases = nn.ParameterList(
            [torch.empty(count, 4 * classes if stages else classes) for _ in range(max(1, stages))]
        )
        self.reset_parameters()

    def __len__(self) -> int:
        return len(self.perturbations)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw every decoder anew from torch's global generator."""
        for k in range(len(self)):
            if self.decoder == "linear":
                nn.init.normal_(self.weights[0][k], std=0.01)
                continue
            nn.init.kaiming_normal_(self.weights[0][k], nonlinearity="relu")
            for weight in list(self.weights)[1:]:
                kernels = nn.init.kaiming_normal_(
                    weight.new_empty(weight.shape[1] // 4, weight.shape[2]), nonlinearity="relu"
                )
                weight[k] = kernels.repeat_interleave(4, 0)
        for bias in self.biases:
            bias.zero_()

    @torch.no_grad()
    def init_from(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        """Start every decoder as a copy of the main one, given its weights and biases in the order of its layers.

        weights: [C, Cz], [4C, C], ..., trailing 1x1 allowed. A 3x3 kernel starts as the main decoder's in its middle and 0
        around it. ValueError where shapes differ.
        """
        if self.kernel == 3 and len(weights):
            first = weights[0].reshape(*weights[0].shape[:2], 1, 1)
            weights = [F.pad(first, (1, 1, 1, 1)), *weights[1:]]
        for kind, mine, given in (("weights", self.weights, weights), ("biases", self.biases, biases)):
            expected = [tuple(stacked.shape[1:]) for stacked in mine]
            found = [tuple(value.shape[:2] if value.shape[2:] == (1, 1) else value.shape) for value in given]
            if found != expected:
                raise ValueError(f"init_from: {kind} of shapes {found}; expected {expected}")
            for stacked, value in zip(mine, given, strict=True):
                stacked.copy_(value.reshape(stacked.shape[1:]).expand_as(stacked))

    def forward(self, z: Tensor, view: View, random: Callable[[str], Sequence[Generator]]) -> Iterator[Tensor]:
        """Yield each decoder's logits [b, C, stride h, stride w] on its perturbation of z [b, Cz, h, w], one at a time.

        random(name) gives one generator a sample; names are "<k>.<perturbation>".
        """
        z = full(z)
        for k, perturbation in enumerate(self.perturbations):
            generators = random(f"{k}.{perturbation.name}")
            operator = perturbation(z.detach(), view, generators, partial(self.logits, k))
            yield self.logits(k, operator.apply(z))

    def compare(
        self,
        z: Tensor,
        view: View,
        random: Callable[[str], Sequence[Generator]],
        *,
        weights: Tensor,
        distance: str = "mse",
        reduction: str = "mean",
        confidence: float | None = None,
        paired: frozenset[int] = frozenset(),
        labels: Tensor | None = None,
        label_weights: Tensor | None = None,
    ) -> Compared:
        """How far all decoders' predictions are from the main one's: what `forward` is wanted for, in little memory.

        weights: [b], of the images. distance, reduction, confidence: see `losses.distance`. paired: the decoders of
        `spread`, `losses.pairwise_variance`; they are evaluated once more. labels: class ids [b, stride h, stride w], int64,
        255 = none, for `weak`, `losses.cross_entropy`, found in the same pass; label_weights: [b].
        `consistency` and `weak` are back-propagated as their sum or a multiple of it; anything else is a RuntimeError.
        Random numbers are those of `forward`. ValueError for 3x3 kernels: there is no cheap form.
        """
        if self.kernel != 1:
            raise ValueError(f"AuxiliaryBank(kernel={self.kernel}).compare: pointwise decoders only; use forward")
        z = full(z)
        parameters = [parameter.to(z.dtype) for parameter in (*self.weights, *self.biases)]

        def draw(k: int, slope: Callable[[Tensor], Tensor]) -> Operator:
            perturbation = self.perturbations[k]
            generators = random(f"{k}.{perturbation.name}")
            if type(perturbation) is Vat:
                return perturbation.along(z.detach(), generators, slope)
            return perturbation(z.detach(), view, generators, partial(self.logits, k))

        sweep = Sweep(
            decoders=range(len(self)),
            draw=draw,
            new_tail=self._tail,
            target=view.probabilities,
            classes=view.classes,
            weights=weights,
            distance=distance,
            reduction=reduction,
            confidence=confidence,
            labels=labels,
            label_weights=label_weights,
            mean_of=paired,
        )
        consistency, *weak = sweep.values(z, *parameters)
        found = Compared(
            consistency, None, sweep.agreement, weak[0] if weak else None, sweep.distances, sweep.entropies
        )
        if not paired:
            return found
        # The variance is the mean squared distance from the mean, and its gradient that with the mean held fixed.
        spread = replace(
            sweep,
            decoders=sorted(paired),
            target=sweep.mean,
            classes=None,
            distance="mse",
            confidence=None,
            labels=None,
            mean_of=frozenset(),
        )
        return found._replace(spread=spread.values(z, *parameters)[0])

    def _tail(self, parameters: Sequence[Tensor], size: tuple[int, int]) -> Tail:
        if self.decoder == "linear":
            return LinearTail(parameters[0], size, self.stride)
        stages = len(parameters) // 2
        return SubpixelTail(parameters[:stages], parameters[stages:], size, self.last_relu)

    def logits(self, k: int, z: Tensor) -> Tensor:
        """Decoder k on z as it is: [b, Cz, h, w] -> [b, C, stride h, stride w]."""
        with without_autocast(z):
            z = full(z)
            weights = [weight[k].to(z.dtype) for weight in self.weights]
            weights = [weight if weight.ndim == 4 else weight[:, :, None, None] for weight in weights]
            biases = [bias[k].to(z.dtype) for bias in self.biases]
            if self.decoder == "linear":
                size = [self.stride * side for side in z.shape[2:]]
                return F.interpolate(
                    F.conv2d(z, weights[0], biases[0], padding="same"), size=size, mode="bilinear", align_corners=False
                )
            x = F.conv2d(z, weights[0], padding="same")
            for weight, bias in zip(weights[1:], biases, strict=True):
                x = F.conv2d(x, weight, bias)
                if self.last_relu or weight is not weights[-1]:
                    x = F.relu(x)
                x = F.pixel_shuffle(x, 2)
            return x

    def extra_repr(self) -> str:
        return f"{len(self)} decoders, stride={self.stride}, decoder={self.decoder!r}, last_relu={self.last_relu}"
