"""Pseudo-labels from class activation maps: two thresholds and a refinement (CCT section 3.3).

A taxonomy may have a background, the class of all pixels outside its objects, which no tag names (VOC's class 0). Others
have none: in a street, every pixel has a class. Without a background, the low threshold is not used, and a pixel without
a clear class is ignored.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from semiseg.methods.choices import check_choice
from semiseg.methods.losses import IGNORE

RULES = ("paper", "released")
Refine = Callable[[Tensor, int], Tensor]
"""(labels [h, w] of 0..count-1 or 255 = unknown, count) -> better labels [h, w], each of 0..count-1.

With a dense CRF of one image: `lambda labels, count: crf.refine(labels[None], count)[0]`.
"""


def pseudo_labels(
    maps: Tensor,
    classes: Sequence[int],
    *,
    background: int | None,
    rule: str = "paper",
    low: float = 0.05,
    high: float = 0.30,
    refine: Refine | None = None,
) -> Tensor:
    """Class ids [h, w], uint8, 255 = ignore, of one image.

    maps: [k, h, w] in 0..1 (`class_activation_maps`) of the image's own classes, whose ids are `classes`, without the
    background. background: its id, or None where the taxonomy has none.
    rule "paper": background where all maps are below `low`; the best class where its map is above `high`; ignored
    elsewhere. Then `refine`, to which ignored pixels are unknown, so they take the label that fits (the paper does not
    say how they are treated).
    rule "released", the authors' code: foreground = refine(argmax of [high, maps]), certain = refine(argmax of [low,
    maps]); the class where the foreground has one, background where neither has one, ignored where only the second has.
    Without a background: "paper" without its first clause; "released" the foreground's class, or ignored.
    """
    check_choice("pseudo_labels(rule=...)", rule, RULES)
    if maps.ndim != 3 or len(maps) != len(classes):
        raise ValueError(
            f"maps of shape {list(maps.shape)} for {len(classes)} classes: expected [{len(classes)}, h, w]"
        )
    if background in classes:
        raise ValueError(f"classes {list(classes)} contain the background {background}, which has no map: leave it out")
    if not 0 <= low <= high:
        raise ValueError(f"pseudo_labels(low={low}, high={high}): expected 0 <= low <= high")
    if rule == "paper":
        return _by_paper(maps, classes, background, low, high, refine)
    rest = IGNORE if background is None else background
    ids = torch.tensor([rest, *classes], dtype=torch.uint8, device=maps.device)
    foreground = _above(maps, high, refine)
    labels = ids[foreground]
    if background is not None:
        labels[(foreground == 0) & (_above(maps, low, refine) != 0)] = IGNORE
    return labels


def _by_paper(
    maps: Tensor, classes: Sequence[int], background: int | None, low: float, high: float, refine: Refine | None
) -> Tensor:
    ids = [*classes] if background is None else [background, *classes]
    labels = torch.full(maps.shape[1:], IGNORE, dtype=torch.uint8, device=maps.device)
    if not ids:
        return labels
    first = len(ids) - len(classes)
    if classes:
        score, best = maps.max(0)
        labels = labels.where(score <= high, (best + first).byte())
    if background is not None:
        labels[(maps < low).all(0)] = 0
    if refine is not None:
        labels = refine(labels, len(ids))
    return _with_ids(labels, ids)


def _above(maps: Tensor, threshold: float, refine: Refine | None) -> Tensor:
    """The refined argmax of [threshold, maps]: [h, w] of 0..k."""
    labels = torch.cat([maps.new_full((1, *maps.shape[1:]), threshold), maps]).argmax(0)
    return labels if refine is None else refine(labels, len(maps) + 1).long()


def _with_ids(labels: Tensor, ids: Sequence[int]) -> Tensor:
    """Indices into `ids` as ids; 255 stays."""
    table = torch.full((256,), IGNORE, dtype=torch.uint8, device=labels.device)
    table[: len(ids)] = torch.tensor(ids, dtype=torch.uint8)
    return table[labels.long()]
