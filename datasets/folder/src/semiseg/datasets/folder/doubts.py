"""Images that may be masks: refused with the options that decide."""

import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from semiseg.datasets.folder.file import File
from semiseg.datasets.folder.files import Listing
from semiseg.datasets.folder.names import common_start
from semiseg.datasets.folder.problems import Problems, plain

KINDS = "several kinds of masks"
_DOUBT = "image that looks like a mask"
_DERIVED = "image derived from another"


def undecided(problems: Problems) -> bool:
    """Whether it is not known which files are masks, so that other problems may be consequences."""
    return any(kind in (KINDS, _DOUBT, _DERIVED) for kind, _, _ in problems.rows)


def refuse_masks_as_images(listing: Listing, found: Mapping[str, File], problems: Problems) -> None:
    """Report images without masks that look like masks, or are named like something drawn from another image.

    If most images with masks look so, too, they are drawings.
    """
    looks = {} if 2 * sum(name in listing.doubtful for name in found) > len(found) > 0 else listing.doubtful
    folders: dict[tuple[str, bool], list[File]] = defaultdict(list)
    for image in listing.images:
        if image.name not in found and (image.name in looks or image.name in listing.derived):
            folders[image.parent, image.name in looks].append(image)
    if not folders:
        return
    photographs = any(image.name not in listing.doubtful for image in listing.images)
    pictures = [*listing.images, *listing.masks]
    patterns = dict.fromkeys(pattern_of(inside, pictures) for inside in folders.values())
    drop = f"to leave them out, --option {shlex.quote('leave_out=' + ','.join(patterns))}"
    keep = "if they are images, --option by_look=false"
    for (parent, by_look), inside in sorted(folders.items()):
        first = inside[0]
        total = sum(image.parent == parent for image in listing.images)
        if not by_look:
            base = listing.derived[first.name]
            what = f"has the name of {base} and something more, as {len(inside)} of {total} in {parent}/"
            ending = shlex.quote("mask_suffix=" + first.stem[len(PurePosixPath(base).stem) :])
            problems.add(_DERIVED, first.name, f"{what}: if they are masks, --option {ending}; {keep}; {drop}")
            continue
        what = f"{looks[first.name]}, as {len(inside)} of {total} images in {parent}/ that have no mask"
        move = f"--option {shlex.quote(f'masks={parent}')}"
        if not photographs:
            move = "add the images, with the same names, in images/"
        elif base := base_of(first, listing.images):
            move = f"--option {shlex.quote(f'mask_suffix={first.stem[len(base.stem) :]}')}"
        elif total > len(inside):
            move = "give them the names of their images with _mask, or move them to masks/"
        problems.add(_DOUBT, first.name, f"{what}: if they are masks, {move}; {keep}; {drop}")


def base_of(file: File, images: Sequence[File]) -> File | None:
    """The image whose name a file's begins with, before a separator."""
    stem = file.stem.lower()
    found = (image for image in images if image is not file and image.stem and stem.startswith(image.stem.lower()))
    fitting = [image for image in found if stem[len(image.stem) :][:1] in tuple("_-. (")]
    return max(fitting, key=lambda image: len(image.stem), default=None)


def pattern_of(files: Sequence[File], pictures: Sequence[File]) -> str:
    """A pattern for the option leave_out that fits these files and no other; their names if there is none."""
    names = [plain(file.name) for file in files]
    front, back = common_start(names), common_start([name[::-1] for name in names])[::-1]
    parent = "" if files[0].parent == "." else f"{files[0].parent}/"
    others = [plain(file.name) for file in pictures if file not in files]
    for pattern in (f"{parent}*{back}", f"{front}*{back}"):
        if len(names) > 1 and not any(fnmatchcase(name, pattern) for name in others):
            return pattern
    return ",".join(names)
