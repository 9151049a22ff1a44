"""The seven feature perturbations of CCT (section 3.2.3).

`perturbation(z, prediction, generators, decoder)` draws random numbers and returns an operator, which perturbs z:
z: the encoder's output, float32 [b, C, h, w]; only its values are used, not its graph.
prediction: of the main decoder, for the same images. generators: one per sample, so that a sample's perturbation does
not depend on the rest of the batch. decoder: the auxiliary decoder, z -> logits, that gets the perturbed features (only
Vat calls it). Numbers are drawn on the generators' device, then moved. Defaults are the paper's; `create_perturbation`
has both presets.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from semiseg.methods.choices import check_choice
from semiseg.methods.float32 import in_float32, without_autocast
from semiseg.methods.operators import ChannelScale, Operator, Scale, Shift, SpatialMask
from semiseg.methods.prediction import Prediction

Decoder = Callable[[Tensor], Tensor]


class Perturbation(Protocol):
    """Draws one perturbation of z for each sample of a batch."""

    name: ClassVar[str]
    guided: ClassVar[bool]  # whether it uses the prediction's foreground

    def __call__(
        self, z: Tensor, prediction: Prediction, generators: Sequence[Generator], decoder: Decoder
    ) -> Operator: ...


@dataclass(frozen=True)
class Dropout:
    """Spatial dropout: zero each channel with probability `p`, scale the others by 1 / (1 - p)."""

    p: float = 0.5
    name: ClassVar[str] = "dropout"
    guided: ClassVar[bool] = False

    def __call__(
        self, z: Tensor, prediction: Prediction, generators: Sequence[Generator], decoder: Decoder
    ) -> ChannelScale:
        kept = _uniform(generators, (z.shape[1], 1, 1), z) >= self.p
        return ChannelScale(kept / (1 - self.p))


@dataclass(frozen=True)
class FeatureNoise:
    """F-Noise: z (1 + N), N uniform in [-amplitude, amplitude].

    share: "sample": each sample has its own N; "batch": all use the first sample's (the authors' code).
    """

    amplitude: float = 0.3
    share: str = "sample"
    name: ClassVar[str] = "feature_noise"
    guided: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_choice("feature_noise.share", self.share, ("sample", "batch"))

    def __call__(self, z: Tensor, prediction: Prediction, generators: Sequence[Generator], decoder: Decoder) -> Scale:
        drawn_from = generators if self.share == "sample" else generators[:1]
        return Scale(_uniform(drawn_from, tuple(z.shape[1:]), z).mul_(2).sub_(1).mul_(self.amplitude))


@dataclass(frozen=True)
class FeatureDrop:
    """F-Drop: drop the most active cells of z, by their sum over channels; gamma is uniform in [low, high].

    mode: "quantile" drops exactly round((1 - gamma) h w) cells of each sample, those with the largest sums; of equal
    sums, the first in reading order is dropped first. "threshold" (the authors' code) keeps cells below gamma times the
    sample's largest sum, which drops anything from 2 to 98 %.
    share: "sample": each sample has its own gamma; "batch": all use the first sample's.
    """

    mode: str = "quantile"
    low: float = 0.6
    high: float = 0.9
    share: str = "sample"
    name: ClassVar[str] = "feature_drop"
    guided: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_choice("feature_drop.mode", self.mode, ("quantile", "threshold"))
        check_choice("feature_drop.share", self.share, ("sample", "batch"))

    def __call__(
        self, z: Tensor, prediction: Prediction, generators: Sequence[Generator], decoder: Decoder
    ) -> SpatialMask:
        drawn_from = generators if self.share == "sample" else generators[:1]
        gamma = self.low + (self.high - self.low) * _uniform(drawn_from, (1,), z)
        activity = in_float32(z.detach()).sum(1).flatten(1)
        if self.mode == "threshold":
            kept = activity < gamma * activity.amax(1, keepdim=True)
        else:
            dropped = ((1 - gamma) * activity.shape[1]).round()
            order = activity.argsort(dim=1, descending=True, stable=True)
            kept = order.argsort(dim=1) >= dropped
        return SpatialMask(kept.view(len(z), 1, *z.shape[2:]))


@dataclass(frozen=True)
class ContextMask:
    """Con-Msk: keep the foreground of the main prediction, mask its context. Without foreground, everything is masked."""

    name: ClassVar[str] = "context_mask"
    guided: ClassVar[bool] = True

    def __call__(
        self, z: Tensor, prediction: Prediction, generators: Sequence[Generator], decoder: Decoder
    ) -> SpatialMask:
        return SpatialMask(prediction.foreground((z.shape[2], z.shape[3])))


@dataclass(frozen=True)
class ObjectMask:
    """Obj-Msk: mask the foreground of the main prediction, keep its context."""

    name: ClassVar[str] = "object_mask"
    guided: ClassVar[bool] = True

    def __call__(
        self, z: Tensor, prediction: Prediction, generators: Sequence[Generator], decoder: Decoder
    ) -> SpatialMask:
        return SpatialMask(~prediction.foreground((z.shape[2], z.shape[3])))


@dataclass(frozen=True)
class GuidedCutout:
    """G-Cutout: zero a random crop within the bounding box of each object in the main prediction.

    Objects are connected components of the foreground, found once per batch; crops are drawn again for each decoder.
    side: the crop's sides as a share of the box's (the authors: 0.4, so 16 % of the area), rounded, at least one cell.
    smallest: objects that cover less than this share of the image are not cut (the paper has no limit; the authors
    require outlines of more than 50 vertices, which excludes rectangles).
    per: "merged" or "class", see `Prediction.components`. resolution: of the grid on which objects are found and cut.
    """

    side: float = 0.4
    smallest: float = 0.001
    per: str = "merged"
    resolution: int = 128
    name: ClassVar[str] = "guided_cutout"
    guided: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("guided_cutout.per", self.per, ("merged", "class"))

    def __call__(
        self, z: Tensor, prediction: Prediction, generators: Sequence[Generator], decoder: Decoder
    ) -> SpatialMask:
        objects = prediction.components(self.per, self.resolution)
        large = objects.larger_than(self.smallest).long()
        drawn = [torch.rand(large.shape[1], 2, generator=g, device=g.device) for g in generators]
        position = torch.stack(drawn).to(z.device)
        top, bottom = self._crop(objects.top, objects.bottom, position[:, :, 0])
        left, right = self._crop(objects.left, objects.right, position[:, :, 1])
        # Rectangles as differences at their corners: the cumulative sum over both axes counts the crops that cover a cell.
        height, width = objects.size[0] + 1, objects.size[1] + 1
        corners = torch.zeros(len(z), height * width, dtype=torch.long, device=z.device)
        for y, x, sign in ((top, left, large), (top, right, -large), (bottom, left, -large), (bottom, right, large)):
            corners.scatter_add_(1, (y * width + x) * large, sign)
        corners = corners.view(len(z), height, width)
        cut = corners.cumsum(1).cumsum(2)[:, :-1, :-1] > 0
        return SpatialMask(F.interpolate(1 - cut[:, None].float(), size=z.shape[2:], mode="nearest"))

    def _crop(self, start: Tensor, stop: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Start and stop of each crop along one axis, uniform over the positions inside [start, stop)."""
        length = ((stop - start) * self.side).round().long().clamp(min=1)
        first = start + (position * (stop - start - length + 1)).long()
        return first, first + length


@dataclass(frozen=True)
class Vat:
    """I-VAT: z + r, r the small shift that changes the auxiliary decoder's prediction most.

    Power iteration from d, Gaussian with unit L2 norm per sample: g = gradient with respect to d of
    KL(softmax g_k(z), softmax g_k(z + xi d)), d = g / ||g||; finally r = eps d, and r = 0 if g = 0.
    xi in 1e-2..1 finds the direction in float32 (cosine >= 0.999 to float64); the authors' 1e-6 is void.
    eps: length of r (the authors: 2, about 0.3 % of a typical ||z||); if `relative`, a share of each sample's ||z||.
    damping: added to ||g|| (the authors: 1e-8, with KL divided by the batch size; r is then far shorter than eps).
    """

    xi: float = 0.1
    eps: float = 2.0
    relative: bool = False
    iterations: int = 1
    damping: float = 0.0
    name: ClassVar[str] = "vat"
    guided: ClassVar[bool] = False

    def __call__(self, z: Tensor, prediction: Prediction, generators: Sequence[Generator], decoder: Decoder) -> Shift:
        z = in_float32(z.detach())
        with without_autocast(z), torch.no_grad():
            clean = decoder(z).softmax(1)

        def gradient(shift: Tensor) -> Tensor:
            with without_autocast(z), torch.enable_grad():
                shift.requires_grad_()
                moved = decoder(z + shift)
                # The KL's gradient with respect to the logits is a difference of nearly equal numbers: computed through
                # logarithms, float32 would lose it. Not .backward(), which would add to the decoder's gradients and
                # trigger data parallel hooks.
                return torch.autograd.grad(moved, shift, moved.detach().softmax(1) - clean)[0]

        return self.along(z, generators, gradient)

    @torch.no_grad()
    def along(self, z: Tensor, generators: Sequence[Generator], gradient: Callable[[Tensor], Tensor]) -> Shift:
        """The same, given gradient(shift): that of KL(softmax g_k(z), softmax g_k(z + shift)) with respect to `shift`."""
        direction = _unit(_normal(generators, tuple(z.shape[1:]), z))
        for _ in range(self.iterations):
            direction = _unit(self.xi * gradient(self.xi * direction), self.damping * len(z))
        length = self.eps * (_norm(z) if self.relative else 1.0)
        return Shift(direction * length)


PERTURBATIONS: Mapping[str, type[Perturbation]] = {
    kind.name: kind for kind in (Dropout, FeatureDrop, FeatureNoise, GuidedCutout, Vat, ContextMask, ObjectMask)
}

# Where the authors' code differs from the defaults above.
RELEASED: Mapping[str, Mapping[str, Any]] = {
    "feature_drop": {"mode": "threshold", "low": 0.7, "high": 0.9, "share": "batch"},
    "feature_noise": {"share": "batch"},
    "vat": {"xi": 1e-6, "eps": 2.0, "damping": 1e-8},
}
PRESETS = ("paper", "released")


def create_perturbation(name: str, preset: str = "paper", **options: Any) -> Perturbation:
    """A perturbation by name; options replace the preset's values. ValueError for an unknown name, preset or option."""
    check_choice("perturbation", name, PERTURBATIONS)
    check_choice("preset", preset, PRESETS)
    kind = PERTURBATIONS[name]
    known = inspect.signature(kind).parameters
    for option in options:
        check_choice(f"option of perturbation {name!r}", option, known)
    return kind(**{**(RELEASED.get(name, {}) if preset == "released" else {}), **options})


def _uniform(generators: Sequence[Generator], shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uniform in [0, 1), float32 [number of generators, *shape], on the device of `like`."""
    return torch.stack([torch.rand(shape, generator=g, device=g.device) for g in generators]).to(like.device)


def _normal(generators: Sequence[Generator], shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.stack([torch.randn(shape, generator=g, device=g.device) for g in generators]).to(like)


def _norm(values: Tensor) -> Tensor:
    return values.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def _unit(values: Tensor, damping: float = 0.0) -> Tensor:
    """Each sample divided by (its L2 norm + damping); 0 stays 0. Scaled first: squares of small gradients underflow."""
    largest = values.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    largest = torch.where(largest > 0, largest, 1.0)
    scaled = values / largest
    length = _norm(scaled) + damping / largest
    return scaled / torch.where(length > 0, length, 1.0)
