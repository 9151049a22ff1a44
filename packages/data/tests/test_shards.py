"""Reading: any sample by its number, from anywhere, in any process; damage is an error that says where."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.data import DataError, Pool, RawSpace, Sample, ShardSet, Taxonomy, shard


@pytest.fixture(scope="session")
def source(draw):
    return draw(23)


@pytest.fixture(scope="session")
def folder(adapt, source, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    shard(adapt(source), "train", root, size="3KB")
    return root / "pictures" / "train"


@pytest.fixture(scope="session")
def stored(folder) -> ShardSet:
    stored = ShardSet(folder)
    assert len(stored.shard_sizes) > 5
    return stored


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "pictures" / "train"))


def same(one: Sample, other: Sample) -> bool:
    images = np.array_equal(np.asarray(one.image), np.asarray(other.image))
    labels = one.label is other.label is None or np.array_equal(
        cast(np.ndarray, one.label), cast(np.ndarray, other.label)
    )
    return images and labels and (one.key, one.tags, one.meta) == (other.key, other.tags, other.meta)


@settings(deadline=None)  # a busy machine is not a failure
@given(numbers=st.lists(st.integers(-23, 22), max_size=12), fresh=st.booleans())
def test_random_access_equals_iteration(stored, folder, numbers, fresh):
    iterated = list(stored)
    reader = ShardSet(folder) if fresh else stored
    for number in numbers:
        assert same(reader[number], iterated[number])
        assert reader.raw(number).image == stored.raw(number % 23).image


def test_samples_are_those_of_the_source(stored, source):
    assert len(stored) == len(source) == sum(stored.shard_sizes)
    assert stored.keys() == [sample.key for sample in source]
    for i, sample in enumerate(source):
        raw, read = stored.raw(i), stored[i]
        assert (raw.key, raw.image, raw.label) == (sample.key, sample.image, sample.label)
        assert json.loads(raw.meta) == read.meta
        assert read.tags == sample.tags and read.meta["source"] == sample.meta["source"]
        assert stored.read(i, label=False).label is None
        assert same(stored[np.int64(i)], read)  # pyright: ignore[reportArgumentType]


def test_numbers_outside_are_index_errors(stored):
    for number in (23, -24):
        with pytest.raises(IndexError, match=f"sample {number} of 23 in"):
            stored[number]


def test_any_url_of_fsspec_reads(folder, stored):
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/somewhere/pictures/train", recursive=True)
    try:
        for url in (f"file://{folder}", "memory://somewhere/pictures/train", f"{folder}/", os.path.relpath(folder)):
            other = ShardSet(url)
            assert other.url == url
            assert other.digest == stored.digest
            assert all(same(*pair) for pair in zip(other, stored, strict=True))
            assert same(pickle.loads(pickle.dumps(other))[7], stored[7])
    finally:
        memory.rm("/somewhere", recursive=True)


def test_it_pickles_without_its_handles(stored):
    assert stored[20].key == "p020"  # handles and indexes are open
    packed = pickle.dumps(stored)
    assert len(packed) < 8000
    code = "import pickle, sys; s = pickle.load(sys.stdin.buffer); print(s[20].key, len(s))"
    done = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=True)
    assert done.stdout.decode().split() == ["p020", "23"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors where Linux lists them")
def test_few_descriptors_stay_open(adapt, draw, tmp_path):
    shard(adapt(draw(80, height=2, width=2)), "train", tmp_path, size=1)
    stored = ShardSet(tmp_path / "pictures" / "train")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert [sample.key for sample in stored] == stored.keys()
    assert len(stored.shard_sizes) == 80
    assert len(os.listdir("/proc/self/fd")) <= before + 64  # noqa: PTH208
    del stored
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads where Linux lists them")
def test_reading_starts_no_threads(folder):
    """A thread of pyarrow that outlives the interpreter aborts the process at its end."""
    code = (
        "import sys, pyarrow.parquet, pyarrow.compute; from pathlib import Path; from semiseg.data import ShardSet, verify\n"
        "count = lambda: len(list(Path('/proc/self/task').iterdir()))\n"
        "before = count(); s = ShardSet(sys.argv[1]); s.keys(); s.sizes(); list(s); assert verify(sys.argv[1]).ok\n"
        "assert count() == before, (before, count())"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def test_damage_is_an_error_with_its_place(copy, stored):
    with tar_place(copy, stored, 4, "label") as (name, offset, data):
        flip(copy / name, offset + 9)
        with pytest.raises(DataError) as caught:
            ShardSet(copy)[4]
        message = str(caught.value)
        assert f"{copy}/{name}: sample 'p004': label at offset {offset}: has crc32" in message
        assert f"semiseg data verify {copy}" in message
        assert message.endswith("or delete it and rerun the command that wrote it"), "no package has that name"
        assert ShardSet(copy)[5].key == "p005", "the others still read"
        os.truncate(copy / name, offset + 3)
        with pytest.raises(DataError, match=rf"label at offset {offset}: ends after 3 of {len(data)} bytes"):
            ShardSet(copy)[4]
        (copy / name).unlink()
        with pytest.raises(DataError, match=rf"{name}: cannot be read \(No such file"):
            ShardSet(copy)[4]


class tar_place:
    """The tar, offset and bytes of a member, found by searching for its bytes."""

    def __init__(self, folder: Path, stored: ShardSet, number: int, member: str) -> None:
        self.data = cast(bytes, getattr(stored.raw(number), member))
        self.tar = next(path for path in sorted(folder.glob("*.tar")) if self.data in path.read_bytes())

    def __enter__(self) -> tuple[str, int, bytes]:
        return self.tar.name, self.tar.read_bytes().index(self.data), self.data

    def __exit__(self, *_: object) -> None: ...


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_damaged_index_is_an_error(copy):
    flip(copy / "000002.index.parquet", 100)
    reader = ShardSet(copy)
    assert reader[0].key == "p000"
    with pytest.raises(
        DataError, match=r"000002\.index\.parquet: its \d+ bytes do not match the manifest \(sha256 differs\)"
    ):
        reader.keys()
    (copy / "000002.index.parquet").unlink()
    with pytest.raises(DataError, match=r"000002\.index\.parquet: cannot be read"):
        reader.class_pixels(cast(Taxonomy, ANY))


ANY = Taxonomy(
    name="any",
    raw=RawSpace(name="pictures", names={0: ""}),
    names=("x",),
    colours=((0, 0, 0),),
    ids={0: 0},
    foreground=frozenset(),
)


def test_a_missing_manifest_gives_the_command_that_writes_it(tmp_path, copy):
    with pytest.raises(DataError) as caught:
        ShardSet(f"{tmp_path}/voc/val")
    assert f"no shards at {tmp_path}/voc/val" in str(caught.value)
    assert f"semiseg data shard voc --split val --to {tmp_path}" in str(caught.value)
    with pytest.raises(DataError, match=r"semiseg data shard voc --split val --to shards$"):
        ShardSet("shards/voc/val")
    with pytest.raises(DataError, match=r"semiseg data shard voc --split val --to memory://bucket$"):
        ShardSet("memory://bucket/voc/val")
    (copy / "manifest.json").rename(copy / "plan.json")
    with pytest.raises(DataError, match=r"was interrupted; rerun the command that wrote it to resume$"):
        ShardSet(copy)


def test_strange_manifests_are_errors(copy):
    path = copy / "manifest.json"
    good = json.loads(path.read_text())

    def message(change: dict[str, object] | str) -> str:
        path.write_text(change if isinstance(change, str) else json.dumps(good | change))
        with pytest.raises(DataError) as caught:
            ShardSet(copy)
        return str(caught.value)

    assert f"{path}: format 2, this semiseg-data reads format 1; install" in message({"format": 2})
    assert "not a manifest" in message("{")
    assert "not a manifest" in message("[]")
    assert "damaged manifest" in message({"shards": [{"name": "x"}]})
    assert "it was edited or damaged" in message({"version": "3"})
    assert "it says samples 4" in message({"samples": 4})


def test_class_pixels_equal_a_double_loop(stored, taxonomy):
    counted = stored.class_pixels(taxonomy)
    assert counted.shape == (23, 3) and counted.dtype == np.int64
    for row, sample in zip(counted, stored, strict=True):
        expected = [0, 0, 0]
        for raw in sample.label.ravel().tolist():
            if raw in taxonomy.ids:
                expected[taxonomy.ids[raw]] += 1
        assert row.tolist() == expected
    assert stored.sizes().tolist() == [[11, 17]] * 23


def test_a_taxonomy_of_another_raw_space_is_refused(stored, taxonomy, adapt, draw, tmp_path):
    other = Taxonomy(
        name="other-1",
        raw=RawSpace(name="other", names={0: ""}),
        names=("x",),
        colours=((0, 0, 0),),
        ids={},
        foreground=frozenset(),
    )
    with pytest.raises(DataError, match="raw space 'pictures', taxonomy 'other-1' reads 'other'"):
        stored.class_pixels(other)
    shard(adapt(draw(2, labeled=False), labeled=False), "train", tmp_path)
    with pytest.raises(DataError, match="has no labels"):
        ShardSet(tmp_path / "pictures" / "train").class_pixels(taxonomy)


def test_indexes_in_memory_grow_with_the_window_not_with_the_set(adapt, draw, tmp_path):
    drawn = draw(100)
    shard(adapt(drawn), "train", tmp_path, size=1)
    url = tmp_path / "pictures" / "train"
    stored = ShardSet(url)
    assert len(stored.shard_sizes) == 100
    keys = stored.keys()
    assert len(stored._indexes) == 64
    order = np.random.default_rng(0).permutation(200) % 100
    assert [stored.raw(int(i)).key for i in order] == [keys[i] for i in order]
    assert len(stored._indexes) == 64
    announced = ShardSet(url)
    announced.ahead(range(10, 90))
    for i in range(100):
        announced.raw(i)
    for index in url.glob("*.parquet"):
        index.unlink()  # what is read now is what was kept
    assert [announced.raw(i).key for i in range(20, 100)] == keys[20:]
    with pytest.raises(DataError, match="cannot be read"):
        announced.raw(19)


def test_threads_may_share_a_set_whose_indexes_come_and_go(adapt, draw, tmp_path):
    shard(adapt(draw(90)), "train", tmp_path, size=1)
    stored = ShardSet(tmp_path / "pictures" / "train")
    keys = ShardSet(tmp_path / "pictures" / "train").keys()
    orders = [np.random.default_rng(seed).permutation(90).tolist() for seed in range(8)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda order: [stored.raw(i).key for i in order], orders))
    assert found == [[keys[i] for i in order] for order in orders]


def test_a_pool_reads_its_sets_one_after_the_other(stored, adapt, draw, tmp_path, taxonomy):
    shard(adapt(draw(4, seed=1, height=5), name="more"), "train", tmp_path)
    more = ShardSet(tmp_path / "more" / "train")
    pool = Pool([stored, more])
    both = [*stored, *more]
    assert len(pool) == 27 and pool.keys() == [sample.key for sample in both]
    assert all(same(*pair) for pair in zip(pool, both, strict=True))
    assert all(same(pool[i], both[i]) and pool.raw(i).key == both[i].key for i in (0, 22, 23, 26, -1, -27))
    assert pool.shard_sizes == (*stored.shard_sizes, 4)
    assert np.array_equal(
        pool.class_pixels(taxonomy), np.r_[stored.class_pixels(taxonomy), more.class_pixels(taxonomy)]
    )
    assert pool.sizes().tolist() == [[11, 17]] * 23 + [[5, 17]] * 4
    digests = {pool.digest, Pool([more, stored]).digest, stored.digest, more.digest}
    assert len(digests) == 4, "the order of sets is the order of samples"
    assert Pool([stored]).digest == stored.digest
    assert same(pickle.loads(pickle.dumps(pool))[25], both[25])
    with pytest.raises(IndexError, match="sample 27 of 27"):
        pool[27]


def test_a_pool_is_of_one_raw_space(stored, adapt, draw, tmp_path):
    space = RawSpace(name="else", names=dict.fromkeys(range(256), ""))
    shard(adapt(draw(2), name="more", raw_space=space), "train", tmp_path)
    with pytest.raises(DataError, match="pool sets of one raw space"):
        Pool([stored, ShardSet(tmp_path / "more" / "train")])
    with pytest.raises(DataError, match="at least one set"):
        Pool([])


def test_a_folder_of_splits_and_a_missing_overlay_give_what_to_type(tmp_path):
    for split in ("val", "train"):
        (tmp_path / "shards" / "own" / split).mkdir(parents=True)
        (tmp_path / "shards" / "own" / split / "manifest.json").write_text("{}")
    own = f"{tmp_path}/shards/own"
    with pytest.raises(DataError) as caught:
        ShardSet(own)
    assert str(caught.value) == f"{own} holds the splits train, val; name one of them, such as {own}/train"
    with pytest.raises(DataError) as caught:
        ShardSet(f"{own}/val@cam")
    assert f"no pseudo-labels at {own}/val@cam" in str(caught.value)
    assert f"semiseg weak labels {own}/val --classifier CLASSIFIER --name cam, or semiseg weak predict " in str(
        caught.value
    )


def test_missing_shards_of_own_images_name_the_command_for_folders(tmp_path):
    with pytest.raises(DataError, match=r"semiseg data shard folder ROOT --option name=roofs --split val --to"):
        ShardSet(tmp_path / "roofs" / "val")
