"""The adapter: the images of each split, where their masks come from, and what is missing."""

import functools
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from semiseg.data import DataError, RawSample, RawSpace, Split, Taxonomy, Tree, clean_key, find_root, unknown
from semiseg.datasets.voc import files, sbd
from semiseg.datasets.voc.annotations import object_names
from semiseg.datasets.voc.classes import SPACE, VOC_21
from semiseg.datasets.voc.files import File

EXPECTED = {"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582, "test": 1456}
LISTS = "ImageSets/Segmentation"
AUGMENTED = ("trainaug", "train_aug")  # common names of the list that is added to VOC's lists
MASKS = ("SegmentationClass", "SegmentationClassAug")  # VOC's own first: it takes precedence over SBD's


@dataclass(frozen=True, slots=True)
class _Pair:
    """One image of a split; None for a missing file. `mask` is VOC's PNG or SBD's .mat."""

    id: str
    image: File | None
    mask: File | None


class VOC:
    """PASCAL VOC 2012 and the masks of SBD, read from folders or archives.

    root  VOC2012, a folder above it, or the archive; by default, $SEMISEG_DATA/voc, $VOC_ROOT and ./data/voc are searched
    sbd   SBD's benchmark_RELEASE/ or benchmark.tgz; by default, both are searched for in VOC's folder and beside it

    `trainaug` is VOC's train and all of SBD without VOC's val; if both have a mask, VOC's is used. A list
    ImageSets/Segmentation/trainaug.txt overrides this choice of images, and PNG masks in SegmentationClassAug override
    SBD's masks. `splits()` reports a split with missing files, and a training split that contains an id of val. Raises
    DataError if no file of VOC is found, or none of SBD in `sbd`.
    """

    name: ClassVar[str] = "voc"
    summary: ClassVar[str] = "PASCAL VOC 2012, 20 kinds of objects and background; with SBD 10,582 training images"
    home: ClassVar[str] = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
    taxonomies: ClassVar[tuple[Taxonomy, ...]] = (VOC_21,)

    def __init__(self, root: Path | None = None, *, sbd: str | Path | None = None) -> None:
        self.root = find_root(
            self.name,
            root,
            locate=files.locate,
            variables=("VOC_ROOT",),
            expected=_expected(lambda _: False),
            home=f"{self.home} (development kit: VOCtrainval_11-May-2012.tar, 2 GB, no registration; flickr's terms apply)",
        )
        self._paired: dict[str, list[_Pair]] = {}
        self._sbd_given = None if sbd is None else Path(sbd).expanduser().absolute()
        if self._sbd_given is not None and files.sbd_tree(self._sbd_given) is None:
            raise DataError(
                f"data set 'voc', option sbd: no cls/*.mat in or below {self._sbd_given}; "
                f"expected benchmark_RELEASE/ or benchmark.tgz of {files.SBD_HOME}"
            )

    @property
    def version(self) -> str:
        return "VOC2012"

    @property
    def raw_space(self) -> RawSpace:
        return SPACE

    def splits(self) -> dict[str, Split]:
        return {name: self._split(name) for name in EXPECTED}

    def samples(self, split: str) -> Iterator[RawSample]:
        """In the order of the list of the split, or by id without one. DataError for a split that is unknown or missing."""
        if split not in EXPECTED:
            raise DataError(f"data set '{self.name}': {unknown('split', split, EXPECTED)}")
        missing = self._split(split).missing
        if missing is not None:
            raise DataError(f"data set '{self.name}', split '{split}': {missing}")
        return (self._sample(pair) for pair in self._pairs(split))

    def notes(self) -> list[str]:
        """The overlap of VOC and SBD, archives that are slow to read, and the expected tree if a split is missing."""
        notes = []
        found = self.splits()
        if found["trainaug"].missing is None:
            notes.append(self._overlap())
        for tree in filter(None, (self._voc, self._sbd)):
            if tree.sequential:
                notes.append(
                    f"{tree.path} is compressed: reading it takes passes of about a minute; unpack it to read it faster"
                )
            if tree.refused:
                some = [f"{name} ({why})" for name, why in tree.refused.items()]
                notes.append(f"{tree.path}: {len(some)} members are skipped: {_some(some)}")
        if any(split.missing for name, split in found.items() if name != "test"):
            notes.append("expected; [x] marks what was found:" + _expected(self._has))
        return notes

    def next_steps(self, splits: Sequence[str], to: str) -> list[str]:
        if not {"train", "val"} <= set(splits):
            return []
        shards = "" if to.rstrip("/") == "shards" else " " + shlex.quote(f"data.shards={to}")
        return [f"semiseg train {name}{shards}" for name in ("voc_supervised", *["voc_cct"] * ("trainaug" in splits))]

    def _split(self, name: str) -> Split:
        """Checks everything except pixels, so that the list of splits shows which can be written."""
        found, missing, expected = 0, None, EXPECTED[name]
        try:
            found = len(self._pairs(name))
            missing = self._missing(name) if found else f"its list {LISTS}/{name}.txt is empty; download it again"
        except DataError as error:
            missing = str(error)
        split = Split(name=name, samples=found, labeled=name != "test", default=name != "trainval", expected=expected)
        return split if missing is None else replace(split, samples=0, missing=missing)

    def _missing(self, name: str) -> str | None:
        """What is missing or wrong in the files of a split, or None."""
        pairs = self._pairs(name)
        absent = {"images": [f"JPEGImages/{pair.id}.jpg" for pair in pairs if pair.image is None]}
        if name != "test":
            absent["masks"] = [f"{MASKS[0]}/{pair.id}.png" for pair in pairs if pair.mask is None]
        faults = [
            f"{len(lack)} of {len(pairs)} {what} are missing ({_some(lack)})" for what, lack in absent.items() if lack
        ]
        if faults:
            wanted = (
                f"VOC2012test.tar from {self.home}, after registration" if name == "test" else f"VOC from {self.home}"
            )
            further = f" or SBD from {files.SBD_HOME}" if name == "trainaug" else ""
            return f"{'; '.join(faults)} in {self._voc.where()}; download {wanted}{further}"
        leaked = (
            sorted({pair.id for pair in pairs} & set(self._list("val") or ())) if name in ("train", "trainaug") else []
        )
        if leaked:
            return (
                f"{len(leaked)} of its {len(pairs)} ids are also in {LISTS}/val.txt ({_some(leaked)}), so validation "
                f"images would be trained on; remove their lines from {LISTS}/{name}.txt"
            )
        if any(pair.mask is not None and pair.mask.name.endswith(".mat") for pair in pairs) and not sbd.readable():
            return sbd.INSTALL
        return None

    def _pairs(self, split: str) -> list[_Pair]:
        if split not in self._paired:
            pairs = (_Pair(id, self._image(id), self._mask(id) if split != "test" else None) for id in self._ids(split))
            self._paired[split] = list(pairs)
        return self._paired[split]

    def _ids(self, split: str) -> list[str]:
        if split == "trainaug":
            return self._augmented()
        listed = self._list(split)
        if listed is None and split == "trainval":
            listed = sorted({*self._ids("train"), *self._ids("val")})
        if listed is None:
            step = ": VOC2012test.tar, after registration" if split == "test" else " (VOCtrainval_11-May-2012.tar)"
            raise DataError(f"{self._voc.where()} has no list {LISTS}/{split}.txt; download it from {self.home}{step}")
        return listed

    def _augmented(self) -> list[str]:
        """VOC's train and all other images with masks, without VOC's val; or a list trainaug.txt."""
        train, val = self._ids("train"), set(self._ids("val"))  # without the list of val, its images would be included
        listed = self._augmented_list()
        if listed is not None:
            return files.read_list(listed)
        further = self._further()
        if not further and self._sbd_found[1]:
            raise DataError(f"SBD's masks: {self._sbd_found[1]}")
        if not further:
            raise DataError(
                f"it needs the masks of SBD: no benchmark_RELEASE/, benchmark.tgz in or beside {self.root}, and no "
                f"{LISTS}/trainaug.txt; download benchmark.tgz from {files.SBD_HOME} and put it beside VOC, or pass "
                "--option sbd=PATH"
            )
        return sorted({*train, *further} - val)

    def _further(self) -> set[str]:
        """Ids that have a mask of SBD, as .mat or converted to PNG."""
        masks = [*self._voc.glob(f"{MASKS[1]}/*.png"), *(self._sbd.glob("cls/*.mat") if self._sbd else ())]
        return {name.rpartition("/")[2].rpartition(".")[0] for name in masks}

    def _overlap(self) -> str:
        train, val = set(self._ids("train")), set(self._ids("val"))
        ids = {pair.id for pair in self._pairs("trainaug")}
        listed = self._augmented_list()
        text = f"trainaug has {len(ids):,} images: {len(ids & train):,} of VOC's train and {len(ids - train):,} others"
        if listed is not None:
            return f"{text}, as listed in {listed.where}; none is in VOC's val"
        further = self._further()
        return (
            f"{text}. SBD has {len(further):,}: {len(further & train):,} are in VOC's train, for which VOC's masks "
            f"are used, and {len(further & val):,} in VOC's val, which are left out"
        )

    def _augmented_list(self) -> File | None:
        names = (f"{LISTS}/{name}.txt" for name in AUGMENTED)
        return next((File(self._voc, name) for name in names if name in self._voc), None)

    def _list(self, split: str) -> list[str] | None:
        tree = self._tests if split == "test" else self._voc
        name = f"{LISTS}/{split}.txt"
        return files.read_list(File(tree, name)) if name in tree else None

    def _image(self, id: str) -> File | None:
        name = f"JPEGImages/{id}.jpg"
        return _first(self._voc, [name]) or _first(self._tests, [name]) or _first(self._sbd, [f"img/{id}.jpg"])

    def _mask(self, id: str) -> File | None:
        return _first(self._voc, [f"{folder}/{id}.png" for folder in MASKS]) or _first(self._sbd, [f"cls/{id}.mat"])

    def _sample(self, pair: _Pair) -> RawSample:
        assert pair.image is not None  # checked by `_missing`
        label: Callable[[], bytes | np.ndarray] | None = None
        meta, size = {"source": pair.id}, pair.image.size
        if pair.mask is not None:
            of_sbd = pair.mask.name.endswith(".mat")
            label = functools.partial(sbd.read_mask, pair.mask.member, pair.mask.where) if of_sbd else pair.mask.member
            meta["mask"] = "SBD" if of_sbd else pair.mask.name.partition("/")[0]
            size += pair.mask.size
        tags = self._tags(pair.id)
        return RawSample(key=clean_key(pair.id), image=pair.image.member, label=label, size=size, tags=tags, meta=meta)

    def _tags(self, id: str) -> tuple[str, ...]:
        """The unique names of the objects in an image, sorted; none without an annotation."""
        file = f"Annotations/{id}.xml"
        if file not in self._voc:
            return ()
        return object_names(self._voc.read(file), self._voc.where(file))

    @functools.cached_property
    def _voc(self) -> Tree:
        tree = files.voc_tree(self.root)
        assert tree is not None  # found by `locate`
        return tree

    @functools.cached_property
    def _tests(self) -> Tree:
        """Where the test images are: VOC's own folder, or a separate archive."""
        return self._voc if f"{LISTS}/test.txt" in self._voc else files.test_tree(self.root) or self._voc

    @property
    def _sbd(self) -> Tree | None:
        return self._sbd_found[0]

    @functools.cached_property
    def _sbd_found(self) -> tuple[Tree | None, str]:
        """SBD if it exists, and what is wrong with it: a broken archive must not make VOC's own splits unreadable."""
        try:
            return files.find_sbd(self.root) if self._sbd_given is None else files.sbd_tree(self._sbd_given), ""
        except DataError as error:
            return None, str(error)

    def _has(self, what: str) -> bool:
        """Whether a line of the expected tree was found."""
        if what in ("img", "cls"):
            return self._sbd is not None and bool(self._sbd.under(what))
        tree = self._tests if what.endswith("/test.txt") else self._voc
        return what in tree or bool(tree.under(what))


def _expected(has: Callable[[str], bool]) -> str:
    """The publishers' trees, with marks at the parts that exist."""
    lines = (
        ("", "VOCdevkit/VOC2012/   or VOCtrainval_11-May-2012.tar, not unpacked"),
        ("JPEGImages", "  JPEGImages/*.jpg"),
        ("SegmentationClass", "  SegmentationClass/*.png   (2,913 masks)"),
        (f"{LISTS}/train.txt", f"  {LISTS}/train.txt   (1,464 ids)"),
        (f"{LISTS}/val.txt", f"  {LISTS}/val.txt   (1,449 ids)"),
        (f"{LISTS}/test.txt", f"  {LISTS}/test.txt   (1,456 ids, no masks; VOC2012test.tar, optional)"),
        ("Annotations", "  Annotations/*.xml   (for image-level tags, optional)"),
        (
            "",
            "benchmark_RELEASE/dataset/   or benchmark.tgz, not unpacked: SBD, for trainaug, beside VOC or as option sbd",
        ),
        ("img", "  img/*.jpg   (only for images that are not in VOC's folder)"),
        ("cls", "  cls/*.mat   (11,355 masks)"),
    )
    return "".join(f"\n  {'   ' if not what else '[x]' if has(what) else '[ ]'} {line}" for what, line in lines)


def _first(tree: Tree | None, names: Sequence[str]) -> File | None:
    return next((File(tree, name) for name in names if name in tree), None) if tree is not None else None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)
