"""Which file is an image, which a mask, and which belong together: decided by the names of folders and files."""

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import PurePosixPath

from semiseg.datasets.folder.problems import Problems, plain

FOLDERS = {
    "unlabeled": "unlabeled unlabelled unlabeled_images unlabelled_images without_masks",
    "mask": "mask masks label labels labelled_masks annotation annotations annot annots gt groundtruth ground_truth "
    "seg segs segmentation segmentations segmentationclass target targets",
    "image": "image images img imgs photo photos picture pictures jpegimages frames input inputs",
}  # usual names of such folders, in any case
SPLITS = {
    "train": "train training trainset",
    "val": "val valid validation valset",
    "test": "test testing testset",
}
# Formats of photographs and masks that Pillow reads; it also opens videos, vector graphics and raw arrays.
SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tga", ".jp2", ".j2k", ".jpx", ".jpf", ".avif", ".pcx", ".sgi", ".bw", ".qoi", ".psd", ".ras",
})  # fmt: skip
CAMERA = frozenset({".heic", ".heif", ".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".jxl"})
_AFTER = re.compile(
    r"[-_. ](masks?|labels?|label_?ids|gt|seg(mentation)?|annot(ation)?s?|ground_?truth|l|images?|img|rgb|photo)$"
)
_BEFORE = re.compile(r"^(masks?|labels?|gt|seg|annot(ation)?|ground_?truth|images?|img|rgb|photo)[-_. ]")
_MASK = re.compile(r"[-_. ](masks?|labels?|label_?ids|gt|seg(mentation)?|annot(ation)?s?|ground_?truth|l)$")


@dataclass(frozen=True, slots=True)
class File:
    """An image or mask: its path in the tree, and the parts of the path that do not describe its role or split.

    role    "image", "unlabeled" (an image that has no mask) or "mask"
    split   of "images/train/x.jpg" or "train/images/x.jpg"
    folders, stem   "images/train/roofs/x.jpg" has ("roofs",) and "x"
    """

    name: str
    role: str
    split: str | None
    folders: tuple[str, ...]
    stem: str


@dataclass(frozen=True)
class Listing:
    """All images and masks, and how many files were left out, by reason."""

    images: list[File]
    masks: list[File]
    ignored: Counter[str]


def check_named(names: Iterable[str], named: Mapping[str, str | None], problems: Problems) -> None:
    """Report folders named by the user that contain no image; otherwise masks could be taken for images."""
    pictures = (PurePosixPath(plain(name)) for name in names)
    parents = {parent for path in pictures if path.suffix.lower() in SUFFIXES | CAMERA for parent in path.parents}
    known = {str(parent).lower(): str(parent) for parent in parents if parent.name}
    for role, place in named.items():
        if place and PurePosixPath(*_parts(place)) not in parents:
            near = difflib.get_close_matches("/".join(_parts(place)).lower(), known, n=1, cutoff=0.5)
            some = (
                f"nearest: {known[near[0]]}" if near else f"folders: {', '.join(sorted(known.values())[:8]) or 'none'}"
            )
            option = role if role == "unlabeled" else f"{role}s"
            problems.add("option", f"{option}={place}", f"no image in a folder of this name; {some}")


def list_files(names: Iterable[str], named: Mapping[str, str | None]) -> Listing:
    """Sort files into images and masks. `named`: role -> the folder named by the user, or None to detect it.

    If there is no folder of images, every file that is not in the folder of another role is an image, and a mask may be in
    the folder of its image: x.jpg and x_mask.png, or x.jpg and x.png.
    """
    ignored: Counter[str] = Counter()
    files = []
    for name in names:
        parts = PurePosixPath(name).parts
        suffix = PurePosixPath(name).suffix.lower()
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        if suffix in CAMERA:
            ignored[f"{suffix} files, which Pillow does not read (convert them to JPEG or PNG)"] += 1
        elif suffix in SUFFIXES:
            files.append(_file(name, parts, named))
    if any(file.role == "image" for file in files):
        outside = [file for file in files if not file.role]
        ignored["pictures outside the folders of images and masks"] += len(outside)
        files = [file for file in files if file.role]
    else:
        files = [file if file.role else replace(file, role="image") for file in files]
    if not any(file.role == "mask" for file in files):
        files = _side_by_side(files)
    images = [file for file in files if file.role != "mask"]
    return Listing(images, [file for file in files if file.role == "mask"], +ignored)


def pair(listing: Listing, problems: Problems) -> tuple[dict[str, File], int]:
    """The masks by name of their image, and how many of them were matched by file name only, across folders.

    Names are compared ever less strictly: equal up to the suffix; ignoring case and "_mask", "_label", "_gt"; the same in
    the folder of another split; the same in any folder. Only unique matches count. Masks without an image are problems.
    """
    images = {file.name: file for file in listing.images if file.role == "image"}
    masks = {file.name: file for file in listing.masks}
    found: dict[str, File] = {}
    distant = 0
    for likeness in (_exactly, _nearly, _in_any_split, _in_any_folder):
        of_images, of_masks = _by(likeness, images.values()), _by(likeness, masks.values())
        for key, candidates in of_masks.items():
            if len(candidates) == 1 and len(of_images.get(key, ())) == 1:
                image = of_images[key][0]
                found[image.name] = masks.pop(candidates[0].name)
                del images[image.name]
                distant += likeness is _in_any_folder
    if masks:
        _report_unmatched(listing, masks, found, problems)
    return found, distant


def _file(name: str, parts: tuple[str, ...], named: Mapping[str, str | None]) -> File:
    folders = [plain(part) for part in parts[:-1]]
    role, before, after = _role(folders, named)
    split = None
    if after and (split := _split(after[0])):
        after = after[1:]
    elif before and (split := _split(before[-1])):
        before = before[:-1]
    return File(name, role, split, (*before, *after), plain(PurePosixPath(name).stem))


def _role(folders: list[str], named: Mapping[str, str | None]) -> tuple[str, list[str], list[str]]:
    """The role given by the folders of a file ("" for none), and the folders above and below those that define it.

    A folder of masks inside a folder of images holds masks: "images/tiles/masks/x.png" belongs to "images/tiles/x.png".
    """
    defined = list(_defined(folders, named))
    if not defined:
        return "", [], folders
    role, first, last = defined[0]
    inner = next((span for span in defined[1:] if span[0] == "mask"), None) if role != "mask" else None
    if inner:
        return "mask", [*folders[:first], *folders[last : inner[1]]], folders[inner[2] :]
    return role, folders[:first], folders[last:]


def _defined(folders: list[str], named: Mapping[str, str | None]) -> Iterator[tuple[str, int, int]]:
    """(role, first, last) of folders that define a role: the deepest of the named ones, then usual names from the top."""
    roots = {role: _parts(place) for role, place in named.items() if place}
    roots = {role: root for role, root in roots.items() if root and folders[: len(root)] == root}
    start = 0
    if roots:
        role = max(roots, key=lambda role: len(roots[role]))
        start = len(roots[role])
        yield role, 0, start
    for position, folder in enumerate(folders[start:], start=start):
        for role, words in FOLDERS.items():
            if not named.get(role) and folder.lower().replace(" ", "_").replace("-", "_") in words.split():
                yield role, position, position + 1


def _parts(place: str) -> list[str]:
    return [plain(part) for part in PurePosixPath(place).parts]


def _split(folder: str) -> str | None:
    return next((split for split, words in SPLITS.items() if folder.lower() in words.split()), None)


def _side_by_side(files: list[File]) -> list[File]:
    """Recognise masks in the folder of their images: "x_mask" if there is an "x", or the PNG of two files named x."""
    stems = {(file.split, file.folders, file.stem.lower()) for file in files if file.role == "image"}
    same_name = _by(_exactly, [file for file in files if file.role == "image"])
    found = []
    for file in files:
        stripped = _MASK.sub("", file.stem.lower())
        suffixed = stripped != file.stem.lower() and (file.split, file.folders, stripped) in stems
        others = [other for other in same_name.get(_exactly(file), []) if other != file]
        is_png = file.name.lower().endswith(".png")
        paired = is_png and len(others) == 1 and not others[0].name.lower().endswith(".png")
        found.append(replace(file, role="mask") if file.role == "image" and (suffixed or paired) else file)
    return found


def _exactly(file: File) -> tuple:
    return file.split, file.folders, file.stem


def _nearly(file: File) -> tuple:
    return file.split, tuple(folder.lower() for folder in file.folders), bare(file.stem)


def _in_any_split(file: File) -> tuple:
    return _nearly(file)[1:]


def _in_any_folder(file: File) -> str:
    return bare(file.stem)


@cache
def bare(stem: str) -> str:
    """A stem in lower case, without the words that distinguish an image from its mask."""
    stem = stem.lower()
    for pattern in (_AFTER, _BEFORE):
        stem = pattern.sub("", stem) or stem
    return stem


def _by(likeness: Callable[[File], object], files: Iterable[File]) -> dict[object, list[File]]:
    groups: dict[object, list[File]] = defaultdict(list)
    for file in files:
        groups[likeness(file)].append(file)
    return groups


def _report_unmatched(listing: Listing, masks: dict[str, File], found: dict[str, File], problems: Problems) -> None:
    """Report why masks have no image."""
    by_name = _by(_in_any_folder, listing.images)
    taken = {mask.name: image for image, mask in found.items()}
    of_masks = _by(_in_any_folder, listing.masks)
    names = list(by_name)
    for number, mask in enumerate(masks.values()):
        key = _in_any_folder(mask)
        candidates = [image.name for image in by_name.get(key, [])]
        if candidates and all(image.role == "unlabeled" for image in by_name[key]):
            problems.add(
                "mask without image",
                mask.name,
                f"{candidates[0]} is in the folder of unlabeled images; move it to the images",
            )
        elif len(candidates) > 1:
            problems.add(
                "several images for a mask",
                mask.name,
                f"{', '.join(candidates[:3])}; give the mask the name of one of them",
            )
        elif candidates:
            rivals = [other.name for other in of_masks[key] if other != mask]
            rival = next((name for name in rivals if name in taken), rivals[0] if rivals else "another")
            problems.add(
                "several masks for an image",
                mask.name,
                f"{candidates[0]} also has {rival}; keep one, or choose a folder with --option masks=FOLDER",
            )
        else:
            near = difflib.get_close_matches(str(key), map(str, names), n=1) if number < 50 else []
            hint = f"; nearest: {by_name[near[0]][0].name}" if near else ""
            problems.add("mask without image", mask.name, f"no image of this name{hint}")
