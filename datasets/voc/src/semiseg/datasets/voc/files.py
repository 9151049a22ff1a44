"""Find VOC and SBD, unpacked or in their archives, in the usual places."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from semiseg.data import DataError, Tree, names_in, read_lines, without_suffix

SBD_HOME = "http://home.bharathh.info/pubs/codes/SBD/download.html"
_PARTS = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
_ARCHIVE = re.compile(r".*\.(zip|tar|tgz|tar\.(gz|bz2|xz))", re.IGNORECASE)
_OTHER_YEAR = re.compile(r"VOC20(0\d|1[01])")
_SBD_FOLDERS = ("", "dataset", "benchmark_RELEASE/dataset", "benchmark/benchmark_RELEASE/dataset")
_SBD_PLACES = ("benchmark_RELEASE", "benchmark", "VOCaug", "SBD", "sbd")


@dataclass(frozen=True, slots=True)
class File:
    """A file; `name` is its path in `tree`."""

    tree: Tree
    name: str

    @property
    def size(self) -> int:
        return self.tree.size(self.name)

    @property
    def where(self) -> str:
        return self.tree.where(self.name)

    @property
    def member(self) -> Callable[[], bytes]:
        return self.tree.member(self.name)


def locate(candidate: Path) -> Path | None:
    """The folder VOC2012 or the archive that holds it: the candidate, or one of the usual places below it."""
    if candidate.is_file():
        return candidate if _ARCHIVE.fullmatch(candidate.name) and voc_tree(candidate) is not None else None
    for below in ("", "VOC2012", "VOCdevkit/VOC2012", "TrainVal/VOCdevkit/VOC2012"):
        place = candidate / below
        if not _OTHER_YEAR.fullmatch(place.name) and any((place / part).is_dir() for part in _PARTS):
            return place
    for archive in _archives(candidate, r"(pascal.*)?voc.*(2012|devkit|trainval)(?!.*test)"):
        if voc_tree(archive) is not None:
            return archive
    return None


def voc_tree(path: Path) -> Tree | None:
    """The tree of the folder VOC2012, given that folder or an archive that holds it; None for other archives."""
    tree = Tree.open(path)
    if tree.kind == "folder":
        return tree
    inside = re.compile(rf"((?:.*/)?)(?:{'|'.join(_PARTS)})/")
    prefixes = {match[1] for name in tree.names() if (match := inside.match(name))}
    fitting = [prefix for prefix in prefixes if not _OTHER_YEAR.fullmatch(PurePosixPath(prefix).name)]
    if not fitting:
        return None
    return tree.sub(min(fitting, key=lambda prefix: (not prefix.endswith("VOC2012/"), len(prefix), prefix)))


def test_tree(root: Path) -> Tree | None:
    """The archive of the test images, VOC2012test.tar, beside VOC's own, or None."""
    for place in _around(root):
        for archive in _archives(place, r"voc2012.?test"):
            return voc_tree(archive)
    return None


def sbd_tree(path: Path) -> Tree | None:
    """SBD's folder of `img/` and `cls/`, given that folder, one above it, or the archive; None if there are no masks."""
    if path.is_dir():
        for folder in _SBD_FOLDERS:
            if (path / folder / "cls").is_dir():
                return Tree.open(path / folder)
        archives = _archives(path, "benchmark")
        return next((tree for archive in archives if (tree := sbd_tree(archive)) is not None), None)
    if not path.is_file():
        return None
    tree = Tree.open(path)
    inside = re.compile(r"((?:.*/)?)cls/[^/]+\.mat")
    prefix = next((match[1] for name in tree.names() if (match := inside.fullmatch(name))), None)
    return None if prefix is None else tree.sub(prefix)


def find_sbd(root: Path) -> Tree | None:
    """SBD in the folder of VOC, or in one of the three folders above it."""
    for place in _around(root):
        for folder in _SBD_PLACES:
            if (place / folder).is_dir() and (tree := sbd_tree(place / folder)) is not None:
                return tree
        for archive in _archives(place, "benchmark"):
            if (tree := sbd_tree(archive)) is not None:
                return tree
    return None


def read_list(file: File) -> list[str]:
    """The ids of a list: one per line, or paths with the ids as stems, as in the lists of DeepLab and UniMatch.

    What follows is ignored: the path of a mask, or a number. DataError for an id that is listed twice.
    """
    found: dict[str, int] = {}
    for number, line in read_lines(file.member(), file.where):
        name = without_suffix(names_in(re.split(r"[\s,;]", line)[0])[0]).rpartition("/")[2]
        if name in found:
            raise DataError(f"{file.where}:{number}: {name} is also on line {found[name]}; remove one of them")
        found[name] = number
    return list(found)


def _around(root: Path) -> Iterator[Path]:
    """The folder, or the folder of an archive, and the three above it."""
    folder = root if root.is_dir() else root.parent
    yield from (folder, *list(folder.parents)[:3])


def _archives(folder: Path, begin: str) -> list[Path]:
    """Archives in a folder whose names start with a pattern."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if re.match(begin, path.name, re.IGNORECASE) and _ARCHIVE.fullmatch(path.name) and path.is_file()
    )
