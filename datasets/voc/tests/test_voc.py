"""VOC and SBD: the real pairs, the official trees and archives made of them, and what is missing, broken or leaked."""

import functools
import io
import re
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semiseg.data import DataError, RawSample, Taxonomy, open_dataset
from semiseg.datasets.voc import VOC
from semiseg.datasets.voc.sbd import read_mask

LISTS = Path("ImageSets", "Segmentation")


def test_the_42_real_pairs_pixel_by_pixel(voc_root: Path) -> None:
    """Palette indexes are ids: compared with Pillow's own reading of each mask."""
    dataset = open_dataset("voc", voc_root.parent)
    assert dataset.root == voc_root
    found = {name: (split.samples, split.expected) for name, split in dataset.splits().items()}
    assert found == {
        "train": (3, 1464),
        "val": (20, 1449),
        "trainval": (23, 2913),
        "trainaug": (22, 10582),
        "test": (0, 1456),
    }
    seen = {}
    for split in ("val", "trainaug"):
        listed = (voc_root / LISTS / f"{split}.txt").read_text().split()
        samples = list(dataset.samples(split))
        assert [sample.key for sample in samples] == listed
        for sample in samples:
            with Image.open(voc_root / "SegmentationClass" / f"{sample.key}.png") as mask:
                assert np.array_equal(_label(sample), np.array(mask))
            assert _bytes(sample.image) == (voc_root / "JPEGImages" / f"{sample.key}.jpg").read_bytes()
            assert sample.size == sum(len(_bytes(member)) for member in (sample.image, sample.label))
            seen[sample.key] = set(np.unique(_label(sample)).tolist())
    assert len(seen) == 42
    official = {sample.key for sample in dataset.samples("trainval")}
    assert all((255 in ids) == (key in official) for key, ids in seen.items()), (
        "255 in VOC's masks and in none of SBD's"
    )


def test_the_official_trees_join_to_trainaug(official: Any) -> None:
    dataset = VOC(official.home)
    samples = {sample.key: sample for sample in dataset.samples("trainaug")}
    assert list(samples) == sorted({*official.train, *official.further})
    assert {key: sample.meta["mask"] for key, sample in samples.items()} == {
        **dict.fromkeys(official.train, "SegmentationClass"),
        **dict.fromkeys(official.further, "SBD"),
    }
    for key, sample in samples.items():
        label = _label(sample)
        assert label.dtype == np.uint8
        assert np.array_equal(label, official.mask(key)), "SBD's where VOC has none, VOC's where both have one"
        assert (255 in label) == (key in official.train)
    assert dataset.splits()["trainval"].default is False
    assert [sample.key for sample in dataset.samples("trainval")] == sorted({*official.train, *official.val})


def test_the_overlap_is_reported(official: Any) -> None:
    notes = VOC(official.voc).notes()
    assert notes[0] == (
        "trainaug has 22 images: 3 of VOC's train and 19 others. SBD has 22: 1 are in VOC's train, for which VOC's "
        "masks are used, and 2 in VOC's val, which are left out"
    )
    assert len(notes) == 1


def test_where_a_split_is_missing_the_expected_tree_shows_what_was_found(official: Any, tmp_path: Path) -> None:
    shutil.copytree(official.voc, tmp_path / "VOC2012")
    note = VOC(tmp_path).notes()[-1].partition(":")[2]
    assert re.findall(r"\[x\] +(\S+)", note) == [
        "JPEGImages/*.jpg",
        "SegmentationClass/*.png",
        "ImageSets/Segmentation/train.txt",
        "ImageSets/Segmentation/val.txt",
        "Annotations/*.xml",
    ]
    assert re.findall(r"\[ \] +(\S+)", note) == ["ImageSets/Segmentation/test.txt", "img/*.jpg", "cls/*.mat"]


def test_archives_and_folders_give_the_same_samples(official: Any, archives: Path) -> None:
    unpacked, packed = VOC(official.home), VOC(archives)
    assert packed.root == archives / "VOCtrainval_11-May-2012.tar"
    assert packed.splits()["trainaug"] == unpacked.splits()["trainaug"]
    for split in ("train", "val", "trainaug"):
        pairs = list(zip(unpacked.samples(split), packed.samples(split), strict=True))
        assert pairs
        for one, other in pairs:
            assert (one.key, one.size, one.tags, one.meta) == (other.key, other.size, other.tags, other.meta)
            assert _bytes(one.image) == _bytes(other.image)
            assert np.array_equal(_label(one), _label(other))
    assert any("benchmark.tgz is compressed" in note for note in packed.notes())


@pytest.mark.parametrize("place", ["VOCtrainval_11-May-2012.tar", ".", "sub"])
def test_the_root_is_found_by_looking(archives: Path, place: str) -> None:
    (archives / "sub").mkdir(exist_ok=True)
    assert VOC(archives / place).root == archives / "VOCtrainval_11-May-2012.tar"


def test_the_root_is_found_through_variables(official: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOC_ROOT", str(official.home))
    monkeypatch.delenv("SEMISEG_DATA", raising=False)
    assert VOC().root == official.voc
    (tmp_path / "voc").symlink_to(official.home / "VOCdevkit")
    monkeypatch.setenv("SEMISEG_DATA", str(tmp_path))
    assert VOC().root == tmp_path / "voc" / "VOC2012"


def test_broken_links_are_reported_and_hide_nothing_else(official: Any, tmp_path: Path) -> None:
    shutil.copytree(official.voc, tmp_path / "VOC2012")
    before = [sample.key for sample in VOC(tmp_path).samples("train")]
    (tmp_path / "VOC2012" / "JPEGImages" / "lost.jpg").symlink_to("gone.jpg")
    found = VOC(tmp_path)
    (skipped,) = (note for note in found.notes() if "lost.jpg" in note)
    assert "1 members are skipped: JPEGImages/lost.jpg (a symbolic link to gone.jpg, where there is no file)" in skipped
    assert [sample.key for sample in found.samples("train")] == before


def test_sbd_is_named_or_found_beside(official: Any, archives: Path, tmp_path: Path) -> None:
    shutil.copytree(official.home / "VOCdevkit", tmp_path / "a" / "b" / "VOCdevkit")
    alone = VOC(tmp_path / "a")
    missing = alone.splits()["trainaug"].missing
    assert missing is not None and "download benchmark.tgz from http" in missing and "--option sbd=PATH" in missing
    with pytest.raises(DataError, match="split 'trainaug': it needs the masks of SBD"):
        alone.samples("trainaug")
    assert alone.splits()["train"].missing is None
    for place in (archives / "benchmark.tgz", official.home / "benchmark_RELEASE", official.sbd, archives):
        named = open_dataset("voc", tmp_path / "a", sbd=str(place))
        assert named.splits()["trainaug"].samples == 22
    (tmp_path / "a" / "benchmark_RELEASE").symlink_to(official.home / "benchmark_RELEASE")
    assert VOC(tmp_path / "a").splits()["trainaug"].samples == 22
    with pytest.raises(DataError, match=r"option sbd: no cls/\*\.mat in or below"):
        VOC(tmp_path / "a", sbd=tmp_path / "nowhere")
    with pytest.raises(DataError, match="unknown option 'sdb'; did you mean 'sbd'"):
        open_dataset("voc", tmp_path / "a", sdb="x")


def test_masks_converted_to_png_count_as_sbd(official: Any, tmp_path: Path) -> None:
    """SegmentationClassAug holds grey PNGs of all images, those of val included; which are left out."""
    shutil.copytree(official.voc, tmp_path / "VOC2012")
    (tmp_path / "VOC2012" / "SegmentationClassAug").mkdir()
    for id in (*official.further, *official.val, *official.train):
        Image.fromarray(official.mask(id)).save(tmp_path / "VOC2012" / "SegmentationClassAug" / f"{id}.png")
    dataset = VOC(tmp_path)
    samples = list(dataset.samples("trainaug"))
    assert [sample.key for sample in samples] == sorted({*official.train, *official.further})
    assert {sample.key for sample in samples if sample.meta["mask"] == "SegmentationClass"} == set(official.train)
    assert all(np.array_equal(_label(sample), official.mask(sample.key)) for sample in samples)


def test_a_list_of_paths_counts_as_well(official: Any, tmp_path: Path) -> None:
    """DeepLab's train_aug.txt."""
    shutil.copytree(official.voc, tmp_path / "VOC2012")
    ids = official.further[3:6]
    lines = [f"/JPEGImages/{id}.jpg /SegmentationClassAug/{id}.png" for id in ids]
    (tmp_path / "VOC2012" / LISTS / "train_aug.txt").write_text("\n".join(lines))
    dataset = VOC(tmp_path, sbd=official.sbd)
    assert [sample.key for sample in dataset.samples("trainaug")] == list(ids)


@pytest.mark.parametrize("name", ["train", "trainaug"])
def test_an_image_of_val_in_a_training_split_is_refused(official: Any, tmp_path: Path, name: str) -> None:
    shutil.copytree(official.voc, tmp_path / "VOC2012")
    listing = tmp_path / "VOC2012" / LISTS / f"{name}.txt"
    listing.write_text("\n".join([*official.train, official.val[4]]))
    dataset = VOC(tmp_path, sbd=official.sbd)
    with pytest.raises(DataError, match=rf"1 of its 4 ids are also in .*val.txt \({official.val[4]}\)"):
        dataset.samples(name)
    assert dataset.splits()["val"].missing is None


def test_without_the_list_of_val_nothing_is_computed(official: Any, tmp_path: Path) -> None:
    shutil.copytree(official.voc, tmp_path / "VOC2012")
    (tmp_path / "VOC2012" / LISTS / "val.txt").unlink()
    splits = VOC(tmp_path, sbd=official.sbd).splits()
    assert splits["train"].missing is None
    for name in ("val", "trainaug", "trainval"):
        assert "no list ImageSets/Segmentation/val.txt" in str(splits[name].missing)


def test_tags_are_the_names_of_objects_not_of_their_parts(official: Any) -> None:
    tags = {sample.key: sample.tags for sample in VOC(official.voc).samples("train")}
    assert [tags[id] for id in official.train] == [("bottle", "person"), (), ()]


def test_a_broken_annotation_is_named(official: Any, tmp_path: Path) -> None:
    shutil.copytree(official.voc, tmp_path / "VOC2012")
    (tmp_path / "VOC2012" / "Annotations" / f"{official.train[2]}.xml").write_text("<annotation><object>")
    with pytest.raises(DataError, match=rf"{official.train[2]}.xml is not an annotation of VOC"):
        list(VOC(tmp_path).samples("train"))


def test_missing_files_are_counted_and_named(official: Any, tmp_path: Path) -> None:
    shutil.copytree(official.voc, tmp_path / "VOC2012")
    for id in official.val[:4]:
        (tmp_path / "VOC2012" / "SegmentationClass" / f"{id}.png").unlink()
    (tmp_path / "VOC2012" / "JPEGImages" / f"{official.val[7]}.jpg").unlink()
    splits = VOC(tmp_path).splits()
    missing = str(splits["val"].missing)
    assert f"1 of 20 images are missing (JPEGImages/{official.val[7]}.jpg)" in missing
    assert f"4 of 20 masks are missing (SegmentationClass/{official.val[0]}.png" in missing
    assert splits["train"].missing is None


def test_images_come_from_sbd_where_vocs_folder_lacks_them(official: Any, tmp_path: Path) -> None:
    shutil.copytree(official.voc, tmp_path / "VOC2012")
    for id in official.further:
        (tmp_path / "VOC2012" / "JPEGImages" / f"{id}.jpg").unlink()
    for sample in VOC(tmp_path, sbd=official.sbd).samples("trainaug"):
        assert _bytes(sample.image) == (official.real / "JPEGImages" / f"{sample.key}.jpg").read_bytes()


def test_the_test_images_are_unlabeled(official: Any, archives: Path, tmp_path: Path) -> None:
    """From VOC2012test.tar beside the other archive, or unpacked over the same tree."""
    ids = official.further[:4]
    shutil.copytree(archives, tmp_path / "archives")
    (tmp_path / "test.txt").write_text("\n".join(ids))
    with tarfile.open(tmp_path / "archives" / "VOC2012test.tar", "w") as packing:
        packing.add(tmp_path / "test.txt", f"VOCdevkit/VOC2012/{LISTS.as_posix()}/test.txt")
        for id in ids:
            packing.add(official.voc / "JPEGImages" / f"{id}.jpg", f"VOCdevkit/VOC2012/JPEGImages/{id}.jpg")
    shutil.copytree(official.voc, tmp_path / "VOC2012")
    shutil.copy(tmp_path / "test.txt", tmp_path / "VOC2012" / LISTS)
    for root in (tmp_path / "archives", tmp_path / "VOC2012"):
        dataset = VOC(root)
        split = dataset.splits()["test"]
        assert (split.samples, split.labeled, split.missing) == (4, False, None)
        samples = list(dataset.samples("test"))
        assert [(sample.key, sample.label) for sample in samples] == [(id, None) for id in ids]
        assert all(_bytes(it.image) == (official.real / "JPEGImages" / f"{it.key}.jpg").read_bytes() for it in samples)
    assert "VOC2012test.tar, after registration" in str(VOC(official.voc).splits()["test"].missing)


def test_without_scipy_the_remedy_is_a_command(official: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = next(s for s in VOC(official.home).samples("trainaug") if s.meta["mask"] == "SBD")
    for name in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    splits = VOC(official.home).splits()
    assert str(splits["trainaug"].missing).endswith("pip install 'semiseg-voc[sbd]'")
    assert splits["train"].missing is None
    with pytest.raises(DataError, match=r"cls/.*\.mat: reading SBD's masks.* pip install 'semiseg-voc\[sbd\]'"):
        _label(sample)


@pytest.mark.parametrize("fault", ["empty", "cut", "png", "colour"])
def test_a_broken_mat_file_is_named(
    official: Any, write_mat: Callable[[np.ndarray], bytes], tmp_path: Path, fault: str
) -> None:
    shutil.copytree(official.home / "benchmark_RELEASE", tmp_path / "benchmark_RELEASE")
    id = official.further[0]
    path = tmp_path / "benchmark_RELEASE" / "dataset" / "cls" / f"{id}.mat"
    intact = path.read_bytes()
    png = (official.real / "SegmentationClass" / f"{id}.png").read_bytes()
    colour = write_mat(np.zeros((4, 5, 3), np.uint8))
    path.write_bytes({"empty": b"", "cut": intact[: len(intact) // 2], "png": png, "colour": colour}[fault])
    sample = next(s for s in VOC(official.voc, sbd=tmp_path).samples("trainaug") if s.key == id)
    with pytest.raises(
        DataError, match=rf"cls/{id}\.mat( is not a mask of SBD|: GTcls.Segmentation is uint8 \[4, 5, 3\])"
    ):
        _label(sample)


def test_a_broken_sbd_leaves_vocs_own_splits_alone(official: Any, archives: Path, tmp_path: Path) -> None:
    shutil.copytree(official.home / "VOCdevkit", tmp_path / "VOCdevkit")
    intact = (archives / "benchmark.tgz").read_bytes()
    (tmp_path / "benchmark.tgz").write_bytes(intact[: len(intact) // 2])
    dataset = VOC(tmp_path)
    splits = dataset.splits()
    assert splits["train"].samples == 3 and splits["val"].samples == 20
    assert "benchmark.tgz can't be read" in str(splits["trainaug"].missing)
    assert dataset.notes()


def test_nothing_there_prints_the_page_and_the_tree(tmp_path: Path) -> None:
    (tmp_path / "VOC2007" / "JPEGImages").mkdir(parents=True)
    with pytest.raises(DataError, match=r"found no files of 'voc'[\s\S]*SegmentationClass/\*\.png[\s\S]*host\.robots"):
        VOC(tmp_path)
    with pytest.raises(DataError, match="unknown split 'trian'; did you mean 'train'"):
        (tmp_path / "VOC2012" / "JPEGImages").mkdir(parents=True)
        VOC(tmp_path).samples("trian")


def test_the_taxonomy_is_that_of_the_palette(voc_root: Path) -> None:
    """Colours against the palette that the real masks carry."""
    taxonomy = Taxonomy.get("voc-21")
    with Image.open(next((voc_root / "SegmentationClass").glob("*.png"))) as mask:
        palette = mask.getpalette()
    assert palette is not None
    assert [channel for colour in taxonomy.colours for channel in colour] == palette[: 21 * 3]
    assert taxonomy.map(np.array([[0, 1, 20, 255]], np.uint8)).tolist() == [[0, 1, 20, 255]]
    assert taxonomy.foreground == frozenset(range(1, 21))
    assert (taxonomy.names[15], taxonomy.names[20]) == ("person", "tvmonitor")
    with pytest.raises(DataError, match="label id 21"):
        taxonomy.map(np.full((2, 2), 21, np.uint8))


def _label(sample: RawSample) -> np.ndarray:
    assert callable(sample.label)
    label = sample.label()
    if isinstance(label, np.ndarray):
        return label
    with Image.open(io.BytesIO(label)) as mask:
        return np.array(mask)


def _bytes(member: Any) -> bytes:
    """The bytes of a member; of an SBD mask, those of its file."""
    if isinstance(member, functools.partial) and member.func is read_mask:
        member = member.args[0]
    data = member() if callable(member) else member
    assert isinstance(data, bytes)
    return data
