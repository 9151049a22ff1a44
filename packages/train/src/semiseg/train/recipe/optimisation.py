"""Optimizers and learning-rate schedules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from semiseg.train.recipe.bounds import ByKind, NotNegative, Positive, Rate, Whole


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
