"""Class-uniform sampling against plain counting."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from semiseg.data import DataError, Plan, Pool, ShardSet
from semiseg.data.order.uniform import Anchors, ClassUniformPlan


class Sizes:
    digest = "d"
    shard_sizes = (7, 5, 9)


def some_anchors(seed: int = 0, classes: int = 6, count: int = 90) -> Anchors:
    random = np.random.default_rng(seed)
    label = np.sort(random.choice(classes, count, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2)))
    return Anchors(*(random.integers(0, 21, count) if i != 1 else label for i in range(4)))


def test_anchors_are_the_centroids_of_classes_in_tiles(scenes: Path) -> None:
    street = ShardSet(scenes / "street" / "val")
    taxonomy = street.taxonomies[0]
    found = street.anchors(taxonomy)
    expected = set()
    for number, sample in enumerate(street):  # 64x48 pixels: one tile
        assert sample.label is not None
        ids = taxonomy.map(sample.label)
        for label in np.unique(ids[ids != taxonomy.ignore]).tolist():
            rows, columns = np.nonzero(ids == label)
            expected.add((number, label, int(rows.sum()) // len(rows), int(columns.sum()) // len(rows)))
    assert set(zip(*(values.tolist() for values in vars(found).values()), strict=True)) == expected
    assert len(found) == len(expected)
    pooled = Pool([street, street]).anchors(taxonomy)
    assert np.array_equal(pooled.sample, np.concatenate([found.sample, found.sample + len(street)]))


def test_raw_ids_of_one_class_and_tile_share_a_centroid() -> None:
    """Two raw ids of class 0 in tile 0, one in tile 1; sums of pixels, x and y."""
    sums = np.array([[2, 10, 4], [6, 30, 40], [5, 5, 5]])
    found = Anchors.merged(np.array([3, 3, 3]), np.array([0, 0, 1]), np.array([0, 0, 0]), sums)
    assert list(zip(found.row.tolist(), found.column.tolist(), strict=True)) == [(44 // 8, 40 // 8), (1, 1)]


@pytest.mark.parametrize("share", [0.5, 0.3, 1.0, 1 / 3])
def test_classes_come_equally_often_within_one_at_every_point(share: float) -> None:
    anchors = some_anchors()
    place = {
        (int(s), int(r), int(c)): int(k)
        for s, k, r, c in zip(anchors.sample, anchors.label, anchors.row, anchors.column, strict=True)
    }
    plan = ClassUniformPlan(Plan(Sizes(), 1), anchors, share=share)
    counts: Counter[int] = Counter(dict.fromkeys(plan.classes, 0))
    uniform = 0
    for position, draw in enumerate(plan.draws(0, 3000)):
        assert draw.position == position
        if draw.anchor is not None:
            uniform += 1
            counts[place[(draw.sample, *draw.anchor)]] += 1
        assert max(counts.values()) - min(counts.values()) <= 1
        assert abs(uniform - share * (position + 1)) < 1
    assert len(plan.classes) == 6


def test_every_class_uses_all_its_anchors_before_it_repeats_one() -> None:
    anchors = some_anchors()
    plan = ClassUniformPlan(Plan(Sizes(), 1), anchors, share=0.5)
    drawn = [draw for draw in plan.draws(0, 6000) if draw.anchor]
    for label in plan.classes:
        own = anchors.of_classes([label])
        places = list(zip(own.sample.tolist(), own.row.tolist(), own.column.tolist(), strict=True))
        taken = Counter((d.sample, *(d.anchor or ())) for d in drawn if (d.sample, *(d.anchor or ())) in places)
        assert set(taken) == set(places)


def test_the_plain_draws_are_the_plans_own() -> None:
    plan = Plan(Sizes(), 1)
    mixed = ClassUniformPlan(plan, some_anchors(), share=0.4)
    plain = [draw.sample for draw in mixed.draws(0, 500) if draw.anchor is None]
    assert plain == [draw.sample for draw in plan.draws(0, len(plain))]


def test_any_stretch_can_be_drawn_alone() -> None:
    """What a resumed run, another worker or another process draws."""
    anchors = some_anchors()
    whole = ClassUniformPlan(Plan(Sizes(), 1), anchors, share=0.35).draws(0, 400)
    for start, stop in ((0, 1), (17, 60), (399, 400), (123, 321), (50, 50)):
        assert ClassUniformPlan(Plan(Sizes(), 1), anchors, share=0.35).draws(start, stop) == whole[start:stop]


def test_later_anchors_take_over() -> None:
    anchors = some_anchors()
    first = anchors.of_samples(np.arange(10))
    plan = ClassUniformPlan(Plan(Sizes(), 1), anchors, share=1, until=200, later=first)
    draws = plan.draws(0, 400)
    assert any(draw.sample >= 10 for draw in draws[:200])
    assert all(draw.sample < 10 for draw in draws[200:])


def test_nothing_to_draw_and_wrong_shares_are_refused() -> None:
    with pytest.raises(DataError, match="nothing to draw"):
        ClassUniformPlan(Plan(Sizes(), 1), some_anchors().of_classes([]))
    with pytest.raises(DataError, match="above 0 and at most 1"):
        ClassUniformPlan(Plan(Sizes(), 1), some_anchors(), share=1.5)


def test_a_class_without_pixels_takes_no_turn(scenes: Path) -> None:
    street = ShardSet(scenes / "street" / "train")
    taxonomy = street.taxonomies[0]
    present = set(np.flatnonzero(street.class_pixels(taxonomy).sum(0)).tolist())
    plan = ClassUniformPlan(Plan(street, 0), street.anchors(taxonomy))
    assert set(plan.classes) == present
