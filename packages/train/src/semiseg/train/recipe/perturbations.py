"""The perturbations of CCT's auxiliary decoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, Le

from semiseg.train.recipe.bounds import ByKind, Count, NotNegative, Positive, Rate, Share

__all__ = [
    "ContextMask",
    "Dropout",
    "FeatureDrop",
    "FeatureNoise",
    "GuidedCutout",
    "ObjectMask",
    "Perturbation",
    "Vat",
]


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
