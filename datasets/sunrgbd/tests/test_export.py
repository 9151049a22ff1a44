"""The numbered export, in the arrangements that are about: pairs, numbers, 13 or 37 classes, what is missing."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data import DataError, RawSample
from semiseg.datasets.sunrgbd import SUNRGBD

ARRANGEMENTS = {
    "original-13": ("SUNRGBD-{split}_images/img-{n:06d}.jpg", "{split}13labels/img13labels-{n:06d}.png", 13),
    "choy-13": ("image/{split}/img-{n:06d}.jpg", "label13/{split}/img13labels-{n:06d}.png", 13),
    "choy-37": ("image/{split}/img-{n:06d}.jpg", "label37/{split}/{n:08d}.png", 37),
    "short-13": ("{split}/img-{n:06d}.jpg", "{split}_labels/img13labels-{n:06d}.png", 13),
    "inner-13": ("SUNRGBD-{split}_images/deep/img-{n:06d}.jpg", "{split}13labels/deep/img13labels-{n:06d}.png", 13),
}


def write(root: Path, arrangement: str, pairs: list[tuple[str, bytes, np.ndarray]]) -> Path:
    image, label, _ = ARRANGEMENTS[arrangement]
    counts = {"train": 0, "test": 0}
    for split, jpeg, ids in pairs:
        counts[split] += 1
        for pattern, data in ((image, jpeg), (label, png(ids))):
            path = root / pattern.format(split=split, n=counts[split])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return root


def write_together(root: Path, pairs: list[tuple[str, bytes, np.ndarray]]) -> Path:
    """Labels of both splits in one folder: those of test begin at 1, those of train at 5051."""
    numbers = {"train": 0, "test": 0}
    (root / "sunrgbd_train_test_labels").mkdir(parents=True)
    for split, jpeg, ids in pairs:
        numbers[split] += 1
        number = numbers[split]
        image = root / f"SUNRGBD-{split}_images" / f"img-{number:06d}.jpg"
        image.parent.mkdir(exist_ok=True)
        image.write_bytes(jpeg)
        label = number + 5050 * (split == "train")
        (root / "sunrgbd_train_test_labels" / f"img-{label:06d}.png").write_bytes(png(ids))
    return root


def png(ids: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(ids).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def tiny(small: list) -> list[tuple[str, bytes, np.ndarray]]:
    return [(pair.split, pair.jpeg, pair.label % 14) for pair in small]


def check(dataset: SUNRGBD, pairs: list[tuple[str, bytes, np.ndarray]]) -> None:
    for split in ("train", "test"):
        wanted = [(jpeg, ids) for name, jpeg, ids in pairs if name == split]
        samples = list(dataset.samples(split))
        assert [sample.key for sample in samples] == [f"img-{n:06d}" for n in range(1, len(wanted) + 1)]
        for sample, (jpeg, ids) in zip(samples, wanted, strict=True):
            assert callable(sample.image)
            assert sample.image() == jpeg
            assert np.array_equal(label_of(sample), ids)


def test_real_masks_come_back_pixel_by_pixel(real_pairs: list, tmp_path: Path) -> None:
    pairs = [("test" if n < 3 else "train", real.jpeg, real.mask13) for n, real in enumerate(real_pairs)]
    dataset = SUNRGBD(write(tmp_path, "original-13", pairs))
    assert (dataset.version, dataset.raw_space.name) == ("export-13", "sunrgbd-13-export")
    check(dataset, pairs)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_known_arrangements_are_read(tiny: list, tmp_path: Path, arrangement: str) -> None:
    dataset = SUNRGBD(write(tmp_path, arrangement, tiny))
    assert dataset.version == f"export-{ARRANGEMENTS[arrangement][2]}"
    check(dataset, tiny)


def test_labels_of_both_splits_in_one_folder_begin_with_those_of_test(small: list, tmp_path: Path) -> None:
    pairs = [(pair.split, pair.jpeg, pair.label) for pair in small]
    dataset = SUNRGBD(write_together(tmp_path, pairs))
    assert (dataset.version, dataset.raw_space.name) == ("export-37", "sunrgbd-37")
    check(dataset, pairs)


@pytest.mark.parametrize("named", [".", "train13labels.tgz"])
def test_archives_are_read_as_they_are(tiny: list, tmp_path: Path, named: str) -> None:
    root = write(tmp_path / "export", "original-13", tiny)
    for folder in list(root.iterdir()):
        with tarfile.open(f"{folder}.tgz", "w:gz") as archive:
            archive.add(folder, folder.name)
        folder.rename(tmp_path / folder.name)
    check(SUNRGBD(root / named), tiny)


@pytest.mark.parametrize("where", [".", "SUNRGBD-train_images", ".."])
def test_the_root_is_found_from_above_and_below(tiny: list, tmp_path: Path, where: str) -> None:
    root = write(tmp_path / "sunrgbd", "original-13", tiny)
    assert SUNRGBD((root / where).resolve()).root == root


def test_both_kinds_of_labels_give_37_classes_unless_13_are_asked_for(small: list, tmp_path: Path) -> None:
    pairs = [(pair.split, pair.jpeg, pair.label) for pair in small]
    write(write_together(tmp_path, pairs), "original-13", [(split, jpeg, ids % 14) for split, jpeg, ids in pairs])
    check(SUNRGBD(tmp_path), pairs)
    assert SUNRGBD(tmp_path, classes=37).version == "export-37"
    check(SUNRGBD(tmp_path, classes=13), [(split, jpeg, ids % 14) for split, jpeg, ids in pairs])


def test_a_split_without_labels_is_reported_and_only_reading_it_is_an_error(tiny: list, tmp_path: Path) -> None:
    root = write(tmp_path, "original-13", tiny)
    (root / "test13labels").rename(root / "elsewhere")
    dataset = SUNRGBD(root)
    splits = dataset.splits()
    assert {name: (split.samples, split.expected) for name, split in splits.items()} == {
        "train": (3, 5285),
        "test": (0, 5050),
        "val": (0, 5050),
    }
    assert splits["train"].missing is None
    with pytest.raises(DataError, match=r"no 13-class labels .*test13labels[\s\S]*\[found\] *SUNRGBD-test_images"):
        dataset.samples("val")


def test_a_split_without_images_is_reported(tiny: list, tmp_path: Path) -> None:
    root = write(tmp_path, "original-13", [pair for pair in tiny if pair[0] == "train"])
    missing = SUNRGBD(root).splits()["test"].missing
    assert missing is not None and "no images" in missing and "SUNRGBD-test_images" in missing


def test_images_without_a_label_are_counted_and_named(tiny: list, tmp_path: Path) -> None:
    root = write(tmp_path, "original-13", tiny)
    (root / "train13labels" / "img13labels-000002.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images have no label in .*train13labels \(img-000002.jpg\)"):
        SUNRGBD(root).samples("train")


def test_images_without_any_label_are_not_guessed_at(tiny: list, tmp_path: Path) -> None:
    """PNGs in train_labels whose names don't tell their classes."""
    root = write(tmp_path, "short-13", tiny)
    for path in root.glob("*_labels/*.png"):
        path.rename(path.with_name(path.name.replace("img13labels-", "img-")))
    assert all(split.missing for split in SUNRGBD(root).splits().values())


def test_numbers_that_no_image_of_the_split_has_are_refused(tiny: list, tmp_path: Path) -> None:
    root = write(tmp_path, "original-13", tiny)
    (root / "SUNRGBD-test_images" / "img-000003.jpg").rename(root / "SUNRGBD-test_images" / "img-005051.jpg")
    with pytest.raises(DataError, match=r"img-005051.jpg: test images are numbered 1..5050"):
        SUNRGBD(root)


def test_official_files_come_before_an_export(
    small: list, tiny: list, tmp_path: Path, write_official: Callable[..., Path]
) -> None:
    root = write(write_official(tmp_path, small), "original-13", tiny)
    assert SUNRGBD(root).version == "official-37"
    check(SUNRGBD(root, classes=13), tiny)


def label_of(sample: RawSample) -> np.ndarray:
    assert callable(sample.label)
    data = sample.label()
    assert isinstance(data, bytes)
    with Image.open(io.BytesIO(data)) as mask:
        return np.array(mask)
