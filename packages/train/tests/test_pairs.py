"""Unlabeled images in pairs: against the same stream read one by one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from semiseg.data import DataError, Plan, Pool, ShardSet
from semiseg.train.assemble.sources import build_sources
from semiseg.train.recipe import Recipe
from semiseg.train.step.augment import Augmentation
from semiseg.train.step.batches import Batch, StepData, Stream, micro_steps, steps_from

Tiny = Callable[..., Recipe]
BOTH = "objectives=[{kind='supervised'}, {kind='structured_consistency'}]"


def item(streams: dict[str, dict[str, Stream]], step: int, *, rank: int = 0, world: int = 1) -> Batch:
    batch = StepData(streams, rank=rank, world=world)[step]
    assert isinstance(batch, dict), batch
    return batch


@pytest.fixture
def streams(tiny: Tiny) -> dict[str, dict[str, Stream]]:
    return build_sources(tiny(BOTH), fill=(1, 2, 3)).streams


def test_only_unlabeled_images_are_paired_and_only_where_they_are_mixed(tiny: Tiny) -> None:
    recipe = tiny("objectives=[{kind='supervised'}, {kind='structured_consistency', domains=['street']}]", domains=2)
    streams = build_sources(recipe, fill=(0, 0, 0)).streams
    paired = [stream.name for roles in streams.values() for stream in roles.values() if stream.pairs]
    assert paired == ["street/unlabeled"]
    assert not any(each.pairs for each in build_sources(tiny(), fill=(0, 0, 0)).streams["street"].values())


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_batch_counts_students_and_ranks_share_them(streams: dict[str, dict[str, Stream]], world: int) -> None:
    """Student p of three a step: images 2p and 2p + 1 of the order, wherever its pair is read; epochs are of 12."""
    single = {"street": {"unlabeled": replace(streams["street"]["unlabeled"], pairs=False, batch_size=6)}}
    for step in (0, 1, 3):
        shares = [item(streams, step, rank=rank, world=world)["street"]["unlabeled"] for rank in range(world)]
        one_by_one = item(single, step)["street"]["unlabeled"]
        assert torch.equal(torch.cat([each.images for each in shares]), one_by_one.images[::2])
        partners = [each.partners for each in shares if each.partners is not None]
        assert torch.equal(torch.cat(partners), one_by_one.images[1::2])
        assert sum((each.positions for each in shares), ()) == one_by_one.positions[::2]
        assert sum(float(each.weights.sum()) for each in shares) / world == pytest.approx(1.0)


def test_workers_and_micro_steps_keep_pairs(streams: dict[str, dict[str, Stream]]) -> None:
    expected = item(streams, 1)["street"]["unlabeled"]
    (batch,) = steps_from(StepData(streams), 1, 2, workers=1)
    found = batch["street"]["unlabeled"]
    assert expected.partners is not None and found.partners is not None
    assert torch.equal(found.partners, expected.partners)
    parts = [part["street"]["unlabeled"] for part in micro_steps(batch, 3)]
    partners = [part.partners for part in parts if part.partners is not None]
    assert torch.equal(torch.cat(partners), expected.partners)
    assert sum((part.positions for part in parts), ()) == expected.positions
    moved = found.to(torch.device("cpu"))
    assert moved.partners is not None and torch.equal(moved.partners, expected.partners)


def test_a_pair_of_two_sizes_is_one_clear_error(
    streams: dict[str, dict[str, Stream]], scenes: Path, tmp_path: Path
) -> None:
    from semiseg.data import open_dataset, shard

    shard(open_dataset("street", size="40x32", train_count=18, val_count=5), "train", tmp_path)
    pool = Pool([ShardSet(str(scenes / "street" / "train")), ShardSet(str(tmp_path / "street" / "train"))])
    mixed = replace(
        streams["street"]["unlabeled"], shards=pool, plan=Plan(pool, 0), batch_size=1, augmentation=Augmentation()
    )
    with pytest.raises(DataError, match=r"one size.*augment\.crop"):
        list(steps_from(StepData({"street": {"unlabeled": mixed}}), 0, 18, workers=0))
