"""Several shard sets as one: what a source of several splits is read through."""

import operator
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import numpy as np

from semiseg.data.errors import DataError
from semiseg.data.format.manifest import canonical, sha256
from semiseg.data.order.uniform import Anchors
from semiseg.data.read.shard_set import Members, Sample, ShardSet
from semiseg.data.taxonomy import RawSpace, Taxonomy


class Pool:
    """Several sets of one raw space, read as one: the samples of the first set, then those of the second, and so on."""

    def __init__(self, sets: Sequence[ShardSet]) -> None:
        if not sets:
            raise DataError("a pool needs at least one set of shards")
        for other in sets[1:]:
            if other.raw_space != sets[0].raw_space:
                raise DataError(
                    f"{other.url} has labels of raw space '{other.raw_space.name}', {sets[0].url} of "
                    f"'{sets[0].raw_space.name}': ids of one mean nothing in the other, pool sets of one raw space"
                )
        self.sets = tuple(sets)
        self.shard_sizes = tuple(size for each in sets for size in each.shard_sizes)
        self._stops = list(accumulate(len(each) for each in sets))

    @property
    def url(self) -> str:
        return " + ".join(each.url for each in self.sets)

    @property
    def digest(self) -> str:
        """That of the only set, or one that follows from those of all sets in their order."""
        digests = [each.digest for each in self.sets]
        return digests[0] if len(digests) == 1 else sha256(canonical(digests))

    @property
    def raw_space(self) -> RawSpace:
        return self.sets[0].raw_space

    @property
    def taxonomies(self) -> tuple[Taxonomy, ...]:
        """Those that were written with its sets, each name once; DataError where two sets disagree on one."""
        found: dict[str, tuple[Taxonomy, ShardSet]] = {}
        for each in self.sets:
            for taxonomy in each.taxonomies:
                other, owner = found.setdefault(taxonomy.name, (taxonomy, each))
                if other != taxonomy:
                    raise DataError(
                        f"{owner.url} and {each.url} have other classes or colours in taxonomy '{taxonomy.name}': "
                        f"run `semiseg data shard` again for both, which rewrites their manifests"
                    )
        return tuple(taxonomy for taxonomy, _ in found.values())

    def taxonomy(self, name: str) -> Taxonomy:
        """As `ShardSet.taxonomy`."""
        return Taxonomy.get(name, self.taxonomies)

    @property
    def labeled(self) -> bool:
        """Whether every sample has a label."""
        return all(each.labeled for each in self.sets)

    def __len__(self) -> int:
        return self._stops[-1]

    def __getitem__(self, number: int) -> Sample:
        return self.read(number)

    def read(self, number: int, *, label: bool = True) -> Sample:
        """As `ShardSet.read`."""
        chosen, inner = self._locate(number)
        return chosen.read(inner, label=label)

    def __iter__(self) -> Iterator[Sample]:
        return (sample for each in self.sets for sample in each)

    def raw(self, number: int) -> Members:
        """As `ShardSet.raw`."""
        chosen, inner = self._locate(number)
        return chosen.raw(inner)

    def ahead(self, shards: Iterable[int]) -> None:
        """As `ShardSet.ahead`; shards are numbered through the sets."""
        numbers, first = list(shards), 0
        for each in self.sets:
            mine = [number - first for number in numbers if 0 <= number - first < len(each.shard_sizes)]
            each.ahead(mine)
            first += len(each.shard_sizes)

    def keys(self) -> list[str]:
        return [key for each in self.sets for key in each.keys()]  # noqa: SIM118 (no mapping)

    def sizes(self) -> np.ndarray:
        return np.concatenate([each.sizes() for each in self.sets])

    def flags(self) -> list[tuple[str, ...]]:
        return [found for each in self.sets for found in each.flags()]

    def tags(self) -> list[tuple[str, ...]]:
        return [found for each in self.sets for found in each.tags()]

    def class_pixels(self, taxonomy: Taxonomy) -> np.ndarray:
        return np.concatenate([each.class_pixels(taxonomy) for each in self.sets])

    def anchors(self, taxonomy: Taxonomy) -> Anchors:
        """As `ShardSet.anchors`."""
        first, found = 0, []
        for each in self.sets:
            found.append(each.anchors(taxonomy).of_next_set(first))
            first += len(each)
        return sum(found[1:], found[0])

    def check(self, taxonomy: Taxonomy) -> None:
        for each in self.sets:
            each.check(taxonomy)

    def _locate(self, number: int) -> tuple[ShardSet, int]:
        position = operator.index(number)
        if position < 0:
            position += len(self)
        if not 0 <= position < len(self):
            raise IndexError(f"sample {number} of {len(self)} in {self.url}")
        chosen = bisect_right(self._stops, position)
        return self.sets[chosen], position - self._stops[chosen] + len(self.sets[chosen])
