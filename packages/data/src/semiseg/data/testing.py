"""The test class that a data set package subclasses to test its adapter; needs pytest.

class TestCamVid(AdapterContract):
    @pytest.fixture
    def adapter(self, camvid_root):
        return CamVid(camvid_root)
"""

import io
import pickle
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from semiseg.data.image.formats import image_formats
from semiseg.data.read.shard_set import ShardSet
from semiseg.data.read.verify import verify
from semiseg.data.source.adapter import Adapter, RawSample, Split
from semiseg.data.write.encode import fetch
from semiseg.data.write.shard import shard


class AdapterContract:
    """What every adapter must do. A subclass defines a fixture `adapter`; every test runs on all available splits.

    limit  samples per split whose pixels are read; listings are always complete
    """

    limit = 6

    def test_describes_itself(self, adapter: Adapter) -> None:
        assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", adapter.name), (
            "the name must be usable as a folder and on the command line"
        )
        assert adapter.summary and "\n" not in adapter.summary
        assert adapter.home, "where to get the files"
        assert adapter.version
        assert adapter.raw_space.names

    def test_taxonomies_are_of_its_raw_space(self, adapter: Adapter) -> None:
        own = [taxonomy for taxonomy in adapter.taxonomies if taxonomy.raw_space == adapter.raw_space.name]
        assert own, f"no taxonomy reads raw space '{adapter.raw_space.name}'"
        for taxonomy in own:
            assert taxonomy.raw == adapter.raw_space, f"{taxonomy.name} has other ids or names in its raw space"
            assert set(taxonomy.ids.values()) == set(range(len(taxonomy.names))), (
                f"{taxonomy.name}: a class without ids"
            )

    def test_splits_are_there_or_say_why_not(self, adapter: Adapter) -> None:
        splits = adapter.splits()
        assert any(split.missing is None and split.default for split in splits.values()), "no split to test"
        for name, split in splits.items():
            assert split.name == name
            assert (split.samples > 0) != bool(split.missing), f"{name}: has samples, or says why it is missing"

    def test_lists_every_sample_once_in_one_order(self, adapter: Adapter) -> None:
        for split in _present(adapter):
            first, second = ([(s.key, s.size, s.tags, s.meta) for s in adapter.samples(split.name)] for _ in range(2))
            assert first == second, f"{split.name}: two listings differ"
            assert len(first) == split.samples, f"{split.name}: lists {len(first)}, announced {split.samples}"
            assert len({key for key, *_ in first}) == len(first), f"{split.name}: a key comes twice"

    def test_samples_hold_pictures_and_known_ids(self, adapter: Adapter) -> None:
        for split, sample in self._some(adapter):
            image, label = _pixels(sample)
            assert (label is not None) == split.labeled, f"{split.name}/{sample.key}: labeled or not?"
            if label is not None:
                assert label.shape == image.shape[:2], f"{split.name}/{sample.key}: image and label differ in size"
                strange = set(np.unique(label).tolist()) - set(adapter.raw_space.names)
                assert not strange, f"{split.name}/{sample.key}: ids {strange} are not of the raw space"

    def test_samples_travel_to_other_processes(self, adapter: Adapter) -> None:
        for split, sample in self._some(adapter):
            image, label = _pixels(sample)
            image_there, label_there = _pixels(pickle.loads(pickle.dumps(sample)))
            assert np.array_equal(image, image_there), f"{split.name}/{sample.key}"
            assert label is None or (label_there is not None and np.array_equal(label, label_there))

    def test_shards_hold_the_source_pixels(self, adapter: Adapter, tmp_path: Path) -> None:
        part = cast(Adapter, _Part(adapter, self.limit))
        for split in _present(adapter):
            sources = list(part.samples(split.name))
            manifest = shard(part, split.name, tmp_path, size=_third(sources))
            url = tmp_path / adapter.name / split.name
            assert verify(url).problems == []
            stored = ShardSet(url)
            assert stored.taxonomies == tuple(t for t in adapter.taxonomies if t.raw == adapter.raw_space)
            assert stored.digest == manifest.digest
            assert stored.keys() == [source.key for source in sources]
            for source, sample in zip(sources, stored, strict=True):
                image, label = _pixels(source)
                assert np.array_equal(np.asarray(sample.image), image), f"{split.name}/{source.key}: image differs"
                assert (sample.label is None) == (label is None)
                assert label is None or np.array_equal(cast(Any, sample.label), label), f"{source.key}: label differs"
                assert sample.tags == source.tags

    def test_shards_are_the_same_bytes_however_many_processes_write(self, adapter: Adapter, tmp_path: Path) -> None:
        part = cast(Adapter, _Part(adapter, self.limit))
        split = _present(adapter)[0].name
        size = _third(list(part.samples(split)))
        for workers in (1, 2):
            shard(part, split, tmp_path / str(workers), size=size, workers=workers)
        one, two = ({p.name: p.read_bytes() for p in (tmp_path / w / adapter.name / split).iterdir()} for w in "12")
        assert len(one) > 3, "the comparison needs several shards"
        assert one == two

    def _some(self, adapter: Adapter) -> Iterator[tuple[Split, RawSample]]:
        """Samples spread evenly over each split."""
        for split in _present(adapter):
            samples = list(adapter.samples(split.name))
            chosen = np.linspace(0, len(samples) - 1, min(self.limit, len(samples))).astype(int)
            yield from ((split, samples[i]) for i in sorted(set(chosen.tolist())))


class _Part:
    """An adapter that lists only the first samples of each split."""

    def __init__(self, adapter: Adapter, limit: int) -> None:
        self.adapter, self.limit = adapter, limit
        self.name, self.version, self.root = adapter.name, adapter.version, adapter.root
        self.raw_space, self.taxonomies = adapter.raw_space, adapter.taxonomies

    def splits(self) -> dict[str, Split]:
        found = self.adapter.splits()
        return {name: replace(split, samples=min(split.samples, self.limit)) for name, split in found.items()}

    def samples(self, split: str) -> Iterator[RawSample]:
        return islice(self.adapter.samples(split), self.limit)


def _present(adapter: Adapter) -> list[Split]:
    return [split for split in adapter.splits().values() if split.missing is None]


def _pixels(sample: RawSample) -> tuple[np.ndarray, np.ndarray | None]:
    """Image (RGB) and raw ids of a source, decoded without the code under test."""
    with Image.open(io.BytesIO(fetch(sample.key, "image", sample.image)), formats=image_formats()) as picture:
        image = np.asarray(picture.convert("RGB"))
    label = fetch(sample.key, "label", sample.label)
    if isinstance(label, bytes):
        with Image.open(io.BytesIO(label), formats=image_formats()) as picture:
            label = np.asarray(picture)
    return image, label


def _third(samples: list[RawSample]) -> int:
    """A shard size that gives about three shards."""
    return max(1, sum(sample.size for sample in samples) // 3)
