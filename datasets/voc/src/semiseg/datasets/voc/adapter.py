"""The adapter: which images a split holds, where each one's mask comes from, and what is missing."""

import functools
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np

from semiseg.data import DataError, RawSample, RawSpace, Split, Taxonomy, Tree, clean_key, find_root, unknown
from semiseg.datasets.voc import files, sbd
from semiseg.datasets.voc.classes import SPACE, VOC_21
from semiseg.datasets.voc.files import File

EXPECTED = {"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582, "test": 1456}
LISTS = "ImageSets/Segmentation"
AUGMENTED = ("trainaug", "train_aug")  # names of the list that people keep beside VOC's own
MASKS = ("SegmentationClass", "SegmentationClassAug")  # VOC's own first: it wins over SBD's


@dataclass(frozen=True, slots=True)
class _Pair:
    """One image of a split; None for a file that is not there. `mask` is VOC's PNG or SBD's .mat."""

    id: str
    image: File | None
    mask: File | None


class VOC:
    """PASCAL VOC 2012, read from its folder or its tar, and SBD's masks, from theirs.

    root  VOC2012, a folder above it, or the archive; without it, $SEMISEG_DATA/voc, $VOC_ROOT and ./data/voc are looked at
    sbd   SBD's benchmark_RELEASE/ or benchmark.tgz; without it, both are looked for in VOC's folder and beside it

    `trainaug` is VOC's train and all of SBD without VOC's val; VOC's mask counts where both have one. A list
    ImageSets/Segmentation/trainaug.txt counts instead of that, and so do PNG masks in SegmentationClassAug. A split that
    lacks anything is reported by `splits()`; so is a training split that holds an id of val. Raises DataError where
    nothing of VOC is found, or nothing of SBD in `sbd`.
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
        """In the order of the split's list; without one, by id. DataError for a split that is unknown or missing."""
        if split not in EXPECTED:
            raise DataError(f"data set '{self.name}': {unknown('split', split, EXPECTED)}")
        missing = self._split(split).missing
        if missing is not None:
            raise DataError(f"data set '{self.name}', split '{split}': {missing}")
        return (self._sample(pair) for pair in self._pairs(split))

    def notes(self) -> list[str]:
        """The overlap of VOC and SBD, what can't be read at random, and the expected tree where a split is missing."""
        notes = []
        found = self.splits()
        if found["trainaug"].missing is None:
            notes.append(self._overlap())
        for tree in filter(None, (self._voc, self._sbd)):
            if tree.sequential:
                notes.append(
                    f"{tree.path} is compressed: it is read in passes of a minute or so; unpacked it is quicker"
                )
            if tree.refused:
                some = [f"{name} ({why})" for name, why in tree.refused.items()]
                notes.append(f"{tree.path}: {len(some)} members are never read: {_some(some)}")
        if any(split.missing for name, split in found.items() if name != "test"):
            notes.append("expected, [x] where something was found:" + _expected(self._has))
        return notes

    def next_steps(self, splits: Sequence[str], to: str) -> list[str]:
        if not {"train", "val"} <= set(splits):
            return []
        shards = "" if to.rstrip("/") == "shards" else " " + shlex.quote(f"data.shards={to}")
        return [f"semiseg train {name}{shards}" for name in ("voc_supervised", *["voc_cct"] * ("trainaug" in splits))]

    def _split(self, name: str) -> Split:
        """Everything but the pixels is checked here, so that a list of splits tells what can be written."""
        found, missing, expected = 0, None, EXPECTED[name]
        try:
            found = len(self._pairs(name))
            missing = self._missing(name) if found else f"its list {LISTS}/{name}.txt is empty; get it anew"
        except DataError as error:
            missing = str(error)
        split = Split(name=name, samples=found, labeled=name != "test", default=name != "trainval", expected=expected)
        return split if missing is None else replace(split, samples=0, missing=missing)

    def _missing(self, name: str) -> str | None:
        """What the files of a split lack, if anything."""
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
            return f"{'; '.join(faults)} in {self._voc.where()}; get {wanted}{further}"
        leaked = (
            sorted({pair.id for pair in pairs} & set(self._list("val") or ())) if name in ("train", "trainaug") else []
        )
        if leaked:
            return (
                f"{len(leaked)} of its {len(pairs)} ids are in {LISTS}/val.txt as well ({_some(leaked)}): training on "
                f"validation images; take their lines out of {LISTS}/{name}.txt"
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
            raise DataError(f"{self._voc.where()} has no list {LISTS}/{split}.txt; get it from {self.home}{step}")
        return listed

    def _augmented(self) -> list[str]:
        """VOC's train and what else has masks, without VOC's val; or what a list of that name says."""
        train, val = self._ids("train"), set(self._ids("val"))  # without the list of val, its images would slip in
        listed = self._augmented_list()
        if listed is not None:
            return files.read_list(listed)
        further = self._further()
        if not further and self._sbd_found[1]:
            raise DataError(f"SBD's masks: {self._sbd_found[1]}")
        if not further:
            raise DataError(
                f"its masks are those of SBD: no benchmark_RELEASE/, no benchmark.tgz in or beside {self.root}, and no "
                f"{LISTS}/trainaug.txt; get benchmark.tgz from {files.SBD_HOME}, put it beside VOC or name it: "
                "--option sbd=PATH"
            )
        return sorted({*train, *further} - val)

    def _further(self) -> set[str]:
        """Ids with masks that VOC's lists don't name: of SBD, or converted to PNG."""
        masks = [*self._voc.glob(f"{MASKS[1]}/*.png"), *(self._sbd.glob("cls/*.mat") if self._sbd else ())]
        return {name.rpartition("/")[2].rpartition(".")[0] for name in masks}

    def _overlap(self) -> str:
        train, val = set(self._ids("train")), set(self._ids("val"))
        ids = {pair.id for pair in self._pairs("trainaug")}
        listed = self._augmented_list()
        text = f"trainaug has {len(ids):,} images: {len(ids & train):,} of VOC's train and {len(ids - train):,} others"
        if listed is not None:
            return f"{text}, as {listed.where} lists them; none is of VOC's val"
        further = self._further()
        return (
            f"{text}. SBD has {len(further):,}: {len(further & train):,} are in VOC's train, where VOC's mask counts, and "
            f"{len(further & val):,} in VOC's val, which are left out"
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
        assert pair.image is not None  # `_missing` saw to it
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
        """The names of the objects in an image, each once, sorted; none where there is no annotation."""
        name = f"Annotations/{id}.xml"
        if name not in self._voc:
            return ()
        try:
            root = ElementTree.fromstring(self._voc.read(name))
        except ElementTree.ParseError as error:
            raise DataError(f"{self._voc.where(name)} is no annotation of VOC ({error}); get it anew") from error
        names = {(each.text or "").strip() for each in root.findall("object/name")}
        return tuple(sorted(names - {""}))

    @functools.cached_property
    def _voc(self) -> Tree:
        tree = files.voc_tree(self.root)
        assert tree is not None  # found by `locate`
        return tree

    @functools.cached_property
    def _tests(self) -> Tree:
        """Where the test images are: VOC's own folder, or an archive of their own."""
        return self._voc if f"{LISTS}/test.txt" in self._voc else files.test_tree(self.root) or self._voc

    @property
    def _sbd(self) -> Tree | None:
        return self._sbd_found[0]

    @functools.cached_property
    def _sbd_found(self) -> tuple[Tree | None, str]:
        """SBD if it is there, and what is wrong with it: a broken archive must not take VOC's own splits with it."""
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
    """The publishers' trees, with a mark at what is there."""
    lines = (
        ("", "VOCdevkit/VOC2012/   or VOCtrainval_11-May-2012.tar as it comes"),
        ("JPEGImages", "  JPEGImages/*.jpg"),
        ("SegmentationClass", "  SegmentationClass/*.png   (2,913 masks)"),
        (f"{LISTS}/train.txt", f"  {LISTS}/train.txt   (1,464 ids)"),
        (f"{LISTS}/val.txt", f"  {LISTS}/val.txt   (1,449 ids)"),
        (f"{LISTS}/test.txt", f"  {LISTS}/test.txt   (1,456 ids, no masks; VOC2012test.tar, optional)"),
        ("Annotations", "  Annotations/*.xml   (for image-level tags, optional)"),
        (
            "",
            "benchmark_RELEASE/dataset/   or benchmark.tgz as it comes: SBD, for trainaug, beside VOC or as option sbd",
        ),
        ("img", "  img/*.jpg   (only for images that VOC's folder lacks)"),
        ("cls", "  cls/*.mat   (11,355 masks)"),
    )
    return "".join(f"\n  {'   ' if not what else '[x]' if has(what) else '[ ]'} {line}" for what, line in lines)


def _first(tree: Tree | None, names: Sequence[str]) -> File | None:
    return next((File(tree, name) for name in names if name in tree), None) if tree is not None else None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)
