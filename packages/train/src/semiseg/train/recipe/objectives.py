"""What is minimised: a list of objectives, each with its own options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MinLen

from semiseg.train.recipe.bounds import ByKind, Count, Domains, NotNegative, Positive, Range, Rate, Share
from semiseg.train.recipe.losses import ClassWeights, Supervised
from semiseg.train.recipe.perturbations import Perturbation

__all__ = [
    "Boxes",
    "CrossConsistency",
    "FixMatch",
    "Objective",
    "Ramp",
    "StructuredConsistency",
    "TaughtConsistency",
    "UniMatch",
    "WeakRamp",
]


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


@dataclass(frozen=True, kw_only=True)
class Confident:
    """What objectives on strong views have in common; see `FixMatch`."""

    needs: ClassVar[str] = "unlabeled"
    views: ClassVar[int] = 1  # the least number of strong views that it needs
    domains: Domains = None
    weight: Ramp = Ramp(value=1.0, shape="constant")
    threshold: Rate = 0.95
    quantile: Annotated[float, Gt(0), Le(1)] = 1.0
    class_weights: ClassWeights | None = None
    mix: Literal["cutmix", "classmix", "none"] = "cutmix"
    probability: Share = 0.5
    area: Range = (0.02, 0.4)
    aspect: Annotated[float, Ge(1)] = 10 / 3

    @property
    def mixes(self) -> bool:
        return self.mix != "none"


@dataclass(frozen=True, kw_only=True)
class FixMatch(Confident):
    """The student learns, on strong views, the classes that the weak view shows confidently (FixMatch on pixels).

    Needs strong views of the unlabeled images: `unlabeled.strong`. An unlabeled batch_size counts students: each draws two
    images where they are mixed. The loss is divided by all pixels, so it grows with the share of confident ones.

    weight         of the loss
    names          who predicts the weak view: the "teacher" (a moving average, see [teacher]) or the "student" itself
    threshold      smallest probability that counts; the published 0.95 is for long training
    quantile       in each image, keep this share of the pixels of each predicted class, the most confident ones
    targets        "hard": learn the predicted class; "soft": the probabilities
    class_weights  let rare classes weigh more, by the labeled images: {} for the defaults
    mix            paste from a second image: "cutmix" a box, "classmix" half of its predicted classes, or "none"
    probability    of mixing an image
    area           range of the box's share of the image
    aspect         how uneven the box's sides may be, as shares of the image's
    feature_drop   probability of dropping a channel of the weak view's z in a further stream that learns the same classes
    feature_share  share of that stream in the loss
    domains        those that it trains; all if omitted
    """

    kind: Literal["fixmatch"] = "fixmatch"
    names: Literal["teacher", "student"] = "teacher"
    targets: Literal["hard", "soft"] = "hard"
    feature_drop: Rate = 0.0
    feature_share: Share = 0.5

    @property
    def taught(self) -> bool:
        return self.names == "teacher"


@dataclass(frozen=True, kw_only=True)
class UniMatch(Confident):
    """UniMatch: two strong views (`unlabeled.strong = { views = 2 }`), and dropped features. Keys as for "fixmatch".

    version  1: the student names the classes, and learns them also from the weak view with half of the channels dropped,
             which counts half; 2: a teacher names, and the strong views see complementary halves of the channels
    """

    views: ClassVar[int] = 2
    kind: Literal["unimatch"] = "unimatch"
    version: Literal[1, 2] = 2
    targets: Literal["hard", "soft"] = "hard"

    @property
    def taught(self) -> bool:
        return self.version == 2


@dataclass(frozen=True, kw_only=True)
class TaughtConsistency(Confident):
    """CCT with a sure target: auxiliary decoders on perturbed features of strong views learn the weak view's confident classes.

    Keys as for "fixmatch" and "cross_consistency". With a "fixmatch" of equal names, threshold, quantile and mixing, both
    share images, labels and encoder passes.
    """

    kind: Literal["taught_consistency"] = "taught_consistency"
    names: Literal["teacher", "student"] = "teacher"
    lr_scale: Positive = 1.0
    decoder: Literal["same", "subpixel", "linear"] = "same"
    start: Literal["random", "main"] = "random"
    perturbations: Annotated[tuple[Perturbation, ...], MinLen(1)]

    @property
    def taught(self) -> bool:
        return self.names == "teacher"


Objective = Annotated[
    Supervised | CrossConsistency | StructuredConsistency | FixMatch | UniMatch | TaughtConsistency, ByKind()
]
