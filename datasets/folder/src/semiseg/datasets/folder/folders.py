"""What the names of folders say: the role of the files in them, and their split."""

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import PurePosixPath

from semiseg.datasets.folder.problems import plain

FOLDERS = {
    "unlabeled": "unlabeled unlabelled unlabeled_images unlabelled_images without_masks",
    "mask": "mask masks label labels labelled_masks annotation annotations annot annots anno ann gt groundtruth ground_truth "
    "seg segs segmentation segmentations segmentationclass target targets manual trimap trimaps lbl lbls",
    "image": "image images img imgs photo photos picture pictures jpegimages frames input inputs",
}  # usual names of such folders, in any case
SPLITS = {
    "train": "train training trainset",
    "val": "val valid validation valset",
    "test": "test testing testset",
}


def _set(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


UNUSED = "unused"  # the role of files in a folder of masks or images when the user has named another one
MASK_WORDS = _set(
    "mask masks label labels annotation annotations annot annots groundtruth segmentation segmentations segmentationclass "
    "segmentationobject trimap trimaps labelids labeltrainids"
)
WEAK_MASK_WORDS = _set(
    "gt gts seg segs semantic semantics target targets manual anno ann truth inst instance instances lbl msk"
)
IMAGE_WORDS = _set("image images img imgs jpegimages photo photos picture pictures frames")
WEAK_IMAGE_WORDS = _set("rgb sat input inputs raw orig original originals")
PREVIEW_WORDS = _set(
    "vis viz visual visualization visualisation visualizations visualisations overlay overlays color colors colour colours "
    "colored coloured colorized colormap colormaps preview previews blend blended"
)
INSTANCE_WORDS = _set("inst instance instances instanceids object objects segmentationobject panoptic")
_PLAIN_WORDS = _set(
    "st nd rd th png jpg jpeg tif tiff gif bmp fine coarse class classes data set dataset all new final part id ids raw"
)
_UNLABELED_WORDS = _set("unlabeled unlabelled")
_LABELED = _set("labeled labelled annotated")
_WORD = re.compile(r"[A-Z]{2,}(?![a-z])|[A-Z]?[^\W\dA-Z_]+|[A-Z]|\d+")
_JOINED = re.compile(
    r"(train|training|val|valid|validation|test|testing)"
    r"(annots?|annotations?|anno|masks?|labels?|gt|segs?|images?|imgs?)"
)


@cache
def words(name: str) -> tuple[str, ...]:
    """The words of a name in lower case: "SegmentationClassPNG", "1st_manual", "trainannot"."""
    found = [word.lower() for word in _WORD.findall(plain(name))]
    joined = [(*match.groups(),) if (match := _JOINED.fullmatch(word)) else (word,) for word in found]
    return tuple(word for group in joined for word in group)


def split_of(folder: str) -> str | None:
    """The split that is the name of a folder."""
    return next((split for split, listed in SPLITS.items() if folder.lower() in listed.split()), None)


def split_within(folder: str) -> str | None:
    """The only split among the words of a folder's name: "train_masks", "valannot"."""
    found = {split for word in words(folder) if (split := split_of(word))}
    return found.pop() if len(found) == 1 else None


def without_split(folder: str) -> str:
    """A folder's name without the words of splits, so that train_masks and val_masks are one kind."""
    return " ".join(word for word in words(folder) if not split_of(word)) or folder.lower()


def split_siblings(names: Collection[str]) -> dict[str, str]:
    """Folders that differ from others only by the split in their names, such as "2017_Training_Data": name -> split."""
    kinds: dict[str, dict[str, str]] = {}
    for name in names:
        if (split := split_within(name)) and not split_of(name):
            kind = " ".join(word for word in without_split(name).split() if not word.isdigit() and word != "v")
            kinds.setdefault(kind, {})[name] = split
    return {name: split for kind in kinds.values() if len(set(kind.values())) > 1 for name, split in kind.items()}


def role_of(folders: Sequence[str], named: Mapping[str, Sequence[str]]) -> tuple[str, list[str], list[str], list[str]]:
    """The role given by the folders of a file ("" for none), and the folders above, of and below those that define it.

    A folder of masks inside a folder of images holds masks: "images/tiles/masks/x.png" belongs to "images/tiles/x.png".
    """
    spans = list(_spans(folders, named))
    if not spans:
        return "", list(folders), [], []
    role, first, last = spans[0]
    if role in ("image", "unlabeled"):
        for inner, start, end in spans[1:]:
            if inner in ("mask", UNUSED):
                return inner, [*folders[:first], *folders[last:start]], list(folders[start:end]), list(folders[end:])
    between: list[str] = []
    if role == "mask":
        own = [(start, end) for inner, start, end in spans if inner == "mask"]
        last = max(end for _, end in own)
        between = [
            folders[place] for place in range(first, last) if not any(start <= place < end for start, end in own)
        ]
    return role, [*folders[:first], *between], list(folders[first:last]), list(folders[last:])


def parts_of(place: str) -> list[str]:
    return [plain(part) for part in PurePosixPath(place).parts]


def found_at(folders: Sequence[str], place: str) -> int | None:
    """Where a folder named by the user begins in a path: at its root or, if it isn't there, anywhere below."""
    parts = parts_of(place)
    starts = range(len(folders) - len(parts) + 1)
    return next((start for start in starts if list(folders[start : start + len(parts)]) == parts), None)


def _spans(folders: Sequence[str], named: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, int, int]]:
    """(role, first, last) of folders that define a role: the deepest of the named ones, then usual names from the top.

    Names that merely contain a word such as "masks" count if no folder of the path has a usual name.
    """
    given = []
    for role, places in named.items():
        starts = [(place, found_at(folders, place)) for place in places if parts_of(place)]
        given += [(start + len(parts_of(place)), start, role) for place, start in starts if start is not None]
    start = 0
    if given:
        start, first, role = max(given)
        yield role, first, start
    usual = [(place, role) for place in range(start, len(folders)) if (role := _usual(folders[place]))]
    if not usual and not given:
        usual = [(place, role) for place in range(start, len(folders)) if (role := _worded(folders[place]))]
    elif usual and usual[0][1] in ("image", "unlabeled"):
        inner = range(usual[0][0] + 1, len(folders))
        usual += [(place, "mask") for place in inner if not _usual(folders[place]) and _only_mask_words(folders[place])]
    for place, role in sorted(usual):
        if named.get(role):
            role = UNUSED if role == "mask" else ""
        if role:
            yield role, place, place + 1


def _usual(folder: str) -> str | None:
    name = folder.lower().replace(" ", "_").replace("-", "_")
    return next((role for role, listed in FOLDERS.items() if name in listed.split()), None)


def _worded(folder: str) -> str | None:
    """The role of a folder whose name contains a word for it: "train_masks", "1st_manual", "leftImg8bit"."""
    found = words(folder)
    if _UNLABELED_WORDS & set(found) or ("without" in found and MASK_WORDS & set(found)):
        return "unlabeled"
    pairs = {f"{first}{second}" for first, second in itertools.pairwise(found)}
    if MASK_WORDS & {*found, *pairs} or (WEAK_MASK_WORDS & set(found) and _plain(found)):
        return "mask"
    if IMAGE_WORDS & set(found) or (WEAK_IMAGE_WORDS & set(found) and _plain(found)):
        return "image"
    return None


def _only_mask_words(folder: str) -> bool:
    found = words(folder)
    return bool(MASK_WORDS & set(found)) and _plain(found) and not _LABELED & set(found)


def _plain(found: Sequence[str]) -> bool:
    """Whether all words describe roles, splits, formats or numbers."""
    known = (
        MASK_WORDS | WEAK_MASK_WORDS | IMAGE_WORDS | WEAK_IMAGE_WORDS | PREVIEW_WORDS | INSTANCE_WORDS | _PLAIN_WORDS
    )
    return all(word in known or word.isdigit() or split_of(word) for word in found)
