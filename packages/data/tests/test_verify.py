"""Verify: damage anywhere in a set is reported, with its location."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semiseg.data import DataError, Manifest, RawSample, Report, ShardSet, shard, verify


@pytest.fixture(scope="session")
def whole(adapt, draw, tmp_path_factory) -> Path:
    """Two tiny samples in one tar of 10 kB, the smallest size of a tar."""
    root = tmp_path_factory.mktemp("verify")
    shard(adapt(draw(2, height=3, width=4)), "train", root)
    folder = root / "pictures" / "train"
    assert (folder / "000000.tar").stat().st_size == 10240
    return folder


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "pictures" / "train"))


def messages(report: Report) -> str:
    assert all(problem.remedy for problem in report.problems)
    return "\n".join(map(str, report.problems))


def forge(folder: Path, **fields: object) -> None:
    """A manifest that agrees with itself and with the index, but not with the tar."""
    raw = json.loads((folder / "manifest.json").read_text()) | fields
    raw.pop("sha256", None)
    index = (folder / "000000.index.parquet").read_bytes()
    raw["shards"][0] |= {"index_bytes": len(index), "index_sha256": hashlib.sha256(index).hexdigest()}
    while True:
        try:
            Manifest.from_json(json.dumps(raw))
            break
        except Exception as error:
            raw["digest"] = str(error).partition("its contents give ")[2].partition(":")[0]
            assert raw["digest"], error
    (folder / "manifest.json").write_text(json.dumps(raw))


def test_an_intact_set_has_no_problems(whole):
    seen: list[tuple[int, int, int]] = []
    report = verify(whole, progress=lambda *now: seen.append(now))
    assert (report.ok, report.samples, report.bytes, report.problems) == (True, 2, 10240, [])
    assert seen == [(1, 2, 3072), (2, 2, 10240)]


def test_every_truncation_is_reported(copy):
    tar = copy / "000000.tar"
    data = tar.read_bytes()
    places = [place for row in range(2) for place in spans(copy)[row]]
    edges = {edge + near for start, stop in places for edge in (start, stop) for near in (-512, -1, 0, 1)}
    for length in sorted({*range(0, len(data), 83), *edges, len(data) - 1} & set(range(len(data)))):
        tar.write_bytes(data[:length])
        report = verify(copy)
        assert f"has {length} bytes, the manifest says 10240" in messages(report), length
    tar.write_bytes(data + bytes(10240))
    assert not verify(copy).ok


def spans(folder: Path) -> list[list[tuple[int, int]]]:
    """Start and stop of each member, by row."""
    rows = pq.read_table(folder / "000000.index.parquet").to_pylist()
    names = ("image", "label", "meta")
    return [[(row[f"{n}_offset"], row[f"{n}_offset"] + row[f"{n}_size"]) for n in names] for row in rows]


def test_every_flipped_byte_is_reported(copy):
    tar = copy / "000000.tar"
    data = tar.read_bytes()
    members = [
        (f"p{row:03}", name, *span)
        for row in range(2)
        for name, span in zip(("image", "label", "meta"), spans(copy)[row], strict=True)
    ]
    end = members[-1][3]
    checked = {*range(0, end, 31), *range(146, 160), *range(end, len(data), 211), len(data) - 1}
    for at in sorted(checked):
        tar.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        report = verify(copy)
        assert "000000.tar: its sha256 is not the manifest's" in messages(report), at
        for key, name, start, stop in members:
            if start <= at < stop:
                assert f"000000.tar: '{key}' {name} at offset {start}: has crc32" in messages(report), at
            elif (
                start - 512 <= at < start and not 148 <= at - (start - 512) < 156
            ):  # tarfile tolerates this byte of the checksum field
                assert f"000000.tar: '{key}' {name} at offset {start - 512}: its header is damaged" in messages(
                    report
                ), at
        if at >= -(-end // 512) * 512:
            assert f"at offset {at}: bytes that belong to no sample" in messages(report), at


def test_files_that_miss_or_do_not_belong(copy):
    (copy / "notes.txt").write_text("mine")
    (copy / "plan.json").write_text("{}")
    (copy / ".000000.tar.7.tmp").write_text("")
    (copy / "000000.tar").rename(copy / "000001.tar")
    report = verify(copy)
    assert "notes.txt: does not belong to this set" in messages(report)
    assert "000001.tar: does not belong to this set" in messages(report)
    assert "plan.json: is left over" in messages(report)
    assert ".000000.tar.7.tmp: is left over" in messages(report)
    assert "000000.tar: cannot be read (No such file or directory)" in messages(report)
    (copy / "000000.index.parquet").unlink()
    assert "000000.index.parquet: cannot be read" in messages(verify(copy))


def test_a_damaged_index_or_manifest(copy):
    index = copy / "000000.index.parquet"
    data = index.read_bytes()
    for at in range(0, len(data), 97):
        index.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert "000000.index.parquet: its" in messages(verify(copy))
    index.write_bytes(data)
    manifest = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(manifest.replace('"version": "1"', '"version": "2"'))
    assert "manifest.json: it says digest" in messages(verify(copy))
    (copy / "manifest.json").write_text(manifest[:-40])
    assert "manifest.json: not a manifest" in messages(verify(copy))
    (copy / "manifest.json").unlink()
    assert "no shards at" in messages(verify(copy))


def test_ids_outside_the_raw_space(copy):
    raw = json.loads((copy / "manifest.json").read_text())
    del raw["raw_ids"]["9"]
    forge(copy, raw_ids=raw["raw_ids"], taxonomies=[])
    assert "label at offset" in messages(verify(copy))
    assert "holds id 9 in" in messages(verify(copy))
    assert "which raw space 'pictures' does not have" in messages(verify(copy))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("height", 4),
        ("tags", ["x"]),
        ("flags", ["constant-image"]),
        ("content", "00"),
        ("stats", [{"tile": 0, "id": 0, "pixels": 12, "sum_x": 0, "sum_y": 0}]),
    ],
)
def test_an_index_that_lies_is_found_by_recounting(copy, column, value):
    rewrite(copy, column, value)
    if column == "height":
        with pytest.raises(DataError, match=r"000000\.tar: sample 'p001': the image is 4x3 pixels, the index says 4x4"):
            ShardSet(copy)[1]
    else:
        assert ShardSet(copy)[1].key == "p001", "readers cannot detect it"
    assert f"'p001' image at offset {spans(copy)[1][0][0]}: column '{column}' of the index differs" in messages(
        verify(copy)
    )


def test_an_index_with_other_places_is_found(copy):
    rewrite(copy, "label_offset", spans(copy)[1][1][0] + 512)
    assert "000000.tar: 'p001' label at offset 5120: belongs at 4608 by the sizes" in messages(verify(copy))
    rewrite(copy, "key", "p000")
    assert "000000.index.parquet: lists two samples with the key 'p000'" in messages(verify(copy))


def rewrite(folder: Path, column: str, value: object) -> None:
    """Change the last row of the index, and the manifest to agree with it."""
    path = folder / "000000.index.parquet"
    table = pq.read_table(path)
    values = [*table[column].to_pylist()[:-1], value]
    number = table.schema.get_field_index(column)
    pq.write_table(
        table.set_column(number, table.schema.field(number), pa.array(values, table.schema.field(number).type)), path
    )
    forge(folder)


def test_contents_that_the_digest_does_not_name(copy):
    raw = json.loads((copy / "manifest.json").read_text())
    raw["shards"][0]["content"] = "0" * 64
    forge(copy, shards=raw["shards"])
    assert "000000.index.parquet: is of a tar with content" in messages(verify(copy))


def test_a_tar_of_another_set_is_found(copy, adapt, draw, tmp_path):
    shard(adapt(draw(2, height=3, width=4, seed=1)), "train", tmp_path / "other")
    shutil.copy(tmp_path / "other" / "pictures" / "train" / "000000.tar", copy)
    report = verify(copy)
    assert "has crc32" in messages(report) and "sha256 is not the manifest's" in messages(report)


def test_any_url_verifies(whole):
    memory = fsspec.filesystem("memory")
    memory.put(str(whole), "/verified/pictures/train", recursive=True)
    try:
        assert verify("memory://verified/pictures/train").problems == []
        memory.pipe("/verified/pictures/train/000000.tar", (whole / "000000.tar").read_bytes()[:5000])
        assert "has 5000 bytes" in messages(verify("memory://verified/pictures/train"))
    finally:
        memory.rm("/verified", recursive=True)


def test_a_set_without_labels_verifies(adapt, draw, tmp_path):
    samples: list[RawSample] = draw(3, labeled=False, kind="JPEG")
    shard(adapt(samples, labeled=False), "train", tmp_path)
    folder = tmp_path / "pictures" / "train"
    assert verify(folder).problems == []
    os.truncate(folder / "000000.tar", 3000)
    assert "the file ends inside this sample" in messages(verify(folder))


@pytest.fixture(scope="session")
def several(adapt, draw, tmp_path_factory) -> Path:
    """Seven shards of one sample."""
    root = tmp_path_factory.mktemp("several")
    shard(adapt(draw(7)), "train", root, size=1)
    return root / "pictures" / "train"


def test_shares_cover_the_set_and_every_shard_once(several, tmp_path):
    folder = Path(shutil.copytree(several, tmp_path / "pictures" / "train"))
    for number in (1, 4, 6):
        path = folder / f"{number:06}.tar"
        path.write_bytes(path.read_bytes()[:700] + b"x" + path.read_bytes()[701:])
    whole = verify(folder)
    shares = [verify(folder, share=f"{number}/3") for number in (1, 2, 3)]
    assert [report.shards for report in shares] == [3, 2, 2] and whole.shards == 7
    assert [report.samples for report in shares] == [3, 2, 2]
    assert sum(report.bytes for report in shares) == whole.bytes
    assert sorted(map(str, whole.problems)) == sorted(str(problem) for report in shares for problem in report.problems)
    assert [{problem.shard for problem in report.problems} for report in shares] == [
        {"000006.tar"},
        {"000001.tar", "000004.tar"},
        set(),
    ]
    assert verify(folder, share="9/9").shards == 0, "fewer shards than shares"
    for share in ("0/3", "4/3", "1/0", "half", "1", "1/3/5"):
        with pytest.raises(DataError, match=rf"invalid share '{share}'; write i/n"):
            verify(folder, share=share)


def test_any_number_of_workers_reports_the_same(several, tmp_path):
    folder = Path(shutil.copytree(several, tmp_path / "pictures" / "train"))
    (folder / "000003.tar").unlink()
    (folder / "000005.tar").write_bytes(bytes(10240))
    seen: list[tuple[int, int, int]] = []
    one, two = verify(folder), verify(folder, workers=2, progress=lambda *now: seen.append(now))
    assert [*map(str, one.problems)] == [*map(str, two.problems)]
    assert one == two and len(one.problems) >= 4
    assert seen[-1][:2] == (6, 7), "the missing one is not among those checked"
    with pytest.raises(DataError, match="workers is 0"):
        verify(folder, workers=0)
