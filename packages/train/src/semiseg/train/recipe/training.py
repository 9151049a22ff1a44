"""The complete recipe: optimisation, and what a run does besides training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import MinLen

from semiseg.train.recipe.bounds import (
    ByKind,
    Count,
    NotNegative,
    Overlap,
    Positive,
    Rate,
    Scale,
    Text,
    TileSide,
    Whole,
)
from semiseg.train.recipe.data import Data
from semiseg.train.recipe.model import Model
from semiseg.train.recipe.objectives import Objective

__all__ = [
    "SGD",
    "AdamW",
    "Checkpoint",
    "Constant",
    "Cosine",
    "Evaluate",
    "Log",
    "Optimizer",
    "Poly",
    "Recipe",
    "Schedule",
    "Teacher",
    "Tile",
]


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


@dataclass(frozen=True, kw_only=True)
class Log:
    """A line of metrics every `every` steps."""

    every: Count = 50


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Tiles of `size` (height, width) in pixels that share `overlap` of a side with the next one, or more."""

    size: tuple[TileSide, TileSide]
    overlap: Overlap = 1 / 3


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Validation every `every` steps, and always at the end.

    weights  "student", the model that is trained; "teacher", its moving average, where there is one; "both": the student
             is scored, and the teacher's scores are reported next to it. A run is used as what is scored.
    scales   factors of the image's size; probabilities are averaged over all scales, directions and tiles
    flip     also mirrored images
    tile     cut images, at each scale, into overlapping tiles; whole images if omitted
    """

    every: Count = 1000
    weights: Literal["student", "teacher", "both"] = "student"
    scales: Annotated[tuple[Scale, ...], MinLen(1)] = (1.0,)
    flip: bool = False
    tile: Tile | None = None


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A moving average of the model, the teacher of every objective that has one; for any recipe, also a supervised one.

    decay    share of the teacher that stays at each update
    rule     less at first, at update t = 0, 1, ...: "warmup" (1 + t) / (10 + t), "average" 1 - 1 / (t + 1) (UniMatch V2);
             or "constant"
    mode     "eval" normalises by averaged statistics; "train" by each batch's own, with drop-out
    buffers  running statistics are an "average" as the weights are, or a "copy" of the student's
    """

    decay: Rate = 0.99
    rule: Literal["warmup", "average", "constant"] = "average"
    mode: Literal["eval", "train"] = "eval"
    buffers: Literal["average", "copy"] = "average"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint every `every` steps and at the end; the last `keep` stay on disk."""

    every: Count = 1000
    keep: Count = 2


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run.

    name           names the run's folder
    paper          address of the paper whose numbers are `expect`ed
    expect         "<domain>/miou" -> mean IoU in percent
    steps          optimizer updates
    precision      "auto" takes bf16 where it is faster; wins over accelerate's configuration
    compile        run the encoder as compiled code: minutes at the start, faster steps; needs a C++ compiler
    accumulate     micro-steps a step is cut into, to save memory; batch sizes stay what they are
    deterministic  bit-equal runs on a GPU as well, slower
    clip           largest gradient norm
    timeout        seconds that a process waits for another one that no longer answers, then all end
    control        the weight-0 control of a method: all its objectives run, but only those on labeled images count in the
                   loss. It differs from the method in nothing else: same images, batch statistics, weight decay, teacher
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
    compile: bool = False
    accumulate: Count = 1
    deterministic: bool = False
    clip: Positive | None = None
    timeout: Positive = 600.0
    control: bool = False
    runs: Text = "runs"
    data: Data
    model: Model
    objectives: Annotated[tuple[Objective, ...], MinLen(1)]
    optimizer: Optimizer
    schedule: Schedule = Poly()
    teacher: Teacher | None = None
    log: Log = Log()
    evaluate: Evaluate = Evaluate()
    checkpoint: Checkpoint = Checkpoint()

    def objectives_of(self, domain: str) -> list[Objective]:
        """The objectives that train a domain: those that name it or no domain at all."""
        return [chosen for chosen in self.objectives if chosen.domains is None or domain in chosen.domains]

    def mixes(self, domain: str) -> bool:
        """Whether an objective of the domain mixes unlabeled images in pairs."""
        return any(objective.mixes for objective in self.objectives_of(domain))
