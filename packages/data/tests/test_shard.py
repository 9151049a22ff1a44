"""The writer: what is in the tars, the same bytes however they are written, and nothing half-written."""

import hashlib
import io
import json
import sys
import tarfile
import zlib
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from semiseg.data import DataError, Manifest, RawSample, RawSpace, ShardSet, shard, verify
from semiseg.data.format.manifest import canonical
from semiseg.data.sizes import parse_size
from semiseg.data.storage.lock import only_writer

OTHER = RawSpace(name="other", names=dict.fromkeys(range(256), ""))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_tar_holds_the_publishers_bytes_in_order(adapt, draw, tmp_path):
    samples = draw(5)
    manifest = shard(adapt(samples), "train", tmp_path)
    folder = tmp_path / "pictures" / "train"
    assert sorted(files(folder)) == ["000000.index.parquet", "000000.tar", "manifest.json"]
    rows = pq.read_table(folder / "000000.index.parquet").to_pylist()
    with tarfile.open(folder / "000000.tar", "r:") as tar:  # the standard library's reader is the oracle for offsets
        members = tar.getmembers()
        names = [f"{sample.key}.{member}" for sample in samples for member in manifest.members]
        assert [member.name for member in members] == names
        for member in members:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            key, kind, _ = member.name.split(".")
            row = next(row for row in rows if row["key"] == key)
            stream = tar.extractfile(member)
            assert stream is not None
            data = stream.read()
            assert (row[f"{kind}_offset"], row[f"{kind}_size"]) == (member.offset_data, member.size)
            assert row[f"{kind}_crc32"] == zlib.crc32(data)
            sample = next(sample for sample in samples if sample.key == key)
            if kind == "meta":
                meta = {"key": key, "tags": ",".join(sample.tags), **sample.meta}
                assert data == json.dumps(meta, sort_keys=True, separators=(",", ":")).encode()
            else:
                assert data == getattr(sample, kind)


def test_the_index_agrees_with_a_double_loop(adapt, tmp_path, encoded):
    random = np.random.default_rng(0)
    label = random.choice([0, 1, 255], (1030, 1100)).astype(np.uint8)  # four tiles, three of them partial
    label[:1024, :1024] = 2
    image = encoded(np.zeros((1030, 1100, 3), np.uint8))
    shard(adapt([RawSample(key="a", image=image, label=partial(np.array, label), size=1)]), "train", tmp_path)
    row = pq.read_table(tmp_path / "pictures" / "train" / "000000.index.parquet").to_pylist()[0]
    expected: dict[tuple[int, int], list[int]] = {}
    for y in range(label.shape[0]):
        for x in [*range(0, 1024, 64), *range(1024, 1100)] if y < 1024 else range(label.shape[1]):
            weight = 64 if x < 1024 and y < 1024 else 1  # the first tile is of one id: every 64th column stands for 64
            shift = 63 * 64 // 2 if weight == 64 else 0
            sums = expected.setdefault((y // 1024 * 2 + x // 1024, int(label[y, x])), [0, 0, 0])
            sums[0] += weight
            sums[1] += weight * x + shift
            sums[2] += weight * y
    found = {(s["tile"], s["id"]): [s["pixels"], s["sum_x"], s["sum_y"]] for s in row["stats"]}
    assert found == expected
    assert (row["height"], row["width"], row["flags"]) == (1030, 1100, ["constant-image"])


def test_any_number_of_processes_writes_the_same_bytes(camvid, tmp_path):
    calls: list[tuple[int, int, int]] = []
    for workers in (1, 2, 3):
        shard(
            camvid,
            "train",
            tmp_path / str(workers),
            size="1MB",
            workers=workers,
            progress=lambda *now: calls.append(now),
        )
        assert calls[-1][:2] == (12, 12)
    written = [files(tmp_path / str(workers) / "camvid-part" / "train") for workers in (1, 2, 3)]
    assert len(written[0]) == 2 * 4 + 1
    assert written[0] == written[1] == written[2]


def test_a_second_call_writes_nothing(adapt, draw, tmp_path):
    adapter = adapt(draw(9))
    first = shard(adapter, "train", tmp_path, size="2KB")
    before = times(tmp_path / "pictures" / "train")
    assert shard(adapter, "train", tmp_path, size="2KB") == first
    assert times(tmp_path / "pictures" / "train") == before


def test_finished_shards_are_skipped_and_damaged_ones_written_again(adapt, draw, tmp_path):
    adapter, folder = adapt(draw(12)), tmp_path / "pictures" / "train"
    shard(adapter, "train", tmp_path, size="2KB")
    whole, before = files(folder), times(folder)
    assert len(whole) > 8
    (folder / "manifest.json").unlink()
    (folder / "000001.index.parquet").unlink()
    (folder / "000002.tar").write_bytes(whole["000002.tar"][:-1])
    (folder / ".000003.tar.99.tmp").write_bytes(b"left over")
    shard(adapter, "train", tmp_path, size="2KB")
    assert files(folder) == whole
    after = times(folder)
    assert {name for name in after if after[name] != before[name]} == {
        "manifest.json", "000001.tar", "000001.index.parquet", "000002.tar", "000002.index.parquet",
    }  # fmt: skip
    (folder / "000000.tar").unlink()  # noticed although there is a manifest
    shard(adapter, "train", tmp_path, size="2KB")
    assert files(folder) == whole


@pytest.mark.parametrize(
    ("change", "expected", "finished"),
    [
        ({"version": "2"}, "version: 1 there, 2 now", True),
        ({"version": "2"}, "version: 1 there, 2 now", False),
        ({"size": "9KB"}, "size of shards: 2,000 bytes there, 9,000 bytes now", True),
        ({"size": "9KB"}, "size of shards: 2,000 bytes there, 9,000 bytes now", False),
        ({"raw_space": OTHER}, "raw_space: pictures there, other now", True),
        ({"raw_space": OTHER}, "raw_space: pictures there, other now", False),
        ({"count": 11}, "samples: 12 there, 11 now", True),
        ({"seed": 1, "width": 18}, "keys, sizes, tags, meta and stamps of the source's samples", True),
    ],
)
def test_another_configuration_is_refused(adapt, draw, tmp_path, change, expected, finished):
    shard(adapt(draw(12)), "train", tmp_path, size="2KB")
    folder, change = tmp_path / "pictures" / "train", dict(change)
    if not finished:
        raw = json.loads((folder / "manifest.json").read_text())
        listed = [{"name": entry["name"], "samples": entry["samples"]} for entry in raw["shards"]]
        plan = {name: raw[name] for name in raw if name not in ("bytes", "digest", "sha256")} | {"shards": listed}
        (folder / "plan.json").write_text(json.dumps(plan))
        (folder / "manifest.json").unlink()
    before = files(folder)
    words = {name: change.pop(name) for name in ("version", "raw_space") if name in change}
    size = change.pop("size", "2KB")
    with pytest.raises(DataError, match="holds shards of another configuration") as caught:
        shard(adapt(draw(change.pop("count", 12), **change), **words), "train", tmp_path, size=size)
    assert expected in str(caught.value)
    assert "--to" in str(caught.value)
    assert files(folder) == before


def test_a_source_that_changed_before_the_end_is_written_again(adapt, draw, tmp_path):
    folder, samples = tmp_path / "pictures" / "train", draw(12)

    def broken(at: int) -> list[RawSample]:
        return [replace(s, image=cast(bytes, s.image)[:-50]) if i == at else s for i, s in enumerate(samples)]

    with pytest.raises(DataError, match=r"'p009'.*truncated or broken"):
        shard(adapt(broken(9)), "train", tmp_path, size="2KB")
    assert "000000.tar" in files(folder) and "plan.json" in files(folder)
    for name, source in (("left out", samples[:9]), ("whole", samples)):
        again = tmp_path / name
        (again / "pictures").mkdir(parents=True)
        (again / "pictures" / "train").mkdir()
        for path, data in files(folder).items():
            (again / "pictures" / "train" / path).write_bytes(data)
        shard(adapt(source), "train", again, size="2KB")
        shard(adapt(source), "train", tmp_path / "straight" / name, size="2KB")
        assert files(again / "pictures" / "train") == files(tmp_path / "straight" / name / "pictures" / "train")


@pytest.mark.parametrize("workers", [1, 2])
def test_after_an_error_before_the_first_shard_nothing_is_left(adapt, draw, tmp_path, workers):
    samples = draw(3)
    broken = [replace(samples[0], image=cast(bytes, samples[0].image)[:-50]), *samples[1:]]
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="truncated or broken"):
        shard(adapt(broken), "train", tmp_path / "mine" / "to", size="9KB", workers=workers)
    assert list((tmp_path / "mine").iterdir()) == []
    shard(adapt(samples), "train", tmp_path / "mine" / "to", size="9KB", workers=workers)


def test_a_tar_of_another_configuration_is_written_again(adapt, draw, tmp_path):
    samples = draw(6)
    shard(adapt(samples), "train", tmp_path / "want", size="9KB")
    changed = [replace(sample, image=cast(bytes, sample.image) + b"\0") for sample in samples]
    shard(adapt(changed, version="2"), "train", tmp_path / "got", size="9KB")
    want, got = (tmp_path / name / "pictures" / "train" for name in ("want", "got"))
    assert want.joinpath("000000.tar").read_bytes() != got.joinpath("000000.tar").read_bytes()
    (got / "manifest.json").unlink()  # its tar has the same keys and agrees with its own index
    shard(adapt(samples), "train", tmp_path / "got", size="9KB")
    assert files(got) == files(want)


def test_a_writer_that_finds_the_set_finished_when_its_turn_comes_leaves_it(adapt, draw, tmp_path, monkeypatch):
    """Between the first check of the folder and the lock, another process may write another configuration."""
    folder, late = tmp_path / "pictures" / "train", []

    @contextmanager
    def overtaken(place: Path):
        if not late:
            late.append(place)
            shard(adapt(draw(6)), "train", tmp_path, size="2KB")
            late.append(files(folder))
        with only_writer(place):
            yield

    monkeypatch.setattr(sys.modules["semiseg.data.write.shard"], "only_writer", overtaken)
    with pytest.raises(DataError, match="version: 1 there, 2 now"):
        shard(adapt(draw(6), version="2"), "train", tmp_path, size="2KB")
    assert files(folder) == late[1]


def test_tags_and_meta_of_a_source_are_a_part_of_its_listing(adapt, draw, tmp_path):
    samples = draw(3)
    shard(adapt(samples), "train", tmp_path)
    for change in ({"tags": ("other",)}, {"meta": {**samples[0].meta, "weight": 9.0}}):
        with pytest.raises(DataError, match="keys, sizes, tags, meta and stamps of the source"):
            shard(adapt([replace(samples[0], **change), *samples[1:]]), "train", tmp_path)


def test_a_stamp_reveals_a_change_of_the_same_size_and_is_not_content(adapt, draw, tmp_path):
    samples = draw(3)
    stamped = [replace(sample, stamp="1") for sample in samples]
    plain = shard(adapt(samples), "train", tmp_path / "plain")
    found = shard(adapt(stamped), "train", tmp_path)
    assert found.digest == plain.digest and found.listing != plain.listing
    assert [entry.sha256 for entry in found.shards] == [entry.sha256 for entry in plain.shards]
    rows = [
        [sample.key, sample.size, list(sample.tags), dict(sample.meta)] for sample in samples
    ]  # as sets were listed before
    assert plain.listing == hashlib.sha256(canonical(rows)).hexdigest()
    assert shard(adapt(stamped), "train", tmp_path) == found
    with pytest.raises(DataError, match="keys, sizes, tags, meta and stamps of the source"):
        shard(adapt([replace(stamped[0], stamp="2"), *stamped[1:]]), "train", tmp_path)


def test_of_a_changed_raw_space_only_the_changes_are_reported(adapt, draw, tmp_path):
    samples, names = draw(3), {0: "sky", 1: "road", 2: "car", 9: "sign", 255: "void"}
    shard(adapt(samples, raw_space=RawSpace(name="own", names=names)), "train", tmp_path)
    later = RawSpace(name="own", names={0: "sky", 1: "street", 2: "car", 9: "sign", 12: "tree", 255: "void"})
    with pytest.raises(DataError) as caught:
        shard(adapt(samples, raw_space=later), "train", tmp_path)
    assert str(caught.value).splitlines()[1:-1] == [
        "  id 1 of the raw space: 'road' there, 'street' now",
        "  id 12 of the raw space: not there, 'tree' now",
    ]


def test_leftovers_of_a_killed_writer_are_removed_from_a_complete_set(adapt, draw, tmp_path):
    adapter, folder = adapt(draw(3)), tmp_path / "pictures" / "train"
    shard(adapter, "train", tmp_path)
    whole = files(folder)
    (folder / "plan.json").write_bytes(b"{}")
    (folder / ".000000.tar.99.tmp").write_bytes(b"left over")
    shard(adapter, "train", tmp_path)
    assert files(folder) == whole


def test_a_folder_that_cannot_be_read_is_not_to_be_deleted(adapt, draw, tmp_path):
    (tmp_path / "pictures" / "train" / "manifest.json").mkdir(parents=True)  # reading it is an OSError, for root too
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)") as caught:
        shard(adapt(draw(3)), "train", tmp_path)
    assert "delete" not in str(caught.value)


def test_the_digest_follows_contents_and_settings_alone(adapt, draw, encoded, tmp_path):
    samples = draw(4)

    def digest(name: str, samples: list[RawSample], size: str = "1KB", **words: Any) -> str:
        return shard(adapt(samples, **words), "train", tmp_path / name, size=size).digest

    first = digest("first", samples)
    pixels = [np.asarray(Image.open(io.BytesIO(cast(bytes, sample.label)))) for sample in samples]
    packed = [replace(s, label=encoded(p, compress_level=1)) for s, p in zip(samples, pixels, strict=True)]
    assert packed[0].label != samples[0].label
    assert digest("repacked", packed) == first
    arrays = [replace(s, label=partial(np.array, p)) for s, p in zip(samples, pixels, strict=True)]
    wide = [replace(s, label=partial(np.array, p, np.uint16)) for s, p in zip(samples, pixels, strict=True)]
    assert digest("arrays", arrays) == first
    assert digest("wide", wide) == first, "the raw space decides how labels are stored, not an array's type"
    assert digest("lazy", [replace(s, image=partial(bytes, s.image)) for s in samples]) == first
    changed = pixels[2].copy()
    changed[3, 3] = 0 if changed[3, 3] else 1
    others = [
        digest("pixel", [*samples[:2], replace(samples[2], label=partial(np.array, changed)), samples[3]]),
        digest("key", [replace(samples[0], key="other"), *samples[1:]]),
        digest("meta", [replace(samples[0], meta={**samples[0].meta, "weight": 0.5}), *samples[1:]]),
        digest("tags", [replace(samples[0], tags=("x",)), *samples[1:]]),
        digest("order", samples[::-1]),
        digest("size", samples, "9KB"),
        digest("version", samples, version="2"),
    ]
    assert len({first, *others}) == 1 + len(others), "every change gives another digest"


def test_labels_become_one_band_of_ids(adapt, encoded, draw, tmp_path):
    ids = np.array([[0, 1, 2], [9, 255, 1]], np.uint8)
    palette = Image.fromarray(ids)
    palette.putpalette([value for i in range(256) for value in (i * 7 % 256, 255 - i, i)])  # colours are not the ids
    few = Image.fromarray(ids % 3)
    few.putpalette([9, 9, 9, 1, 1, 1, 0, 0, 0])
    given = {
        "kept8": encoded(ids),
        "kept16": encoded(ids.astype(np.uint16)),
        "palette": encoded(palette),
        "bits": encoded(few, bits=2),
        "array": partial(np.array, ids, np.int64),
    }
    image = encoded(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    samples = [RawSample(key=key, image=image, label=label, size=1) for key, label in given.items()]
    shard(adapt(samples), "train", tmp_path)
    stored = ShardSet(tmp_path / "pictures" / "train")
    for i, key in enumerate(given):
        label = stored[i].label
        assert label is not None
        assert np.array_equal(label, ids % 3 if key == "bits" else ids), key
        assert label.dtype == (np.uint16 if key == "kept16" else np.uint8)
        data = stored.raw(i).label
        assert data is not None
        assert data[25] == 0 and data[24] in (8, 16), "greyscale, no palette"
        assert not key.startswith("kept") or data == given[key]


def test_wide_raw_spaces_are_stored_in_16_bits(adapt, encoded, tmp_path):
    space = RawSpace(name="wide", names={0: "none", 300: "some", 65535: "void"})
    image = encoded(np.zeros((2, 2, 3), np.uint8))
    labels = [np.zeros((2, 2), np.uint8), np.array([[0, 300], [65535, 300]], np.int32)]
    given = {f"k{i}": partial(np.array, label) for i, label in enumerate(labels)}
    samples = [RawSample(key=key, image=image, label=label, size=1) for key, label in given.items()]
    shard(adapt(samples, raw_space=space), "train", tmp_path)
    for label, sample in zip(labels, ShardSet(tmp_path / "pictures" / "train"), strict=True):
        assert sample.label is not None and sample.label.dtype == np.uint16
        assert np.array_equal(sample.label, label)


def test_a_worker_that_fails_stops_all_and_the_rest_continues(adapt, draw, tmp_path):
    samples = draw(12)
    broken = [*samples[:7], replace(samples[7], image=samples[7].image[:200]), *samples[8:]]  # type: ignore[index]
    folder = tmp_path / "pictures" / "train"
    with pytest.raises(DataError, match=r"pictures/train: sample 'p007' \(source picture 7\): .*truncated or broken"):
        shard(adapt(broken), "train", tmp_path, size="2KB", workers=2)
    left = files(folder)
    assert "manifest.json" not in left and "plan.json" in left
    assert not [name for name in left if name.endswith(".tmp")]
    manifest = shard(adapt(samples), "train", tmp_path, size="2KB", workers=2)  # the file was replaced by an intact one
    assert manifest == shard(adapt(samples), "train", tmp_path / "straight", size="2KB")
    assert files(folder) == files(tmp_path / "straight" / "pictures" / "train")


def test_the_next_call_resumes_after_an_interrupt(adapt, draw, tmp_path):
    def stop(done: int, total: int, size: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    adapter, folder = adapt(draw(12)), tmp_path / "pictures" / "train"
    with pytest.raises(KeyboardInterrupt):
        shard(adapter, "train", tmp_path, size="2KB", progress=stop)
    left = files(folder)
    assert "manifest.json" not in left and "000000.index.parquet" in left
    assert not [name for name in left if name.endswith(".tmp")]
    with pytest.raises(DataError, match="writing was interrupted; rerun the command that wrote it to resume"):
        ShardSet(folder)
    shard(adapter, "train", tmp_path, size="2KB")
    shard(adapter, "train", tmp_path / "straight", size="2KB")
    assert files(folder) == files(tmp_path / "straight" / "pictures" / "train")


def test_samples_that_cannot_travel_say_so(adapt, draw, tmp_path):
    samples = [replace(sample, image=lambda data=sample.image: data) for sample in draw(6)]
    with pytest.raises(DataError, match=r"can't be sent to another process .*functools\.partial"):
        shard(adapt(samples), "train", tmp_path, size="1KB", workers=2)
    assert shard(adapt(samples), "train", tmp_path, size="1KB").samples == 6


def test_a_second_writer_is_refused(adapt, draw, tmp_path):
    adapter = adapt(draw(4))

    def again(done: int, total: int, size: int) -> None:
        with pytest.raises(DataError, match="another process is writing here"):
            shard(adapter, "train", tmp_path, size="1KB")

    assert shard(adapter, "train", tmp_path, size="1KB", progress=again).samples == 4


def test_an_unlabeled_split_has_no_labels_anywhere(adapt, draw, tmp_path):
    manifest = shard(adapt(draw(3, labeled=False, kind="JPEG"), labeled=False), "train", tmp_path)
    assert manifest.members == ("image.jpg", "meta.json")
    stored = ShardSet(tmp_path / "pictures" / "train")
    assert [sample.label for sample in stored] == [None] * 3
    assert verify(stored.url).problems == []


def test_the_manifest_survives_its_json(adapt, draw, tmp_path):
    manifest = shard(adapt(draw(5)), "train", tmp_path, size="1KB")
    text = (tmp_path / "pictures" / "train" / "manifest.json").read_text()
    assert Manifest.from_json(text) == manifest
    assert json.loads(text)["digest"] == manifest.digest
    for entry in manifest.shards:
        tar = (tmp_path / "pictures" / "train" / entry.tar).read_bytes()
        assert (hashlib.sha256(tar).hexdigest(), len(tar)) == (entry.sha256, entry.bytes)


def test_sizes_are_read_as_people_write_them():
    assert [parse_size(text) for text in ("256MB", "1.5 GB", "64MiB", "2k", "12", 12)] == [
        256_000_000, 1_500_000_000, 64 << 20, 2000, 12, 12,
    ]  # fmt: skip
    for text in ("", "MB", "-3MB", "0", "3 apples", "1e6"):
        with pytest.raises(DataError, match="invalid shard size"):
            parse_size(text)


def test_greedy_shards_stay_below_the_size(adapt, draw, tmp_path):
    samples = [replace(sample, size=size) for sample, size in zip(draw(7), [5, 5, 6, 10, 25, 1, 1], strict=True)]
    manifest = shard(adapt(samples), "train", tmp_path, size=10)
    assert [entry.samples for entry in manifest.shards] == [2, 1, 1, 1, 2]
