"""Find the files and the name of the data set."""

import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from semiseg.data import DataError, Tree, find_root, installed
from semiseg.datasets.folder.files import list_files
from semiseg.datasets.folder.folders import FOLDERS, SPLITS, role_of, split_within
from semiseg.datasets.folder.problems import plain

HOME = "your own disk: semiseg data shard folder ROOT --option name=NAME"
TREE = """
    roofs/
      images/     images, in any subfolders; train/, val/, test/ define splits
      masks/      masks with the names of their images (x.png, x_mask.png ...), for some or all images
      unlabeled/  more images (optional)
      classes.toml, train.txt and val.txt, tags.csv (optional)
"""


def find(root: Path | None) -> Path:
    """The folder or archive; if the user passes images/ itself, the folder above it."""
    if root is None:
        return find_root("folder", None, locate=_holds_images, expected=TREE, home=HOME)
    place = Path(os.path.abspath(root.expanduser()))  # noqa: PTH100 (removes ".." but keeps links: the name is the user's)
    if not place.exists():
        raise DataError(f"{place} does not exist; expected a folder, zip or tar:{TREE}")
    if place.is_dir() and place.name.lower() in FOLDERS["image"].split():
        beside = [path for path in place.parent.iterdir() if path.is_dir() and role_of([path.name], {})[0] == "mask"]
        return place.parent if beside else place
    return place


def _holds_images(place: Path) -> Path | None:
    return place if list_files(Tree.open(place).names(), {}).images else None


def inside(tree: Tree) -> Tree:
    """Skip outer folders that contain only the folder with images/ or similar, as in many archives."""
    roles = " ".join((*FOLDERS.values(), *SPLITS.values())).split()
    while names := tree.names():
        top = names[0].partition("/")[0]
        if top.lower() in roles or not all(name.startswith(f"{top}/") for name in names):
            break
        below = tree.sub(top)
        folders = below.folders()
        described = any(role_of([folder], {})[0] or split_within(folder) for folder in folders)
        if not described and len(folders) != 1:
            break
        tree = below
    return tree


def left_out(tree: Tree, ignored: Mapping[str, int]) -> list[str]:
    """Notes on files that are not read, and why; `ignored`: reason -> number of files."""
    notes = [f"left out: {why}: {count}" for why, count in sorted(ignored.items())]
    if tree.kind != "folder":
        if some := [f"{plain(name)} ({why})" for name, why in tree.refused.items()]:
            notes.append(f"left out: members of the archive that are skipped: {_some(some)}; pack the files themselves")
        return notes
    twice = [plain(name) for name, why in tree.refused.items() if why.endswith("which is read already")]
    if twice:
        notes.append(f"left out: links to folders that are read already: {_some(twice)}")
    lost = [plain(name) for name in tree.refused if plain(name) not in twice]
    if lost:
        notes.append(f"left out: broken links: {_some(lost)}; restore the files, or correct the links")
    return notes


def _some(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"


def dataset_name(named: str | None, root: Path) -> str:
    """The name of the data set, used as folder name and in commands and recipes."""
    stem = re.sub(r"\.(zip|tar|tgz|tar\.\w+)$", "", root.name, flags=re.IGNORECASE)
    text = unicodedata.normalize("NFKD", (named or stem).replace("ß", "ss")).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_") or "own"
    if named is not None and name != named:
        raise DataError(f"option name={named}: use lower-case letters, digits, '-' and '_', as in name={name}")
    if name in installed():
        raise DataError(f"'{name}' is the name of an installed data set; choose another with --option name={name}-own")
    return name
