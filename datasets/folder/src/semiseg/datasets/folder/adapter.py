"""The adapter: a user's own images and masks, in a folder or an archive, in the usual arrangements."""

import functools
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from semiseg.data import DataError, RawSample, RawSpace, Reading, Split, Taxonomy, Tree, bits_for, unknown
from semiseg.datasets.folder.choices import choices
from semiseg.datasets.folder.class_lists import read_class_file
from semiseg.datasets.folder.doubts import refuse_masks_as_images, undecided
from semiseg.datasets.folder.file import File
from semiseg.datasets.folder.files import check_endings, check_named, list_files
from semiseg.datasets.folder.folders import SPLITS
from semiseg.datasets.folder.labels import interpret
from semiseg.datasets.folder.looks import Looks
from semiseg.datasets.folder.masks import Seen, look, read_ids
from semiseg.datasets.folder.pairs import pair
from semiseg.datasets.folder.pictures import Picture, as_png, highest, inspect
from semiseg.datasets.folder.problems import Problems, plain
from semiseg.datasets.folder.roots import HOME, TREE, dataset_name, find, inside, left_out
from semiseg.datasets.folder.splits import Assigned, assign, keys_of, lacking, list_names, read_tags
from semiseg.datasets.folder.turned import masks_to_turn
from semiseg.datasets.folder.unused import unused

_DARK = 1 << 12  # of 16 bits: if images use at most 12, the upper 8 of 16 bits keep only 4


@dataclass(frozen=True, slots=True)
class _Sample:
    """One image with everything known about it."""

    key: str
    image: File
    picture: Picture
    mask: Seen | None
    turn: int
    tags: tuple[str, ...]


class Folder:
    """Images, masks for some of them, and optional text files. All files are inspected when this is constructed.

    root       a folder, zip or tar
    name       of the data set and its taxonomy; default: the name of the root
    images, masks, unlabeled   folders, if they are not recognised; several are separated by commas
    by_look    recognise masks among images by their pixels, too; False: names alone decide
    leave_out  patterns of pictures to leave out, such as "*_overlay.jpg", separated by commas
    image_suffix, mask_suffix   endings of the names of images and masks, such as "_sat" and "_L"
    classes    class file, if it is not called `classes.toml`, `classes.txt`, ...; "none" reads masks without one
    ignore     ids or colours of pixels without a label, separated by commas, such as "255" or "#ffffff"; or "none"
    threshold  values of masks of at least this are foreground, others background
    nearest    colours of masks that differ by at most this in every band become that of the nearest class
    bits       in use in grey images of more than 8 bits, if their largest value does not show it: the upper 8 are kept
    range      values of black and white of floating point and deep images, such as "0,1"
    bands      numbers of red, green and blue (or of one band) in images of more bands, such as "1,2,3"
    transparent   pixels of alpha 0 are "black", "ignore" (no label) or "opaque" (alpha is not used)
    palette    palette masks are read as "ids" (indices) or "colours"; default: see README.md
    val        share of the masks to hold out if neither lists nor folders define a split; default: 0.2
    group      regular expression: images whose names have the same match (or groups, if it has any) stay in one split
    seed       selects which masks are held out

    Raises DataError with a table of all problems: names, sizes, values, lists, files that can't be read.
    """

    name: ClassVar[str] = "folder"
    summary: ClassVar[str] = "your own images and masks, from a folder or an archive"
    home: ClassVar[str] = HOME
    taxonomies: ClassVar[tuple[Taxonomy, ...]] = ()

    def __init__(
        self,
        root: Path | None = None,
        *,
        name: str | None = None,
        images: str | None = None,
        masks: str | None = None,
        unlabeled: str | None = None,
        image_suffix: str | None = None,
        mask_suffix: str | None = None,
        leave_out: str | None = None,
        by_look: bool = True,
        classes: str | None = None,
        ignore: str | None = None,
        threshold: float | None = None,
        nearest: int | None = None,
        transparent: str | None = None,
        palette: str | None = None,
        bits: int | None = None,
        range: str | None = None,
        bands: str | None = None,
        val: float | None = None,
        group: str | None = None,
        seed: int = 0,
    ) -> None:
        self.root = find(root)
        own = dataset_name(_text(name), self.root)
        self.reading = Reading.parse(bits=bits, range=range, bands=bands)
        picked = choices(threshold, ignore, transparent, nearest, palette)
        self._where = f"{own} at {self.root}"
        self._tree = tree = inside(Tree.open(self.root))
        problems = Problems()
        named = {"unlabeled": _places(unlabeled), "mask": _places(masks), "image": _places(images)}
        check_named(tree.names(), named, problems)
        endings = {"image_suffix": _text(image_suffix), "mask_suffix": _text(mask_suffix)}
        check_endings(tree.names(), endings, _places(leave_out), problems)
        problems.raise_any(self._where)  # other problems would only be consequences
        listing = list_files(
            tree.names(),
            named,
            Looks(tree).mask if by_look else None,
            **endings,
            leave_out=_places(leave_out),
        )
        if not listing.images:
            self._notes = left_out(tree, listing.ignored + unused(tree, ()))
            raise DataError("\n".join([f"{self._where}: no images found; expected:{TREE.rstrip()}", *self._notes]))
        chosen = bool(named["mask"] or endings["mask_suffix"])
        found, distant = pair(listing, problems, given=chosen, ending=endings["mask_suffix"])
        refuse_masks_as_images(listing, found, problems)
        if undecided(problems):
            problems.raise_any(self._where)
        self._notes: list[str] = []
        pictures = dict(self._inspected("images", [file.name for file in listing.images], self._inspect, problems))
        given = read_class_file(tree, _text(classes), problems, self._notes)
        look_at = functools.partial(look, lens=picked.lens(given, problems))
        seen = dict(self._inspected("masks", sorted(file.name for file in found.values()), look_at, problems))
        turns = masks_to_turn(found, pictures, seen, problems, self._notes)
        used = [*list_names(tree), *([given.name] if given else [])]
        self._notes += [*left_out(tree, listing.ignored + unused(tree, used)), *listing.notes]
        labels = None
        if given is not None or not any(kind == "class file" for kind, _, _ in problems.rows):
            labels = interpret(own, tree, [seen[name] for name in sorted(seen)], given, problems, picked)
        assigned = assign(
            tree,
            listing.images,
            {image: mask.name for image, mask in found.items()},
            val=_share(val),
            seed=seed,
            group=_pattern(_text(group)),
            problems=problems,
        )
        tags = read_tags(tree, listing.images, problems)
        self.reading = self._depth(pictures, problems)
        problems.raise_any(self._where)
        assert labels is not None
        keys, colliding = keys_of(listing.images)
        self._splits: dict[str, list[_Sample]] = {}
        for image in sorted(listing.images, key=lambda image: keys[image.name]):
            mask = seen[found[image.name].name] if image.name in found else None
            turned = turns.get(image.name, 1)
            sample = _Sample(keys[image.name], image, pictures[image.name], mask, turned, tags.get(image.name, ()))
            self._splits.setdefault(assigned.splits[image.name], []).append(sample)
        self._rules, self.raw_space = labels.rules, labels.raw_space
        self.version = labels.version + (f"-{self.reading.bits}bit" if (self.reading.bits or 8) > 8 else "")
        # In other data sets these are class attributes; those of a folder are known after inspection.
        vars(self).update(name=own, taxonomies=(labels.taxonomy,))
        self._add_notes(distant, colliding, assigned, labels.taxonomy, tags)
        self._notes += labels.notes

    version: str
    raw_space: RawSpace

    def splits(self) -> dict[str, Split]:
        order = (*SPLITS, "unlabeled")
        names = sorted(self._splits, key=lambda name: (order.index(name) if name in order else len(order), name))
        return {
            name: Split(
                name=name,
                samples=len(self._splits[name]),
                labeled=not name.startswith("unlabeled"),
                default=name in order,
            )
            for name in names
        }

    def samples(self, split: str) -> Iterator[RawSample]:
        """In the order of keys."""
        if split not in self._splits:
            raise DataError(f"{self._where}: {unknown('split', split, self._splits)}")
        chosen = self._splits[split]
        convert = self._kind(chosen) is None
        return (self._raw(sample, convert) for sample in chosen)

    def notes(self) -> list[str]:
        return list(self._notes)

    def next_steps(self, splits: Sequence[str], to: str) -> list[str]:
        """The command that trains on these splits."""
        if "train" not in splits:
            return []
        changes = [f"name={self.name}-cct", f"data.shards={to}", f"data.domains.own.taxonomy={self.name}"]
        changes.append(f"data.domains.own.labeled.dataset={self.name}")
        changes.append(f"data.domains.own.unlabeled.dataset={self.name}")
        if "unlabeled" not in splits:
            changes.append("data.domains.own.unlabeled.split=train")
        changes.append(f"data.domains.own.val.dataset={self.name}" if "val" in splits else "data.domains.own.val=")
        return ["semiseg train folder_cct " + " ".join(map(shlex.quote, changes))]

    def _raw(self, sample: _Sample, convert: bool) -> RawSample:
        read = self._tree.member(sample.image.name)
        size = self._tree.size(sample.image.name)
        if convert and sample.picture.kind != "png":
            read = functools.partial(as_png, read, self.reading)
            size = 2 * sample.picture.size[0] * sample.picture.size[1]  # approximately, for a photograph
        label, stamp, meta = None, None, {"source": plain(sample.image.name)}
        if sample.mask is not None:
            label = self._tree.member(sample.mask.name)
            if not self._rules.keeps(sample.mask) or sample.turn != 1:
                label = functools.partial(read_ids, label, self._rules, sample.turn)
            size += self._tree.size(sample.mask.name)
            meta["mask"] = plain(sample.mask.name)
            stamp = f"{sample.mask.crc32:08x}"  # a mask that is redrawn may keep its size
        return RawSample(key=sample.key, image=read, label=label, size=size, tags=sample.tags, meta=meta, stamp=stamp)

    def _kind(self, samples: list[_Sample]) -> str | None:
        """The kind of all images of a split, or None if they become PNGs."""
        kinds = {sample.picture.kind for sample in samples}
        return kinds.pop() if len(kinds) == 1 else None

    def _inspect(self, tree: Tree, name: str) -> Picture:
        return inspect(tree, name, self.reading)

    def _inspected(self, what: str, names: list[str], inspect_file: Callable, problems: Problems) -> Iterator[tuple]:
        """(name, what `inspect_file` returns for it) of every file that can be read."""
        with _progress(f"inspecting {what}") as advance:
            for number, name in enumerate(names, start=1):
                try:
                    yield name, inspect_file(self._tree, name)
                except DataError as error:
                    problems.add(f"{what[:-1]} that can't be used", name, str(error))
                advance(number, len(names))

    def _depth(self, pictures: dict[str, Picture], problems: Problems) -> Reading:
        """With the number of bits in use in images of more than 8 bits: one for all, so that they stay comparable.

        For colour images, Pillow returns the upper 8 of 16 bits, regardless of how many are in use.
        """
        as_range = self.reading.range is not None and not any(picture.floating for picture in pictures.values())
        as_range = as_range and self.reading.bits is None  # deep images, too, are scaled by the range
        names = [name for name, picture in pictures.items() if (picture.deep and not as_range) or picture.upper]
        tops = dict(self._inspected("images", names, highest, problems)) if names else {}
        deep = {name: top for name, top in tops.items() if pictures[name].deep}
        if upper := {name: top for name, top in tops.items() if pictures[name].upper}:
            brightest = max(upper, key=lambda name: upper[name])
            most = f"values up to {upper[brightest]}"
            if upper[brightest] < _DARK:
                what = (
                    f"16-bit colours, {most} in all {_count(len(upper), 'image')} of this kind: almost black, because Pillow "
                    "reads the upper 8 of 16 bits; scale them to 8 bits"
                )
                problems.add("image that can't be used", brightest, what)
            self._notes.append(
                f"{_count(len(upper), 'image')} with 16-bit colours, {most}: the upper 8 of 16 bits are used"
            )
        if not deep:
            return self.reading
        top = max(deep.values())
        bits = self.reading.bits or bits_for(top)
        if top >= 1 << bits:
            what = f"values up to {top}, more than option bits={bits} allows; use bits={bits_for(top)}, or leave it out"
            problems.add("image that can't be used", max(deep, key=lambda name: deep[name]), what)
        self._notes.append(
            f"{_count(len(deep), 'image')} of more than 8 bits, values up to {top}: scaled from {bits} to 8 bits"
        )
        return replace(self.reading, bits=bits)

    def _add_notes(self, distant: int, colliding: int, assigned: Assigned, taxonomy: Taxonomy, tags: dict) -> None:
        """Add notes on the decisions that were made."""
        if any(not name.startswith("unlabeled") for name in self._splits):
            self._notes.append(f"splits: {assigned.how}")
            self._notes += lacking({name: len(samples) for name, samples in self._splits.items()}, assigned.how)
        if distant:
            self._notes.append(
                f"{_count(distant, 'mask')} matched by file name only, in a different folder than the image"
            )
        if colliding:
            self._notes.append(f"{colliding} images have the same key as another: a hash was appended to these keys")
        for split, samples in self._splits.items():
            kinds = Counter(sample.picture.why or sample.picture.kind for sample in samples)
            if self._kind(samples) is None:
                some = ", ".join(f"{count} {why}" for why, count in kinds.most_common())
                kept = kinds["jpg"]
                cost = (
                    f"; {_count(kept, 'JPEG')} become several times larger; use --format jpeg to prevent this"
                    if kept
                    else ""
                )
                self._notes.append(f"{split}: all images are stored as PNG ({some}){cost}")
        unknown_tags = sorted({tag for found in tags.values() for tag in found} - set(taxonomy.names))
        if unknown_tags:
            self._notes.append(f"tags.csv: tags that are not classes: {', '.join(unknown_tags[:10])}")


def _progress(title: str) -> AbstractContextManager[Callable[[int, int], None]]:
    try:
        from semiseg.data import Bar
    except ImportError:  # rich comes with the command line
        return nullcontext(lambda done, total: None)
    return Bar(title)


def _text(option: object) -> str | None:
    """An option as text: on the command line, name=2024 is read as a number."""
    return None if option is None else str(option)


def _places(option: object) -> list[str]:
    """The folders of an option."""
    return [place.strip() for place in (_text(option) or "").split(",") if place.strip()]


def _share(val: float | None) -> float | None:
    if val is not None and (isinstance(val, bool) or not isinstance(val, int | float) or not 0 <= val < 1):
        raise DataError(
            f"option val={val}: expected the share of masks to hold out, 0 to 1, such as val=0.2; val=0 holds out none"
        )
    return val


def _pattern(group: str | None) -> re.Pattern[str] | None:
    try:
        return None if group is None else re.compile(group)
    except re.error as error:
        raise DataError(
            f"option group={group}: not a regular expression ({error}); expected one such as group=(.*)_frame"
        ) from error


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
