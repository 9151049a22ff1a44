"""Where the files are, and what the data set is called."""

import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from semiseg.data import DataError, Tree, find_root, installed
from semiseg.datasets.folder.files import FOLDERS, SPLITS, list_files
from semiseg.datasets.folder.problems import plain

HOME = "your own disk: semiseg data shard folder ROOT --option name=NAME"
TREE = """
    roofs/
      images/     photographs, in any folders below; train/, val/, test/ split them
      masks/      masks under the images' names (x.png, x_mask.png ...), as many as there are
      unlabeled/  more photographs (optional)
      classes.toml, train.txt and val.txt, tags.csv (optional)
"""


def find(root: Path | None) -> Path:
    """The folder or archive; the one above where the user points at its images/ itself."""
    if root is None:
        return find_root("folder", None, locate=_holds_images, expected=TREE, home=HOME)
    place = Path(os.path.abspath(root.expanduser()))  # noqa: PTH100 (takes ".." out and leaves links: the name is the user's)
    if not place.exists():
        raise DataError(f"{place} does not exist; expected a folder, zip or tar:{TREE}")
    if place.is_dir() and place.name.lower() in FOLDERS["image"].split():
        beside = [each for each in place.parent.iterdir() if each.name.lower() in FOLDERS["mask"].split()]
        return place.parent if beside else place
    return place


def _holds_images(place: Path) -> Path | None:
    return place if list_files(Tree.open(place).names(), {}).images else None


def inside(tree: Tree) -> Tree:
    """Past folders that hold nothing but the one folder with images/ or the like in it, as archives do."""
    roles = " ".join((*FOLDERS.values(), *SPLITS.values())).split()
    while names := tree.names():
        top = names[0].partition("/")[0]
        if top.lower() in roles or not all(name.startswith(f"{top}/") for name in names):
            break
        below = tree.sub(top)
        if not any(folder.lower() in roles for folder in below.folders()) and len(below.folders()) != 1:
            break
        tree = below
    return tree


def left_out(tree: Tree, ignored: Mapping[str, int]) -> list[str]:
    """What is in the tree and not read, and why, for people to be told; `ignored`: reason -> files."""
    told = [f"left out: {why}: {count}" for why, count in sorted(ignored.items())]
    if tree.kind != "folder":
        if some := [f"{plain(name)} ({why})" for name, why in tree.refused.items()]:
            told.append(
                f"left out: members of the archive that are never read: {_some(some)}; pack the files themselves"
            )
        return told
    lost = [plain(name) for name in tree.refused if not any(part.startswith(".") for part in name.split("/"))]
    if lost:
        told.append(f"left out: links that lead nowhere: {_some(lost)}; bring the files back, or correct the links")
    return told


def _some(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"


def dataset_name(told: str | None, root: Path) -> str:
    """The data set's name: a folder, a word of commands and recipes."""
    stem = re.sub(r"\.(zip|tar|tgz|tar\.\w+)$", "", root.name, flags=re.IGNORECASE)
    text = unicodedata.normalize("NFKD", (told or stem).replace("ß", "ss")).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_") or "own"
    if told is not None and name != told:
        raise DataError(f"option name={told}: use small letters, digits, '-' and '_', as in name={name}")
    if name in installed():
        raise DataError(f"'{name}' is the name of an installed data set; choose another with --option name={name}-own")
    return name
