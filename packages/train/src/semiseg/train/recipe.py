"""What a training run is, as data: frozen dataclasses that `semiseg.train.load` fills from a TOML file.

Every number has its unit or its range in the docstring of its class; every default is written out by
`semiseg recipe show`. Nothing here does anything: `semiseg.train.build` turns these values into objects, and no class
beyond it sees a recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen


class ByKind:
    """Marks a union whose members are told apart by `kind`, for pydantic (which only `semiseg.train.load` imports)."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import Field

        return handler.generate_schema(Annotated[source, Field(discriminator="kind")])


Count = Annotated[int, Ge(1)]
Whole = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Rate = Annotated[float, Ge(0), Lt(1)]
Size = tuple[Count, Count]
Range = tuple[Positive, Positive]
Text = Annotated[str, MinLen(1)]
Splits = Text | Annotated[tuple[Text, ...], MinLen(1)]


# ---- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What happens to a training image and its mask, in this order; nothing is done unless it is stated.

    resize  (height, width) in pixels that every image is brought to; validation images too
    scale   (lowest, highest) factor of a random rescaling
    crop    (height, width) in pixels of a random crop; smaller images are padded, and padding is ignored by every loss
    flip    probability of a horizontal flip
    jitter  strength of brightness, contrast and saturation jitter: each factor is drawn from 1 - jitter .. 1 + jitter
    """

    resize: Size | None = None
    scale: Range | None = None
    crop: Size | None = None
    flip: Share = 0.0
    jitter: Share = 0.0


@dataclass(frozen=True, kw_only=True)
class Subset:
    """`count` samples, stratified by class; subsets of one seed are nested (20 within 50 within 100)."""

    count: Count
    seed: Whole = 0


@dataclass(frozen=True, kw_only=True)
class Labeled:
    """Images with masks. A list of splits is one pool.

    batch_size  images a step over all processes
    subset      take so many only
    ids         a file of keys, one a line: take these only
    """

    dataset: Text
    split: Splits
    batch_size: Count
    subset: Subset | None = None
    ids: Text | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        return _splits(self.split)


@dataclass(frozen=True, kw_only=True)
class Unlabeled:
    """Images whose masks, where there are any, are never looked at. A list of splits is one pool.

    batch_size  images a step over all processes
    minus       "labeled" leaves out the images that the labeled source of this domain holds
    subset      take so many only; stratified by the masks, which only a study of label counts wants
    ids         a file of keys, one a line: take these only
    """

    dataset: Text
    split: Splits
    batch_size: Count
    minus: Literal["labeled"] | None = None
    subset: Subset | None = None
    ids: Text | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        return _splits(self.split)


@dataclass(frozen=True, kw_only=True)
class Val:
    """Images with masks that are evaluated on, each once, at full size. A list of splits is one pool."""

    dataset: Text
    split: Splits
    subset: Subset | None = None
    ids: Text | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        return _splits(self.split)


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One label space: its sources, its decoder's classes, and the weight of its losses in the total."""

    taxonomy: Text
    augment: Augment = Augment()
    labeled: Labeled
    unlabeled: Unlabeled | None = None
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


# ---- model -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A timm encoder. `weights`: "timm" (those it publishes), "none" (random), or the path of a file or run."""

    name: Text
    output_stride: Literal[8, 16, 32] = 8
    weights: Text = "timm"


@dataclass(frozen=True, kw_only=True)
class PSP:
    """Pyramid pooling on bins 1, 2, 3, 6; `channels` is what the decoders get."""

    kind: Literal["psp"] = "psp"
    channels: Count = 512


@dataclass(frozen=True, kw_only=True)
class NoContext:
    """A 1x1 convolution to `channels`, batch norm and ReLU."""

    kind: Literal["none"] = "none"
    channels: Count = 512


@dataclass(frozen=True, kw_only=True)
class SubPixel:
    """CCT's decoder: 1x1 convolutions and pixel shuffles to the input's size; `last_relu` as in the released code."""

    kind: Literal["subpixel"] = "subpixel"
    last_relu: bool = False


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A 1x1 convolution, then bilinear upsampling."""

    kind: Literal["linear"] = "linear"


Context = Annotated[PSP | NoContext, ByKind()]
Decoder = Annotated[SubPixel | Linear, ByKind()]


@dataclass(frozen=True, kw_only=True)
class Model:
    """One encoder and context for all domains, one main decoder for each.

    norm    "batch"; "sync" (statistics over all processes); "frozen" (the weights' own statistics, never updated)
    start   a saved model or run to start from: encoder, context and the decoders of its domains; domains of this recipe
            that it lacks get new decoders, domains of its own that this recipe lacks stay as they are
    freeze  "encoder" trains decoders alone: encoder and context keep their weights (needs norm = "frozen")
    """

    encoder: Encoder
    context: Context = PSP()
    decoder: Decoder = SubPixel()
    norm: Literal["batch", "sync", "frozen"] = "batch"
    start: Text | None = None
    freeze: Literal["none", "encoder"] = "none"


# ---- objectives ------------------------------------------------------------------------------------------------------


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
    """The loss of the main decoder on labeled images."""

    kind: Literal["supervised"] = "supervised"
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
    """

    kind: Literal["cross_consistency"] = "cross_consistency"
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


# ---- optimisation ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Learning rate, weight decay; `encoder_lr_scale` is the encoder's learning rate relative to `lr`."""

    kind: Literal["sgd"] = "sgd"
    lr: Positive
    momentum: Rate = 0.9
    weight_decay: NotNegative = 1e-4
    nesterov: bool = False
    encoder_lr_scale: NotNegative = 1.0


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Learning rate, decoupled weight decay; `encoder_lr_scale` is the encoder's learning rate relative to `lr`."""

    kind: Literal["adamw"] = "adamw"
    lr: Positive
    weight_decay: NotNegative = 1e-2
    betas: tuple[Rate, Rate] = (0.9, 0.999)
    encoder_lr_scale: NotNegative = 1.0


@dataclass(frozen=True, kw_only=True)
class Poly:
    """lr * (1 - step / steps) ** power, after `warmup` steps of linear rise."""

    kind: Literal["poly"] = "poly"
    power: Positive = 0.9
    warmup: Whole = 0


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine from lr to 0, after `warmup` steps of linear rise."""

    kind: Literal["cosine"] = "cosine"
    warmup: Whole = 0


@dataclass(frozen=True, kw_only=True)
class Constant:
    """lr throughout, after `warmup` steps of linear rise."""

    kind: Literal["constant"] = "constant"
    warmup: Whole = 0


Optimizer = Annotated[SGD | AdamW, ByKind()]
Schedule = Annotated[Poly | Cosine | Constant, ByKind()]


# ---- the run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Log:
    """A line of metrics `every` so many steps."""

    every: Count = 50


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Validation `every` so many steps, and always at the end."""

    every: Count = 1000


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint `every` so many steps and at the end; the last `keep` stay on disk."""

    every: Count = 1000
    keep: Count = 2


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run, whole.

    name           names the run's folder
    paper          address of the paper whose numbers are `expect`ed
    expect         "<domain>/miou" -> mean IoU in percent
    steps          optimizer updates
    precision      "auto" takes bf16 where it is faster; wins over accelerate's configuration
    accumulate     micro-steps a step is cut into, to save memory; batch sizes stay what they are
    deterministic  bit-equal runs on a GPU as well, slower
    clip           largest gradient norm
    runs           folder where run folders go
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "allow_inf_nan": False,
    }  # reaches all of the above

    name: Text
    paper: str = ""
    expect: dict[str, float] = field(default_factory=dict)
    seed: Whole = 0
    steps: Count
    precision: Literal["auto", "no", "fp16", "bf16"] = "auto"
    accumulate: Count = 1
    deterministic: bool = False
    clip: Positive | None = None
    runs: Text = "runs"
    data: Data
    model: Model
    objectives: Annotated[tuple[Objective, ...], MinLen(1)]
    optimizer: Optimizer
    schedule: Schedule = Poly()
    log: Log = Log()
    evaluate: Evaluate = Evaluate()
    checkpoint: Checkpoint = Checkpoint()


def _splits(split: str | tuple[str, ...]) -> tuple[str, ...]:
    return (split,) if isinstance(split, str) else split
