"""A picture of a data set: its path, and what the path says."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from semiseg.data import image_suffixes, unreadable_suffixes
from semiseg.datasets.folder.folders import without_split

SUFFIXES = image_suffixes()
CAMERA = frozenset(unreadable_suffixes())


@dataclass(frozen=True, slots=True)
class File:
    """An image or mask: its path in the tree, and the parts of the path that do not describe its role or split.

    role    "image", "unlabeled" (an image that has no mask), "mask" or "unused" (in a folder that the user did not choose)
    split   of "images/train/x.jpg" or "train/images/x.jpg"
    folders, stem   "images/train/roofs/x.jpg" has ("roofs",) and "x"
    within  the folder that defines the role, "images"; after: those below it
    """

    name: str
    role: str
    split: str | None
    folders: tuple[str, ...]
    stem: str
    within: str = ""
    after: tuple[str, ...] = ()

    @property
    def parent(self) -> str:
        return str(PurePosixPath(self.name).parent)


def family(file: File) -> str:
    """The kind of folder that a mask is in, without the split in its name: "masks" for train_masks/x.png."""
    return " ".join(without_split(part) for part in file.within.split("/")) if file.within else ""
