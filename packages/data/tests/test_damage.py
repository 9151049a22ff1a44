"""Damage, exhaustively: every byte of a small set, edges and samples of a real one, and sets that were written wrong.

Each case goes through `verify` and through reading every sample; both must refuse it, with a DataError and nothing else.
"""

import functools
import os
import random
import shutil
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semiseg.data import DataError, Manifest, ShardEntry, ShardSet, shard, verify
from semiseg.data.format.index import Index, pack
from semiseg.data.format.manifest import sha256, shard_content
from semiseg.data.format.tar import BLOCK, RECORD, header, padded

PARTS = 4  # of the exhaustive tests, for pytest-xdist
TAR, INDEX, MANIFEST = "000000.tar", "000000.index.parquet", "manifest.json"
Files = dict[str, bytes]  # of a sample: extension -> bytes


@pytest.fixture(scope="module")
def small(adapt, draw, tmp_path_factory) -> Path:
    """Two tiny samples in one tar of 10 kB, the smallest size of a tar."""
    root = tmp_path_factory.mktemp("damage")
    shard(adapt(draw(2, height=3, width=4)), "train", root)
    folder = root / "pictures" / "train"
    assert (folder / TAR).stat().st_size == RECORD
    return folder


@pytest.fixture(scope="module")
def real(camvid, tmp_path_factory) -> Path:
    """One real image of CamVid and its label."""
    root = tmp_path_factory.mktemp("real")
    shard(camvid, "train", root, size=1)
    folder = root / "camvid-part" / "train"
    manifest = Manifest.from_json((folder / MANIFEST).read_text())
    for entry in manifest.shards[1:]:
        (folder / entry.tar).unlink()
        (folder / entry.index).unlink()
    (folder / MANIFEST).write_text(replace(manifest, shards=manifest.shards[:1]).to_json())
    return folder


def read(folder: Path) -> None:
    for _ in ShardSet(folder):
        pass


def refused(check: Callable[[Path], object], folder: Path) -> bool:
    """Whether a check reports damage: by a DataError with a remedy, or in a report."""
    try:
        report = check(folder)
    except DataError as error:
        return ": " in str(error) and ("; " in str(error) or "no shards at" in str(error))
    return bool(report) and not report.ok and all(p.what and p.remedy for p in report.problems)  # type: ignore[attr-defined]


def count_refused(
    folder: Path, name: str, changes: Iterable[tuple[int, int | None]], reader: Callable[[Path], object]
) -> int:
    """Damage a file: flip the bits of a mask at an offset, or (None) cut it off there; returns how often both refuse."""
    path, count = folder / name, 0
    whole = path.read_bytes()
    descriptor = os.open(path, os.O_RDWR)  # in place, so that readers with the file open see it
    try:
        for at, mask in changes:
            os.truncate(path, at) if mask is None else os.pwrite(descriptor, bytes([whole[at] ^ mask]), at)
            assert refused(verify, folder), f"verify does not see {name} with {mask} at {at}"
            assert refused(reader, folder), f"reading does not see {name} with {mask} at {at}"
            os.pwrite(descriptor, whole[at:] if mask is None else whole[at : at + 1], at)
            count += 1
    finally:
        os.close(descriptor)
    assert path.read_bytes() == whole and verify(folder).ok
    return count


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("cut", [False, True], ids=["flip", "cut"])
def test_every_byte_of_a_tar(small, tmp_path, monkeypatch, part, cut):
    # The index is intact, and its sha256 computed every time; parsing the same bytes takes half of the time.
    monkeypatch.setattr("semiseg.data.format.index.Index", functools.cache(Index))
    folder = Path(shutil.copytree(small, tmp_path / "pictures" / "train"))
    stored = ShardSet(folder)
    assert len(list(stored)) == 2  # the file is open, the index read: only the tar is read from now on
    offsets = range(part, RECORD, PARTS)
    changes = [(at, None if cut else 1 << at // PARTS % 8) for at in offsets]
    assert count_refused(folder, TAR, changes, lambda _: list(stored) and None) == RECORD // PARTS
    print(f"{len(offsets)} {'truncations' if cut else 'flips'} of a tar of {RECORD} bytes, each refused twice")


@pytest.mark.parametrize("name", [INDEX, MANIFEST])
def test_every_byte_of_an_index_and_of_a_manifest(small, tmp_path, name):
    folder = Path(shutil.copytree(small, tmp_path / "pictures" / "train"))
    size = (folder / name).stat().st_size
    changes = [*((at, 1 << at % 8) for at in range(size)), *((at, None) for at in range(size))]
    assert count_refused(folder, name, changes, read) == 2 * size
    print(f"{size} flips and {size} truncations of {name}, each refused twice")


def test_edges_and_random_offsets_of_a_real_tar(real, tmp_path):
    folder = Path(shutil.copytree(real, tmp_path / "camvid-part" / "train"))
    stored = ShardSet(folder)
    size = stored.manifest.bytes
    stored.raw(0)
    places = stored._indexes[0].places[0]
    edges = {edge + near for _, at, length, _ in places for edge in (at, at + length) for near in (-BLOCK, -1, 0)}
    edges |= {padded(edge) for edge in edges} | {0, size - 1, size - BLOCK, size - 2 * BLOCK}
    offsets = sorted(edges) + random.Random(0).sample(range(size), 200)
    changes = [(at, 1 << at % 8) for at in offsets] + [(at, None) for at in offsets]
    done = count_refused(folder, TAR, changes, lambda _: list(stored) and None)
    assert done == 2 * len(offsets) >= 430
    # Every edge of a block by reading alone, which costs a crc32.
    data, blocks = bytearray((folder / TAR).read_bytes()), 0
    with (folder / TAR).open("r+b", buffering=0) as file:
        for at in (edge + near for edge in range(0, size, BLOCK) for near in (0, BLOCK - 1)):
            file.seek(at)
            file.write(bytes([data[at] ^ 1]))
            with pytest.raises(DataError, match=r"000000\.tar: sample '.+': .+ at offset \d+: "):
                stored.raw(0)
            file.seek(at)
            file.write(data[at : at + 1])
            blocks += 1
    stored.raw(0)
    print(
        f"{done} flips and truncations of a real tar of {size} bytes refused twice, {blocks} flips at block edges by reading"
    )


@pytest.fixture
def make(adapt, draw, encoded, tmp_path) -> Callable[..., Path]:
    """make(shards of [(key, files)]) -> a set with correct checksums, whatever its samples are."""
    small = shard(adapt(draw(1, height=3, width=4)), "train", tmp_path / "model")

    def make(shards: list[list[tuple[str, Files]]]) -> Path:
        folder = tmp_path / "made" / "pictures" / "train"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        entries = []
        for number, samples in enumerate(shards):
            tar, rows = b"", []
            for key, files in samples:
                row = {"key": key, "height": 3, "width": 4, "tags": [], "flags": [], "content": "0" * 64, "stats": []}
                for extension, data in files.items():
                    tar += header(f"{key}.{extension}", len(data), 0)
                    place = {"offset": len(tar), "size": len(data), "crc32": zlib.crc32(data)}
                    row |= {f"{extension.split('.')[0]}_{name}": value for name, value in place.items()}
                    tar += data.ljust(padded(len(data)), b"\0")
                rows.append(row)
            tar = (tar + bytes(2 * BLOCK)).ljust(-(-(len(tar) + 2 * BLOCK) // RECORD) * RECORD, b"\0")
            content = shard_content([row["content"] for row in rows])
            facts = {"bytes": len(tar), "sha256": sha256(tar), "samples": len(rows), "content": content}
            index = pack(rows, {name: str(value) for name, value in facts.items()})
            (folder / f"{number:06}.tar").write_bytes(tar)
            (folder / f"{number:06}.index.parquet").write_bytes(index)
            hashes = {"index_bytes": len(index), "index_sha256": sha256(index)}
            entries.append(ShardEntry(name=f"{number:06}", **facts, **hashes))  # type: ignore[arg-type]
        (folder / MANIFEST).write_text(replace(small, shards=tuple(entries)).to_json())
        return folder

    return make


def test_sets_that_were_written_wrong(make, encoded):
    """All checksums are correct; the contents are wrong."""
    pixels = np.random.default_rng(0).integers(0, 255, (3, 4, 3), np.uint8)
    image, ids = encoded(pixels), np.array([[0, 1, 2, 9]] * 3, np.uint8)

    def files(key: str, **changes: bytes) -> Files:
        good = {"image.png": image, "label.png": encoded(ids), "meta.json": f'{{"key":"{key}","tags":""}}'.encode()}
        return {
            name: changes[member] if (member := name.split(".")[0]) in changes else data for name, data in good.items()
        }

    read(make([[("a", files("a")), ("b", files("b"))], [("c", files("c"))]]))  # right but for the index's columns
    wrong = {
        "label of another size": (files("a", label=encoded(ids[:, :3].copy())), "the label is 3x3 pixels"),
        "image of another size": (
            files("a", image=encoded(pixels[:2].copy())),
            "the image is 4x2 pixels|label is 4x3 pixels",
        ),
        "id out of range": (files("a", label=encoded(ids + np.uint8(5))), "the label holds id 5 in 3 pixels"),
        "id out of range, 16 bits": (files("a", label=encoded(ids.astype(np.uint16) * 300)), "holds id 300"),
        "label of colours": (files("a", label=image), "colour type 2"),
        "label is a JPEG": (files("a", label=encoded(pixels, "JPEG")), "the label is not a PNG but a JPEG"),
        "broken image": (files("a", image=image[:-30]), "the image is truncated or broken"),
        "broken label": (files("a", label=encoded(ids)[:-30]), "the label is truncated or broken"),
        "no image": (files("a", image=b"nothing"), "the image is truncated or broken"),
        "meta is no JSON": (files("a", meta=b"{"), "the meta is not JSON"),
        "meta of another key": (files("b"), "the meta has key 'b'"),
        "meta without tags": (files("a", meta=b'{"key":"a"}'), "the meta is not JSON with key and tags"),
        "no label": (
            {k: v for k, v in files("a").items() if k != "label.png"},
            "'a' has members image, meta; expected",
        ),
        "members in another order": (dict(reversed(files("a").items())), "000000"),
        "a key that leads elsewhere": (files("../a"), "lists a sample with the key '../a', which is not allowed"),
    }
    for name, (sample, expected) in wrong.items():
        folder = make([[("../a" if "elsewhere" in name else "a", sample)]])
        with pytest.raises(DataError, match=expected):
            read(folder)
        assert not verify(folder).ok, name
    twice = make([[("a", files("a")), ("a", files("a"))]])
    with pytest.raises(DataError, match="two samples with the key 'a'"):
        read(twice)
    assert not verify(twice).ok
    apart = make([[("a", files("a"))], [("a", files("a"))]])
    assert any("another sample with this key is in 000000.tar" in str(problem) for problem in verify(apart).problems)
    read(apart)  # reading one shard does not read the keys of others: only `verify` finds this
    print(f"{len(wrong) + 1} sets that were never right, each refused twice; a key in two shards, by verify")


@pytest.mark.parametrize(
    "changed", [{"name": "../000000"}, {"name": "/etc/x"}, {"sha256": "/home/x"}, {"index_sha256": "../x"}]
)
def test_a_manifest_cannot_lead_to_another_folder(small, changed):
    """Its names become paths, and its sha256 names of copies in the cache, which are removed if they are damaged."""
    manifest = Manifest.from_json((small / MANIFEST).read_text())
    (entry,) = manifest.shards
    with pytest.raises(ValueError, match="that no writer gives"):
        replace(entry, **changed)
    text = manifest.to_json()
    for name, value in changed.items():
        text = text.replace(f'"{name}": "{getattr(entry, name)}"', f'"{name}": "{value}"')
    with pytest.raises(DataError, match=r"damaged manifest .*that no writer gives"):
        Manifest.from_json(text)


def test_members_that_miss_double_or_lie_apart(small, tmp_path):
    """The tar differs from its index and manifest, in ways that are typical of scripts."""
    whole = (small / TAR).read_bytes()
    blocks: list[bytes] = []
    at = 0
    while whole[at : at + BLOCK].strip(b"\0"):
        size = int(whole[at + 124 : at + 135], 8)
        blocks.append(whole[at : at + BLOCK + padded(size)])
        at += len(blocks[-1])
    assert len(blocks) == 6
    image, label, meta, *second = blocks
    made = {
        "missing label": [image, meta, *second],
        "missing image": [label, meta, *second],
        "missing sample": second,
        "doubled label": [image, label, label, meta, *second],
        "doubled sample": [*blocks, image, label, meta],
        "members apart": [image, second[0], label, second[1], meta, second[2]],
        "samples in another order": [*second, image, label, meta],
        "labels of one another": [image, second[1], meta, second[0], label, second[2]],
        "an extra member first": [header("x.txt", 4, 0) + b"text".ljust(BLOCK, b"\0"), *blocks],
        "an extra member last": [*blocks, header("x.txt", 4, 0) + b"text".ljust(BLOCK, b"\0")],
        "no members": [],
    }
    folder = Path(shutil.copytree(small, tmp_path / "pictures" / "train"))
    for name, kept in made.items():
        tar = b"".join(kept)
        for text in (tar + bytes(2 * BLOCK), (tar + bytes(2 * BLOCK)).ljust(RECORD, b"\0"), tar):
            (folder / TAR).write_bytes(text)
            assert refused(verify, folder) and refused(read, folder), name
    for extra in (b"\0", b"x", bytes(RECORD), whole):
        (folder / TAR).write_bytes(whole + extra)
        assert refused(verify, folder) and refused(read, folder), "bytes after the end"
    for name in (TAR, INDEX, MANIFEST):
        shutil.copytree(small, folder, dirs_exist_ok=True)
        assert verify(folder).ok
        (folder / name).unlink()
        assert refused(verify, folder) and refused(read, folder), f"no {name}"
        (folder / name).mkdir()
        assert refused(verify, folder) and refused(read, folder), f"a folder in place of {name}"
        (folder / name).rmdir()
    print(f"{3 * len(made) + 10} tars of other members and missing files, each refused twice")


def test_two_configurations_in_one_folder(adapt, draw, tmp_path):
    one, two = adapt(draw(4)), adapt(draw(4, seed=1))
    shard(one, "train", tmp_path / "a", size="3KB")
    shard(two, "train", tmp_path / "b", size="3KB")
    a, b = (tmp_path / name / "pictures" / "train" for name in "ab")
    for other, size in ((two, "3KB"), (one, "5KB")):
        with pytest.raises(DataError, match="pictures/train"):
            shard(other, "train", tmp_path / "a", size=size)
    assert verify(a).ok, "a refusal changes nothing"
    for names in ([TAR], [INDEX], [TAR, INDEX], [MANIFEST], ["000001.tar", "000001.index.parquet"]):
        mixed = Path(shutil.copytree(a, tmp_path / "mixed" / "pictures" / "train", dirs_exist_ok=True))
        for name in names:
            shutil.copy(b / name, mixed)
        assert refused(verify, mixed) and refused(read, mixed), names
