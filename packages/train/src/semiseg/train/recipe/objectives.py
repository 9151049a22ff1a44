"""What is minimised: a list of objectives, each with its own options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, Le, MinLen

from semiseg.train.recipe.bounds import ByKind, Count, Domains, NotNegative, Positive, Rate, Share


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Mean over an image's valid pixels, then over images."""

    kind: Literal["cross_entropy"] = "cross_entropy"


@dataclass(frozen=True, kw_only=True)
class Bootstrapped:
    """CCT's annealed bootstrapped cross entropy (Eq. 4): pixels whose true class is already likely are left out.

    until  share of training at which the threshold stops rising
    over   divide by the pixels "kept" or by all "valid" ones
    pool   rank pixels within each "image" or over the "batch" (the released code)
    """

    kind: Literal["bootstrapped"] = "bootstrapped"
    until: Annotated[float, Gt(0), Le(1)] = 0.4
    over: Literal["kept", "valid"] = "kept"
    pool: Literal["image", "batch"] = "image"


Loss = Annotated[CrossEntropy | Bootstrapped, ByKind()]


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """The loss of the main decoder on labeled images.

    domains  those that it trains; all of them where this is left out
    """

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
class Dropout:
    """`count` decoders that see whole channels dropped with probability p."""

    kind: Literal["dropout"] = "dropout"
    count: Count = 1
    p: Rate | None = None


@dataclass(frozen=True, kw_only=True)
class FeatureDrop:
    """`count` decoders that miss the most active cells; gamma is drawn from low .. high.

    mode   "quantile": the share 1 - gamma of cells; "threshold": those above gamma times the maximum (released code)
    share  one gamma for each "sample", or for the "batch" (released code)
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

    share  one N for each "sample", or for the "batch" (released code)
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
    pairwise       weight of the disagreement among auxiliary decoders
    lr_scale       learning rate of the auxiliary decoders relative to the optimizer's
    decoder        kind of the auxiliary decoders; "same" as the main one
    domains        those that it trains; all of them where this is left out. One objective for each domain gives each a
                   weight, a ramp and perturbations of its own
    """

    kind: Literal["cross_consistency"] = "cross_consistency"
    domains: Domains = None
    preset: Literal["paper", "released"] = "paper"
    distance: Literal["mse", "kl", "js"] = "mse"
    reduction: Literal["mean", "sum"] = "mean"
    weight: Ramp = Ramp()
    confidence: Rate | None = None
    pairwise: NotNegative = 0.0
    lr_scale: Positive = 1.0
    decoder: Literal["same", "subpixel", "linear"] = "same"
    perturbations: Annotated[tuple[Perturbation, ...], MinLen(1)]


Objective = Annotated[Supervised | CrossConsistency, ByKind()]
