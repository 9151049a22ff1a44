"""Domains, their sources, and what happens to images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, Le, MinLen

from semiseg.train.recipe.bounds import Count, NotNegative, Range, Share, Size, Splits, Text, Whole


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What happens to a training image and its mask, in this order; nothing is done unless it is stated.

    resize  (height, width) in pixels that every image is brought to; validation images too
    scale   (lowest, highest) factor of a random rescaling
    crop    (height, width) in pixels of a random crop; smaller images are padded. Padding is ignored by losses on masks;
            consistency terms see it as a flat part of the image
    flip    probability of a horizontal flip
    jitter  strength of brightness, contrast and saturation jitter: each factor is drawn from 1 - jitter .. 1 + jitter
    blur    (lowest, highest) standard deviation in pixels of a Gaussian blur
    """

    resize: Size | None = None
    scale: Range | None = None
    crop: Size | None = None
    flip: Share = 0.0
    jitter: Share = 0.0
    blur: Range | None = None


@dataclass(frozen=True, kw_only=True)
class Subset:
    """`count` samples, stratified by class; subsets of one seed are nested (20 within 50 within 100)."""

    count: Count
    seed: Whole = 0


@dataclass(frozen=True, kw_only=True)
class Source:
    """Some splits of a data set, as one pool."""

    dataset: Text
    split: Splits

    @property
    def splits(self) -> tuple[str, ...]:
        return (self.split,) if isinstance(self.split, str) else self.split


@dataclass(frozen=True, kw_only=True)
class Extra(Source):
    """Labels, such as coarse ones, from which class-uniform crops of some classes are drawn too.

    classes  their names; all classes where this is left out
    until    share of training after which the labeled source's own crops are drawn alone
    """

    classes: Annotated[tuple[Text, ...], MinLen(1)] | None = None
    until: Annotated[float, Gt(0), Le(1)] = 1.0


@dataclass(frozen=True, kw_only=True)
class ClassUniform:
    """Crops around the places of each class in turn, so that rare classes are seen as often as common ones.

    share  of the labeled crops; the others come from each image once before any comes again
    extra  a further source of such crops
    """

    share: Annotated[float, Gt(0), Le(1)] = 0.5
    extra: Extra | None = None


@dataclass(frozen=True, kw_only=True)
class Labeled(Source):
    """Images with masks. A list of splits is one pool.

    batch_size  images a step over all processes
    subset      take so many only
    ids         a file of keys, one a line: take these only
    class_uniform  draw a share of the crops class by class; needs augment.crop
    """

    batch_size: Count
    subset: Subset | None = None
    ids: Text | None = None
    class_uniform: ClassUniform | None = None


@dataclass(frozen=True, kw_only=True)
class Unlabeled(Source):
    """Images whose masks, where there are any, are never looked at. A list of splits is one pool.

    batch_size  images a step over all processes
    minus       "labeled" leaves out the images that the labeled source of this domain holds
    subset      take so many only; stratified by the masks, which only a study of label counts wants
    ids         a file of keys, one a line: take these only
    """

    batch_size: Count
    minus: Literal["labeled"] | None = None
    subset: Subset | None = None
    ids: Text | None = None


@dataclass(frozen=True, kw_only=True)
class Weak(Source):
    """Images with pseudo-labels, which `semiseg weak labels` wrote beside their split. A list of splits is one pool.

    They count as unlabeled images too. An image without a pseudo-label is not drawn.

    overlay     name of the pseudo-labels: they are in <split>@<overlay>
    batch_size  images a step over all processes
    minus       "labeled" leaves out the images that the labeled source of this domain holds
    """

    overlay: Text = "cam"
    batch_size: Count
    minus: Literal["labeled"] | None = None


@dataclass(frozen=True, kw_only=True)
class Val(Source):
    """Images with masks that are evaluated on, each once, at full size. A list of splits is one pool."""

    subset: Subset | None = None
    ids: Text | None = None


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One label space: its sources, its decoder's classes, and the weight of its losses in the total."""

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

    shards            folder or URL that holds <dataset>/<split>/
    workers           loading processes for each training process; 0 loads in the training process itself
    window            shards that an epoch's shuffle mixes at a time
    domains_per_step  "all": every step has a batch of each domain; "one": they take turns (CCT, section 3.4)
    """

    shards: Text = "shards/"
    workers: Whole = 2
    window: Count = 8
    domains_per_step: Literal["all", "one"] = "all"
    domains: Annotated[dict[str, Domain], MinLen(1)]
