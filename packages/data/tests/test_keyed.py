"""Keyed randomness: its values never change, they look random, and no order depends on methods of numpy."""

import hashlib
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semiseg.data import generator, key64, permutation

# Changing any of these changes every order, crop and loss of every run: don't.
GOLDEN_KEYS = {
    (): 596224435143451906,
    ("",): 4024403531972015497,
    (0,): 1328243345109825529,
    ("window", -3, "digest", 12, 7): 4086841149829639057,
    ("subset", 0, "0001TP_006690"): 7778671454975458749,
    ("Straße", 10**30): 224836901184467611,
}
GOLDEN_ORDER = [0, 6, 7, 10, 5, 8, 4, 11, 3, 1, 9, 2]
GOLDEN_WORDS = [11413470509303697094, 4959422928531866212, 850973227200724781]

parts = st.lists(st.one_of(st.text(max_size=4), st.integers(-3, 30)), max_size=4).map(tuple)


@pytest.mark.parametrize("key", GOLDEN_KEYS)
def test_keys_never_change(key):
    assert key64(*key) == GOLDEN_KEYS[key]


def test_orders_and_streams_never_change():
    assert permutation(12, "shards", 0, "digest", 0).tolist() == GOLDEN_ORDER
    assert generator("crop", 1, 2).bit_generator.random_raw(3).tolist() == GOLDEN_WORDS


@given(parts)
def test_a_key_is_63_bits_of_blake2b_over_parts_with_kind_and_length(key):
    encoded = b""
    for part in key:
        text = str(part).encode()
        encoded += (b"s" if isinstance(part, str) else b"i") + str(len(text)).encode() + b":" + text
    word = hashlib.blake2b(encoded, digest_size=16, person=b"key64").digest()[:8]
    assert key64(*key) == int.from_bytes(word, "big") // 2


@given(parts, parts)
def test_keys_that_differ_hash_differently(one, other):
    same = one == other and [type(part) for part in one] == [type(part) for part in other]
    assert (key64(*one) == key64(*other)) == same


def test_a_numpy_integer_is_its_number_and_a_float_is_refused():
    assert key64("a", np.int32(5)) == key64("a", 5)
    with pytest.raises(TypeError):
        key64("a", 0.5)  # pyright: ignore[reportArgumentType]


def test_an_order_sorts_the_published_philox_words():
    key = int.from_bytes(hashlib.blake2b(b"s1:xi1:7", digest_size=16, person=b"permutation").digest(), "big")
    words = philox_4x64_10(key, 1000)
    assert permutation(1000, "x", 7).tolist() == sorted(range(1000), key=lambda i: words[i])


def test_an_order_asks_nothing_of_numpys_generator(monkeypatch):
    monkeypatch.delattr(np.random, "Generator")
    assert permutation(12, "shards", 0, "digest", 0).tolist() == GOLDEN_ORDER


@given(st.integers(0, 200), parts)
def test_a_permutation_contains_every_number_once(n, key):
    order = permutation(n, *key)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))


def test_all_24_orders_of_four_are_equally_likely():
    draws = 4800
    counts = Counter(tuple(permutation(4, "uniform", i).tolist()) for i in range(draws))
    chi_square = sum((counts[order] - draws / 24) ** 2 / (draws / 24) for order in permutations(range(4)))
    assert chi_square < 49.73  # the 99.9 % quantile for 23 degrees of freedom


def test_neighbouring_keys_are_uncorrelated():
    streams = np.array([generator("noise", i).standard_normal(4096) for i in range(8)])
    correlations = streams @ streams.T / 4096
    off_diagonal = correlations[np.triu_indices(8, 1)]
    assert np.abs(off_diagonal).max() < 4.5 / np.sqrt(4096)
    bits = np.array([[key64("bits", i) >> b & 1 for b in range(63)] for i in range(4096)])
    assert np.abs(bits.mean(0) - 0.5).max() < 4.5 * 0.5 / np.sqrt(4096)


def philox_4x64_10(key: int, n: int) -> list[int]:
    """Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", in plain integers; numpy counts from 1."""
    mask = 2**64 - 1
    words: list[int] = []
    for count in range(1, -(-n // 4) + 1):
        x, k = [count, 0, 0, 0], [key & mask, key >> 64]
        for _ in range(10):
            a, b = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
            x = [(b >> 64) ^ x[1] ^ k[0], b & mask, (a >> 64) ^ x[3] ^ k[1], a & mask]
            k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
        words += x
    return words[:n]
