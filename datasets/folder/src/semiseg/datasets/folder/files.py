"""Which file is an image and which a mask: decided by the names of folders and files, and by what pictures look like."""

import difflib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from semiseg.data import hidden, image_suffixes, unreadable_suffixes
from semiseg.datasets.folder.folders import (
    FOLDERS,
    SPLITS,
    UNUSED,
    found_at,
    parts_of,
    role_of,
    split_of,
    split_siblings,
    split_within,
    without_split,
)
from semiseg.datasets.folder.names import Affix, affixes, common_affix, core, folded, is_of_image, is_of_mask
from semiseg.datasets.folder.problems import Problems, plain

__all__ = ["FOLDERS", "SPLITS", "SUFFIXES", "File", "Listing", "check_named", "list_files"]

SUFFIXES = image_suffixes()
CAMERA = frozenset(unreadable_suffixes())
OUTSIDE = "pictures outside the folders of images and masks"
_MOSTLY = 0.9  # of the pictures in a folder without a usual name, if they are taken for masks

Named = Mapping[str, Sequence[str]]
LooksLikeMask = Callable[..., str]  # (name, related=...) -> what makes it look like a mask, or ""


@dataclass(frozen=True, slots=True)
class File:
    """An image or mask: its path in the tree, and the parts of the path that do not describe its role or split.

    role    "image", "unlabeled" (an image that has no mask), "mask" or "unused" (in a folder that the user did not choose)
    split   of "images/train/x.jpg" or "train/images/x.jpg"
    folders, stem   "images/train/roofs/x.jpg" has ("roofs",) and "x"
    within  the folder that defines the role, "images"
    """

    name: str
    role: str
    split: str | None
    folders: tuple[str, ...]
    stem: str
    within: str = ""

    @property
    def parent(self) -> str:
        return str(PurePosixPath(self.name).parent)


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
        elif suffix in SUFFIXES:
            files.append(_file(name, parts, named, siblings))
    if mask_suffix:
        files = [_suffixed(file, mask_suffix) for file in files]
    if any(file.role == "image" for file in files):
        ignored[OUTSIDE] += sum(not file.role for file in files)
        files = [file for file in files if file.role]
    else:
        files = [file if file.role else replace(file, role="image") for file in files]
    notes: list[str] = []
    files, derived = _side_by_side(files, looks, UNUSED if named.get("mask") else "mask", notes)
    if looks is not None and not mask_suffix:
        files = _other_folders(files, looks, notes)
    ignored["masks other than those that the option masks names"] += sum(file.role == UNUSED for file in files)
    files = [file for file in files if file.role != UNUSED]
    if mask_suffix:
        chosen = [file for file in files if file.role != "mask" or _ends(file, mask_suffix)]
        ignored[f"masks whose names do not end with {mask_suffix}"] += len(files) - len(chosen)
        files = chosen
    if image_suffix:
        chosen = [file for file in files if file.role == "mask" or _ends(file, image_suffix)]
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


def _file(name: str, parts: tuple[str, ...], named: Named, siblings: Mapping[str, str]) -> File:
    folders = [plain(part) for part in parts[:-1]]
    role, before, within, after = role_of(folders, named)
    split = next((found for folder in within if (found := split_within(folder))), None)
    if split is None and after and (split := split_of(after[0])):
        after = after[1:]
    for place in reversed(range(len(before))):  # "Train/Urban/images": the nearest that names a split
        if split is None and (split := split_of(before[place]) or siblings.get(before[place])):
            before = before[:place] + before[place + 1 :]
    stem = plain(PurePosixPath(name).stem)
    if role == "mask" and PurePosixPath(stem).suffix.lower() in SUFFIXES:
        stem = PurePosixPath(stem).stem  # x.jpg.png is the mask of x.jpg
    return File(name, role, split, (*before, *after), stem, "/".join(within))


def _suffixed(file: File, suffix: str) -> File:
    """A picture whose name ends with the option mask_suffix is a mask, wherever it is."""
    return replace(file, role="mask") if file.role != UNUSED and _ends(file, suffix) else file


def _ends(file: File, suffix: str) -> bool:
    path = plain(PurePosixPath(file.name).name).lower()
    ending = plain(suffix).lower()
    return path.endswith(ending) or path.rpartition(".")[0].endswith(ending)


def _side_by_side(
    files: list[File], looks: LooksLikeMask | None, role: str, notes: list[str]
) -> tuple[list[File], dict[str, str]]:
    """Recognise masks in the folder of their images: "x_mask" if there is an "x", or the PNG of two files named x.

    Words that are not usual ("x_L2") count if several files have them and look like masks. If they do not, the images are
    derived from others, which are returned, too.
    """
    in_folders = any(file.role == "mask" for file in files)
    places: dict[object, list[File]] = defaultdict(list)
    for file in files:
        if file.role == "image":
            places[file.split, file.folders, file.within].append(file)
    masks: dict[str, File] = {}
    derived: dict[str, str] = {}
    unusual: list[str] = []
    for place in places.values():
        for file, base, known in _companions(place):
            related = bool(looks and looks(file.name, related=True))
            if related if (in_folders or not known) and looks else known:
                masks[file.name] = replace(file, role=role)
                unusual += [] if known else [file.name]
            elif base:
                derived[file.name] = base
        if looks is not None:
            rest = [file for file in place if file.name not in masks]
            found = {file.name: replace(file, role=role) for file in _counterparts(rest, looks)}
            masks |= found
            unusual += found
    if unusual and role == "mask":
        notes.append(
            f"{len(unusual)} pictures of few values in the folder of images are taken for masks, by their names and looks "
            f"(first {unusual[0]}); if they are images: --option by_look=false"
        )
    return [masks.get(file.name, file) for file in files], derived


def _companions(place: list[File]) -> list[tuple[File, str, bool]]:
    """Files in one folder whose names are that of another and something more: (as mask, the other, if names decide)."""
    stems: dict[str, list[File]] = defaultdict(list)
    for file in place:
        stems[file.stem.lower()].append(file)
    found: list[tuple[File, str, bool]] = []
    unusual: dict[Affix, list[tuple[File, str, bool]]] = defaultdict(list)
    for file in place:
        inner = PurePosixPath(file.stem)
        if inner.suffix.lower() in SUFFIXES and inner.stem.lower() in stems:
            found.append((replace(file, stem=inner.stem), "", True))  # x.jpg and x.jpg.png
            continue
        others = [other for other in stems[file.stem.lower()] if other != file]
        if others:
            is_png, is_jpeg = (file.name.lower().endswith(suffixes) for suffixes in (".png", (".jpg", ".jpeg")))
            if is_png and len(others) == 1 and not others[0].name.lower().endswith(".png"):
                found.append((file, "", True))
            elif not is_jpeg and others[0].name.lower().endswith((".jpg", ".jpeg")):
                found.append((file, "", False))
            continue
        for affix in affixes(file.stem):
            shared = core(file.stem, affix)
            if shared not in stems and not _beginning(stems, shared):
                continue
            base = stems[shared][0].name if shared in stems else ""
            if is_of_mask(affix):
                found.append((file, base, True))
            elif not is_of_image(affix):
                unusual[folded(affix)].append((file, base, False))
            break
    bases = len(place) - len(found)
    return found + [one for group in unusual.values() if len(group) > 1 or bases == 2 for one in group]


def _counterparts(place: list[File], looks: LooksLikeMask) -> list[File]:
    """The files of one folder that look like masks, if they differ from the others by a word: "mask001", "img001"."""
    masks = [file for file in place if looks(file.name)]
    others = [file for file in place if not looks(file.name)]
    shared = common_affix([file.stem for file in masks])
    if shared == ("", "") or not others:
        return []
    matching = _cores(others) & {core(file.stem, shared) for file in masks}
    return masks if len(matching) * 2 > len(masks) else []


def _beginning(stems: Mapping[str, list[File]], shared: str) -> list[str]:
    """Stems that are `shared` and a word for an image, such as "_sat"."""
    return [
        f"{shared}{joint}{word}" for joint in "_-. " for word in _IMAGE_ENDINGS if f"{shared}{joint}{word}" in stems
    ]


_IMAGE_ENDINGS = ("sat", "image", "img", "rgb", "photo", "leftimg8bit", "input", "raw", "orig", "original")


def _other_folders(files: list[File], looks: LooksLikeMask, notes: list[str]) -> list[File]:
    """Recognise folders of masks without a usual name: their pictures look like masks and have the names of images."""
    folders: dict[str, list[File]] = defaultdict(list)
    for file in files:
        if file.role == "image" and not file.within:
            folders[file.parent].append(file)
    like = {
        parent: sum(bool(looks(file.name)) for file in inside) >= _MOSTLY * len(inside)
        for parent, inside in folders.items()
    }
    images = {stem for parent, inside in folders.items() if not like[parent] for stem in _cores(inside)}
    masks = {}
    for parent, inside in folders.items():
        if like[parent] and len(images & _cores(inside)) * 2 > len(inside):
            within = PurePosixPath(parent).name
            masks |= {file.name: replace(file, role="mask", within=within, folders=_without(file.folders, within))
                      for file in inside}  # fmt: skip
            notes.append(
                f"{parent}/: {len(inside)} pictures of few values with the names of images are taken for masks; if they "
                "are images: --option by_look=false"
            )
    return [masks.get(file.name, file) for file in files]


def _cores(files: list[File]) -> set[str]:
    shared = common_affix([file.stem for file in files])
    return {file.stem.lower() for file in files} | {core(file.stem, shared) for file in files}


def _without(folders: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(folder for folder in folders if folder != name)


def family(file: File) -> str:
    """The kind of folder that a mask is in, without the split in its name: "masks" for train_masks/x.png."""
    return " ".join(without_split(part) for part in file.within.split("/")) if file.within else ""
