"""Randomness as a pure function of a key: the same in every process and in any order of calls.

A key is any number of strings and integers, such as ("window", seed, digest, epoch, block). Its hash (BLAKE2b, 128
bits) keys a Philox stream, whose words are part of its published definition. All losses of all runs depend on these three
functions, so tests pin their values, which never change.
"""

import hashlib
import operator
from typing import SupportsIndex

import numpy as np


def key64(*parts: str | SupportsIndex) -> int:
    """A number 0 <= k < 2**63 for a key: a seed for other generators, or a priority to sort by."""
    return _digest("key64", parts) >> 65


def generator(*parts: str | SupportsIndex) -> np.random.Generator:
    """A generator for a key: equal keys give equal streams, different keys independent ones.

    The raw words are the same in every version of numpy, but the results of `Generator`'s methods may change (NEP 19); use
    `permutation` for an order that must not.
    """
    return np.random.Generator(np.random.Philox(key=_digest("generator", parts)))


def permutation(n: int, *parts: str | SupportsIndex) -> np.ndarray:
    """A uniform permutation of range(n) for a key, int64 [n]: the stable argsort of n raw Philox words."""
    words = np.random.Philox(key=_digest("permutation", parts)).random_raw(n)
    return np.argsort(words, kind="stable").astype(np.int64, copy=False)


def _digest(purpose: str, parts: tuple[str | SupportsIndex, ...]) -> int:
    """128 bits of a key. A part carries its kind and length, so ("1",) and (1,), ("ab", "c") and ("a", "bc") differ."""
    hashed = hashlib.blake2b(digest_size=16, person=purpose.encode())
    for part in parts:
        kind, text = ("s", part) if isinstance(part, str) else ("i", str(operator.index(part)))
        encoded = text.encode()
        hashed.update(f"{kind}{len(encoded)}:".encode() + encoded)
    return int.from_bytes(hashed.digest(), "big")
