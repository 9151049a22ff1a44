"""The adapter: pairs images with labels, leaves out files without a partner, and reports what is missing."""

import functools
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from semiseg.data import DataError, RawSample, RawSpace, Split, Taxonomy, find_root, unknown
from semiseg.datasets.cityscapes.files import File, Files, locate
from semiseg.datasets.cityscapes.labels import CITYSCAPES_7, CITYSCAPES_19, CITYSCAPES_34, RAW_SPACE
from semiseg.datasets.cityscapes.polygons import draw_file

BLACK = "troisdorf/troisdorf_000000_000073"
"""The image of train_extra that is completely black, with a label of a single value: always left out."""


class Cityscapes:
    """Cityscapes, fine and coarse, unpacked, in the publisher's zips, or a mix of both.

    `root`: the folder that holds `leftImg8bit/`, `gtFine/`, `gtCoarse/` or their archives, the folder above it, one of
    these folders or archives, or one archive of all; by default, $SEMISEG_DATA/cityscapes, $CITYSCAPES_DATASET and
    ./data/cityscapes are searched. Labels are the publisher's `labelIds`; if these are missing, they are drawn from its
    polygons. Images without a label and labels without an image are left out and listed (see `notes`). Raises DataError
    if nothing is found.
    """

    name: ClassVar[str] = "cityscapes"
    summary: ClassVar[str] = "driving through 50 cities, 5,000 images of 2048x1024 with fine labels, 20,000 with coarse"
    home: ClassVar[str] = "https://www.cityscapes-dataset.com"
    taxonomies: ClassVar[tuple[Taxonomy, ...]] = (CITYSCAPES_19, CITYSCAPES_7, CITYSCAPES_34)
    version: str = "leftImg8bit-labelIds"
    raw_space: RawSpace = RAW_SPACE

    def __init__(self, root: Path | None = None) -> None:
        self.root: Path | None = find_root(
            self.name,
            root,
            locate=locate,
            variables=("CITYSCAPES_DATASET",),
            expected=_tree({}),
            home=f"{self.home} (register there and accept its licence first)",
        )
        self._files = Files(self.root)

    def splits(self) -> dict[str, Split]:
        return {name: self._split(name) for name in _PARTS}

    def samples(self, split: str) -> Iterator[RawSample]:
        """The samples of a split, sorted by key, `<city>/<city>_<sequence>_<frame>`.

        Raises DataError for a split that is unknown or missing, with the numbers of files that were found.
        """
        if split not in _PARTS:
            raise DataError(f"data set '{self.name}': {unknown('split', split, _PARTS)}")
        missing = self._split(split).missing
        if missing is not None:
            raise DataError(f"data set '{self.name}', split '{split}': {missing}\nfound:\n{self._found()}")
        part = _PARTS[split].split
        return (_sample(part, key, image, label) for key, image, label in self._pairings[split].samples)

    def notes(self) -> list[str]:
        """Files that are left out of the splits, with counts and names."""
        pairings = self._pairings  # lists the files, which also finds broken archives
        notes = [f"{name} can't be read: {why}" for name, why in self._files.broken.items()]
        for name, members in self._files.refused.items():
            skipped = [f"{member}: {why}" for member, why in members.items()]
            notes.append(f"{_plural(len(skipped), 'member')} of {name} skipped ({_some(skipped)})")
        splits: dict[str, list[str]] = {}
        for split, pairing in pairings.items():
            for note in pairing.left_out() if pairing.samples else ():
                splits.setdefault(note, []).append(split)
        return notes + [f"{' and '.join(names)}: {note}" for note, names in splits.items()]

    def next_steps(self, splits: Sequence[str], to: str) -> list[str]:
        """Class statistics, if a split has labels."""
        labeled = [name for name in splits if _PARTS[name].labels is not None]
        return [f"semiseg data stats {self.name} --split {labeled[0]} --shards {shlex.quote(to)}"] if labeled else []

    def _split(self, name: str) -> Split:
        part, pairing = _PARTS[name], self._pairings[name]
        return Split(
            name=name,
            samples=len(pairing.samples),
            labeled=part.labels is not None,
            missing=None if pairing.samples else self._missing(part),
            default=part.default,
            expected=part.expected,
        )

    def _missing(self, part: "_Part") -> str:
        have_images = bool(self._files.images(part.split))
        have_labels = part.labels is None or bool(self._files.labels(part.labels, part.split))
        if have_images and have_labels:
            return "no image has a label of the same name; check that images and labels belong together"
        wanted = [] if have_images else [("leftImg8bit", part.split)]
        wanted += [] if have_labels or part.labels is None else [(part.labels, part.split)]
        absent = " and ".join(f"{kind}/{split}" for kind, split in wanted)
        archives = " and ".join(_ARCHIVES[kind, split] for kind, split in wanted)
        broken = "".join(f"; {name} can't be read: {why}" for name, why in self._files.broken.items())
        return (
            f"no {absent} in {self.root}; download {archives} from {Cityscapes.home} (register there and accept its licence) "
            f"into that folder; archives need not be unpacked{broken}"
        )

    @cached_property
    def _pairings(self) -> dict[str, "_Pairing"]:
        return {name: self._pair(part) for name, part in _PARTS.items()}

    def _pair(self, part: "_Part") -> "_Pairing":
        images = self._files.images(part.split)
        labels: dict[str, File] = {} if part.labels is None else self._files.labels(part.labels, part.split)
        black = [BLACK] if part.split == "train_extra" and BLACK in images else []
        kept = [key for key in images if key not in black and (part.labels is None or key in labels)]
        return _Pairing(
            samples=[(key, images[key], labels.get(key)) for key in kept],
            images=[key for key in images if part.labels is not None and key not in labels and key not in black],
            labels=[key for key in labels if key not in images],
            black=black,
        )

    def _found(self) -> str:
        """The publisher's tree, with the numbers of files that were found."""
        images = {("leftImg8bit", split): len(self._files.images(split)) for _, split in _ARCHIVES}
        labels = {(kind, split): len(self._files.labels(kind, split)) for kind, split in _ARCHIVES if kind[:2] == "gt"}
        return _tree(images | labels)


@dataclass(frozen=True)
class _Part:
    """The contents of a split. `labels`: the folder of its labels, None if it has images only."""

    split: str
    labels: str | None
    expected: int
    default: bool = True


@dataclass(frozen=True)
class _Pairing:
    """Keys with their files, and the keys left out: images and labels without a partner, black images."""

    samples: list[tuple[str, File, File | None]]
    images: list[str]
    labels: list[str]
    black: list[str]

    def left_out(self) -> Iterator[str]:
        if self.images:
            yield f"{_plural(len(self.images), 'image')} without a label left out ({_some(self.images)})"
        if self.labels:
            yield f"{_plural(len(self.labels), 'label')} without an image left out ({_some(self.labels)})"
        if self.black:
            yield f"1 image left out that is black, with a label of a single value ({_some(self.black)})"


_PARTS = {
    "train": _Part("train", "gtFine", 2975),
    "val": _Part("val", "gtFine", 500),
    "test": _Part("test", None, 1525),  # its published labels are dummies
    "train_coarse": _Part("train", "gtCoarse", 2975, default=False),
    "val_coarse": _Part("val", "gtCoarse", 500, default=False),
    "train_extra": _Part("train_extra", "gtCoarse", 19998, default=False),
    "train_extra_unlabeled": _Part("train_extra", None, 19998, default=False),
}
_ARCHIVES = {
    ("leftImg8bit", "train"): "leftImg8bit_trainvaltest.zip (11 GB)",
    ("leftImg8bit", "val"): "leftImg8bit_trainvaltest.zip (11 GB)",
    ("leftImg8bit", "test"): "leftImg8bit_trainvaltest.zip (11 GB)",
    ("leftImg8bit", "train_extra"): "leftImg8bit_trainextra.zip (44 GB)",
    ("gtFine", "train"): "gtFine_trainvaltest.zip (241 MB)",
    ("gtFine", "val"): "gtFine_trainvaltest.zip (241 MB)",
    ("gtCoarse", "train"): "gtCoarse.zip (1.3 GB)",
    ("gtCoarse", "val"): "gtCoarse.zip (1.3 GB)",
    ("gtCoarse", "train_extra"): "gtCoarse.zip (1.3 GB)",
}
_COUNTS = {part.split: part.expected for part in _PARTS.values()}


def _tree(found: dict[tuple[str, str], int]) -> str:
    """The publisher's tree, one line per folder; with the numbers of files found, if given."""
    lines = []
    for (kind, split), archive in _ARCHIVES.items():
        names = f"{kind}/{split}/<city>/*_{'leftImg8bit.png' if kind == 'leftImg8bit' else kind + '_labelIds.png'}"
        state = f"{found[kind, split]:6} of" if found else ""
        lines.append(f"{names:58} {state} {_COUNTS[split]:6}   from {archive}")
    return "\n".join(lines)


def _sample(split: str, key: str, image: File, label: File | None) -> RawSample:
    size = image.tree.size(image.name)
    if label is not None:
        size += label.tree.size(label.name)
    return RawSample(
        key=key,
        image=image.tree.member(image.name),
        label=None if label is None else _label(label),
        size=size,
        meta={"city": key.partition("/")[0], "source": f"leftImg8bit/{split}/{key}_leftImg8bit.png"},
    )


def _label(file: File) -> Callable[[], bytes | np.ndarray]:
    member = file.tree.member(file.name)
    return functools.partial(draw_file, member, file.tree.where(file.name)) if file.drawn else member


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count > 1)}"


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + ", ..." * (len(keys) > 3)
