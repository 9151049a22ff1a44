"""What the names of files have in common: the words that tell a mask from its image, usual or learnt from the folder."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from semiseg.datasets.folder.folders import (
    IMAGE_WORDS,
    INSTANCE_WORDS,
    MASK_WORDS,
    PREVIEW_WORDS,
    WEAK_IMAGE_WORDS,
    WEAK_MASK_WORDS,
    split_of,
    words,
)

_AFTER = re.compile(
    r"[-_. ](masks?|labels?|label_?ids|gt|seg(mentation)?|annot(ation)?s?|ground_?truth|l|images?|img|rgb|photo)$"
)
_BEFORE = re.compile(r"^(masks?|labels?|gt|seg|annot(ation)?|ground_?truth|images?|img|rgb|photo)[-_. ]")
_CUT = re.compile(r"(?=[-_. (])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])|(?<=[a-z])(?=[A-Z])")
_CUT_BEFORE = re.compile(r"(?<=[-_. ])|(?<=[^\W\d_])(?=\d)")
_LETTER = re.compile(r"[^\W\d_]")
_NUMBER = re.compile(
    r"(?<![^\W_])\d+(?![^\W_])"
)  # a word of digits alone: the number of a frame, not part of "_manual1"
_SHARED = 0.9  # of the images of a folder, which then have an affix in common

Affix = tuple[str, str]  # what precedes and follows the part of a name that image and mask share


@cache
def bare(stem: str) -> str:
    """A stem in lower case, without the words that distinguish an image from its mask."""
    stem = stem.lower()
    for pattern in (_AFTER, _BEFORE):
        stem = pattern.sub("", stem) or stem
    return stem


def affixes(stem: str) -> Iterator[Affix]:
    """Ways to take words off a stem, the shortest first: all in front or all at the end, never with a number."""
    for match in reversed(list(_CUT.finditer(stem))):
        if match.start() and _distinguishes(stem[match.start() :]):
            yield "", stem[match.start() :]
    for match in _CUT_BEFORE.finditer(stem):
        if match.start() < len(stem) and _distinguishes(stem[: match.start()]):
            yield stem[: match.start()], ""


def _distinguishes(text: str) -> bool:
    return bool(_LETTER.search(text)) and not _NUMBER.search(text)


def core(stem: str, affix: Affix) -> str:
    """The part of a stem that an image and its mask share, in lower case."""
    return stem[len(affix[0]) : len(stem) - len(affix[1])].lower()


def folded(affix: Affix) -> Affix:
    return affix[0].lower(), affix[1].lower()


def common_affix(stems: Sequence[str]) -> Affix:
    """What nearly all of the stems have in common at one end ("_training", "img_"), or nothing."""
    if len(stems) < 2:
        return "", ""
    counts = Counter(folded(affix) for stem in stems for affix in affixes(stem))
    shared = [affix for affix, count in counts.items() if count >= _SHARED * len(stems)]
    numbers = {re.sub(r".*(?=[-_. ]\d+$)", "", stem) for stem in stems}
    if len(numbers) == 1 and (number := numbers.pop()) not in stems:
        return "", number.lower()  # "x_0000": the number of a channel
    return max(shared, key=lambda affix: (len(affix[1]), len(affix[0])), default=("", ""))


def common_start(listed: Sequence[Any]) -> Any:
    """What texts or tuples have in common at their start."""
    first, last = min(listed), max(listed)
    end = next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return first[:end]


def is_of_mask(affix: Affix) -> bool:
    """Whether an affix has a word for a mask, or for a drawing of one."""
    found = _worded(affix)
    return bool((MASK_WORDS | WEAK_MASK_WORDS | PREVIEW_WORDS | INSTANCE_WORDS) & found) or affix[1].lower() in (
        "_l",
        "-l",
    )


def is_of_image(affix: Affix) -> bool:
    found = _worded(affix)
    return bool((IMAGE_WORDS | WEAK_IMAGE_WORDS) & found) or any(map(split_of, found))


def is_preview(texts: Iterable[str]) -> bool:
    """Whether names tell that masks are drawings for people, such as "_color"."""
    return any(PREVIEW_WORDS & set(words(text)) for text in texts)


def is_rgb(texts: Iterable[str]) -> bool:
    """Whether names tell that masks are coloured: of two kinds, those with ids are to be used."""
    return any({"rgb"} & set(words(text)) for text in texts)


def is_instances(texts: Iterable[str]) -> bool:
    """Whether names tell that masks hold objects, not classes, such as "_instanceIds"."""
    return any(INSTANCE_WORDS & _joined(text) for text in texts)


def _worded(affix: Affix) -> set[str]:
    return _joined(affix[0]) | _joined(affix[1])


def _joined(text: str) -> set[str]:
    found = words(text)
    return {*found, *(f"{first}{second}" for first, second in itertools.pairwise(found))}
