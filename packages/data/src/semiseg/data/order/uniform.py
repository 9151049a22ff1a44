"""Class-uniform sampling: crops around pixels of each class, so that rare classes are seen as often as common ones.

Zhu et al. 2019 (Improving semantic segmentation via video propagation and label relaxation), section 4.1, used by the
structured consistency paper: some of the crops are drawn class by class, each around a class's centroid in a tile of an
image. The centroids come from the shards' indexes, which hold sums for each tile and raw id; no pixel is read.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from semiseg.data.errors import DataError
from semiseg.data.keyed import permutation
from semiseg.data.order.plan import Draw, Plan


@dataclass(frozen=True, eq=False)
class Anchors:
    """Centroids of classes, one for each sample, tile and class that occurs there; all int64 [n].

    sample  index of the sample
    label   class id
    row, column  the centroid in pixels of the stored image, rounded down; it may lie outside of a bent shape
    """

    sample: np.ndarray
    label: np.ndarray
    row: np.ndarray
    column: np.ndarray

    def __len__(self) -> int:
        return len(self.sample)

    def where(self, kept: np.ndarray) -> "Anchors":
        """Select by a mask (bool [n]) or an index array."""
        return Anchors(self.sample[kept], self.label[kept], self.row[kept], self.column[kept])

    def of_samples(self, subset: np.ndarray) -> "Anchors":
        """Anchors of these samples only."""
        return self.where(np.isin(self.sample, subset))

    def of_classes(self, classes: Iterable[int]) -> "Anchors":
        """Anchors of these classes only."""
        return self.where(np.isin(self.label, list(classes)))

    def of_next_set(self, first: int) -> "Anchors":
        """The same with samples numbered from `first` on, for a further set in a pool."""
        return Anchors(self.sample + first, self.label, self.row, self.column)

    def __add__(self, other: "Anchors") -> "Anchors":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Anchors(*(np.concatenate(pair) for pair in pairs))

    @classmethod
    def merged(cls, sample: np.ndarray, tile: np.ndarray, label: np.ndarray, sums: np.ndarray) -> "Anchors":
        """From rows of (sample, tile, class) with `sums` [n, 3] of pixels, x and y; equal rows are added exactly."""
        rows = np.stack([sample, tile, label], axis=1)
        found, place = np.unique(rows, axis=0, return_inverse=True)
        merged = np.zeros((len(found), 3), np.int64)
        np.add.at(merged, place.ravel(), sums)
        pixels, x, y = merged.T
        return cls(found[:, 0], found[:, 2], y // pixels, x // pixels)


class ClassUniformPlan:
    """An endless order in which a share of the draws visits the classes in turn; same interface as `Plan`.

    plan    gives the other draws, every sample once before any is repeated
    anchors where the classes are; a class without anchors is not drawn. Samples are numbered as in the plan's shards
    share   of class-uniform draws, spread evenly: exact to within one draw in any range of the order
    until   position from which `later` replaces `anchors` (None: never); a class continues its count of draws

    The classes take turns in a new random order each round, so their counts differ by at most one at any position. A class
    uses all of its anchors, in a new random order each time, before it repeats one. Everything is a function of the seed,
    the shards' digest and the position.
    """

    def __init__(
        self,
        plan: Plan,
        anchors: Anchors,
        *,
        share: float = 0.5,
        until: int | None = None,
        later: Anchors | None = None,
    ) -> None:
        if not 0 < share <= 1:
            raise DataError(f"the class-uniform share is {share:g}; it must be above 0 and at most 1")
        if len(anchors) == 0 or (later is not None and len(later) == 0):
            raise DataError("class-uniform sampling has nothing to draw: no sample contains a class of the taxonomy")
        self.plan = plan
        self._key = (plan.seed, plan.digest)
        self._share = Fraction(share).limit_denominator(10_000)
        self._until = until
        self._tables = [_Table(anchors), *([_Table(later)] if later is not None else [])]
        self._orders: dict[tuple[int | str, ...], np.ndarray] = {}

    @property
    def classes(self) -> tuple[int, ...]:
        """The class ids that take turns at first."""
        return tuple(self._tables[0].classes.tolist())

    def __len__(self) -> int:
        """Samples per epoch, as if all draws were the plan's."""
        return len(self.plan)

    def draws(self, start: int, stop: int) -> list[Draw]:
        """The draws at positions start <= p < stop of the endless order."""
        first = int(start * self._share)
        plain = iter(self.plan.draws(start - first, stop - int(stop * self._share)))
        draws = []
        for position in range(start, stop):
            number = int(position * self._share)  # class-uniform draws before this position
            epoch = position // len(self)
            if int((position + 1) * self._share) > number:
                draws.append(self._uniform(number, epoch, position))
            else:
                draws.append(Draw(next(plain).sample, epoch, position))
        return draws

    def upcoming(self, position: int) -> list[int]:
        """As `Plan.upcoming`, for the plan's draws; the others may be in any shard."""
        return self.plan.upcoming(position - int(position * self._share))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_orders": {}}

    def _uniform(self, number: int, epoch: int, position: int) -> Draw:
        phase = int(self._until is not None and len(self._tables) > 1 and position >= self._until)
        table = self._tables[phase]
        turn, place = divmod(number, len(table.classes))
        which = int(self._order(("turn", phase, turn), len(table.classes))[place])
        start, count = int(table.starts[which]), int(table.counts[which])
        again, place = divmod(turn, count)
        label = int(table.classes[which])
        row = start + int(self._order(("anchors", phase, label, again), count)[place])
        anchors = table.anchors
        return Draw(int(anchors.sample[row]), epoch, position, (int(anchors.row[row]), int(anchors.column[row])))

    def _order(self, key: tuple[int | str, ...], count: int) -> np.ndarray:
        if key not in self._orders:
            if len(self._orders) >= 256:  # far more than there are classes
                self._orders.clear()
            self._orders[key] = permutation(count, "class-uniform", *self._key, *key)
        return self._orders[key]


class _Table:
    """Anchors sorted by class, and where each class starts."""

    def __init__(self, anchors: Anchors) -> None:
        self.anchors = anchors.where(np.lexsort((anchors.column, anchors.row, anchors.sample, anchors.label)))
        self.classes, self.starts, self.counts = np.unique(self.anchors.label, return_index=True, return_counts=True)
