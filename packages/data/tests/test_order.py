"""The promise of the order: however a run is spread, interrupted and spread again, its global batches are the plan's.

Against an oracle that knows neither plan nor share: it lists every epoch by the definition in the docs and cuts the list.
"""

import pickle
import sys
import tracemalloc
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.data import Plan, ShardSet, permutation, shard, share
from semiseg.data.storage.storage import Storage


class Shards(NamedTuple):
    digest: str
    shard_sizes: tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A set, an order over it, and a run that resumes at step `cut` on other processes and workers."""

    sizes: list[int]
    subset: list[int] | None
    seed: int
    window: int
    batch: int
    steps: int
    cut: int
    world: int
    workers: int
    new_world: int
    new_workers: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    sizes = draw(st.lists(st.integers(0, 5), min_size=1, max_size=7).filter(sum))
    batch, steps = draw(st.integers(1, 9)), draw(st.integers(1, 24))
    topologies = {name: draw(st.integers(1, 9)) for name in ("world", "new_world")}
    loaders = {name: draw(st.integers(0, 4)) for name in ("workers", "new_workers")}
    return Case(
        sizes=sizes,
        subset=draw(st.none() | st.lists(st.integers(0, sum(sizes) - 1), min_size=1, unique=True)),
        seed=draw(st.integers(0, 2**40)),
        window=draw(st.integers(1, 8)),
        batch=batch,
        steps=steps,
        cut=draw(st.integers(0, steps)),
        **topologies,
        **loaders,
    )


@settings(max_examples=300, derandomize=True, deadline=None)
@given(cases())
def test_the_global_batches_are_the_orders_whoever_reads_them(case: Case):
    plan = Plan(Shards("town", tuple(case.sizes)), case.seed, window=case.window, subset=case.subset)
    seen: list[list[int]] = []
    for start, stop, world, workers in (
        (0, case.cut, case.world, case.workers),
        (case.cut, case.steps, case.new_world, case.new_workers),
    ):
        shares = [read_rank(plan, case.batch, start, stop, rank, world, workers) for rank in range(world)]
        seen += [[sample for mine in shares for sample in mine[step]] for step in range(start, stop)]
    order = [sample for batch in seen for sample in batch]
    assert all(len(batch) == case.batch for batch in seen)
    assert order == listed(case, len(order))
    samples = sorted(range(sum(case.sizes)) if case.subset is None else case.subset)
    for first in range(0, len(order) - len(samples) + 1, len(samples)):
        assert sorted(order[first : first + len(samples)]) == samples


def read_rank(
    plan: Plan, batch: int, start: int, stop: int, rank: int, world: int, workers: int
) -> dict[int, list[int]]:
    """What one process reads: its loading workers take turns at the steps, each with a copy of the plan, the last first."""
    read: dict[int, list[int]] = {}
    for worker in reversed(range(max(1, workers))):
        own: Plan = pickle.loads(pickle.dumps(plan))
        for step in range(start + worker, stop, max(1, workers)):
            positions = share(step * batch, (step + 1) * batch, rank, world)
            read[step] = [draw.sample for draw in own.draws(positions.start, positions.stop)]
    return read


def listed(case: Case, count: int) -> list[int]:
    """The first samples of the order, epoch after epoch: shuffle the shards, then all samples of each `window` of them."""
    ends = [sum(case.sizes[: i + 1]) for i in range(len(case.sizes))]
    shards = [list(range(end - size, end)) for end, size in zip(ends, case.sizes, strict=True)]
    if case.subset is not None:
        shards = [[sample for sample in shard if sample in case.subset] for shard in shards]
    shards = [shard for shard in shards if shard]
    order: list[int] = []
    epoch = 0
    while len(order) < count:
        left = [shards[i] for i in permutation(len(shards), "shards", case.seed, "town", epoch)]
        block = 0
        while left:
            together = [sample for shard in left[: case.window] for sample in shard]
            left = left[case.window :]
            order += [together[i] for i in permutation(len(together), "window", case.seed, "town", epoch, block)]
            block += 1
        epoch += 1
    return order[:count]


def test_a_hundred_million_samples_cost_one_window_and_one_list_of_shards(monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []
    module = sys.modules[Plan.__module__]
    monkeypatch.setattr(module, "permutation", lambda n, *key: asked.append(n) or permutation(n, *key))
    shards = Shards("huge", (1000,) * 100_000)
    few = np.arange(0, 10**8, 1000)
    for subset, window in ((None, 8000), (few, 8)):
        asked.clear()
        tracemalloc.start()
        plan = Plan(shards, 0, subset=subset)
        position = int(3.7 * len(plan))
        draws = plan.draws(position, position + 4)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert {draw.epoch for draw in draws} == {3}
        assert asked == [100_000, window]
        assert peak < 30e6, "numbers of shards, not of samples"


def test_a_resumed_run_reads_the_same_as_a_cold_start(adapt, draw, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """At most one range per sample, one index per shard and one open of its tar; nothing from before the position."""
    shard(adapt(draw(60)), "train", tmp_path, size="2KB")
    read: list[str] = []
    for name in ("read", "read_range"):
        plain = getattr(Storage, name)
        monkeypatch.setattr(
            Storage, name, lambda self, *place, plain=plain: read.append(place[0]) or plain(self, *place)
        )
    for position in (0, 54):
        shards = ShardSet(tmp_path / "pictures" / "train")
        assert len(shards.shard_sizes) == 30
        read.clear()
        for draw in Plan(shards, 0).draws(position, position + 6):
            shards.raw(draw.sample)
        indexes = [name for name in read if name.endswith(".parquet")]
        assert len(indexes) == len(set(indexes)) <= 6
        assert (
            6 <= len([name for name in read if name.endswith(".tar")]) <= 6 + len(indexes)
        )  # opening a tar may be a read
        assert not {name for name in read if not name.endswith((".parquet", ".tar"))}
