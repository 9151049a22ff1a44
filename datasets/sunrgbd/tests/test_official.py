"""The official files, in folders and zips: pixels, order, missing files, damaged files."""

import io
import multiprocessing
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from semiseg.data import DataError, RawSample, open_dataset
from semiseg.datasets.sunrgbd import SUNRGBD


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the labels of a zipped toolbox are unpacked."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


@pytest.mark.parametrize("zipped", [False, True])
def test_real_masks_come_back_pixel_by_pixel(
    pairs: list, write_official: Callable[..., Path], tmp_path: Path, zipped: bool
) -> None:
    dataset = SUNRGBD(write_official(tmp_path / "sun", pairs, zipped=zipped))
    assert (dataset.version, dataset.raw_space.name) == ("official-37", "sunrgbd-37")
    for split, count in (("train", 5), ("test", 3), ("val", 3)):
        expected = [pair for pair in pairs if pair.split == ("test" if split == "val" else split)]
        samples = list(dataset.samples(split))
        assert len(samples) == len(expected) == count
        for sample, pair in zip(samples, expected, strict=True):
            assert sample.key == pair.folder
            assert sample.meta == {"source": f"SUNRGBD/{pair.folder}/image/{pair.image}"}
            assert _image(sample) == pair.jpeg
            label = _label(sample)
            assert label.dtype == np.uint8
            assert np.array_equal(label, pair.label)
            with Image.open(io.BytesIO(pair.jpeg)) as image:
                assert label.shape == image.size[::-1]


def test_zips_and_folders_hold_the_same(small: list, write_official: Callable[..., Path], tmp_path: Path) -> None:
    tree = SUNRGBD(write_official(tmp_path / "tree", small))
    zipped = SUNRGBD(write_official(tmp_path / "zipped", small, zipped=True))
    assert tree.splits() == zipped.splits()
    for split in ("train", "test"):
        for one, other in zip(tree.samples(split), zipped.samples(split), strict=True):
            assert (one.key, one.size, one.meta) == (other.key, other.size, other.meta)
            assert _image(one) == _image(other)
            assert np.array_equal(_label(one), _label(other))


def test_the_encoding_is_the_official_one(official_tree: Path, small: list) -> None:
    """The files that the tests write, read as other readers of the release do."""
    toolbox = official_tree / "SUNRGBDtoolbox"
    table = loadmat(toolbox / "Metadata/SUNRGBDMeta.mat", squeeze_me=True, struct_as_record=False)["SUNRGBDMeta"]
    assert [row.rgbname for row in table] == [pair.image for pair in small]
    assert loadmat(toolbox / "traintestSUNRGBD/allsplit.mat")["alltrain"].shape == (1, 3)
    with h5py.File(toolbox / "Metadata/SUNRGBD2Dseg.mat") as file:
        references = file["SUNRGBD2Dseg"]["seglabel"]  # type: ignore[index]
        assert references.shape == (6, 1)  # type: ignore[union-attr]
        for row, pair in zip(references, small, strict=True):  # type: ignore[arg-type]
            assert np.array_equal(np.array(file[row[0]]).transpose(1, 0), pair.label)


@pytest.mark.parametrize("where", [".", "SUNRGBD", "SUNRGBD/kv1", "SUNRGBDtoolbox", ".."])
def test_the_root_is_found_from_above_and_below(official_tree: Path, where: str) -> None:
    counts = {name: split.samples for name, split in SUNRGBD((official_tree / where).resolve()).splits().items()}
    assert counts == {"train": 3, "test": 3, "val": 3}
    assert SUNRGBD(official_tree).notes() == []


@pytest.mark.parametrize("named", ["SUNRGBD.zip", "SUNRGBDtoolbox.zip", "a copy.zip"])
def test_an_archive_may_be_named_itself(
    small: list, write_official: Callable[..., Path], tmp_path: Path, named: str
) -> None:
    root = write_official(tmp_path / "sun", small, zipped=True)
    if named == "a copy.zip":
        (root / "SUNRGBD.zip").rename(root / named)
    assert [sample.key for sample in SUNRGBD(root / named).samples("test")] == [
        pair.folder for pair in small if pair.split == "test"
    ]


def test_a_folder_in_a_folder_of_the_same_name_as_unpackers_make_it(official_tree: Path) -> None:
    for name in ("SUNRGBD", "SUNRGBDtoolbox"):
        (official_tree / name).rename(official_tree / "inner")
        (official_tree / name).mkdir()
        (official_tree / "inner").rename(official_tree / name / name)
    assert SUNRGBD(official_tree).splits()["train"].samples == 3


@pytest.mark.parametrize("variable", ["SEMISEG_DATA", "SUNRGBD_ROOT"])
def test_the_root_is_found_through_the_environment(
    official_tree: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.chdir(official_tree.parent)
    monkeypatch.delenv("SEMISEG_DATA", raising=False)
    root = official_tree
    if variable == "SEMISEG_DATA":
        root = official_tree.rename(official_tree.parent / "sunrgbd")
    monkeypatch.setenv(variable, str(root.parent if variable == "SEMISEG_DATA" else root))
    assert open_dataset("sunrgbd").root == root


def test_val_is_test_and_is_written_only_on_request(official_tree: Path) -> None:
    splits = SUNRGBD(official_tree).splits()
    assert {name: (split.default, split.expected) for name, split in splits.items()} == {
        "train": (True, 5285),
        "test": (True, 5050),
        "val": (False, 5050),
    }


def test_images_without_the_toolbox_say_what_to_download(official_tree: Path) -> None:
    shutil.rmtree(official_tree / "SUNRGBDtoolbox")
    dataset = SUNRGBD(official_tree)
    for split in dataset.splits().values():
        assert split.samples == 0
        assert split.missing is not None and "download SUNRGBDtoolbox.zip from https://rgbd.cs" in split.missing
    with pytest.raises(
        DataError, match=r"no splits and labels[\s\S]*\[found\] *SUNRGBD.zip[\s\S]*\[missing\] *SUNRGBDtoolbox"
    ):
        dataset.samples("train")


def test_the_toolbox_without_images_says_what_to_download(official_tree: Path) -> None:
    shutil.rmtree(official_tree / "SUNRGBD")
    missing = SUNRGBD(official_tree).splits()["train"].missing
    assert missing is not None and "download SUNRGBD.zip" in missing


def test_a_toolbox_without_its_labels_names_the_file(official_tree: Path) -> None:
    (official_tree / "SUNRGBDtoolbox" / "Metadata" / "SUNRGBD2Dseg.mat").unlink()
    with pytest.raises(DataError, match=r"lacks Metadata/SUNRGBD2Dseg.mat[\s\S]*\[missing\] *and SUNRGBDtoolbox/Meta"):
        SUNRGBD(official_tree).samples("train")


def test_a_collection_may_be_missing_but_not_incomplete(official_tree: Path, small: list) -> None:
    shutil.rmtree(official_tree / "SUNRGBD" / "xtion")
    dataset = SUNRGBD(official_tree)
    assert {name: split.samples for name, split in dataset.splits().items()} == {"train": 2, "test": 2, "val": 2}
    for row, sample in zip((1, 3), dataset.samples("train"), strict=True):
        assert np.array_equal(_label(sample), small[row].label)
    assert dataset.notes() == ["left out, because missing: xtion/xtion_align_data (2 images)"]
    shutil.rmtree(official_tree / "SUNRGBD" / "kv1" / "NYUdata" / "scene1")
    with pytest.raises(
        DataError, match=r"1 of 2 images are missing \(kv1/NYUdata/scene1/image/1.jpg\), but others of kv1/NYU"
    ):
        SUNRGBD(official_tree).samples("train")
    assert len(list(SUNRGBD(official_tree).samples("test"))) == 2


@pytest.mark.parametrize("absent", [("h5py",), ("scipy.io",), ("h5py", "scipy.io")])
def test_without_the_libraries_the_command_to_install_them_is_printed(
    official_tree: Path, monkeypatch: pytest.MonkeyPatch, absent: tuple[str, ...]
) -> None:
    for name in absent:
        monkeypatch.setitem(sys.modules, name, None)
    dataset = SUNRGBD(official_tree)
    assert dataset.splits()["train"].samples == 0
    names = " and ".join(name.partition(".")[0] for name in absent)
    with pytest.raises(DataError, match=rf"requires {names}; pip install 'semiseg-sunrgbd\[mat\]'"):
        dataset.samples("train")


def test_too_few_labels_are_noticed_before_any_is_paired(
    official_tree: Path, small: list, write_labels: Callable[..., None]
) -> None:
    write_labels(official_tree / "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat", [pair.label for pair in small[:-1]])
    with pytest.raises(DataError, match=r"refers to 5 labels, Metadata/SUNRGBDMeta.mat names 6 images"):
        SUNRGBD(official_tree).samples("train")


def test_labels_of_another_number_type_are_cast_only_if_that_loses_nothing(
    official_tree: Path, small: list, write_labels: Callable[..., None]
) -> None:
    path = official_tree / "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat"
    write_labels(path, [pair.label for pair in small], dtype=np.float64)
    sample = next(iter(SUNRGBD(official_tree).samples("train")))
    assert _label(sample).dtype == np.uint8
    assert np.array_equal(_label(sample), small[1].label)
    other = path.with_name("other.mat")
    write_labels(other, [pair.label + 0.5 for pair in small], dtype=np.float64)
    other.replace(path)
    with pytest.raises(DataError, match=r"label 2: float64 from 1.5 to .*; expected integer ids 0..37"):
        _label_elsewhere(next(iter(SUNRGBD(official_tree).samples("train"))))


@pytest.mark.parametrize(
    "name", ["Metadata/SUNRGBDMeta.mat", "traintestSUNRGBD/allsplit.mat", "Metadata/SUNRGBD2Dseg.mat"]
)
@pytest.mark.parametrize("content", [b"", b"no MATLAB file" * 100, None])
def test_damaged_files_of_the_toolbox_are_named(official_tree: Path, name: str, content: bytes | None) -> None:
    path = official_tree / "SUNRGBDtoolbox" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    with pytest.raises(DataError, match=rf"{path}.*download .* again"):
        SUNRGBD(official_tree).samples("train")


def test_a_scene_of_both_splits_is_refused(official_tree: Path) -> None:
    paths = np.empty((1, 1), object)
    paths[0, 0] = "/n/fs/sun3d/data/SUNRGBD/kv1/NYUdata/scene0/"
    savemat(official_tree / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", {"alltrain": paths, "alltest": paths})
    with pytest.raises(DataError, match="1 scenes are in both splits, such as kv1/NYUdata/scene0"):
        SUNRGBD(official_tree).splits()


def test_a_truncated_zip_is_named(small: list, write_official: Callable[..., Path], tmp_path: Path) -> None:
    path = write_official(tmp_path / "sun", small, zipped=True) / "SUNRGBD.zip"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"SUNRGBD.zip"):
        SUNRGBD(path.parent)


def test_labels_of_a_zipped_toolbox_are_unpacked_once_to_a_private_folder(
    small: list, write_official: Callable[..., Path], tmp_path: Path, temporary_folder: Path
) -> None:
    root = write_official(tmp_path / "sun", small, zipped=True)
    for _ in range(2):
        for split in ("train", "test"):
            for sample in SUNRGBD(root).samples(split):
                _label(sample)
    (folder,) = temporary_folder.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    assert len(list(folder.iterdir())) == 1
    assert sorted(path.name for path in root.iterdir()) == ["SUNRGBD.zip", "SUNRGBDtoolbox.zip"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_labels_are_read_in_other_processes_while_this_one_has_the_file_open(
    official_tree: Path, small: list, method: str
) -> None:
    samples = list(SUNRGBD(official_tree).samples("train"))
    expected = [pair.label for pair in small if pair.split == "train"]
    assert np.array_equal(_label(samples[0]), expected[0])
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        found = [pool.submit(cast(Any, sample.label)) for sample in samples * 10]
        here = [_label(sample) for sample in samples * 10]
        for there, mine, wanted in zip(found, here, expected * 10, strict=True):
            assert np.array_equal(there.result(), wanted)
            assert np.array_equal(mine, wanted)


def test_nothing_there_lists_the_expected_tree(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"found no files of 'sunrgbd'[\s\S]*SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
    ):
        SUNRGBD(tmp_path)


def test_official_files_have_no_13_class_labels(official_tree: Path) -> None:
    with pytest.raises(DataError, match=r"have 37 classes; leave out classes=13 and use taxonomy 'sunrgbd-13'"):
        SUNRGBD(official_tree, classes=13)
    with pytest.raises(DataError, match="classes is 12; expected 37, or 13 for the export"):
        SUNRGBD(official_tree, classes=12)


def test_an_unknown_split_names_the_nearest(official_tree: Path) -> None:
    with pytest.raises(DataError, match="unknown split 'tset'; did you mean 'test'"):
        SUNRGBD(official_tree).samples("tset")


def _label(sample: RawSample) -> np.ndarray:
    assert callable(sample.label)
    found = sample.label()
    assert isinstance(found, np.ndarray)
    return found


def _label_elsewhere(sample: RawSample) -> np.ndarray:
    """In a fresh process, which has no file open."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(cast(Any, sample.label)).result()


def _image(sample: RawSample) -> bytes:
    assert callable(sample.image)
    return sample.image()
