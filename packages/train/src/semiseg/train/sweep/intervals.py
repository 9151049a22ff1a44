"""Confidence intervals by Student's t: the only place that computes them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean of n values and half of its 95 % interval by Student's t (None for a single value)."""

    mean: float
    half: float | None
    n: int

    @property
    def verdict(self) -> str:
        """Where the interval of a difference lies."""
        if self.half is None:
            return "one pair alone"
        low, high = self.mean - self.half, self.mean + self.half
        return "above 0" if low > 0 else "below 0" if high < 0 else "includes 0"


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and half of its 95 % interval; None without values."""
    if not values:
        return None
    n = len(values)
    half = t975(n - 1) * statistics.stdev(values) / n**0.5 if n > 1 else None
    return Estimate(mean=statistics.fmean(values), half=half, n=n)


# 97.5 % quantile of Student's t by degrees of freedom, from 1; beyond them, its expansion in 1 / df is exact to 0.001.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120)


def t975(freedom: int) -> float:
    """The 97.5 % quantile of Student's t."""
    return _T[freedom - 1] if freedom <= len(_T) else 1.95996 + 2.3722 / freedom + 2.823 / freedom**2
