"""Read several shard sets as one, for a source with several splits."""

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
    """Several sets of one raw space as one: the samples of the first set, then those of the second, and so on."""

    def __init__(self, sets: Sequence[ShardSet]) -> None:
        if not sets:
            raise DataError("a pool needs at least one set of shards")
        for other in sets[1:]:
            if other.raw_space != sets[0].raw_space:
                raise DataError(
                    f"{other.url} has labels of raw space '{other.raw_space.name}', {sets[0].url} of "
                    f"'{sets[0].raw_space.name}', and their ids have different meanings; pool sets of one raw space"
                )
        self.sets = tuple(sets)
        self.shard_sizes = tuple(size for shards in sets for size in shards.shard_sizes)
        self._stops = list(accumulate(map(len, sets)))

    @property
    def url(self) -> str:
        return " + ".join(shards.url for shards in self.sets)

    @property
    def digest(self) -> str:
        """The digest of the only set, or a hash of those of all sets in their order."""
        digests = [shards.digest for shards in self.sets]
        return digests[0] if len(digests) == 1 else sha256(canonical(digests))

    @property
    def raw_space(self) -> RawSpace:
        return self.sets[0].raw_space

    @property
    def taxonomies(self) -> tuple[Taxonomy, ...]:
        """Taxonomies that were written with the sets, by unique names; DataError if two sets differ in one."""
        found: dict[str, tuple[Taxonomy, ShardSet]] = {}
        for shards in self.sets:
            for taxonomy in shards.taxonomies:
                other, owner = found.setdefault(taxonomy.name, (taxonomy, shards))
                if other != taxonomy:
                    raise DataError(
                        f"{owner.url} and {shards.url} have different classes or colours in taxonomy '{taxonomy.name}': "
                        f"run `semiseg data shard` again for both, which rewrites their manifests"
                    )
        return tuple(taxonomy for taxonomy, _ in found.values())

    def taxonomy(self, name: str) -> Taxonomy:
        """As `ShardSet.taxonomy`."""
        return Taxonomy.get(name, self.taxonomies)

    @property
    def labeled(self) -> bool:
        """Whether every sample has a label."""
        return all(shards.labeled for shards in self.sets)

    def __len__(self) -> int:
        return self._stops[-1]

    def __getitem__(self, number: int) -> Sample:
        return self.read(number)

    def read(self, number: int, *, label: bool = True) -> Sample:
        """As `ShardSet.read`."""
        chosen, inner = self._locate(number)
        return chosen.read(inner, label=label)

    def __iter__(self) -> Iterator[Sample]:
        return (sample for shards in self.sets for sample in shards)

    def raw(self, number: int) -> Members:
        """As `ShardSet.raw`."""
        chosen, inner = self._locate(number)
        return chosen.raw(inner)

    def ahead(self, shards: Iterable[int]) -> None:
        """As `ShardSet.ahead`; shards are numbered through the sets."""
        numbers, first = list(shards), 0
        for chosen in self.sets:
            chosen.ahead([number - first for number in numbers if 0 <= number - first < len(chosen.shard_sizes)])
            first += len(chosen.shard_sizes)

    def keys(self) -> list[str]:
        return [key for shards in self.sets for key in shards.keys()]  # noqa: SIM118 (no mapping)

    def sizes(self) -> np.ndarray:
        return np.concatenate([shards.sizes() for shards in self.sets])

    def image_checksums(self) -> np.ndarray:
        """As `ShardSet.image_checksums`."""
        return np.concatenate([shards.image_checksums() for shards in self.sets])

    def flags(self) -> list[tuple[str, ...]]:
        return [flags for shards in self.sets for flags in shards.flags()]

    def tags(self) -> list[tuple[str, ...]]:
        return [tags for shards in self.sets for tags in shards.tags()]

    def class_pixels(self, taxonomy: Taxonomy) -> np.ndarray:
        return np.concatenate([shards.class_pixels(taxonomy) for shards in self.sets])

    def anchors(self, taxonomy: Taxonomy) -> Anchors:
        """As `ShardSet.anchors`."""
        first, found = 0, []
        for shards in self.sets:
            found.append(shards.anchors(taxonomy).of_next_set(first))
            first += len(shards)
        return sum(found[1:], found[0])

    def check(self, taxonomy: Taxonomy) -> None:
        for shards in self.sets:
            shards.check(taxonomy)

    def _locate(self, number: int) -> tuple[ShardSet, int]:
        position = operator.index(number)
        if position < 0:
            position += len(self)
        if not 0 <= position < len(self):
            raise IndexError(f"sample {number} of {len(self)} in {self.url}")
        chosen = bisect_right(self._stops, position)
        return self.sets[chosen], position - self._stops[chosen] + len(self.sets[chosen])
