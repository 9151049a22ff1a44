"""Which file is an image and which a mask: decided by the names of folders and files, and by what pictures look like."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from semiseg.data import hidden, unreadable_suffixes
from semiseg.datasets.folder.beside import LooksLikeMask, other_folders, side_by_side
from semiseg.datasets.folder.file import CAMERA, SUFFIXES, File
from semiseg.datasets.folder.folders import (
    UNUSED,
    found_at,
    parts_of,
    role_of,
    split_of,
    split_siblings,
    split_within,
)
from semiseg.datasets.folder.names import affixes
from semiseg.datasets.folder.problems import Problems, plain

THUMBNAILS = frozenset(["thumbs", "thumbnails", "thumb", "thumbnail", "@eadir"])
OUTSIDE = "pictures outside the folders of images and masks"

Named = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Listing:
    """All images and masks, how many pictures were left out, by reason, and what was decided by the look of pictures.

    doubtful   images that look like masks -> why
    derived    images whose names are that of another and a word that several have ("x_flip") -> the other
    """

    images: list[File]
    masks: list[File]
    ignored: Counter[str]
    notes: list[str] = field(default_factory=list)
    doubtful: dict[str, str] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)


def check_named(names: Iterable[str], named: Named, problems: Problems) -> None:
    """Report folders named by the user that contain no image; otherwise masks could be taken for images."""
    pictures = (PurePosixPath(plain(name)) for name in names)
    parents = {parent for path in pictures if path.suffix.lower() in SUFFIXES | CAMERA for parent in path.parents}
    known = {str(parent).lower(): str(parent) for parent in parents if parent.name}
    for role, places in named.items():
        for place in places:
            parts = parts_of(place)
            if not parts or any(found_at(parent.parts, place) is not None for parent in parents):
                continue
            near = difflib.get_close_matches("/".join(parts).lower(), known, n=1, cutoff=0.5)
            some = (
                f"nearest: {known[near[0]]}" if near else f"folders: {', '.join(sorted(known.values())[:8]) or 'none'}"
            )
            option = role if role == "unlabeled" else f"{role}s"
            problems.add("option", f"{option}={place}", f"no image in a folder of this name; {some}")


def check_endings(
    names: Iterable[str], endings: Mapping[str, str | None], leave_out: Sequence[str], problems: Problems
) -> None:
    """Report options that fit no picture: endings of names, by option, and patterns of what to leave out."""
    pictures = [plain(name) for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES and not hidden(name)]
    for option, ending in endings.items():
        if ending and not any(_ends(name, ending) for name in pictures):
            near = difflib.get_close_matches(
                ending, {affix[1] for name in pictures[:999] for affix in affixes(PurePosixPath(name).stem)}, cutoff=0.3
            )
            hint = f"; nearest: {near[0]}" if near else ""
            problems.add("option", f"{option}={ending}", f"no picture has a name with this ending{hint}")
    for pattern in leave_out:
        if not any(fnmatchcase(name, pattern) for name in pictures):
            first = f", such as {pictures[0]}" if pictures else ""
            problems.add(
                "option", f"leave_out={pattern}", f"fits no picture; patterns are compared with whole paths{first}"
            )


def list_files(
    names: Iterable[str],
    named: Named,
    looks: LooksLikeMask | None = None,
    *,
    image_suffix: str | None = None,
    mask_suffix: str | None = None,
    leave_out: Sequence[str] = (),
) -> Listing:
    """Sort files into images and masks. `named`: role -> the folders named by the user; none to detect them.

    If there is no folder of images, every file that is not in the folder of another role is an image, and a mask may be in
    the folder of its image: x.jpg and x_mask.png, or x.jpg and x.png. Without `looks`, only names decide.
    """
    ignored: Counter[str] = Counter()
    files = []
    listed = list(names)
    places: dict[tuple[str, ...], _Place] = {}
    siblings = split_siblings({part for name in listed for part in PurePosixPath(name).parts[:-1]})
    for name in listed:
        parts = PurePosixPath(name).parts
        suffix = PurePosixPath(name).suffix.lower()
        if hidden(name):
            continue
        if suffix in CAMERA:
            ignored[f"{suffix} files, which Pillow does not read ({unreadable_suffixes()[suffix]})"] += 1
        elif any(fnmatchcase(plain(name), pattern) for pattern in leave_out):
            ignored["pictures that the option leave_out names"] += suffix in SUFFIXES
        elif suffix in SUFFIXES and any(part.lower() in THUMBNAILS for part in parts[:-1]):
            ignored["pictures in folders of thumbnails"] += 1
        elif suffix in SUFFIXES:
            if parts[:-1] not in places:
                places[parts[:-1]] = _place(parts[:-1], named, siblings)
            files.append(_file(name, parts, places[parts[:-1]]))
    if mask_suffix:
        files = [_suffixed(file, mask_suffix) for file in files]
    notes: list[str] = []
    by_look = looks is not None and not mask_suffix and not named.get("mask")
    if any(file.role == "image" for file in files):
        if looks is not None and by_look and not any(file.role == "mask" for file in files):
            files = other_folders(files, looks, notes)
        ignored[OUTSIDE] += sum(not file.role for file in files)
        files = [file for file in files if file.role]
    else:
        files = [file if file.role else replace(file, role="image") for file in files]
    files, derived = side_by_side(files, looks, UNUSED if named.get("mask") else "mask", notes)
    if looks is not None and by_look:
        files = other_folders(files, looks, notes)
    ignored["masks other than those that the option masks names"] += sum(file.role == UNUSED for file in files)
    files = [file for file in files if file.role != UNUSED]
    if mask_suffix:
        chosen = [file for file in files if file.role != "mask" or _ends(file.name, mask_suffix)]
        ignored[f"masks whose names do not end with {mask_suffix}"] += len(files) - len(chosen)
        files = chosen
    if image_suffix:
        chosen = [file for file in files if file.role == "mask" or _ends(file.name, image_suffix)]
        ignored[f"images whose names do not end with {image_suffix}"] += len(files) - len(chosen)
        files = chosen
    images = [file for file in files if file.role != "mask"]
    doubtful = {}
    if looks is not None:
        doubtful = {file.name: why for file in images if (why := looks(file.name))}
        kept = {file.name for file in images}
        derived = {name: base for name, base in derived.items() if {name, base} <= kept}
    else:
        derived = {}
    return Listing(images, [file for file in files if file.role == "mask"], +ignored, notes, doubtful, derived)


def _file(name: str, parts: tuple[str, ...], place: "_Place") -> File:
    role, split, folders, within, after = place
    stem = plain(PurePosixPath(name).stem)
    if role == "mask" and PurePosixPath(stem).suffix.lower() in SUFFIXES:
        stem = PurePosixPath(stem).stem  # x.jpg.png is the mask of x.jpg
    return File(name, role, split, folders, stem, within, after)


_Place = tuple[str, str | None, tuple[str, ...], str, tuple[str, ...]]


def _place(folders: tuple[str, ...], named: Named, siblings: Mapping[str, str]) -> _Place:
    """What the folders of a file say: role, split, the other folders, and those that define the role and follow it."""
    role, before, within, after = role_of([plain(folder) for folder in folders], named)
    split = next((found for folder in (within[:1] + within[-1:]) if (found := split_within(folder))), None)
    for place in range(len(after)):  # "images/10k/train": the first that names a split
        if split is None and (split := split_of(after[place])):
            after = after[:place] + after[place + 1 :]
    for place in reversed(range(len(before))):  # "Train/Urban/images": the nearest that names a split
        if split is None and (split := split_of(before[place]) or siblings.get(before[place])):
            before = before[:place] + before[place + 1 :]
    return role, split, (*before, *after), "/".join(within), tuple(after)


def _suffixed(file: File, suffix: str) -> File:
    """A picture whose name ends with the option mask_suffix is a mask, wherever it is."""
    return replace(file, role="mask") if file.role != UNUSED and _ends(file.name, suffix) else file


def _ends(name: str, suffix: str) -> bool:
    path = plain(PurePosixPath(name).name).lower()
    ending = plain(suffix).lower()
    return path.endswith(ending) or path.rpartition(".")[0].endswith(ending)
