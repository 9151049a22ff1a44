"""Domains, their sources, and augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen

from semiseg.train.recipe.bounds import Count, NotNegative, Range, Share, Size, Splits, Text, Whole, Workers

__all__ = [
    "Augment",
    "ClassUniform",
    "Data",
    "Domain",
    "Extra",
    "Labeled",
    "Strong",
    "Subset",
    "Unlabeled",
    "Val",
    "Weak",
]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Transforms of a training image and its mask, in this order. All are off by default.

    resize  (height, width) in pixels that all images are resized to, including validation images
    scale   (lowest, highest) factor of a random rescaling
    crop    (height, width) in pixels of a random crop; smaller images are padded, and no loss counts the padding
    flip    probability of a horizontal flip
    vflip   probability of a vertical flip
    rotate  probability of a turn by 90, 180 or 270 degrees; needs a square crop
    jitter  strength of brightness, contrast and saturation jitter: each factor is drawn from 1 - jitter .. 1 + jitter
    blur    (lowest, highest) standard deviation in pixels of a Gaussian blur
    """

    resize: Size | None = None
    scale: Range | None = None
    crop: Size | None = None
    flip: Share = 0.0
    vflip: Share = 0.0
    rotate: Share = 0.0
    jitter: Share = 0.0
    blur: Range | None = None


@dataclass(frozen=True, kw_only=True)
class Subset:
    """`count` samples, stratified by class; subsets of one seed are nested (20 within 50 within 100)."""

    count: Count
    seed: Whole = 0


@dataclass(frozen=True, kw_only=True)
class Source:
    """One or more splits of a data set, as one pool."""

    dataset: Text
    split: Splits

    @property
    def splits(self) -> tuple[str, ...]:
        return (self.split,) if isinstance(self.split, str) else self.split


@dataclass(frozen=True, kw_only=True)
class Extra(Source):
    """Additional labels, such as coarse ones, from which class-uniform crops are also drawn.

    classes  names of the classes to draw; default: all
    until    fraction of training after which crops come only from the labeled source
    """

    classes: Annotated[tuple[Text, ...], MinLen(1)] | None = None
    until: Annotated[float, Gt(0), Le(1)] = 1.0


@dataclass(frozen=True, kw_only=True)
class ClassUniform:
    """Crops around pixels of each class in turn, so that rare classes are seen as often as common ones.

    share  fraction of the labeled crops that are drawn by class; the others visit all images before any image repeats
    extra  an additional source of such crops
    """

    share: Annotated[float, Gt(0), Le(1)] = 0.5
    extra: Extra | None = None


@dataclass(frozen=True, kw_only=True)
class Labeled(Source):
    """Images with masks. A list of splits is one pool.

    batch_size     images in a step, over all processes
    subset         use only a stratified subset
    ids            a file of keys, one a line: use only these samples
    class_uniform  draw a fraction of the crops class by class; needs augment.crop
    """

    batch_size: Count
    subset: Subset | None = None
    ids: Text | None = None
    class_uniform: ClassUniform | None = None


@dataclass(frozen=True, kw_only=True)
class Strong:
    """Strong views of unlabeled images: the same crop with distorted colours, for objectives that use them.

    views       strong views of an image, each with separate random numbers
    jitter      probability of colour jitter, in random order of its four changes:
    brightness  strength; the factor is drawn from 1 - brightness .. 1 + brightness; so for contrast and saturation
    hue         largest turn of the hue, as a share of the colour circle
    grey        probability of a grey image
    blur        probability of a Gaussian blur
    sigma       (lowest, highest) standard deviation of the blur in pixels
    """

    views: Literal[1, 2] = 1
    jitter: Share = 0.8
    brightness: Share = 0.5
    contrast: Share = 0.5
    saturation: Share = 0.5
    hue: Annotated[float, Ge(0), Le(0.5)] = 0.25
    grey: Share = 0.2
    blur: Share = 0.5
    sigma: Range = (0.1, 2.0)


@dataclass(frozen=True, kw_only=True)
class Unlabeled(Source):
    """Images whose masks, if any, are never used in training. A list of splits is one pool.

    batch_size  images in a step, over all processes
    minus       "labeled" excludes the images of this domain's labeled source
    subset      use only a subset; it is stratified by the masks, which only makes sense when studying label counts
    ids         a file of keys, one a line: use only these samples
    strong      strong views of these images, for objectives that use them; {} for the defaults
    """

    batch_size: Count
    minus: Literal["labeled"] | None = None
    subset: Subset | None = None
    ids: Text | None = None
    strong: Strong | None = None


@dataclass(frozen=True, kw_only=True)
class Weak(Source):
    """Images with pseudo-labels, written beside their split by `semiseg weak labels`. A list of splits is one pool.

    They are also used as unlabeled images. Images without a pseudo-label are not drawn.

    overlay     name of the pseudo-labels, which are in <split>@<overlay>
    batch_size  images in a step, over all processes
    minus       "labeled" excludes the images of this domain's labeled source
    """

    overlay: Text = "cam"
    batch_size: Count
    minus: Literal["labeled"] | None = None


@dataclass(frozen=True, kw_only=True)
class Val(Source):
    """Images with masks for validation, each once, at full size. A list of splits is one pool."""

    subset: Subset | None = None
    ids: Text | None = None


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One set of classes (its taxonomy) with its sources, augmentation, and the weight of its losses in the total."""

    taxonomy: Text
    augment: Augment = Augment()
    labeled: Labeled
    unlabeled: Unlabeled | None = None
    weak: Weak | None = None
    val: Val | None = None
    weight: NotNegative = 1.0


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where samples come from and in which order.

    shards            folder or URL that contains <dataset>/<split>/
    workers           data loading processes for each training process; 0 loads in the training process
    window            number of shards that the shuffle of an epoch mixes at a time
    domains_per_step  "all": every step has a batch of every domain; "one": domains take turns (CCT, section 3.4)
    allow_overlap     train although validation images are also training images; results.json says which
    """

    shards: Text = "shards/"
    workers: Workers = 2
    window: Count = 8
    domains_per_step: Literal["all", "one"] = "all"
    allow_overlap: bool = False
    domains: Annotated[dict[str, Domain], MinLen(1)]
