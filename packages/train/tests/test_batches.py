"""Batches against the plan read by hand: which samples, whose share, and nothing but the step number as state."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semiseg.data import DataError, ShardSet
from semiseg.train.assemble.sources import Sources, build_sources
from semiseg.train.recipe import Recipe
from semiseg.train.step.batches import Batch, StepData, micro_steps, steps_from

Tiny = Callable[..., Recipe]


def sources(recipe: Recipe) -> Sources:
    return build_sources(recipe, fill=(1, 2, 3))


def item(data: StepData, step: int) -> Batch:
    batch = data[step]
    assert isinstance(batch, dict), batch
    return batch


def test_labeled_and_unlabeled_are_disjoint_and_complete(tiny: Tiny, scenes: Path):
    built = sources(tiny())
    keys = set(ShardSet(str(scenes / "street" / "train")).keys())
    labeled, unlabeled = (set(built.selected[f"street/{role}"]) for role in ("labeled", "unlabeled"))
    assert len(labeled) == 6
    assert labeled | unlabeled == keys and not labeled & unlabeled


def test_subsets_are_governed_by_their_own_seed(tiny: Tiny):
    same = sources(tiny("seed=5")).selected["street/labeled"]
    assert sources(tiny("seed=6")).selected["street/labeled"] == same
    other = tiny("data.domains.street.labeled.subset.seed=1")
    assert sources(other).selected["street/labeled"] != same


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_shares_of_all_ranks_are_the_global_batch(tiny: Tiny, world: int):
    built = sources(tiny(domains=2) if world < 3 else tiny())
    for step in (0, 1, 5):
        whole = item(StepData(built.streams), step)
        shares = [item(StepData(built.streams, rank=rank, world=world), step) for rank in range(world)]
        for domain, roles in whole.items():
            for role, samples in roles.items():
                parts = [share[domain][role] for share in shares]
                assert sum((part.positions for part in parts), ()) == samples.positions
                assert torch.equal(torch.cat([part.images for part in parts]), samples.images)
                assert max(map(len, parts)) - min(map(len, parts)) <= 1
                # DDP takes the mean over ranks: an image must weigh 1 / batch in the end
                assert sum(float(part.weights.sum()) for part in parts) / world == pytest.approx(1.0)
                if samples.masks is not None:
                    assert torch.equal(
                        torch.cat([part.masks for part in parts if part.masks is not None]), samples.masks
                    )


def test_positions_run_on_from_step_to_step(tiny: Tiny):
    data = StepData(sources(tiny()).streams)
    positions = [position for step in range(4) for position in item(data, step)["street"]["labeled"].positions]
    assert positions == list(range(12))


def test_an_image_does_not_depend_on_the_batch_around_it(tiny: Tiny):
    """Position 6 is the first of step 2 at batch 3, and the last of step 0 at batch 7 (12 unlabeled images)."""
    small = item(StepData(sources(tiny()).streams), 2)["street"]["unlabeled"]
    large = item(StepData(sources(tiny("data.domains.street.unlabeled.batch_size=7")).streams), 0)["street"][
        "unlabeled"
    ]
    assert small.positions[0] == large.positions[6] == 6
    assert torch.equal(small.images[0], large.images[6])
    assert small.masks is None


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_change_nothing_and_any_step_can_be_the_first(tiny: Tiny, workers: int):
    data = StepData(sources(tiny()).streams)
    for step, batch in enumerate(steps_from(data, 2, 7, workers=workers), start=2):
        expected = item(data, step)
        for role in ("labeled", "unlabeled"):
            assert torch.equal(batch["street"][role].images, expected["street"][role].images)


def test_domains_take_turns(tiny: Tiny):
    data = StepData(sources(tiny(domains=2)).streams, alternate=True)
    assert [list(item(data, step)) for step in range(4)] == [["street"], ["room"], ["street"], ["room"]]
    assert item(data, 2)["street"]["labeled"].positions == (3, 4, 5)  # its second turn
    assert item(data, 3)["room"]["labeled"].positions == (2, 3)


def test_micro_steps_are_parts_of_the_batch(tiny: Tiny):
    batch = item(StepData(sources(tiny(domains=2)).streams), 0)
    parts = micro_steps(batch, 2)
    for domain, roles in batch.items():
        for role, samples in roles.items():
            assert torch.equal(torch.cat([part[domain][role].images for part in parts]), samples.images)
            assert sum(float(part[domain][role].weights.sum()) for part in parts) == pytest.approx(1.0)


def test_images_of_two_sizes_are_one_clear_error(tiny: Tiny, scenes: Path, tmp_path: Path):
    from dataclasses import replace

    from semiseg.data import Pool, open_dataset, shard

    shard(open_dataset("street", size="40x32", train_count=18, val_count=5), "train", tmp_path / "other")
    pool = Pool([ShardSet(str(scenes / "street" / "train")), ShardSet(str(tmp_path / "other" / "street" / "train"))])
    stream = sources(tiny()).streams["street"]["labeled"]
    from semiseg.data import Plan
    from semiseg.train.step.augment import Augmentation

    mixed = replace(stream, shards=pool, plan=Plan(pool, 0), batch_size=36, augmentation=Augmentation())
    with pytest.raises(DataError, match=r"one size.*augment\.crop"):
        next(steps_from(StepData({"street": {"labeled": mixed}}), 0, 1, workers=1))


def test_damage_is_told_from_a_worker_without_a_traceback(tiny: Tiny, scenes: Path, tmp_path: Path):
    import shutil

    shutil.copytree(scenes / "street", tmp_path / "damaged" / "street")
    tar = tmp_path / "damaged" / "street" / "train" / "000000.tar"
    damaged = bytearray(tar.read_bytes())
    damaged[1000] ^= 1
    tar.write_bytes(damaged)
    data = StepData(
        sources(
            tiny(
                f"data.shards={tmp_path / 'damaged'}",
                "data.domains.street.labeled.subset=",
                "data.domains.street.unlabeled.minus=",
            )
        ).streams
    )
    with pytest.raises(DataError, match="crc32") as raised:
        for _ in steps_from(data, 0, 8, workers=1):
            pass
    assert "Traceback" not in str(raised.value)


def test_padding_travels_with_the_batch(tiny: Tiny):
    plain = item(StepData(sources(tiny()).streams), 0)["street"]
    assert all(samples.valid is None for samples in plain.values())
    scaled = tiny("data.domains.street.augment={crop=[40, 56], scale=[0.5, 1.5]}")
    batches = [item(StepData(sources(scaled).streams), step) for step in range(4)]
    found = [batch["street"]["labeled"] for batch in batches]
    assert any(samples.valid is not None and samples.valid.all((1, 2)).any() for samples in found)  # beside padded ones
    for samples in found:
        shown = (samples.images != torch.tensor([1, 2, 3])[:, None, None]).any(1)
        assert torch.equal(torch.ones_like(shown) if samples.valid is None else samples.valid, shown)
    parts = micro_steps(batches[0], 2)
    pieces = [part["street"]["unlabeled"].valid for part in parts]
    together = torch.cat([piece for piece in pieces if piece is not None])
    assert torch.equal(together, batches[0]["street"]["unlabeled"].valid)  # type: ignore[arg-type]
