"""Splits, keys and tags of the images."""

import csv
import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from semiseg.data import DataError, Tree, clean_key, key64, names_in, read_lines
from semiseg.datasets.folder.file import SUFFIXES, File
from semiseg.datasets.folder.folders import SPLITS
from semiseg.datasets.folder.problems import Problems, plain

LIST_FOLDERS = ("", "splits/", "lists/", "ImageSets/Segmentation/")
UNLISTED = "unlisted"
_FEW = 5  # masks: results depend on chance below
_LONGEST = 72  # of a part of a key: plain tar readers allow 100 characters with the suffixes


@dataclass(frozen=True)
class Assigned:
    """image name -> split, and how it was decided."""

    splits: dict[str, str]
    how: str


def assign(
    tree: Tree,
    images: list[File],
    masks: Mapping[str, str],
    *,
    val: float | None,
    seed: int,
    group: re.Pattern[str] | None,
    problems: Problems,
) -> Assigned:
    """Split images: those with masks by lists, by subfolders or by share; those without are "unlabeled". `masks`: by image.

    Images without a mask that belong to val or test (by list, folder or group) go to "unlabeled_val" and so on, so that
    they are used for training only on request.
    """
    groups = {image.name: _group(image, group) for image in images}
    masked = set(masks)
    splits, how = _by_lists(tree, images, masks, problems), "by list files"
    if not splits:
        splits, how = (
            {image.name: image.split for image in images if image.split and image.role == "image"},
            "by subfolders",
        )
    if splits:
        used = {splits[name] for name in splits if name in masked}
        if val and "val" in used:
            problems.add(
                "option",
                f"val={val}",
                f"applies to folders without a val split, but this one has one ({how}); leave it out",
            )
        splits |= dict.fromkeys(masked - splits.keys(), UNLISTED if "train" in used else "train")
    else:
        splits, how = dict.fromkeys(masked, "train"), ""
    train = sorted(name for name in masked if splits[name] == "train")
    if "val" not in splits.values() and val != 0 and len({groups[name] for name in train}) > 1:
        share = 0.2 if val is None else val
        held, empty = _share({groups[name] for name in train}, share, seed)
        chosen = [name for name in train if groups[name] in held]
        splits |= dict.fromkeys(chosen, "val")
        unsure = _unsure(empty, chosen, "a folder val/ for" if how == "by subfolders" else "a list val.txt of")
        how = f"{share:.0%} of the masks{' by group' if group else ''} for val{f', the others {how}' if how else ''}{unsure}"
    _check_groups(splits, groups, masked, group, problems)
    of_group = {groups[name]: splits[name] for name in masked}
    for image in images:
        if image.name not in masked:
            home = splits.get(image.name) or (of_group.get(groups[image.name]) if group else None)
            splits[image.name] = "unlabeled" if home in (None, "train", UNLISTED) else f"unlabeled_{home}"
    return Assigned(splits, how or "all masks for training")


def lacking(counts: Mapping[str, int], how: str) -> list[str]:
    """What training or validation lacks, and what to do about it; `counts`: images of each split."""
    labeled = {name: count for name, count in counts.items() if not name.startswith("unlabeled")}
    if "train" not in labeled:
        some = ", ".join(f"{count} in {name}" for name, count in sorted(labeled.items()))
        return [f"nothing to train on: all masks belong to other splits {how} ({some}); add masks to train"]
    if "val" not in labeled:
        return ["no val: the training command works but measures nothing; add masks, or list some images in val.txt"]
    if labeled["train"] < _FEW:
        count = f"{labeled['train']} mask{'s' * (labeled['train'] > 1)}"
        return [f"only {count} for training and {labeled['val']} for val: enough for a trial, not for a measurement"]
    return []


def keys_of(images: Iterable[File]) -> tuple[dict[str, str], int]:
    """A unique key for every image, and how many images share their plain key with another.

    Accents are removed, and characters that are not allowed in a key become "_". All images with the same plain key get a
    hash of their name, so that no key depends on the order of files.
    """
    wanted: dict[str, list[str]] = defaultdict(list)
    for image in images:
        wanted[_key("/".join((*image.folders, image.stem)))].append(image.name)
    keys = {}
    for key, names in wanted.items():
        for name in names:
            keys[name] = f"{key}-{_short(plain(name))}" if len(names) > 1 else key
    return keys, sum(len(names) for names in wanted.values() if len(names) > 1)


def read_tags(tree: Tree, images: list[File], problems: Problems) -> dict[str, tuple[str, ...]]:
    """tags.csv: one line per file with its tags, separated by commas or semicolons; a header is optional."""
    name = next((name for name in tree.names() if name.lower() == "tags.csv"), None)
    if name is None:
        return {}
    lines = _text(tree, name, problems).splitlines()
    separator = ";" if lines and lines[0].count(";") > lines[0].count(",") else ","
    finder, found = _Finder(images), dict[str, tuple[str, ...]]()
    for number, row in enumerate(csv.reader(lines, delimiter=separator), start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and cells[0].lower() in ("file", "image", "name", "filename", "path")):
            continue
        image = finder.find(cells[0], f"{name}:{number}", problems)
        tags = tuple(dict.fromkeys(filter(None, cells[1:])))
        bad = [tag for tag in tags if "," in tag]
        if bad:
            problems.add("tag", f"{name}:{number}", f"{bad[0]!r} contains a comma; write the tags in separate cells")
        elif image is not None:
            found[image] = tuple(dict.fromkeys((*found.get(image, ()), *tags)))
    return found


def list_names(tree: Tree) -> list[str]:
    """The text files that are read here: lists of splits, and tags.csv."""
    return [*_lists(tree), *(name for name in tree.names() if name.lower() == "tags.csv")]


def _lists(tree: Tree) -> dict[str, str]:
    """name of a list -> split."""
    wanted = {f"{folder}{word}.txt".lower(): split for folder in LIST_FOLDERS for split, words in SPLITS.items()
              for word in words.split()}  # fmt: skip
    return {name: wanted[name.lower()] for name in tree.names() if name.lower() in wanted}


def _by_lists(tree: Tree, images: list[File], masks: Mapping[str, str], problems: Problems) -> dict[str, str]:
    """image name -> split, from lists such as train.txt; empty without lists."""
    lists = _lists(tree)
    finder = _Finder(images if lists else [])
    pictures: dict[str, list[str]] = defaultdict(list)
    for name in tree.names() if lists else ():
        if PurePosixPath(name).suffix.lower() in SUFFIXES:
            pictures[PurePosixPath(name).name.lower()].append(name)
    found: dict[str, str] = {}
    places: dict[str, str] = {}
    for name, split in lists.items():
        for number, line in _read(tree, name, problems):
            place = f"{name}:{number}"
            image = finder.find(line, place, problems)
            if image is None:
                continue
            if other := _other_mask(line, masks.get(image), pictures):
                what = f"names {other}, but {image} has {masks.get(image, 'no mask')}; correct the line, or choose masks with "
                problems.add("mask in a list", place, f"{what}--option masks=FOLDER or --option mask_suffix=ENDING")
            if found.get(image, split) != split:
                problems.add("in two splits", place, f"{image} is also in {places[image]}; keep one")
            found[image], places[image] = split, place
    return found


def _read(tree: Tree, name: str, problems: Problems) -> list[tuple[int, str]]:
    try:
        return list(read_lines(tree.read(name), name))
    except DataError as error:
        problems.add("text file", name, str(error).removeprefix(f"{name} is "))
        return []


def _other_mask(line: str, mask: str | None, pictures: Mapping[str, list[str]]) -> str | None:
    """The picture that a line names beside the image, if it is another than its mask."""
    words = re.split(r"[\s,;]+", line.replace("\\", "/").strip())
    if len(words) != 2 or not (named := pictures.get(PurePosixPath(words[1]).name.lower())):
        return None
    tail = "/" + "/".join(PurePosixPath(words[1].lower()).parts[-2:])
    near = [name for name in named if f"/{name.lower()}".endswith(tail)] or named
    return None if mask in near else near[0]


class _Finder:
    """Finds an image by a path or a name, with or without suffix, in any case."""

    def __init__(self, images: list[File]) -> None:
        self.places: dict[str, set[str]] = defaultdict(set)
        self.folders = {image.name: {folder.lower() for folder in image.folders} for image in images}
        for image in images:
            parts = [part.lower() for part in PurePosixPath(plain(image.name)).parts]
            for start in range(len(parts)):
                tail = "/".join(parts[start:])
                self.places[tail].add(image.name)
                self.places[str(PurePosixPath(tail).with_suffix(""))].add(image.name)

    def find(self, text: str, place: str, problems: Problems) -> str | None:
        """The image that the text refers to; if none or several match, a problem is added.

        Lists may hold paths of other machines, so leading folders are dropped one by one, but not those of the image.
        """
        elsewhere = set[str]()
        for candidate in names_in(plain(text)):
            parts = PurePosixPath(candidate.lower()).parts
            for start in range(len(parts)):
                tail = "/".join(parts[start:])
                named = self.places.get(tail) or self.places.get(_without_suffix(tail)) or set()
                found = {name for name in named if not start or self.folders[name] <= set(parts)}
                elsewhere |= named - found
                if len(found) == 1:
                    return next(iter(found))
                if found:
                    problems.add(
                        "ambiguous name", place, f"{text}: {', '.join(sorted(found)[:3])}; write the full path"
                    )
                    return None
        hint = f"; images of this name: {', '.join(sorted(elsewhere)[:3])}" if elsewhere else ""
        problems.add("unknown image", place, f"{text}: remove the line, or correct it{hint}")
        return None


def _without_suffix(text: str) -> str:
    path = PurePosixPath(text)
    return str(path.with_suffix("")) if path.suffix in SUFFIXES else text


def _text(tree: Tree, name: str, problems: Problems) -> str:
    try:
        return tree.read(name).decode("utf-8-sig")
    except UnicodeDecodeError:
        problems.add("text file", name, "not UTF-8 text; save it as UTF-8")
        return ""


def _group(image: File, pattern: re.Pattern[str] | None) -> str:
    """The group that must stay in one split: the part of the name that matches, or the image alone."""
    name = plain(str(PurePosixPath(image.name).with_suffix("")))
    match = pattern.search(name) if pattern else None
    if match is None:
        return f"file {image.split} {'/'.join((*image.folders, image.stem))}"
    return "group " + "/".join(match.groups(default="") or (match[0],))


def _share(groups: set[str], share: float, seed: int) -> tuple[set[str], str | None]:
    """The groups that are held out. Each is decided by its name, so that new groups do not move existing ones.

    If that leaves train or val empty, the nearest group goes there, and that split is returned, too.
    """
    drawn = sorted((key64("folder", "val", seed, group) / 2**63, group) for group in groups)
    below = sum(number < share for number, _ in drawn)
    empty = "val" if below == 0 else "train" if below == len(drawn) else None
    return {group for _, group in drawn[: min(max(below, 1), len(drawn) - 1)]}, empty


def _unsure(empty: str | None, chosen: list[str], remedy: str) -> str:
    if empty is None:
        return ""
    some = f"{', '.join(map(plain, chosen[:3]))}{', ...' * (len(chosen) > 3)}"
    return (
        f"; with so few masks the draw left none for {empty}, so the nearest one was moved there; more masks may change "
        f"this: to keep it, add {remedy} what is in val now ({some})"
    )


def _check_groups(
    splits: Mapping[str, str], groups: Mapping[str, str], masked: set[str], pattern: object, problems: Problems
) -> None:
    """Report groups that lists or subfolders divide; a share never does."""
    if pattern is None:
        return
    seen: dict[str, tuple[str, str]] = {}
    for name in sorted(masked):
        split, other = seen.setdefault(groups[name], (splits[name], name))
        if split != splits[name]:
            what = f"is in {splits[name]}, but {other} of the same group is in {split}; put them into one split"
            problems.add("group in two splits", name, what)


def _key(text: str) -> str:
    """A key similar to a name: without accents, other characters as one "_", no part too long."""
    ascii_ = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
    parts = []
    for part, original in zip(ascii_.split("/"), text.split("/"), strict=True):
        short = re.sub(r"__+", "_", clean_key(part)).strip("_-")
        lost = not short or len(short) > _LONGEST
        parts.append(f"{short[:60]}-{_short(original)}".strip("-") if lost else short)
    return "/".join(parts)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
