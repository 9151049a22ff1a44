"""What is minimised: a list of objectives, each with its own options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MinLen

from semiseg.train.recipe.bounds import ByKind, Count, Domains, NotNegative, Positive, Rate, Share, Text

__all__ = [
    "Bootstrapped",
    "Boxes",
    "ClassWeights",
    "ContextMask",
    "CrossConsistency",
    "CrossEntropy",
    "Dice",
    "Dropout",
    "FeatureDrop",
    "FeatureNoise",
    "GuidedCutout",
    "Loss",
    "ObjectMask",
    "Objective",
    "Ohem",
    "Perturbation",
    "Ramp",
    "Relaxed",
    "StructuredConsistency",
    "Supervised",
    "Vat",
    "WeakRamp",
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
    """The loss of the main decoder on labeled images.

    domains  those that it trains; all if omitted
    """

    needs: ClassVar[str] = "labeled"  # the source of images that it learns from
    mixes: ClassVar[bool] = False  # whether unlabeled images come in pairs
    kind: Literal["supervised"] = "supervised"
    domains: Domains = None
    loss: Loss = CrossEntropy()


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A weight that rises to `value`, from share `start` of training on, over share `over` of training."""

    value: NotNegative = 30.0
    over: Annotated[float, Gt(0), Le(1)] = 0.1
    shape: Literal["gaussian", "linear", "constant"] = "gaussian"
    start: Rate = 0.0


@dataclass(frozen=True, kw_only=True)
class WeakRamp(Ramp):  # a subclass for its default alone: 30 would drown the other losses
    """The weight of the loss on pseudo-labels, a separate ramp: `value` is that weight, not a share of another."""

    value: NotNegative = 0.4


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """`count` decoders that see whole channels dropped with probability p."""

    kind: Literal["dropout"] = "dropout"
    count: Count = 1
    p: Rate | None = None


@dataclass(frozen=True, kw_only=True)
class FeatureDrop:
    """`count` decoders that miss the most active cells; gamma is drawn from low .. high.

    mode   "quantile": the share 1 - gamma of cells; "threshold": those above gamma times the maximum (released code)
    share  one gamma for each "sample", or for the "batch" (released code): for a process's images of a micro-step
    """

    kind: Literal["feature_drop"] = "feature_drop"
    count: Count = 1
    mode: Literal["quantile", "threshold"] | None = None
    low: Share | None = None
    high: Share | None = None
    share: Literal["sample", "batch"] | None = None


@dataclass(frozen=True, kw_only=True)
class FeatureNoise:
    """`count` decoders that see z + z * N, N uniform in -amplitude .. amplitude.

    share  one N for each "sample", or for the "batch" (released code): for a process's images of a micro-step
    """

    kind: Literal["feature_noise"] = "feature_noise"
    count: Count = 1
    amplitude: Positive | None = None
    share: Literal["sample", "batch"] | None = None


@dataclass(frozen=True, kw_only=True)
class GuidedCutout:
    """`count` decoders that miss a random crop of each detected object's box.

    side        the crop's side as a share of the box's side
    smallest    smallest object that counts, as a share of the image
    per         objects are connected regions of the "merged" foreground or of each "class"
    resolution  side in cells of the grid on which objects are found
    """

    kind: Literal["guided_cutout"] = "guided_cutout"
    count: Count = 1
    side: Annotated[float, Gt(0), Le(1)] | None = None
    smallest: Share | None = None
    per: Literal["merged", "class"] | None = None
    resolution: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Vat:
    """`count` decoders that see the shift which changes them most.

    xi          length of the probe from which the direction is found
    eps         length of the shift; with `relative` as a share of the features' own norm
    iterations  steps of the power iteration
    damping     added to the gradient's norm (released code)
    """

    kind: Literal["vat"] = "vat"
    count: Count = 1
    xi: Positive | None = None
    eps: Positive | None = None
    relative: bool | None = None
    iterations: Count | None = None
    damping: NotNegative | None = None


@dataclass(frozen=True, kw_only=True)
class ContextMask:
    """`count` decoders that see predicted foreground only."""

    kind: Literal["context_mask"] = "context_mask"
    count: Count = 1


@dataclass(frozen=True, kw_only=True)
class ObjectMask:
    """`count` decoders that see predicted background only."""

    kind: Literal["object_mask"] = "object_mask"
    count: Count = 1


Perturbation = Annotated[Dropout | FeatureDrop | FeatureNoise | GuidedCutout | Vat | ContextMask | ObjectMask, ByKind()]


@dataclass(frozen=True, kw_only=True)
class CrossConsistency:
    """CCT (Ouali et al., CVPR 2020): auxiliary decoders on perturbed features agree with the main decoder.

    preset         options that are left out take the "paper"'s or the "released" code's values
    reduction      distance as the "mean" over classes (its weight then depends on their number) or their "sum"
    confidence     only where the main decoder's largest probability exceeds this
    over           with `confidence`: divide by the pixels "kept" (the released code) or by all "valid" ones
    pairwise       weight of the disagreement among auxiliary decoders, as a share of `weight`
    pairwise_reduction  over classes; left out, `reduction`'s, or the "sum" of the preset "released"
    weak           weight of the auxiliary decoders' cross entropy with the pseudo-labels of the domain's weak source, whose
                   images then count as unlabeled too; the released code: 0.4 on the ramp of `weight`
    lr_scale       learning rate of the auxiliary decoders relative to the optimizer's
    decoder        kind of the auxiliary decoders; "same" as the main one
    kernel         3 lets an auxiliary decoder see around a masked cell; slower, with memory that grows with their number
    start          auxiliary decoders start at "random" or as copies of the "main" one
    domains        those that it trains; all if omitted. One objective per domain gives each its own weight, ramp and
                   perturbations
    """

    mixes: ClassVar[bool] = False
    kind: Literal["cross_consistency"] = "cross_consistency"
    domains: Domains = None
    preset: Literal["paper", "released"] = "paper"
    distance: Literal["mse", "kl", "js"] = "mse"
    reduction: Literal["mean", "sum"] = "mean"
    weight: Ramp = Ramp()
    confidence: Rate | None = None
    over: Literal["kept", "valid"] = "kept"
    pairwise: NotNegative = 0.0
    pairwise_reduction: Literal["mean", "sum"] | None = None
    weak: WeakRamp | None = None
    lr_scale: Positive = 1.0
    decoder: Literal["same", "subpixel", "linear"] = "same"
    kernel: Literal[1, 3] = 1
    start: Literal["random", "main"] = "random"
    perturbations: Annotated[tuple[Perturbation, ...], MinLen(1)]

    @property
    def needs(self) -> str:
        return "weak" if self.weak else "unlabeled"


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Where CutMix pastes the partner of an image into it.

    count     boxes an image; a later one covers those before it
    compared  only this many, the last ones, count for the structure term
    area      share of the image
    area_of   "nominal" adds the boxes up (32 of 0.5 cover 0.38); "covered" is what they cover on average
    sizes     areas of the boxes of one image: in proportion to "uniform" random numbers, or "equal"
    aspect    how uneven a box's sides may be, as shares of the image's
    """

    count: Annotated[int, Ge(1), Le(255)] = 32
    compared: Count = 16
    area: Annotated[float, Gt(0), Le(1)] = 0.5
    area_of: Literal["nominal", "covered"] = "nominal"
    sizes: Literal["uniform", "equal"] = "uniform"
    aspect: Annotated[float, Ge(1)] = 2.0


@dataclass(frozen=True, kw_only=True)
class StructuredConsistency:
    """Structured consistency (ICLR 2020 submission): the student sees a CutMix, an averaged teacher sees both images whole.

    An unlabeled batch_size counts students: each draws two images. Without a structure term (structure.value = 0) it is
    the mean teacher with CutMix (French et al. 2020).

    pixel            weight of the squared difference of each pixel's probabilities, summed over classes
    structure        weight of the squared difference of how alike pixels of one box are
    pairs            "all" pairs of a box, exactly; or this number of random ones (the paper: 9000)
    confidence       only where the teacher's largest probability exceeds this
    over             with `confidence`: divide the pixel term by all "valid" pixels (as FixMatch does), so that it grows with
                     the share of confident ones, or by those "kept"
    boxes            where images are mixed
    teacher_decay    share of the teacher that stays at each update; with a [teacher] section, that one applies
    teacher_warmup   less at first: (1 + t) / (10 + t) at update t
    teacher_mode     "eval" normalises by averaged statistics; "train" by each batch's own, with drop-out
    teacher_buffers  running statistics are an "average" as the weights are, or a "copy" of the student's
    domains          those that it trains; all if omitted
    """

    needs: ClassVar[str] = "unlabeled"
    mixes: ClassVar[bool] = True
    kind: Literal["structured_consistency"] = "structured_consistency"
    domains: Domains = None
    pixel: Ramp = Ramp(value=20.0, shape="constant")
    structure: Ramp = Ramp(value=3.0, shape="constant")
    pairs: Literal["all"] | Count = "all"
    confidence: Rate | None = None
    over: Literal["kept", "valid"] = "valid"
    boxes: Boxes = Boxes()
    teacher_decay: Rate = 0.999
    teacher_warmup: bool = True
    teacher_mode: Literal["eval", "train"] = "eval"
    teacher_buffers: Literal["average", "copy"] = "average"


Objective = Annotated[Supervised | CrossConsistency | StructuredConsistency, ByKind()]
