"""Losses of the main decoder on labeled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from semiseg.train.recipe.bounds import ByKind, Count, Domains, NotNegative, Positive, Share, Text

__all__ = [
    "Bootstrapped",
    "ClassWeights",
    "CrossEntropy",
    "Dice",
    "Loss",
    "Ohem",
    "Relaxed",
    "Supervised",
]


@dataclass(frozen=True, kw_only=True)
class ClassWeights:
    """Pixels of a class with the share f of the labeled pixels weigh in proportion to f ** -power; their mean is 1.

    cap  most that a class weighs, relative to the most frequent one
    """

    power: Annotated[float, Ge(0), Le(2)] = 0.5
    cap: Annotated[float, Ge(1), Le(1000)] = 20.0


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Cross entropy of the main decoder.

    pool           mean over each "image"'s valid pixels, then over images; or one mean over all valid pixels of the "batch"
                   (the released code; with accumulate, of the micro-step)
    class_weights  let rare classes weigh more: {} for the defaults
    """

    kind: Literal["cross_entropy"] = "cross_entropy"
    pool: Literal["image", "batch"] = "image"
    class_weights: ClassWeights | None = None


@dataclass(frozen=True, kw_only=True)
class Dice:
    """Cross entropy plus `weight` times the Dice loss, the mean over the classes of an image of one minus their overlap.

    class_weights  of the cross entropy: let rare classes weigh more; {} for the defaults
    """

    kind: Literal["dice"] = "dice"
    weight: Positive = 1.0
    class_weights: ClassWeights | None = None


@dataclass(frozen=True, kw_only=True)
class Bootstrapped:
    """CCT's annealed bootstrapped cross entropy (Eq. 4): pixels whose true class is already likely are left out.

    until  share of training at which the threshold stops rising
    over   divide by the pixels "kept" or by all "valid" ones
    class_weights  let rare classes weigh more: {} for the defaults; they do not change which pixels are left out
    pool   rank pixels within each "image" or over the "batch" (the released code): a process's images of a micro-step
    """

    kind: Literal["bootstrapped"] = "bootstrapped"
    until: Annotated[float, Gt(0), Le(1)] = 0.4
    over: Literal["kept", "valid"] = "kept"
    pool: Literal["image", "batch"] = "image"
    class_weights: ClassWeights | None = None


@dataclass(frozen=True, kw_only=True)
class Relaxed:
    """Cross entropy that near borders takes any class around the pixel for right (Zhu et al. 2019).

    window        side of the square around a pixel, odd, in pixels; 1 is plain cross entropy
    until         share of training after which it is plain cross entropy
    strict        names of classes that are never relaxed, such as thin ones
    by_frequency  the rarer a class in the image, the more its pixels weigh: 2 - its share
    """

    kind: Literal["relaxed"] = "relaxed"
    window: Count = 3
    until: Annotated[float, Gt(0), Le(1)] = 1.0
    strict: tuple[Text, ...] = ()
    by_frequency: bool = False


@dataclass(frozen=True, kw_only=True)
class Ohem:
    """Cross entropy of hard pixels alone: those whose true class has at most the probability `threshold`.

    least  share of an image's pixels that is kept in any case, the hardest ones
    """

    kind: Literal["ohem"] = "ohem"
    threshold: Annotated[float, Gt(0), Le(1)] = 0.7
    least: Share = 0.0625


Loss = Annotated[CrossEntropy | Bootstrapped | Relaxed | Ohem | Dice, ByKind()]


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """The loss of the main decoder on labeled images, or on those with pseudo-labels (self-training).

    on       the source of its images: "labeled", or "weak" for the pseudo-labels of an overlay
    weight   of the loss
    domains  those that it trains; all if omitted
    """

    mixes: ClassVar[bool] = False  # whether unlabeled images come in pairs
    kind: Literal["supervised"] = "supervised"
    domains: Domains = None
    on: Literal["labeled", "weak"] = "labeled"
    weight: NotNegative = 1.0
    loss: Loss = CrossEntropy()

    @property
    def needs(self) -> str:
        """The source of images that it learns from."""
        return self.on
