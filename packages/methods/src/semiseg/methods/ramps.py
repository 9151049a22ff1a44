"""Loss weights as functions of training progress."""

import math
from dataclasses import dataclass

from semiseg.methods.choices import check_choice

SHAPES = ("gaussian", "linear", "constant")


@dataclass(frozen=True)
class Ramp:
    """A loss weight that rises to `value`: ramp(progress) -> float.

    over: share of the training during which it rises. start: share of the training before that; the weight is then 0.
    With x = clip((progress - start) / over, 0, 1): "gaussian" is value * exp(-5 (1 - x)^2) (CCT section 3.2.2, after
    Laine and Aila), "linear" is value * x, "constant" is value from `start` on.
    from_zero: whether the Gaussian is exactly 0 at x = 0 (the paper: "starting from zero") or value * exp(-5), 0.2021
    of 30 (the authors' code). None leaves it to the objective's preset; without one, it means True.
    """

    value: float
    over: float = 0.1
    shape: str = "gaussian"
    start: float = 0.0
    from_zero: bool | None = None

    def __post_init__(self) -> None:
        check_choice("Ramp(shape=...)", self.shape, SHAPES)
        if self.over < 0 or not 0 <= self.start <= 1:
            raise ValueError(
                f"Ramp(over={self.over}, start={self.start}): expected shares of the training, over >= 0 and start in 0..1"
            )

    def __call__(self, progress: float, step: int | None = None) -> float:
        """The weight at `progress` in [0, 1]; `step` is for ramps that count steps; this one ignores it."""
        if progress < self.start:
            return 0.0
        if self.shape == "constant":
            return self.value
        x = min((progress - self.start) / self.over, 1.0) if self.over else float(progress > self.start)
        if self.shape == "linear":
            return self.value * x
        if x == 0 and self.from_zero is not False:
            return 0.0
        return self.value * math.exp(-5 * (1 - x) ** 2)
