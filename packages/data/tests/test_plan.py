"""The order of training: every sample once per epoch, the same however it is cut, spread or resumed."""

import pickle
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.data import DataError, Draw, Plan, permutation, share


class Layout(NamedTuple):
    """What a plan needs from a shard set."""

    digest: str
    shard_sizes: tuple[int, ...]


def shards(sizes, digest="town"):
    return Layout(digest, tuple(sizes))


def reference(sizes, seed, window, subset, epochs, digest="town"):
    """The complete order, straight from its definition."""
    whole, first = [], 0
    for size in sizes:
        whole.append([i for i in range(first, first + size) if subset is None or i in subset])
        first += size
    whole = [members for members in whole if members]
    order = []
    for epoch in range(epochs):
        shuffled = [whole[i] for i in permutation(len(whole), "shards", seed, digest, epoch)]
        for block, begin in enumerate(range(0, len(shuffled), window)):
            together = [i for members in shuffled[begin : begin + window] for i in members]
            order += [(together[i], epoch) for i in permutation(len(together), "window", seed, digest, epoch, block)]
    return [Draw(sample, epoch, position) for position, (sample, epoch) in enumerate(order)]


@st.composite
def layouts(draw):
    """(sizes, seed, window, subset): any layout with samples."""
    sizes = draw(st.lists(st.integers(0, 7), min_size=1, max_size=9).filter(sum))
    subset = draw(st.none() | st.sets(st.integers(0, sum(sizes) - 1), min_size=1))
    return sizes, draw(st.integers(-5, 5)), draw(st.integers(1, 5)), subset


def plan_of(layout):
    sizes, seed, window, subset = layout
    return Plan(shards(sizes), seed, window=window, subset=None if subset is None else sorted(subset))


@given(layouts(), st.integers(1, 3))
def test_the_order_is_its_definition(layout, epochs):
    plan = plan_of(layout)
    assert plan.draws(0, epochs * len(plan)) == reference(*layout, epochs=epochs)


@given(layouts())
def test_upcoming_shards_are_those_of_this_window_and_the_next(layout):
    """Against windows found from the order itself: by when the shards are finished."""
    plan, (sizes, _, window, subset) = plan_of(layout), layout
    home = np.repeat(np.arange(len(sizes)), sizes)
    taken = [
        sum(home[i] == shard and (subset is None or i in subset) for i in range(len(home)))
        for shard in range(len(sizes))
    ]
    drawn = [int(home[draw.sample]) for draw in plan.draws(0, 3 * len(plan))]
    windows, begin = [], 0
    for position in range(len(drawn)):
        seen = set(drawn[begin : position + 1])
        through = sum(taken[shard] for shard in seen) == position + 1 - begin
        if through and (len(seen) == window or (position + 1) % len(plan) == 0):
            windows.append((begin, position + 1, seen))
            begin = position + 1
    for (start, stop, now), (_, _, then) in pairwise(windows):
        for position in {start, stop - 1}:
            found = plan.upcoming(position)
            assert set(found) == now | then and len(found) == len(set(found)) and set(found[: len(now)]) == now


@given(layouts(), st.integers(0, 10**12))
def test_every_epoch_contains_every_sample_once(layout, epoch):
    sizes, _, _, subset = layout
    plan = plan_of(layout)
    draws = plan.draws(epoch * len(plan), (epoch + 1) * len(plan))
    assert sorted(draw.sample for draw in draws) == sorted(range(sum(sizes)) if subset is None else subset)
    assert {draw.epoch for draw in draws} == {epoch}
    assert [draw.position for draw in draws] == list(range(epoch * len(plan), (epoch + 1) * len(plan)))


@settings(max_examples=50)
@given(layouts(), st.lists(st.integers(0, 60), max_size=6), st.randoms())
def test_ranges_cut_anywhere_and_read_in_any_order_give_the_complete_order(layout, cuts, random):
    pieces = list(pairwise(sorted([0, *cuts, 60])))
    random.shuffle(pieces)
    plan = plan_of(layout)
    found = {piece: plan.draws(*piece) for piece in pieces}
    assert [draw for piece in sorted(found) for draw in found[piece]] == plan_of(layout).draws(0, 60)


@settings(max_examples=50)
@given(layouts(), st.integers(1, 9), st.integers(1, 9), st.integers(0, 6), st.integers(1, 9))
def test_any_world_size_before_and_after_a_resume_gives_the_complete_order(layout, batch, world, cut, other_world):
    steps, seen = 8, []
    for step in range(steps):
        ranks = world if step < cut else other_world
        for rank in range(ranks):  # a fresh plan each time: a resumed process knows only the step
            mine = share(step * batch, (step + 1) * batch, rank, ranks)
            seen += plan_of(layout).draws(mine.start, mine.stop)
    assert seen == plan_of(layout).draws(0, steps * batch)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 12))
def test_shares_are_contiguous_and_even(start, count, world):
    shares = [share(start, start + count, rank, world) for rank in range(world)]
    assert [position for mine in shares for position in mine] == list(range(start, start + count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_rank_outside_the_world_is_refused():
    for rank in (-1, 2):
        with pytest.raises(DataError, match=f"rank {rank} is not one of 2 processes"):
            share(0, 4, rank, 2)


def test_the_order_never_changes():
    # Changing it changes every loss of every run: don't.
    plan = Plan(shards((3, 4, 0, 5, 2)), 0, window=2)
    assert [draw.sample for draw in plan.draws(0, 28)] == [
        9,
        12,
        11,
        7,
        10,
        13,
        8,
        5,
        0,
        2,
        3,
        4,
        6,
        1,
        12,
        2,
        13,
        0,
        1,
        9,
        8,
        7,
        11,
        3,
        5,
        4,
        6,
        10,
    ]
    assert [draw.sample for draw in Plan(shards((6, 6)), 7, subset=[1, 2, 3, 8]).draws(0, 12)] == [
        3,
        1,
        8,
        2,
        8,
        3,
        1,
        2,
        8,
        2,
        1,
        3,
    ]


def test_another_seed_digest_or_epoch_gives_another_order():
    def order(seed, digest, epoch):
        return tuple(draw.sample for draw in Plan(shards((50, 50), digest), seed).draws(epoch * 100, epoch * 100 + 100))

    assert len({order(0, "a", 0), order(1, "a", 0), order(-1, "a", 0), order(0, "b", 0), order(0, "a", 1)}) == 5


def test_a_window_mixes_its_shards_and_no_others():
    plan = Plan(shards([10] * 12), 0, window=3)
    blocks = [{draw.sample // 10 for draw in plan.draws(i, i + 30)} for i in range(0, 120, 30)]
    assert [len(block) for block in blocks] == [3, 3, 3, 3]
    assert set().union(*blocks) == set(range(12))
    assert [draw.sample // 10 for draw in plan.draws(0, 30)] != sorted(draw.sample // 10 for draw in plan.draws(0, 30))


def test_a_far_position_computes_its_own_windows_only(monkeypatch):
    import semiseg.data.order.plan as module

    asked = []
    monkeypatch.setattr(module, "permutation", lambda n, *key: asked.append((n, key[0])) or permutation(n, *key))
    plan = Plan(shards([1000] * 64), 0, window=4)
    position = 10**9 * len(plan) + 3990  # across the border of two windows of 4,000
    plan.draws(position, position + 20)
    plan.draws(position + 20, position + 40)
    assert sorted(asked) == [(64, "shards"), (4000, "window"), (4000, "window")]


def test_memory_of_a_long_reading_stays_small():
    plan = Plan(shards([10] * 64), 0, window=2)
    plan.draws(0, 5 * len(plan))
    assert len(plan._orders) <= 4
    assert len(plan._epochs) <= 4


def test_a_plan_travels_to_other_processes():
    plan = Plan(shards((30, 40, 50)), 3, subset=np.arange(0, 120, 7))
    before = plan.draws(10, 40)
    assert pickle.loads(pickle.dumps(plan)).draws(10, 40) == before


def test_a_subset_is_a_set():
    assert Plan(shards((5, 5)), 0, subset=[9, 1, 4]).draws(0, 9) == Plan(shards((5, 5)), 0, subset=[1, 4, 9]).draws(
        0, 9
    )


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((), {}, "nothing to draw"),
        ((0, 0), {}, "nothing to draw"),
        ((4, 4), {"window": 0}, "window is 0 shards"),
        ((4, 4), {"subset": []}, "subset is empty"),
        ((4, 4), {"subset": [1, 8]}, r"index 8 is out of range: there are 8 samples, 0\.\.7"),
        ((4, 4), {"subset": [-1, 3]}, "index -1 is out of range"),
        ((4, 4), {"subset": [3, 1, 3]}, "index 3 twice"),
        ((4, 4), {"subset": [0.5]}, "float64 values"),
        ((4, 4), {"subset": [True, False]}, "bool values"),
    ],
)
def test_plans_without_an_order_are_refused(sizes, options, message):
    with pytest.raises(DataError, match=message):
        Plan(shards(sizes), 0, **options)


def test_positions_are_a_range():
    plan = Plan(shards((4,)), 0)
    assert plan.draws(3, 3) == []
    for start, stop in ((-1, 2), (3, 2)):
        with pytest.raises(DataError, match="not a range of the order"):
            plan.draws(start, stop)
