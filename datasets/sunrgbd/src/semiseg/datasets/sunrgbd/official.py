"""The release as published: SUNRGBD.zip for the images, SUNRGBDtoolbox.zip for splits and labels."""

import functools
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from semiseg.data import DataError, RawSample, RawSpace, Split, Tree, clean_key
from semiseg.datasets.sunrgbd.classes import RAW_37
from semiseg.datasets.sunrgbd.toolbox import (
    LABELS,
    META,
    SPLITS,
    LabelFile,
    Scene,
    count_labels,
    read_label,
    read_scenes,
    read_splits,
    unreadable,
)

HOME = "https://rgbd.cs.princeton.edu"
SENSORS = ("kv1", "kv2", "realsense", "xtion")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_IMAGES = ("SUNRGBD/SUNRGBD", "SUNRGBD", *(f"SUNRGBD{suffix}" for suffix in ARCHIVES), ".")
_TOOLBOX = (
    "SUNRGBDtoolbox/SUNRGBDtoolbox", "SUNRGBDtoolbox", *(f"SUNRGBDtoolbox{suffix}" for suffix in ARCHIVES), ".",
    "SUNRGBD/SUNRGBDtoolbox",
)  # fmt: skip
_LABEL_BYTES = (
    12_000  # approximate size of a label as PNG; the exact size would require opening the HDF5 file for each label
)


@dataclass(frozen=True)
class Official:
    """Images and toolbox, each in a folder or in its archive; either may be missing."""

    root: Path
    images: Tree | None
    toolbox: Tree | None
    version: ClassVar[str] = "official-37"
    raw_space: ClassVar[RawSpace] = RAW_37

    @classmethod
    def at(cls, place: Path) -> "Official | None":
        """The parts of the release in a folder or an archive of any name; a missing part is looked for beside it."""
        halves: tuple[Tree | None, Tree | None] = (None, None)
        if place.is_dir():
            halves = _first(place, _IMAGES, _find_images), _first(place, _TOOLBOX, _find_toolbox)
        elif place.name.lower().endswith(ARCHIVES):
            tree = Tree.open(place)
            halves = _find_images(tree), _find_toolbox(tree)
        images, toolbox = halves
        if images is None and toolbox is None:
            return None
        beside = place.resolve().parent
        return cls(
            place,
            images or _first(beside, _IMAGES, _find_images),
            toolbox or _first(beside, _TOOLBOX, _find_toolbox),
        )

    @property
    def complete(self) -> bool:
        return self.images is not None and self.toolbox is not None

    def split(self, name: str, expected: int) -> Split:
        missing = self._missing()
        found = [] if missing else self._found(name)
        if not missing and not found:
            missing = f"none of its images is in {self._of(self.images).where()}; unpack SUNRGBD.zip, or pass its path"
        return Split(name=name, samples=len(found), missing=missing, expected=expected)

    def samples(self, name: str) -> Iterator[RawSample]:
        """In the order of SUNRGBDMeta. DataError if a collection of the release is incomplete."""
        images, labels = self._of(self.images), self._labels
        found = self._found(name)
        self._check(name, found)
        references = count_labels(labels)
        if references != len(self._scenes):
            raise DataError(
                f"{labels} refers to {references} labels, {META} names {len(self._scenes)} images; download both again"
            )
        return (_sample(images, labels, row, scene) for row, scene in found)

    def found(self) -> set[str]:
        """The parts that were found, as keys of the expected tree."""
        files = {name for name in (META, LABELS, SPLITS) if self.toolbox is not None and name in self.toolbox}
        return files | ({"images"} if self.images is not None else set())

    def notes(self) -> list[str]:
        """Collections that are missing and therefore left out."""
        if self._missing():
            return []
        listed = Counter(scene.collection for scene in self._scenes)
        found = {scene.collection for present, scene in zip(self._present, self._scenes, strict=True) if present}
        lost = [f"{name} ({count:,} images)" for name, count in sorted(listed.items()) if name not in found]
        return [f"left out, because missing: {', '.join(lost)}"] if lost and found else []

    @cached_property
    def _scenes(self) -> list[Scene]:
        return read_scenes(self._of(self.toolbox))

    @cached_property
    def _folders(self) -> dict[str, frozenset[str]]:
        toolbox = self._of(self.toolbox)
        splits = read_splits(toolbox)
        unknown = frozenset().union(*splits.values()) - {scene.folder for scene in self._scenes}
        if unknown:
            where = toolbox.where(SPLITS)
            raise DataError(
                f"{where}: {len(unknown)} scenes are not in {META}, such as {min(unknown)}; download the toolbox again"
            )
        return splits

    @cached_property
    def _present(self) -> list[bool]:
        """Whether the image of each scene is in the folder or in the archive's listing."""
        images = self._of(self.images)
        return [_file(scene) in images for scene in self._scenes]

    @cached_property
    def _labels(self) -> LabelFile:
        toolbox = self._of(self.toolbox)
        if toolbox.kind == "folder":
            return LabelFile(str(toolbox.path / LABELS))
        return LabelFile(str(toolbox.path), toolbox.prefix + LABELS, tempfile.gettempdir())

    def _found(self, name: str) -> list[tuple[int, Scene]]:
        """(row of SUNRGBDMeta from 0, scene) of the images of a split that were found."""
        rows = enumerate(self._scenes)
        return [(row, scene) for row, scene in rows if scene.folder in self._folders[name] and self._present[row]]

    def _missing(self) -> str | None:
        """Why neither split can be read, or None."""
        if self.images is None:
            beside = self.toolbox.path.parent if self.toolbox else self.root
            return f"toolbox found, but no images; download SUNRGBD.zip (about 6 GB) from {HOME} into {beside}"
        if self.toolbox is None:
            beside = self.images.path.parent
            return f"images found, but no splits and labels; download SUNRGBDtoolbox.zip from {HOME} into {beside}"
        absent = [name for name in (META, SPLITS, LABELS) if name not in self.toolbox]
        if absent:
            return f"{self.toolbox.where()} lacks {', '.join(absent)}; download SUNRGBDtoolbox.zip again from {HOME}"
        return unreadable()

    def _check(self, name: str, found: list[tuple[int, Scene]]) -> None:
        """Collections may be missing, but an incomplete one means that an archive was only partly unpacked."""
        started = {scene.collection for present, scene in zip(self._present, self._scenes, strict=True) if present}
        wanted = self._folders[name] - {scene.folder for _, scene in found}
        lost = [scene for scene in self._scenes if scene.folder in wanted and scene.collection in started]
        if lost:
            some = ", ".join(_file(scene) for scene in lost[:3]) + ", ..." * (len(lost) > 3)
            raise DataError(
                f"data set 'sunrgbd', split '{name}' in {self._of(self.images).where()}: {len(lost)} of "
                f"{len(lost) + len(found)} images are missing ({some}), but others of {lost[0].collection} exist; unpack "
                f"SUNRGBD.zip again, or pass the path of the zip (a collection that is missing completely is left out)"
            )

    def _of(self, tree: Tree | None) -> Tree:
        if tree is None:
            raise DataError(f"data set 'sunrgbd' in {self.root}: {self._missing()}")
        return tree


def _first(folder: Path, places: tuple[str, ...], find: Callable[[Tree], Tree | None]) -> Tree | None:
    """What `find` returns for the first of these places in a folder that has it."""
    for place in places:
        path = folder / place
        if path.exists() and (found := find(Tree.open(path))) is not None:
            return found
    return None


def _find_images(tree: Tree) -> Tree | None:
    """The tree that holds kv1, kv2, realsense or xtion; in an archive, below any folder."""
    if tree.kind == "folder":
        return tree if any((tree.path / sensor).is_dir() for sensor in SENSORS) else None
    for name in tree.names():
        if match := re.match(rf"(|.*?SUNRGBD/)(?:{'|'.join(SENSORS)})/", name):
            return tree.sub(match[1])
    return None


def _find_toolbox(tree: Tree) -> Tree | None:
    """The tree that holds Metadata/ or traintestSUNRGBD/ with at least one of the required files."""
    names = (META, SPLITS, LABELS)
    if tree.kind == "folder":
        return tree if any(name in tree for name in names) else None
    for name in tree.names():
        for wanted in names:
            if name == wanted or name.endswith(f"/{wanted}"):
                return tree.sub(name.removesuffix(wanted))
    return None


def _file(scene: Scene) -> str:
    return f"{scene.folder}/image/{scene.image}"


def _sample(images: Tree, labels: LabelFile, row: int, scene: Scene) -> RawSample:
    name = _file(scene)
    return RawSample(
        key=clean_key(scene.folder),
        image=images.member(name),
        label=functools.partial(read_label, labels, row),
        size=images.size(name) + _LABEL_BYTES,
        meta={"source": f"SUNRGBD/{name}"},
    )
