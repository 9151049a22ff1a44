"""The adapter: finds SUN RGB-D as published or as the numbered export, and reports what is missing."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from semiseg.data import DataError, RawSample, RawSpace, Split, Taxonomy, find_root, unknown
from semiseg.datasets.sunrgbd import official
from semiseg.datasets.sunrgbd.classes import SUNRGBD_13, SUNRGBD_13_EXPORT, SUNRGBD_37
from semiseg.datasets.sunrgbd.export import EXPECTED, Export
from semiseg.datasets.sunrgbd.official import Official
from semiseg.datasets.sunrgbd.toolbox import LABELS, META, SPLITS

ALIAS = {"val": "test"}  # papers validate on the 5,050 test images
TREE = {
    "images": "SUNRGBD.zip, or SUNRGBD/{kv1,kv2,realsense,xtion}/...: 10,335 images, about 6 GB",
    META: f"SUNRGBDtoolbox.zip, or SUNRGBDtoolbox/{META}: names, in the order of the labels",
    LABELS: f"  and SUNRGBDtoolbox/{LABELS}: labels of 37 classes",
    SPLITS: f"  and SUNRGBDtoolbox/{SPLITS}: 5,285 train, 5,050 test",
    "or": "or the numbered export, each a folder or a .tgz, .tar, .zip:",
    "train images": "SUNRGBD-train_images/img-000001.jpg ... img-005285.jpg",
    "test images": "SUNRGBD-test_images/img-000001.jpg ... img-005050.jpg",
    "37 labels": "sunrgbd_train_test_labels/img-000001.png ... img-010335.png: 37 classes, the 5,050 of test first",
    "13 labels": "or train13labels/img13labels-000001.png ... and test13labels/...: 13 classes",
}


class SUNRGBD:
    """Indoor scenes, 37 classes that also map to 13, from the official files or the widely used numbered export.

    `root`: the folder that holds SUNRGBD and SUNRGBDtoolbox (folders or zips) or the export's folders, one of these, or
    the folder above; by default, $SEMISEG_DATA/sunrgbd, $SUNRGBD_ROOT and ./data/sunrgbd are searched. Official files
    take precedence over an export in the same folder. `classes`: which labels of the export to read, 13 or 37; by default
    37, unless more splits have 13. The split "val" is another name of "test", as in papers. Raises DataError if nothing
    is found.
    """

    name: ClassVar[str] = "sunrgbd"
    summary: ClassVar[str] = "indoor scenes, 37 or 13 classes, 10,335 images of four sensors"
    home: ClassVar[str] = official.HOME
    taxonomies: ClassVar[tuple[Taxonomy, ...]] = (SUNRGBD_13, SUNRGBD_37, SUNRGBD_13_EXPORT)

    def __init__(self, root: Path | None = None, *, classes: int | None = None) -> None:
        if classes not in (None, 13, 37):
            raise DataError(f"data set 'sunrgbd': option classes is {classes!r}; expected 37, or 13 for the export")
        official_only: list[Path] = []
        try:
            self.root = find_root(
                self.name,
                root,
                locate=functools.partial(_locate, classes, official_only),
                variables=("SUNRGBD_ROOT",),
                expected="\n".join(TREE.values()),
                home=self.home,
            )
        except DataError as error:
            if not official_only:
                raise
            raise DataError(
                f"{official_only[0]} holds the official files, whose labels have 37 classes; leave out classes=13 and use "
                f"taxonomy '{SUNRGBD_13.name}' to map them to 13 when reading"
            ) from error
        layout = _open(self.root, classes)
        assert layout is not None, "found above"
        self._layout = layout

    @property
    def version(self) -> str:
        """ "official-37", "export-37" or "export-13": keys differ between them, and the ids of the last one differ, too."""
        return self._layout.version

    @property
    def raw_space(self) -> RawSpace:
        return self._layout.raw_space

    def splits(self) -> dict[str, Split]:
        """train and test; val, an alias of test, is written only on request."""
        found = {name: self._layout.split(name, expected) for name, expected in EXPECTED.items()}
        return found | {alias: replace(found[name], name=alias, default=False) for alias, name in ALIAS.items()}

    def samples(self, split: str) -> Iterator[RawSample]:
        """In the publisher's order. DataError for a split that is unknown or missing."""
        name = ALIAS.get(split, split)
        if name not in EXPECTED:
            raise DataError(f"data set 'sunrgbd': {unknown('split', split, [*EXPECTED, *ALIAS])}")
        missing = self._layout.split(name, EXPECTED[name]).missing
        if missing is not None:
            found = self._layout.found()
            marks = {key: "[found]  " if key in found else " " * 9 if key == "or" else "[missing]" for key in TREE}
            lines = "\n".join(f"  {marks[key]} {text}" for key, text in TREE.items())
            raise DataError(f"data set 'sunrgbd', split '{split}': {missing}\nexpected:\n{lines}")
        return self._layout.samples(name)

    def notes(self) -> list[str]:
        """What is left out, and which taxonomy to use."""
        return self._layout.notes()

    def next_steps(self, splits: Sequence[str], to: str) -> list[str]:
        """None: no recipe uses this data set alone."""
        return []


def _locate(classes: int | None, official_only: list[Path], candidate: Path) -> Path | None:
    """The candidate, if it holds the requested files; official files that lack 13 classes are added to `official_only`."""
    if _open(candidate, classes) is not None:
        return candidate
    if classes == 13 and Official.at(candidate) is not None:
        official_only.append(candidate)
    return None


def _open(place: Path, classes: int | None) -> Official | Export | None:
    """Complete official files, or else the export, or else incomplete official files."""
    release = Official.at(place) if classes != 13 else None
    if release is not None and release.complete:
        return release
    return Export.at(place, classes) or release
