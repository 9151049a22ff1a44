"""Shards as a Hugging Face data set: the same pixels, and back again."""

import json

import numpy as np
import pytest

from datasets import Dataset, Image, IterableDataset, Sequence, Value
from semiseg.data import DataError, ShardSet, shard
from semiseg.datasets.hub import Hub, to_hf


@pytest.fixture
def stored(make, tmp_path) -> ShardSet:
    table = make(
        7,
        masks=lambda i: np.random.default_rng(i).integers(0, 5, (8, 12), np.uint8),
        mood=list("abcabca"),
        features={"mood": Value("string")},
    )
    shard(Hub(dataset=table, tags="mood"), "train", tmp_path, size=1500)
    found = ShardSet(tmp_path / "hub" / "train")
    assert len(found.shard_sizes) > 2
    return found


@pytest.mark.parametrize("streaming", [False, True])
def test_every_pixel_key_and_tag_is_there(stored, streaming):
    found = to_hf(stored.url, streaming=streaming)
    assert isinstance(found, IterableDataset if streaming else Dataset)
    assert found.features is not None
    assert dict(found.features) == {
        "image": Image(), "label": Image(), "key": Value("string"), "tags": Sequence(Value("string")), "meta": Value("string"),
    }  # fmt: skip
    rows = list(found)
    assert len(rows) == 7
    for row, sample in zip(rows, stored, strict=True):
        assert np.array_equal(np.asarray(row["image"]), np.asarray(sample.image))
        assert np.array_equal(np.asarray(row["label"]), sample.label)
        assert (row["key"], tuple(row["tags"]), json.loads(row["meta"])) == (sample.key, sample.tags, sample.meta)
    classes = json.loads(found.info.description)
    assert classes["id2label"] == {str(number): name for number, name in stored.raw_space.names.items()}


def test_there_and_back_again(stored, tmp_path):
    to_hf(stored).save_to_disk(tmp_path / "saved-set")
    shard(Hub(tmp_path / "saved-set", tags="tags", name="saved"), "train", tmp_path, size=1500)
    again = ShardSet(tmp_path / "saved" / "train")
    assert again.keys() == stored.keys()
    for number in range(len(stored)):
        assert again.raw(number).image == stored.raw(number).image
        assert again.raw(number).label == stored.raw(number).label
        assert again[number].tags == stored[number].tags


def test_sets_without_labels_keep_the_column(make, tmp_path):
    shard(Hub(dataset=make(3).remove_columns("label"), mask="none"), "train", tmp_path)
    found = to_hf(tmp_path / "hub" / "train")
    assert list(found["label"]) == [None] * 3
    assert not Hub(dataset=found).splits()["train"].labeled


def test_rewritten_shards_are_not_read_from_the_cache(make, tmp_path):
    import shutil

    first, second = (make(2, masks=lambda i, n=n: np.full((8, 12), n, np.uint8)) for n in (1, 2))
    seen = []
    for table in (first, second):
        shard(Hub(dataset=table), "train", tmp_path)
        found = to_hf(tmp_path / "hub" / "train")
        stream = to_hf(tmp_path / "hub" / "train", streaming=True)
        seen.append(int(np.asarray(found[0]["label"]).max()))
        shutil.rmtree(tmp_path / "hub")
    assert seen == [1, 2]
    shard(Hub(dataset=first), "train", tmp_path)
    with pytest.raises(DataError, match="it was rewritten; call to_hf again"):
        list(stream)
