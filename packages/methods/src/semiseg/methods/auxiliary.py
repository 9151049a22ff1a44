"""The auxiliary decoders of cross-consistency training: K small decoders, each on a different perturbation of z."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from semiseg.methods.choices import check_choice
from semiseg.methods.float32 import in_float32, without_autocast
from semiseg.methods.fused import FusedPass
from semiseg.methods.operators import Operator
from semiseg.methods.perturbations import Perturbation, Vat
from semiseg.methods.prediction import Prediction
from semiseg.methods.tails import LinearTail, SubpixelTail, Tail

DECODERS = ("subpixel", "linear")


class Comparison(NamedTuple):
    """The predictions of K auxiliary decoders against the main one, for b images.

    Scalars in the graph: consistency: the sum over images of weight times the distance from the main prediction,
    averaged over decoders. spread: the same sum of the variance among some of the decoders, or None. weak: the same sum
    of the cross entropy with labels, with separate weights, or None.
    Detached means over decoders, [b]: agreement: the share of pixels with the main decoder's most probable class.
    distances: the distance. entropies: the cross entropy, None without labels.
    """

    consistency: Tensor
    spread: Tensor | None
    agreement: Tensor
    weak: Tensor | None
    distances: Tensor
    entropies: Tensor | None


class AuxiliaryBank(nn.Module):
    """K auxiliary decoders (CCT section 3.2.2), their parameters stacked over K.

    perturbations: K of them, one per decoder. channels: Cz of z. classes: C. stride: size of the logits over that of z.
    decoder: "subpixel" is a 1x1 convolution to C channels without bias, then log2(stride) stages of 1x1 convolution
    C -> 4C, ReLU, PixelShuffle(2); Cz C + stages (4 C^2 + 4 C) parameters per decoder. Its initial values are He-normal,
    by ICNR (the four kernels of a cell are equal); biases 0. "linear" is a 1x1 convolution (normal, 0.01; bias 0) and
    bilinear upsampling.
    last_relu: keep the ReLU of the last sub-pixel stage, as the authors' code does.
    kernel: 3 makes the first convolution 3x3, so that a decoder sees the neighbours of a masked cell. With 1, decoders
    are pointwise up to the upsampling: a mask then only selects the cells that are trained on.
    weights: [K, C, Cz], or [K, C, Cz, 3, 3], then [K, 4C, C] per stage. biases: [K, 4C] per stage; [K, C] for "linear".
    Each decoder has its own initial values, from torch's global generator. Everything is computed in float32 (float64
    for float64 z), also under autocast: adversarial shifts would vanish in half precision.
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
        """Initialise every decoder again from torch's global generator."""
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

        weights: [C, Cz], [4C, C], ..., trailing 1x1 allowed. A 3x3 kernel starts as the main decoder's at its centre and 0
        elsewhere. ValueError where shapes differ.
        """
        if self.kernel == 3 and len(weights):
            first = weights[0].reshape(*weights[0].shape[:2], 1, 1)
            weights = [F.pad(first, (1, 1, 1, 1)), *weights[1:]]
        for kind, own, given in (("weights", self.weights, weights), ("biases", self.biases, biases)):
            expected = [tuple(stacked.shape[1:]) for stacked in own]
            found = [tuple(value.shape[:2] if value.shape[2:] == (1, 1) else value.shape) for value in given]
            if found != expected:
                raise ValueError(f"AuxiliaryBank.init_from: {kind} of shapes {found}; expected {expected}")
            for stacked, value in zip(own, given, strict=True):
                stacked.copy_(value.reshape(stacked.shape[1:]).expand_as(stacked))

    def forward(
        self, z: Tensor, prediction: Prediction, random: Callable[[str], Sequence[Generator]]
    ) -> Iterator[Tensor]:
        """Yield each decoder's logits [b, C, stride h, stride w] on its perturbation of z [b, Cz, h, w], one at a time.

        random(name) returns one generator per sample; names are "<k>.<perturbation>".
        """
        z = in_float32(z)
        for k, perturbation in enumerate(self.perturbations):
            generators = random(f"{k}.{perturbation.name}")
            operator = perturbation(z.detach(), prediction, generators, partial(self.logits, k))
            yield self.logits(k, operator.apply(z))

    def compare(
        self,
        z: Tensor,
        prediction: Prediction,
        random: Callable[[str], Sequence[Generator]],
        *,
        weights: Tensor,
        distance: str = "mse",
        reduction: str = "mean",
        confidence: float | None = None,
        over: str = "kept",
        valid: Tensor | None = None,
        paired: frozenset[int] = frozenset(),
        paired_reduction: str | None = None,
        labels: Tensor | None = None,
        label_weights: Tensor | None = None,
        label_factors: Tensor | None = None,
        label_counts: Tensor | None = None,
    ) -> Comparison:
        """Compare all decoders' predictions with the main one, in memory that does not grow with K.

        weights: [b], of the images. distance, reduction, confidence, over, valid: see `losses.distance`. paired: the decoders
        of `spread` (`losses.pairwise_variance`, with `paired_reduction`, by default `reduction`); they are evaluated a
        second time. labels: class ids [b, stride h, stride w], int64, 255 = none, for `weak` (`losses.cross_entropy`),
        computed in the same pass; label_weights, label_factors, label_counts: see `FusedPass`.
        Back-propagate `consistency` and `weak` as their sum or a multiple of it; anything else raises RuntimeError.
        Random numbers are those of `forward`. ValueError for 3x3 kernels, which cannot be fused.
        """
        if self.kernel != 1:
            raise ValueError(f"AuxiliaryBank(kernel={self.kernel}).compare: expected 1x1 kernels; use forward")
        z = in_float32(z)
        parameters = [parameter.to(z.dtype) for parameter in (*self.weights, *self.biases)]

        def draw(k: int, gradient: Callable[[Tensor], Tensor]) -> Operator:
            perturbation = self.perturbations[k]
            generators = random(f"{k}.{perturbation.name}")
            if type(perturbation) is Vat:
                return perturbation.along(z.detach(), generators, gradient)
            return perturbation(z.detach(), prediction, generators, partial(self.logits, k))

        fused_pass = FusedPass(
            decoders=range(len(self)),
            draw=draw,
            new_tail=self._tail,
            target=prediction.probabilities,
            classes=prediction.classes,
            weights=weights,
            distance=distance,
            reduction=reduction,
            confidence=confidence,
            over=over,
            valid=valid,
            labels=labels,
            label_weights=label_weights,
            label_factors=label_factors,
            label_counts=label_counts,
            mean_of=paired,
        )
        consistency, *weak = fused_pass.values(z, *parameters)
        comparison = Comparison(
            consistency,
            None,
            fused_pass.agreement,
            weak[0] if weak else None,
            fused_pass.distances,
            fused_pass.entropies,
        )
        if not paired:
            return comparison
        # The variance is the mean squared distance from the mean; its gradient is the same if the mean is held fixed.
        spread = replace(
            fused_pass,
            decoders=sorted(paired),
            target=fused_pass.mean,
            classes=None,
            distance="mse",
            reduction=paired_reduction or reduction,
            confidence=None,
            labels=None,
            mean_of=frozenset(),
        )
        return comparison._replace(spread=spread.values(z, *parameters)[0])

    def _tail(self, parameters: Sequence[Tensor], size: tuple[int, int]) -> Tail:
        if self.decoder == "linear":
            return LinearTail(parameters[0], size, self.stride)
        stages = len(parameters) // 2
        return SubpixelTail(parameters[:stages], parameters[stages:], size, self.last_relu)

    def logits(self, k: int, z: Tensor) -> Tensor:
        """Decoder k on unperturbed z: [b, Cz, h, w] -> [b, C, stride h, stride w]."""
        with without_autocast(z):
            z = in_float32(z)
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
