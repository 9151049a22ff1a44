"""Shards against the source they were written from: files replaced at equal size, and samples that have moved."""

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from semiseg.data import Adapter, DataError, RawSample, RawSpace, ShardSet, Split, Tree, shard
from semiseg.data.write.current import newer_than

PIXELS = {"compress_level": 0}  # equal sizes for any contents


@dataclass
class Source:
    """Files on disk; `put` writes or replaces those of a sample."""

    root: Path
    encoded: Callable[..., bytes]

    def put(self, key: str, *, image: int, label: int, keep_time: bool = False) -> None:
        rng = np.random.default_rng(image)
        pixels = rng.integers(0, 256, (9, 12, 3), np.uint8)
        ids = np.random.default_rng(label).integers(0, 3, (9, 12), np.uint8)
        for name, content in ((f"{key}.image.png", pixels), (f"{key}.label.png", ids)):
            path = self.root / name
            before = path.stat() if path.exists() else None
            path.write_bytes(self.encoded(content, **PIXELS))
            if before is not None:
                assert path.stat().st_size == before.st_size
            if before is not None and keep_time:
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as cp -p and rsync do

    def samples(self, place: Path | None = None) -> list[RawSample]:
        tree = Tree.open(place or self.root)
        keys = sorted({name.split(".")[0] for name in tree.names()})
        return [
            RawSample(
                key=key, image=tree.member(f"{key}.image.png"), label=tree.member(f"{key}.label.png"), size=2000,
                meta={"source": key},
            )
            for key in keys
        ]  # fmt: skip

    def zipped(self, place: Path) -> Path:
        with zipfile.ZipFile(place, "w") as archive:
            for path in sorted(self.root.iterdir()):
                archive.write(path, path.name)
        return place


@pytest.fixture
def source(tmp_path: Path, encoded: Callable[..., bytes]) -> Source:
    source = Source(tmp_path / "source", encoded)
    source.root.mkdir()
    for number in range(5):
        source.put(f"s{number}", image=number, label=number)
    return source


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("keep_time", [False, True])
@pytest.mark.parametrize("change", [{"image": 77, "label": 3}, {"image": 3, "label": 77}])
@pytest.mark.parametrize("options", [{}, {"resize": 6}, {"format": "jpeg"}], ids=str)
def test_a_file_replaced_at_equal_size_is_found(adapt, source, tmp_path, change, keep_time, options) -> None:
    to = tmp_path / "shards"
    found = shard(adapt(source.samples()), "train", to, size=4000, **options)
    before = contents(to / "pictures/train")
    source.put("s3", **change, keep_time=keep_time)
    with pytest.raises(DataError) as raised:
        shard(adapt(source.samples()), "train", to, size=4000, **options)
    text = str(raised.value)
    assert "was written before files of the source changed: 1 of 5 samples, first 's3' (source s3)" in text
    assert f"delete {to / 'pictures/train'} first" in text
    assert contents(to / "pictures/train") == before
    source.put("s3", image=3, label=3)  # as it was: a new time is no change
    assert shard(adapt(source.samples()), "train", to, size=4000, **options) == found


def test_a_member_of_an_archive_replaced_at_equal_size_is_found(adapt, source, tmp_path) -> None:
    place = source.zipped(tmp_path / "source.zip")
    shard(adapt(source.samples(place)), "train", tmp_path / "shards")
    shard(adapt(source.samples(source.zipped(place))), "train", tmp_path / "shards")
    source.put("s1", image=50, label=1)
    with pytest.raises(DataError, match="1 of 5 samples, first 's1'"):
        shard(adapt(source.samples(source.zipped(place))), "train", tmp_path / "shards")


def test_a_shard_of_an_unfinished_set_is_written_again(adapt, source, tmp_path) -> None:
    to = tmp_path / "shards"
    shard(adapt(source.samples()), "train", to, size=4000)
    folder = to / "pictures/train"
    (folder / "manifest.json").unlink()  # as after a kill before the end
    source.put("s3", image=77, label=3)
    shard(adapt(source.samples()), "train", to, size=4000)
    shard(adapt(source.samples()), "train", tmp_path / "anew", size=4000)
    assert contents(folder) == contents(tmp_path / "anew/pictures/train")


def test_a_remote_set_is_compared_too(adapt, source, tmp_path) -> None:
    to = f"memory://{tmp_path.name}"
    shard(adapt(source.samples()), "train", to)
    shard(adapt(source.samples()), "train", to)
    source.put("s0", image=50, label=1)
    with pytest.raises(DataError, match="1 of 5 samples, first 's0'"):
        shard(adapt(source.samples()), "train", to)


def test_only_files_that_are_newer_are_read(source) -> None:
    samples = source.samples()
    (source.root / "s2.label.png").touch()
    time = (source.root / "s2.label.png").stat().st_mtime
    os.utime(source.root / "s4.image.png", (time + 9, time + 9))
    old = max(path.stat().st_ctime for path in source.root.iterdir())
    assert {sample.key for sample in newer_than(old + 1, samples)} == {"s4"}
    assert not list(newer_than(time + 20, samples))
    in_memory = RawSample(key="m", image=b"x", label=None, size=1)
    assert not list(newer_than(0, [in_memory]))


@dataclass
class Reader:
    """Many labels in one file, as SUN RGB-D's."""

    path: str

    def label(self, number: int) -> np.ndarray:
        return np.full((9, 12), Path(self.path).read_bytes()[number], np.uint8)


def read_label(reader: Reader, number: int) -> np.ndarray:
    return reader.label(number)


def test_a_file_that_holds_all_labels_is_compared(adapt, source, tmp_path) -> None:
    def samples() -> list[RawSample]:
        reader = Reader(str(tmp_path / "labels"))
        return [replace(one, label=partial(read_label, reader, i)) for i, one in enumerate(source.samples())]

    (tmp_path / "labels").write_bytes(bytes([0, 1, 2, 0, 1]))
    shard(adapt(samples()), "train", tmp_path / "shards")
    (tmp_path / "labels").write_bytes(bytes([0, 1, 1, 0, 1]))
    with pytest.raises(DataError, match="1 of 5 samples, first 's2'"):
        shard(adapt(samples()), "train", tmp_path / "shards")


class Moving:
    """Two splits, whose samples the test moves."""

    summary, home, root, name, version = "moving", "https://example.org", None, "moving", "1"

    def __init__(self, raw_space, **splits: list[RawSample]) -> None:
        self.raw_space, self.taxonomies, self.listed = raw_space, (), splits

    def splits(self) -> dict[str, Split]:
        return {name: Split(name=name, samples=len(listed)) for name, listed in self.listed.items()}

    def samples(self, split: str):
        return iter(self.listed[split])


def moving(raw_space: RawSpace, **splits: list[RawSample]) -> Adapter:
    return cast(Adapter, Moving(raw_space, **splits))


def test_a_split_of_an_earlier_state_is_refused(source, raw_space, tmp_path) -> None:
    first = source.samples()
    earlier = moving(raw_space, train=first[:2], rest=first[2:])
    for split in ("train", "rest"):
        shard(earlier, split, tmp_path)
    later = moving(raw_space, train=first[:2], val=first[2:4], rest=first[4:])
    shard(later, "train", tmp_path)  # unchanged
    with pytest.raises(DataError) as raised:
        shard(later, "val", tmp_path)
    text = str(raised.value)
    assert "rest: 2 samples now in val, such as s2" in text and f"rm -r {tmp_path}/moving/rest" in text
    assert not (tmp_path / "moving/val").exists()
    gone = moving(raw_space, train=first[:2], val=first[2:])
    with pytest.raises(DataError, match="rest: 3 samples now in val"):
        shard(gone, "val", tmp_path)
    overlapping = moving(raw_space, train=first[:2], rest=first[2:], both=first)  # by design, as VOC's trainval
    shard(overlapping, "both", tmp_path)
    assert ShardSet(tmp_path / "moving/both").manifest.samples == 5
