"""The order of training: an endless, random, reproducible sequence of samples, a pure function of seed and shards.

Every epoch has a separate permutation: the shards are permuted, then the samples within each `window` of consecutive
shards. So a reader touches few shards at a time, and any position costs one window to compute. There is no state: rank r
of w takes `share(g * B, (g + 1) * B, r, w)` in step g, and a run resumes from its step number alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from semiseg.data.errors import DataError
from semiseg.data.keyed import permutation

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample at one position of the order.

    sample    index into the shard set
    epoch     how often every sample was drawn before
    position  in the endless order; epoch = position // samples per epoch
    anchor    a pixel (row, column) that the crop must contain, or None
    """

    sample: int
    epoch: int
    position: int
    anchor: tuple[int, int] | None = None


class Ordered(Protocol):
    """What a plan needs from a shard set: data from its manifest, no index."""

    @property
    def digest(self) -> str:
        """Identifies the contents."""
        ...

    @property
    def shard_sizes(self) -> Sequence[int]:
        """Samples in each shard; they are numbered through the shards in this order."""
        ...


class Plan:
    """An endless order over the samples of a shard set, or over a subset of them.

    shards  a ShardSet, a Pool, or anything else with a digest and shard sizes
    seed    any integer
    window  number of shards whose samples are mixed; a larger window mixes better, with more shards open at a time
    subset  indices of the samples to draw (each once, in any order); None draws all

    `len(plan)` is the number of samples per epoch. Raises DataError if there is nothing to draw, and for an index that is
    out of range or twice in the subset.
    """

    def __init__(self, shards: Ordered, seed: int, *, window: int = 8, subset: npt.ArrayLike | None = None) -> None:
        if window < 1:
            raise DataError(f"a plan's window is {window} shards; it must be at least 1")
        self.seed = seed
        self.window = window
        self._digest = shards.digest
        ends = np.cumsum(np.asarray(shards.shard_sizes, np.int64), dtype=np.int64)
        self._members = None if subset is None else _members(subset, int(ends[-1]) if len(ends) else 0)
        if self._members is not None:
            ends = np.searchsorted(self._members, ends)
        starts = np.concatenate([[0], ends])[:-1]
        kept = ends > starts  # shards without samples of the subset would make windows uneven
        self._numbers = np.flatnonzero(kept)
        self._starts, self._sizes = starts[kept], (ends - starts)[kept]
        self._samples = int(self._sizes.sum())
        if self._samples == 0:
            raise DataError("there is nothing to draw: the shards have no samples")
        self._epochs: dict[int, _Epoch] = {}
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    @property
    def digest(self) -> str:
        """The digest of the shards."""
        return self._digest

    def __len__(self) -> int:
        return self._samples

    def draws(self, start: int, stop: int) -> list[Draw]:
        """The draws at positions start <= p < stop of the endless order; computes only the windows that they are in."""
        if not 0 <= start <= stop:
            raise DataError(f"positions {start} to {stop} are not a range of the order, which starts at 0")
        draws: list[Draw] = []
        while start < stop:
            number, within = divmod(start, self._samples)
            epoch = self._epoch(number)
            block = int(np.searchsorted(epoch.ends, within, side="right"))
            order = self._order(number, block)
            first = within - (int(epoch.ends[block]) - len(order))
            taken = order[first : first + stop - start].tolist()
            draws += [Draw(sample, number, position) for position, sample in enumerate(taken, start)]
            start += len(taken)
        return draws

    def upcoming(self, position: int) -> list[int]:
        """The shards to fetch at a position: those of its window, then those of the next one; numbers in the shard set."""
        number, within = divmod(position, self._samples)
        epoch = self._epoch(number)
        first = int(np.searchsorted(epoch.ends, within, side="right")) * self.window
        shards = epoch.shards[first : first + 2 * self.window]
        if first + self.window >= len(epoch.shards):
            shards = np.concatenate([shards, self._epoch(number + 1).shards[: self.window]])
        return list(dict.fromkeys(self._numbers[shards].tolist()))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_epochs": {}, "_orders": {}}

    def _epoch(self, number: int) -> "_Epoch":
        return _remembered(self._epochs, number, lambda: self._shuffled_shards(number))

    def _order(self, epoch: int, block: int) -> np.ndarray:
        return _remembered(self._orders, (epoch, block), lambda: self._shuffled_samples(epoch, block))

    def _shuffled_shards(self, epoch: int) -> "_Epoch":
        shards = permutation(len(self._sizes), "shards", self.seed, self._digest, epoch)
        lasts = np.minimum(np.arange(self.window, len(shards) + self.window, self.window), len(shards)) - 1
        return _Epoch(shards, np.cumsum(self._sizes[shards])[lasts])

    def _shuffled_samples(self, epoch: int, block: int) -> np.ndarray:
        shards = self._epoch(epoch).shards[block * self.window : (block + 1) * self.window]
        stretches = [
            np.arange(size) + start for start, size in zip(self._starts[shards], self._sizes[shards], strict=True)
        ]
        places = np.concatenate(stretches)
        places = places[permutation(len(places), "window", self.seed, self._digest, epoch, block)]
        return places if self._members is None else self._members[places]


class _Epoch(NamedTuple):
    """One epoch: the shards in order, and the position at which each block of them ends."""

    shards: np.ndarray
    ends: np.ndarray


def _remembered(kept: dict[Key, Value], key: Key, make: Callable[[], Value]) -> Value:
    """A value that is computed once and kept; the last four are kept, since reading moves forward."""
    value = kept.get(key)
    if value is None:
        value = make()
        while len(kept) >= 4:
            kept.pop(next(iter(kept)), None)
        kept[key] = value
    return value


def _members(subset: npt.ArrayLike, samples: int) -> np.ndarray:
    """The subset's indices, sorted and checked."""
    members = np.sort(np.asarray(subset).ravel())
    if len(members) == 0:
        raise DataError("the subset is empty; a plan needs at least one sample")
    if members.dtype.kind not in "ui":
        raise DataError(f"the subset has {members.dtype} values; give integer indices of samples")
    strange = members[(members < 0) | (members >= samples)]
    if len(strange):
        raise DataError(
            f"the subset's index {strange[0]} is out of range: there are {samples} samples, 0..{samples - 1}"
        )
    twice = members[1:][members[1:] == members[:-1]]
    if len(twice):
        raise DataError(f"the subset has index {twice[0]} twice; give each sample once")
    return members.astype(np.int64)
