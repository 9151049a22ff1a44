"""Real loaders on real shards, fewer of them than workers: every sample once an epoch, over all ranks and workers."""

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from semiseg.data import Sample, ShardSet, open_dataset, shard
from semiseg.models import create_segmenter
from semiseg.train.assemble.sources import build_sources
from semiseg.train.recipe import Recipe
from semiseg.train.score.evaluate import evaluate
from semiseg.train.step.batches import StepData, steps_from

SAMPLES, BATCH = 10, 4
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")  # on fewer cores


@pytest.fixture(scope="module")
def two_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten scenes in two shards."""
    folder = tmp_path_factory.mktemp("two")
    adapter = open_dataset("street", size="64x48", train_count=SAMPLES, val_count=1)
    size = sum(sample.size for sample in adapter.samples("train"))
    assert len(shard(adapter, "train", folder, size=size * 6 // 10).shards) == 2
    return folder


@pytest.fixture(autouse=True)
def all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many workers as asked for, also where there are fewer cores."""
    monkeypatch.setattr("semiseg.train.step.loading.usable", lambda workers: workers)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_training_takes_each_sample_once_an_epoch(
    tiny: Callable[..., Recipe], two_shards: Path, world: int, workers: int
):
    recipe = tiny(
        f"data.shards={two_shards}",
        f"data.domains.street.unlabeled.batch_size={BATCH}",
        "data.domains.street.unlabeled.minus=",
        "data.domains.street.val=",
    )
    streams = build_sources(recipe, fill=(0, 0, 0)).streams
    stream = streams["street"]["unlabeled"]
    keys = stream.shards.keys()
    steps = 2 * SAMPLES // BATCH
    seen: dict[int, str] = {}
    for rank in range(world):
        data = StepData({"street": {"unlabeled": stream}}, rank=rank, world=world)
        for batch in steps_from(data, 0, steps, workers=workers):
            for position in batch["street"]["unlabeled"].positions:
                assert position not in seen, "two ranks took one position"
                seen[position] = keys[stream.plan.draws(position, position + 1)[0].sample]
    assert sorted(seen) == list(range(2 * SAMPLES))
    for epoch in (0, 1):
        assert sorted(seen[epoch * SAMPLES + i] for i in range(SAMPLES)) == sorted(keys)


class Watched(ShardSet):
    """Notes in a file what is read, whichever process reads it."""

    notes = ""

    def read(self, number: int, *, label: bool = True) -> Sample:
        descriptor = os.open(self.notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{number}\n".encode())
        os.close(descriptor)
        return super().read(number, label=label)


class Group:
    """A process group as one rank sees it; the test adds up what it would."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world

    def is_initialized(self) -> bool:
        return self.world > 1

    def get_rank(self) -> int:
        return self.rank

    def get_world_size(self) -> int:
        return self.world

    def all_reduce(self, counts: torch.Tensor) -> None:
        pass


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_takes_each_sample_once(
    two_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: int, workers: int
):
    """Rank after rank in one process: the counts that a process group would add up are added here."""
    torch.manual_seed(0)
    shards = Watched(two_shards / "street" / "train")
    taxonomy = shards.taxonomies[0]
    model = create_segmenter(encoder="test_resnet", classes={"street": len(taxonomy.names)}, weights="none")
    total = np.zeros((len(taxonomy.names),) * 2, np.int64)
    Watched.notes = str(tmp_path / "read")
    for rank in range(world):
        monkeypatch.setattr(sys.modules[evaluate.__module__], "dist", Group(rank, world))
        total = total + evaluate(model, shards, taxonomy, workers=workers).confusion
    read = Counter(map(int, (tmp_path / "read").read_text().split()))
    assert read == Counter(range(SAMPLES))
    valid = sum(
        int((taxonomy.map(sample.label) != taxonomy.ignore).sum()) for sample in shards if sample.label is not None
    )
    assert int(total.sum()) == valid
