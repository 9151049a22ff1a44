"""Choose the samples to label: small nested subsets that contain every class, independent of the layout of the shards.

The subsets are prefixes of one sequence of all samples, so the 20 samples are among the 50, and these among the 100. A
sample's luck is a hash of its key, so neither the layout nor the order of the shards matters.
"""

import difflib
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from semiseg.data.errors import DataError
from semiseg.data.keyed import key64
from semiseg.data.taxonomy import Taxonomy


class Keyed(Protocol):
    """Anything whose samples have keys."""

    def keys(self) -> Sequence[str]:
        """The samples' keys, in the order of their indices."""
        ...


class Counted(Keyed, Protocol):
    """A shard set or a pool: keys, and the pixels of each class in every sample."""

    def class_pixels(self, taxonomy: Taxonomy) -> np.ndarray:
        """Pixels, int64 [samples, classes]."""
        ...


def stratified(shards: Counted, taxonomy: Taxonomy, count: int, seed: int) -> np.ndarray:
    """Choose `count` samples that represent the classes: sorted int64 indices.

    A smaller count gives a subset of those of a larger one, and contains every class that occurs as soon as the count
    allows. Raises DataError if there are fewer samples. See `sequence` for the rule.
    """
    samples = len(shards.keys())
    if not 1 <= count <= samples:
        raise DataError(f"a subset of {count} of {samples} samples can't be chosen; choose 1 to {samples}")
    return np.sort(np.array(_choose(shards, taxonomy, seed, count), np.int64))


def sequence(shards: Counted, taxonomy: Taxonomy, seed: int) -> list[int]:
    """All samples' indices in the order in which subsets take them.

    First, while a class is not covered, the rarest such class (in the fewest images) gets its luckiest image. Then, at each
    step, the class with the largest deficit gets its luckiest remaining image; the deficit is its share of all images, times
    one more than the number chosen so far, minus its images among those. If no class has a deficit, the luckiest image
    follows. Lower class ids win ties.
    """
    return _choose(shards, taxonomy, seed, len(shards.keys()))


def by_keys(shards: Keyed, keys: Iterable[str]) -> np.ndarray:
    """The samples with these keys, as sorted int64 indices; DataError for unknown, repeated or ambiguous keys."""
    wanted, known = list(keys), list(shards.keys())
    index = {key: i for i, key in enumerate(known)}
    missing = [key for key in wanted if key not in index]
    if missing:
        close = difflib.get_close_matches(missing[0], known, n=1, cutoff=0)
        guess = f"; nearest to '{missing[0]}' is '{close[0]}'" if close else ""
        named = ", ".join(f"'{key}'" for key in missing[:3]) + ", ..." * (len(missing) > 3)
        raise DataError(f"{len(missing)} of {len(wanted)} keys are not among the {len(known)} samples: {named}{guess}")
    _refuse_twice(wanted, "given")
    if len(index) < len(known):
        _refuse_twice([key for key in known if key in set(wanted)], "in the shards")
    return np.sort(np.array([index[key] for key in wanted], np.int64))


def digest_of(keys: Iterable[str]) -> str:
    """A name for a set of samples: sha256 (hex) of the sorted keys, one per line; independent of their order."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()


def _choose(shards: Counted, taxonomy: Taxonomy, seed: int, count: int) -> list[int]:
    keys = shards.keys()
    lucky = sorted(range(len(keys)), key=lambda i: (key64("subset", seed, keys[i]), keys[i]))
    # From here on, an image is its index in `lucky`: the luckiest is the lowest, and the shards' order plays no role.
    present = (np.asarray(shards.class_pixels(taxonomy)) > 0)[lucky]
    images = present.sum(0, dtype=np.int64)
    queues = [_Queue(np.flatnonzero(column).tolist()) for column in present.T]
    everything = _Queue(range(len(lucky)))
    taken = bytearray(len(lucky))
    held = np.zeros_like(images)
    order: list[int] = []

    def take(image: int) -> None:
        taken[image] = True
        np.add(held, present[image], out=held)
        order.append(image)

    for number in sorted(np.flatnonzero(images), key=lambda c: (images[c], c)):
        if held[number] == 0 and len(order) < count:
            take(queues[number].first(taken))

    while len(order) < count:
        deficit = images * (len(order) + 1) - held * len(lucky)  # times the number of images: exact in integers
        deficit[held == images] = -1
        worst = int(deficit.argmax()) if len(deficit) else 0
        take((queues[worst] if deficit[worst] > 0 else everything).first(taken))
    return [lucky[image] for image in order]


class _Queue:
    """Images in order of luck, some of which were taken by other queues."""

    def __init__(self, images: Sequence[int]) -> None:
        self._images = images
        self._next = 0

    def first(self, taken: bytearray) -> int:
        while taken[self._images[self._next]]:
            self._next += 1
        return self._images[self._next]


def _refuse_twice(keys: list[str], where: str) -> None:
    twice = [key for key, times in Counter(keys).items() if times > 1]
    if twice:
        raise DataError(
            f"{len(twice)} keys are {where} more than once, such as '{twice[0]}'; a key must name one sample"
        )
