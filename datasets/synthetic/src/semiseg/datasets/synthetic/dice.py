"""Random decisions of a scene, all derived from `Generator.random()`, the only method with the same numbers everywhere."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Colour = tuple[float, float, float]


class Dice:
    """Draws numbers, choices and colours from one generator, in the order of calls."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high], both ends included."""
        return low + int(float(self._generator.random()) * (high - low + 1))

    def chance(self, share: float) -> bool:
        """True in `share` of all calls."""
        return float(self._generator.random()) < share

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items, all equally likely."""
        return items[self.integer(0, len(items) - 1)]

    def sign(self) -> float:
        """-1.0 or 1.0."""
        return 1.0 if self.chance(0.5) else -1.0

    def tint(self, colour: Colour, amount: float = 0.06) -> Colour:
        """The colour, a little lighter or darker and a little off its hue."""
        level = self.uniform(1 - 2 * amount, 1 + 2 * amount)
        red, green, blue = (min(1.0, c * level * self.uniform(1 - amount, 1 + amount)) for c in colour)
        return red, green, blue

    def field(self, *shape: int) -> np.ndarray:
        """Numbers in [0, 1), float32, of the given shape."""
        return self._generator.random(shape).astype(np.float32)
