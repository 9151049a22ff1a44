"""The publisher's tree, complete and in part, unpacked and packed."""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semiseg.data import DataError, ShardSet, open_dataset, shard
from semiseg.datasets.cityscapes import Cityscapes

COUNTS = {
    "train": 4,
    "val": 3,
    "test": 2,
    "train_coarse": 4,
    "val_coarse": 3,
    "train_extra": 3,
    "train_extra_unlabeled": 3,
}


@pytest.fixture
def root(official: Any, tmp_path: Path) -> Path:
    return official.unpack(tmp_path / "cityscapes")


def test_splits_are_counted_beside_the_publishers_numbers(root: Path) -> None:
    splits = Cityscapes(root).splits()
    assert {name: split.samples for name, split in splits.items()} == COUNTS
    expected = [2975, 500, 1525, 2975, 500, 19998, 19998]
    assert [split.expected for split in splits.values()] == expected
    assert [name for name, split in splits.items() if split.default] == ["train", "val", "test"]
    assert [name for name, split in splits.items() if not split.labeled] == ["test", "train_extra_unlabeled"]


def test_samples_are_the_publishers_bytes_under_their_own_names(root: Path, official: Any) -> None:
    samples = list(Cityscapes(root).samples("train"))
    assert [sample.key for sample in samples] == [
        "aachen/aachen_000000_000019",
        "aachen/aachen_000000_000020",
        "aachen/aachen_000000_000021",
        "zurich/zurich_000000_000007",
    ]
    for sample in samples:
        image = f"leftImg8bit/train/{sample.key}_leftImg8bit.png"
        label = f"gtFine/train/{sample.key}_gtFine_labelIds.png"
        assert sample.meta == {"city": sample.key.split("/")[0], "source": image}
        assert _bytes(sample.image) == official.files[image]
        assert _bytes(sample.label) == official.files[label]
        assert sample.size == len(official.files[image]) + len(official.files[label])


@pytest.mark.parametrize("form", ["zips", "zips and folders", "tar", "one zip", "one zip in a separate folder"])
def test_packed_files_give_the_same_samples(root: Path, official: Any, tmp_path: Path, form: str) -> None:
    packed = tmp_path / "packed"
    place = packed
    if form == "zips":
        official.pack_all(packed)
    elif form == "zips and folders":
        official.pack_all(packed)
        (packed / "gtFine_trainvaltest.zip").unlink()
        official.unpack(packed, "gtFine/")
        (packed / "leftImg8bit_trainvaltest.zip").unlink()
        official.pack(packed / "leftImg8bit_trainvaltest.zip", "leftImg8bit/train/aachen", "leftImg8bit/val")
        official.unpack(packed, "leftImg8bit/train/zurich")
        official.unpack(packed, "leftImg8bit/test")
    elif form == "tar":
        official.pack_all(packed)
        (packed / "gtCoarse.zip").unlink()
        with tarfile.open(packed / "gtCoarse.tar.gz", "w:gz") as tar:
            tar.add(root / "gtCoarse", "gtCoarse")
    else:
        folder = "" if form == "one zip" else "my copy/cityscapes/"
        renamed = type(official)({folder + name: data for name, data in official.files.items()})
        place = renamed.pack(packed / "everything.zip", folder + "leftImg8bit/", folder + "gt")
    one, two = Cityscapes(root), Cityscapes(place)
    for split, count in COUNTS.items():
        ours, theirs = list(one.samples(split)), list(two.samples(split))
        assert len(ours) == count
        for a, b in zip(ours, theirs, strict=True):
            assert (a.key, a.size, a.meta) == (b.key, b.size, b.meta)
            assert _bytes(a.image) == _bytes(b.image)
            assert (a.label is None) == (b.label is None) == ("test" in split or "unlabeled" in split)
            assert a.label is None or _bytes(a.label) == _bytes(b.label)


def test_polygons_are_drawn_where_label_ids_are_missing(root: Path, official: Any) -> None:
    """Some labels still have their ids, which are used unchanged."""
    for number, path in enumerate(sorted((root / "gtFine").rglob("*_labelIds.png"))):
        if number % 2:
            path.unlink()
    drawn = 0
    for split in ("train", "val"):
        for sample in Cityscapes(root).samples(split):
            assert callable(sample.label)
            label = sample.label()
            if isinstance(label, np.ndarray):
                drawn += 1
            else:
                label = np.asarray(Image.open(io.BytesIO(label)))
            assert np.array_equal(label, official.ids[f"{split}/{sample.key}"])
    assert drawn == 3


def test_a_bad_polygon_names_its_file_when_it_is_written(root: Path, tmp_path: Path) -> None:
    start = root / "gtFine" / "train" / "aachen" / "aachen_000000_000020_gtFine"
    Path(f"{start}_labelIds.png").unlink()
    text = Path(f"{start}_polygons.json").read_text().replace('"road"', '"rode"')
    Path(f"{start}_polygons.json").write_text(text)
    with pytest.raises(DataError, match=r"aachen_000000_000020_gtFine_polygons.json: object \d+: unknown label 'rode'"):
        shard(Cityscapes(root), "train", tmp_path / "shards")


def test_the_black_image_is_left_out_and_reported(root: Path) -> None:
    keys = ["augsburg/augsburg_000000_000001", "troisdorf/troisdorf_000000_000072", "troisdorf/troisdorf_000000_000074"]
    dataset = Cityscapes(root)
    for split in ("train_extra", "train_extra_unlabeled"):
        assert [sample.key for sample in dataset.samples(split)] == keys
    (note,) = dataset.notes()
    assert note.startswith("train_extra and train_extra_unlabeled: 1 image left out that is black")
    assert note.endswith("(troisdorf/troisdorf_000000_000073)")


def test_other_constant_images_are_flagged_when_they_are_written(root: Path, tmp_path: Path) -> None:
    image = root / "leftImg8bit/train_extra/troisdorf/troisdorf_000000_000074_leftImg8bit.png"
    Image.new("RGB", (120, 90), (7, 7, 7)).save(image)
    shard(Cityscapes(root), "train_extra", tmp_path / "shards")
    assert ShardSet(tmp_path / "shards/cityscapes/train_extra").flags()[2] == ("constant-image",)


def test_files_without_a_partner_are_left_out_counted_and_named(root: Path) -> None:
    (root / "leftImg8bit/train_extra/troisdorf/troisdorf_000000_000073_leftImg8bit.png").unlink()
    for name in ("train/aachen/aachen_000000_000019", "train/zurich/zurich_000000_000007"):
        (root / "gtFine" / f"{name}_gtFine_labelIds.png").unlink()
        (root / "gtFine" / f"{name}_gtFine_polygons.json").unlink()
    (root / "leftImg8bit/train/aachen/aachen_000000_000021_leftImg8bit.png").unlink()
    dataset = Cityscapes(root)
    assert [sample.key for sample in dataset.samples("train")] == ["aachen/aachen_000000_000020"]
    assert dataset.notes() == [
        "train: 2 images without a label left out (aachen/aachen_000000_000019, zurich/zurich_000000_000007)",
        "train and train_coarse: 1 label without an image left out (aachen/aachen_000000_000021)",
        "train_extra: 1 label without an image left out (troisdorf/troisdorf_000000_000073)",
    ]


def test_broken_links_are_reported_and_hide_nothing_else(root: Path) -> None:
    before = [sample.key for sample in Cityscapes(root).samples("train")]
    (root / "gtFine" / "train" / "lost.png").symlink_to(root / "gone.png")
    found = Cityscapes(root)
    (skipped,) = (note for note in found.notes() if "lost.png" in note)
    assert skipped.startswith("1 member of gtFine skipped (train/lost.png: a symbolic link to ")
    assert [sample.key for sample in found.samples("train")] == before


def test_notes_and_next_steps_are_printed_by_the_command(root: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from semiseg.data.commands import app

    call = ["shard", "cityscapes", str(root), "--split", "val", "--to", str(tmp_path / "to"), "--workers", "1"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    assert "note: train_extra and train_extra_unlabeled: 1 image left out that is black" in result.output
    assert "4 samples, labeled (the publisher has 2975)" in result.output
    assert f"semiseg data stats cityscapes --split val --shards {tmp_path / 'to'}" in result.output


@pytest.mark.parametrize(
    ("present", "there"),
    [
        (["leftImg8bit/train/", "gtFine/"], {"train"}),
        (["leftImg8bit/"], {"test", "train_extra_unlabeled"}),
        (["leftImg8bit/", "gtCoarse/"], {"test", "train_coarse", "val_coarse", "train_extra", "train_extra_unlabeled"}),
        (["gtFine/"], set()),
    ],
)
def test_a_partial_download_gives_its_splits(
    official: Any, tmp_path: Path, present: list[str], there: set[str]
) -> None:
    for start in present:
        official.unpack(tmp_path, start)
    dataset = Cityscapes(tmp_path)
    splits = dataset.splits()
    assert {name for name, split in splits.items() if split.missing is None} == there
    for name in set(splits) - there:
        with pytest.raises(DataError, match=r"download (leftImg8bit|gtFine|gtCoarse)[\s\S]*accept its licence"):
            dataset.samples(name)


def test_a_missing_split_names_archives_page_licence_and_found_files(official: Any, tmp_path: Path) -> None:
    official.unpack(tmp_path, "leftImg8bit/")
    with pytest.raises(DataError) as raised:
        Cityscapes(tmp_path).samples("val_coarse")
    message = str(raised.value)
    assert (
        f"no gtCoarse/val in {tmp_path}; download gtCoarse.zip (1.3 GB) from https://www.cityscapes-dataset.com"
        in message
    )
    assert "accept its licence" in message
    lines = {line.split()[0]: line.split()[1:4] for line in message.splitlines() if "<city>" in line}
    assert lines["leftImg8bit/val/<city>/*_leftImg8bit.png"] == ["3", "of", "500"]
    assert lines["gtCoarse/val/<city>/*_gtCoarse_labelIds.png"] == ["0", "of", "500"]


def test_an_incomplete_archive_leaves_other_splits_readable(official: Any, tmp_path: Path) -> None:
    official.pack_all(tmp_path)
    broken = tmp_path / "leftImg8bit_trainextra.zip"
    broken.write_bytes(broken.read_bytes()[:-200])
    dataset = Cityscapes(tmp_path)
    assert len(list(dataset.samples("train"))) == 4
    missing = dataset.splits()["train_extra"].missing
    assert missing is not None and "leftImg8bit_trainextra.zip can't be read" in missing


def test_members_outside_the_archive_are_skipped_and_named(official: Any, tmp_path: Path) -> None:
    official.pack_all(tmp_path)
    with zipfile.ZipFile(tmp_path / "gtFine_trainvaltest.zip", "a") as archive:
        archive.writestr("../gtFine/train/evil/evil_000000_000001_gtFine_labelIds.png", b"x")
    dataset = Cityscapes(tmp_path)
    assert len(list(dataset.samples("train"))) == 4
    note = dataset.notes()[0]
    assert "1 member of gtFine_trainvaltest.zip skipped (../gtFine/train/evil" in note


@pytest.mark.parametrize("where", [".", "leftImg8bit", "leftImg8bit/train", "..", "gtFine"])
def test_the_root_is_found_from_above_and_below(root: Path, where: str) -> None:
    assert Cityscapes((root / where).resolve()).root == root


def test_an_official_archive_stands_for_its_folder(official: Any, tmp_path: Path) -> None:
    official.pack_all(tmp_path)
    dataset = Cityscapes(tmp_path / "gtFine_trainvaltest.zip")
    assert dataset.root == tmp_path
    assert {name: split.samples for name, split in dataset.splits().items()} == COUNTS


@pytest.mark.parametrize("variable", ["CITYSCAPES_DATASET", "SEMISEG_DATA"])
def test_the_root_is_found_through_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.chdir("/")
    for name in ("CITYSCAPES_DATASET", "SEMISEG_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(root if variable == "CITYSCAPES_DATASET" else root.parent))
    assert open_dataset("cityscapes").root == root


@pytest.mark.parametrize("what", ["nothing", "another data set", "a file that is no archive", "another archive"])
def test_a_wrong_root_prints_the_tree_and_the_page(tmp_path: Path, what: str) -> None:
    place = tmp_path / "some where" / "data"
    place.parent.mkdir()
    if what == "another data set":
        (place / "JPEGImages").mkdir(parents=True)
    elif what == "a file that is no archive":
        place.write_bytes(b"hello")
    elif what == "another archive":
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("JPEGImages/a.jpg", b"x")
    with pytest.raises(DataError) as raised:
        Cityscapes(place)
    message = str(raised.value)
    assert "found no files of 'cityscapes'" in message and "accept its licence" in message
    assert "gtFine/train/<city>/*_gtFine_labelIds.png" in message and "gtFine_trainvaltest.zip (241 MB)" in message


def test_an_unknown_split_names_the_nearest(root: Path) -> None:
    with pytest.raises(DataError, match="unknown split 'train-extra'; did you mean 'train_extra'"):
        Cityscapes(root).samples("train-extra")


def test_listing_decodes_nothing(root: Path) -> None:
    """Every file is damaged, but listed: nothing is opened before a member is read."""
    for path in root.rglob("*.*"):
        path.write_bytes(b"")
    dataset = Cityscapes(root)
    assert {name: len(list(dataset.samples(name))) for name in dataset.splits()} == COUNTS


def _bytes(member: Any) -> bytes:
    data = member() if callable(member) else member
    assert isinstance(data, bytes)
    return data
