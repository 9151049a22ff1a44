"""The widely used export: numbered images and PNGs of ids, train 1..5285 and test 1..5050, as folders or archives.

It was published at https://github.com/ankurhanda/sunrgbd-meta-data, and also circulates in other arrangements. Its numbers
follow the order of SUNRGBDMeta within each split. The 37-class PNGs of both splits are in one folder, those of test first:
test image n has label n, training image n has label 5050 + n.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from semiseg.data import DataError, RawSample, RawSpace, Split, Tree
from semiseg.datasets.sunrgbd.classes import RAW_13, RAW_37

HOME = "https://github.com/ankurhanda/sunrgbd-meta-data"
EXPECTED = {"train": 5285, "test": 5050}  # as in allsplit.mat
_SUFFIXES = ("", ".tgz", ".tar.gz", ".tar", ".zip")
_IMAGES = ("SUNRGBD-{split}_images", "{split}_images", "image/{split}", "images/{split}", "{split}")
_LABELS = {
    13: ("{split}13labels", "label13/{split}", "labels13/{split}", "{split}_labels"),
    37: ("{split}37labels", "label37/{split}", "labels37/{split}"),
}
_TOGETHER = ("sunrgbd_train_test_labels", "sunrgbd_test_train_labels")  # 37 classes, test first
_IMAGE = re.compile(r"img-(\d{6})\.(?:jpg|jpeg|png)", re.IGNORECASE)
_LABEL = re.compile(r"(?:img-|img(13|37)labels-|)(\d{6,8})\.png", re.IGNORECASE)


@dataclass(frozen=True)
class Files:
    """Numbered files of one kind. The file of sample 1 has the number 1 + `before`."""

    tree: Tree
    names: dict[int, str]
    before: int = 0

    def __getitem__(self, number: int) -> str | None:
        return self.names.get(number + self.before)


@dataclass(frozen=True)
class Export:
    """Images and labels of `classes` 13 or 37 below a folder; either split may be missing."""

    root: Path
    classes: int

    @classmethod
    def at(cls, place: Path, classes: int | None = None) -> "Export | None":
        """The export in a folder, if it has images; with 37 classes, which map to the 13, unless more splits have 13."""
        if not place.is_dir() or not any(_images(place, split) for split in EXPECTED):
            return None
        kinds = (classes,) if classes else (37, 13)
        return max((cls(place, kind) for kind in kinds), key=lambda export: len(export._labeled))

    @property
    def version(self) -> str:
        return f"export-{self.classes}"

    @property
    def raw_space(self) -> RawSpace:
        return RAW_13 if self.classes == 13 else RAW_37

    def split(self, name: str, expected: int) -> Split:
        images, labels = self._images[name], self._labels[name]
        missing = None
        if images is None:
            missing = f"no images img-000001.jpg ... in {_text(self.root, _IMAGES, name)}; see {HOME}"
        elif labels is None:
            missing = f"images found, but no {self.classes}-class labels ({self._places(name)}); see {HOME}"
        samples = 0 if missing or images is None else len(images.names)
        return Split(name=name, samples=samples, missing=missing, expected=expected)

    def samples(self, name: str) -> Iterator[RawSample]:
        """By number. DataError for images without a label."""
        images, labels = self._images[name], self._labels[name]
        assert images is not None and labels is not None, "the split is missing"
        where = f"data set 'sunrgbd', split '{name}' in {self.root}"
        lost = [number for number in images.names if labels[number] is None]
        if lost:
            some = ", ".join(images.names[number] for number in lost[:3]) + ", ..." * (len(lost) > 3)
            raise DataError(
                f"{where}: {len(lost)} of {len(images.names)} images have no label in {labels.tree.where()} ({some}); "
                f"download the labels again from {HOME}, or remove these images"
            )
        return (self._sample(images, labels, number) for number in sorted(images.names))

    def _sample(self, images: Files, labels: Files, number: int) -> RawSample:
        image, label = images.names[number], labels.names[number + labels.before]
        return RawSample(
            key=f"img-{number:06d}",
            image=images.tree.member(image),
            label=labels.tree.member(label),
            size=images.tree.size(image) + labels.tree.size(label),
            meta={"source": f"{images.tree.path.name}/{image}"},
        )

    def found(self) -> set[str]:
        """The parts that were found, as keys of the expected tree."""
        images = {f"{split} images" for split, files in self._images.items() if files}
        kinds = {13, 37}
        return images | {f"{n} labels" for n in kinds if any(_labels(self.root, split, n) for split in EXPECTED)}

    def notes(self) -> list[str]:
        """The taxonomy to use with 13-class labels."""
        return [f"labels have 13 classes; use taxonomy '{RAW_13.name}'"] if self.classes == 13 else []

    @cached_property
    def _images(self) -> dict[str, Files | None]:
        return {split: _images(self.root, split) for split in EXPECTED}

    @cached_property
    def _labels(self) -> dict[str, Files | None]:
        return {split: _labels(self.root, split, self.classes) for split in EXPECTED}

    @cached_property
    def _labeled(self) -> list[str]:
        return [split for split in self._images if self._images[split] and self._labels[split]]

    def _places(self, split: str) -> str:
        return _text(self.root, _LABELS[self.classes] + (_TOGETHER if self.classes == 37 else ()), split)


def _images(root: Path, split: str) -> Files | None:
    for tree in _trees(root, _IMAGES, split):
        names = {int(match[1]): name for name in tree.names() if (match := _IMAGE.fullmatch(_last(name)))}
        if names:
            limit = EXPECTED[split]
            if not 1 <= min(names) <= max(names) <= limit:
                worst = min(names) if min(names) < 1 else max(names)
                raise DataError(
                    f"{tree.where(names[worst])}: {split} images are numbered 1..{limit}; this is another numbering of "
                    f"SUN RGB-D, so images and labels can't be matched; see {HOME} for the usual one"
                )
            return Files(tree, names)
    return None


def _labels(root: Path, split: str, classes: int) -> Files | None:
    """Label files of a split, from a separate folder or from the one that holds both splits."""
    for tree in _trees(root, _LABELS[classes], split):
        # The name of a folder such as train_labels does not give the number of classes, so the file names must.
        plain = not tree.path.name.startswith(f"{split}_labels")
        if names := _numbered(tree, classes, plain=plain):
            return Files(tree, names)
    if classes == 37:
        for tree in _trees(root, _TOGETHER, split):
            before = 0 if split == "test" else EXPECTED["test"]
            names = _numbered(tree, classes, plain=True)
            if any(before < number <= before + EXPECTED[split] for number in names):
                return Files(tree, names, before)
    return None


def _numbered(tree: Tree, classes: int, *, plain: bool) -> dict[int, str]:
    found = {}
    for name in tree.names():
        match = _LABEL.fullmatch(_last(name))
        if match and (match[1] == str(classes) or (plain and match[1] is None)):
            found[int(match[2])] = name
    return found


def _trees(root: Path, places: tuple[str, ...], split: str) -> Iterator[Tree]:
    for place in places:
        for suffix in _SUFFIXES:
            path = root / f"{place.format(split=split)}{suffix}"
            if path.is_dir() if not suffix else path.is_file():
                yield Tree.open(path)


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _text(root: Path, places: tuple[str, ...], split: str) -> str:
    return f"{root}: {', '.join(place.format(split=split) for place in places)} (folders, or .tgz, .tar, .zip)"
