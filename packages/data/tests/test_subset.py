"""Subsets: nested, with every class if the count allows, and independent of the layout of the shards."""

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from semiseg.data import DataError, RawSpace, Taxonomy, by_keys, digest_of, key64, sequence, stratified


class Shards:
    """Keys and class pixels, as in a shard set."""

    def __init__(self, keys, pixels):
        self._keys, self._pixels = list(keys), np.asarray(pixels, np.int64)

    def keys(self):
        return self._keys

    def class_pixels(self, taxonomy):
        assert len(taxonomy.names) == self._pixels.shape[1]
        return self._pixels


def classes(n):
    return Taxonomy(
        name=f"plain-{n}",
        raw=RawSpace(name=f"plain-{n}", names={i: str(i) for i in range(n)}),
        names=tuple(map(str, range(n))),
        colours=((0, 0, 0),) * n,
        ids={i: i for i in range(n)},
        foreground=frozenset(),
    )


def reference(keys, pixels, seed):
    """The rule, word for word, in sets and fractions."""
    n, all_classes = len(keys), range(pixels.shape[1])
    holding = {c: {i for i in range(n) if pixels[i, c] > 0} for c in all_classes}
    chosen = []

    def luckiest(images):
        return min(images, key=lambda i: (key64("subset", seed, keys[i]), keys[i]))

    while True:
        uncovered = [c for c in all_classes if holding[c] and not holding[c] & set(chosen)]
        if not uncovered:
            break
        rarest = min(uncovered, key=lambda c: (len(holding[c]), c))
        chosen.append(luckiest(holding[rarest] - set(chosen)))
    while len(chosen) < n:
        left = set(range(n)) - set(chosen)
        deficits = {
            c: Fraction(len(holding[c]), n) * (len(chosen) + 1) - len(holding[c] & set(chosen))
            for c in all_classes
            if holding[c] & left
        }
        lagging = [c for c, deficit in deficits.items() if deficit > 0]
        worst = min(lagging, key=lambda c: (-deficits[c], c)) if lagging else None
        chosen.append(luckiest(left if worst is None else holding[worst] & left))
    return chosen


@st.composite
def sets(draw):
    """(keys, pixels, seed), with rare classes, absent classes and images without any."""
    n, c = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    pixels = draw(arrays(np.int64, (n, c), elements=st.sampled_from([0, 0, 0, 1, 900])))
    return [f"k{i}" for i in range(n)], pixels, draw(st.integers(-2, 9))


@given(sets())
def test_the_sequence_is_its_rule(made):
    keys, pixels, seed = made
    assert sequence(Shards(keys, pixels), classes(pixels.shape[1]), seed) == reference(keys, pixels, seed)


@given(sets())
def test_subsets_are_nested_and_cover_every_class_first(made):
    keys, pixels, seed = made
    shards, taxonomy = Shards(keys, pixels), classes(pixels.shape[1])
    order = sequence(shards, taxonomy, seed)
    occurring = set(np.flatnonzero(pixels.sum(0)).tolist())
    for count in range(1, len(keys) + 1):
        subset = stratified(shards, taxonomy, count, seed)
        assert subset.dtype == np.int64
        assert subset.tolist() == sorted(order[:count])
        if count >= len(occurring):
            assert set(np.flatnonzero(pixels[subset].sum(0)).tolist()) == occurring


@given(sets(), st.randoms())
def test_the_order_of_the_shards_does_not_matter(made, random):
    keys, pixels, seed = made
    taxonomy, mixed = classes(pixels.shape[1]), list(range(len(keys)))
    random.shuffle(mixed)
    other = Shards([keys[i] for i in mixed], pixels[mixed])
    straight = [keys[i] for i in sequence(Shards(keys, pixels), taxonomy, seed)]
    assert [other.keys()[i] for i in sequence(other, taxonomy, seed)] == straight


def test_the_choice_never_changes():
    # Changing it changes which images every few-label run learns from: don't.
    random = np.random.Generator(np.random.Philox(key=0))
    pixels = random.bit_generator.random_raw(30 * 6).reshape(30, 6) % np.array([2, 2, 3, 5, 9, 15], np.uint64) == 1
    shards = Shards([f"image-{i:02}" for i in range(30)], pixels)
    assert stratified(shards, classes(6), 8, seed=0).tolist() == [1, 2, 3, 7, 9, 13, 14, 26]
    assert stratified(shards, classes(6), 8, seed=1).tolist() == [11, 15, 16, 17, 18, 20, 21, 29]


def test_a_subset_has_the_class_frequencies_of_all_samples():
    random = np.random.default_rng(0)
    pixels = random.random((2000, 12)) < np.linspace(0.02, 0.9, 12)
    subset = stratified(Shards([f"k{i}" for i in range(2000)], pixels), classes(12), 200, seed=0)
    counts, fair = pixels[subset].sum(0), pixels.mean(0) * 200
    assert np.all(counts > fair - 2)  # some lag by chance's 2 * sqrt(200 * 0.25) = 14
    assert np.all(counts < fair + 15)


def test_a_count_that_does_not_exist_is_refused():
    shards = Shards(["a", "b"], [[1], [1]])
    for count in (0, 3):
        with pytest.raises(DataError, match=f"a subset of {count} of 2 samples"):
            stratified(shards, classes(1), count, 0)


def test_samples_are_found_by_key():
    shards = Shards(["b", "a", "c"], [[1]] * 3)
    assert by_keys(shards, ["c", "b"]).tolist() == [0, 2]
    assert by_keys(shards, iter(["a"])).dtype == np.int64
    assert by_keys(shards, []).tolist() == []


def test_unknown_and_repeated_keys_are_named():
    shards = Shards(["0001TP_006690", "0001TP_006720", "twin", "twin"], [[1]] * 4)
    with pytest.raises(
        DataError, match=r"4 of 5 keys are not among the 4 samples: '0001TP_06690', .*\.\.\.; nearest to"
    ):
        by_keys(shards, ["0001TP_06690", "x", "twin", "y", "z"])
    with pytest.raises(DataError, match="nearest to '0001TP_06690' is '0001TP_006690'"):
        by_keys(shards, ["0001TP_06690"])
    with pytest.raises(DataError, match="1 keys are given more than once, such as '0001TP_006720'"):
        by_keys(shards, ["0001TP_006720"] * 2)
    with pytest.raises(DataError, match="1 keys are in the shards more than once, such as 'twin'"):
        by_keys(shards, ["twin"])
    assert by_keys(shards, ["0001TP_006720"]).tolist() == [1]


def test_a_digest_names_a_set_of_keys():
    assert digest_of(["b", "a"]) == hashlib.sha256(b"a\nb").hexdigest() == digest_of(iter("ab"))
    assert digest_of(["ab"]) != digest_of(["a", "b"])
