"""CamVid's original release: 701 images of 960x720, labels in 32 colours, no splits defined."""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar

from semiseg.data import DataError, RawSample, RawSpace, Split, Tree, clean_key, unknown
from semiseg.datasets.camvid.colours import read_label
from semiseg.datasets.camvid.labels import ORIGINAL, TABLE
from semiseg.datasets.camvid.lists import check_once, read_list

HOME = "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/"
EXPECTED = 701
IMAGES, LABELS, COLOURS = "701_StillsRaw_full", "LabeledApproved_full", "label_colors.txt"
TREE = f"""
    {IMAGES}/*.png        or {IMAGES}.zip     (701 images of 960x720)
    {LABELS}/*_L.png    or {LABELS}.zip   (their labels in 32 colours)
    {COLOURS}, train.txt, val.txt, test.txt            (optional: table of colours, split lists)
"""
_ARCHIVE = re.compile(rf"(?P<what>{IMAGES}|{LABELS})\.(?:zip|tar|tgz|tar\.(?:gz|bz2|xz))")
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class OriginalLayout:
    """The original release. `parts`: where its images and labels are; `lists`: a folder of lists, or None for the root's.

    Splits are "all", and one for each list `<split>.txt` of names, such as SegNet's. If the table of colours is present,
    it is compared with the published one.
    """

    root: Path
    parts: dict[str, Tree]
    beside: Tree  # the folder that holds images and labels, and possibly the table and lists
    lists: Tree | None = None
    unknown_as_void: bool = False
    raw_space: ClassVar[RawSpace] = ORIGINAL

    @classmethod
    def find(cls, candidate: Path, *, lists: Tree | None, unknown_as_void: bool) -> "OriginalLayout | None":
        """The layout in a folder, unpacked or packed, or in an archive; None if there is none."""
        root, beside = candidate, Tree.open(candidate)
        if candidate.is_dir():
            parts = _parts(candidate)
        elif _ARCHIVE.fullmatch(candidate.name):
            root = candidate.parent  # the other archive is in the same folder
            parts, beside = _parts(root), Tree.open(root)
        else:
            folders = sorted({name.rpartition("/")[0] for name in beside.names()}, reverse=True)
            inside = {
                part: folder for folder in folders for part in (IMAGES, LABELS) if f"/{folder}".endswith(f"/{part}")
            }
            parts = {part: beside.sub(folder) for part, folder in inside.items()}
            beside = beside.sub(next(iter(inside.values())).rpartition("/")[0]) if inside else beside
        return cls(root, parts, beside, lists, unknown_as_void) if parts else None

    @property
    def version(self) -> str:
        """The release and the length of each list, which together identify the protocol."""
        return "-".join(["original-960x720", *(f"{name}{len(names)}" for name, names in self._listed.items())])

    def splits(self) -> dict[str, Split]:
        listed = self._listed
        found = {}
        for name in (*_SPLITS, *listed):
            samples = sum(stem in self._pairs for stem in listed.get(name, ()))
            found[name] = Split(name=name, samples=samples, missing=None if samples else self._missing(name))
        all_missing = None if self._pairs else self._missing("all")
        found["all"] = Split(
            name="all", samples=len(self._pairs), missing=all_missing, default=not listed, expected=EXPECTED
        )
        return found

    def notes(self) -> list[str]:
        images, labels = self._images, self._labels
        notes = []
        if bare := sorted(images.keys() - labels.keys()):
            notes.append(f"{len(bare)} images without a label left out ({_some(bare)})")
        if bare := sorted(labels.keys() - images.keys()):
            notes.append(f"{len(bare)} labels without an image left out ({_some(bare)})")
        inside = self.beside.kind == "folder"  # its tree includes the folders of the parts
        trees = [self.beside, *(tree for tree in self.parts.values() if not (inside and tree.kind == "folder"))]
        refused = {tree.path.name: sorted(tree.refused) for tree in trees}
        notes += [
            f"{len(names)} members of {name} skipped ({_some(names)})" for name, names in refused.items() if names
        ]
        return notes

    def samples(self, name: str) -> Iterator[RawSample]:
        self._check_table()
        stems = sorted(self._pairs) if name == "all" else self._listed[name]
        absent = [stem for stem in stems if stem not in self._pairs]
        if absent:
            listing = self._lists.where(f"{name}.txt")
            raise DataError(
                f"data set 'camvid', split '{name}' in {self.root}: {len(absent)} of {len(stems)} images or their labels "
                f"are missing ({_some(absent)}); download these files again, or remove their lines from {listing}"
            )
        return (self._sample(stem, *self._pairs[stem]) for stem in stems)

    @property
    def _lists(self) -> Tree:
        return self.beside if self.lists is None else self.lists  # an empty tree is false

    @cached_property
    def _images(self) -> dict[str, tuple[Tree, str]]:
        return _by_stem(self.parts.get(IMAGES), r"(?P<stem>.+)(?<!_L)\.png")

    @cached_property
    def _labels(self) -> dict[str, tuple[Tree, str]]:
        return _by_stem(self.parts.get(LABELS), r"(?P<stem>.+)_L\.png")

    @cached_property
    def _pairs(self) -> dict[str, tuple[tuple[Tree, str], tuple[Tree, str]]]:
        return {stem: (image, self._labels[stem]) for stem, image in self._images.items() if stem in self._labels}

    @cached_property
    def _listed(self) -> dict[str, list[str]]:
        """Split -> stems of its images; train, val and test first. DataError if two of these share an image."""
        tree = self._lists
        names = [f"{split}.txt" for split in _SPLITS if f"{split}.txt" in tree]
        if self.lists is not None:
            names += [name for name in self.lists.glob("*.txt") if name not in (*names, COLOURS)]
            if not names:
                raise DataError(
                    f"{tree.where()} holds no lists; expected files such as train.txt with one image name per line"
                )
        if "all.txt" in names:
            raise DataError(f"{tree.where('all.txt')}: 'all' is the split of all images; rename the list")
        found = {name.removesuffix(".txt"): _stems(tree.read(name), tree.where(name)) for name in names}
        owner: dict[str, str] = {}
        for split in _SPLITS:
            for stem in found.get(split, ()):
                if owner.setdefault(stem, split) != split:
                    where = f"{tree.where(f'{owner[stem]}.txt')} and {split}.txt"
                    raise DataError(
                        f"{where} both list {stem}; train, val and test must not share images: remove it from one of them"
                    )
        return found

    def _missing(self, name: str) -> str:
        absent = [part for part, files in ((IMAGES, self._images), (LABELS, self._labels)) if not files]
        if absent:
            return f"no {' and '.join(absent)} in {self.root}; download them from {HOME}; archives need not be unpacked"
        if name == "all" or name in self._listed:
            return f"no image in {self.root} has a label; expected pairs X.png and X_L.png; download them from {HOME}"
        return (
            f"the release does not define this split; put a list {name}.txt into {self.root} (SegNet's lists have the "
            "usual 367, 101 and 233 images), or pass a folder of lists as lists=FOLDER; the split 'all' has every image"
        )

    def _check_table(self) -> None:
        """If the table of colours is present, it must agree with the published one, by which labels are read."""
        if COLOURS not in self.beside:
            return
        where = self.beside.where(COLOURS)
        for number, words in read_list(self.beside.read(COLOURS), where):
            if len(words) != 4 or not all(word.isdecimal() for word in words[:3]):
                raise DataError(
                    f"{where}:{number}: found '{' '.join(words)}', expected a line such as 64 128 64 Animal; correct it"
                )
            colour, name = tuple(map(int, words[:3])), words[3]
            if name not in TABLE:
                raise DataError(f"{where}:{number}: {unknown('class', name, TABLE)}")
            if TABLE[name][0] != colour:
                published = " ".join(map(str, TABLE[name][0]))
                raise DataError(
                    f"{where}:{number}: {name} is {' '.join(words[:3])}, but the published colour is {published}; correct it"
                )

    def _sample(self, stem: str, image: tuple[Tree, str], label: tuple[Tree, str]) -> RawSample:
        (tree, name), (labels, mask) = image, label
        return RawSample(
            key=clean_key(stem),
            image=tree.member(name),
            label=functools.partial(read_label, labels.member(mask), labels.where(mask), self.unknown_as_void),
            size=tree.size(name) + labels.size(mask),
            meta={"source": f"{IMAGES}/{stem}.png"},
        )


def _parts(folder: Path) -> dict[str, Tree]:
    """Images and labels in a folder, unpacked or in their archives; unpacked ones take precedence."""
    found = {part: Tree.open(folder / part) for part in (IMAGES, LABELS) if (folder / part).is_dir()}
    for path in sorted(folder.iterdir()):
        match = _ARCHIVE.fullmatch(path.name)
        if match and path.is_file():
            found.setdefault(match["what"], Tree.open(path))
    return found


def _by_stem(tree: Tree | None, pattern: str) -> dict[str, tuple[Tree, str]]:
    """Stem -> file, in the order of stems. Folders inside are ignored, because archives differ in them."""
    if tree is None:
        return {}
    matches = ((re.fullmatch(pattern, PurePosixPath(name).name), name) for name in tree.names())
    found = {match["stem"]: (tree, name) for match, name in matches if match}
    return dict(sorted(found.items(), key=lambda item: item[0]))


def _stems(data: bytes, where: str) -> list[str]:
    """Stems of the first words of all lines: SegNet's "/a/X.png /b/X.png", or just "X"."""
    lines: dict[str, int] = {}
    for number, words in read_list(data, where):
        check_once(lines, words[0].rpartition("/")[2].removesuffix(".png"), number, where)
    return list(lines)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
