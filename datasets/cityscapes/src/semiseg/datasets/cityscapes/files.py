"""Where the publisher's files are: in folders, in the zips they came in, or some in the one and some in the other."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from semiseg.data import DataError, Tree

KINDS = ("leftImg8bit", "gtFine", "gtCoarse")
SPLITS = ("train", "val", "test", "train_extra")
_ARCHIVE = re.compile(rf"(?:{'|'.join(KINDS)})(?:_(?:train|val|test|extra|_)+)?\.(?:zip|tar|tgz|tar\.(?:gz|bz2|xz))")
_FILE = re.compile(
    rf"(?:.*/)?(?P<kind>{'|'.join(KINDS)})/(?P<split>{'|'.join(SPLITS)})"
    r"/(?P<key>[A-Za-z0-9-]+/[A-Za-z0-9-]+_\d+_\d+)_(?P=kind)(?P<what>\.png|_labelIds\.png|_polygons\.json)"
)


@dataclass(frozen=True, slots=True)
class File:
    """A file of one sample and the tree it lies in; `name` is its place there."""

    tree: Tree
    name: str

    @property
    def drawn(self) -> bool:
        """Whether it holds polygons that are yet to be drawn."""
        return self.name.endswith(".json")


class Files:
    """The images and labels below a root; listed once, when first asked for, and nothing is read."""

    def __init__(self, root: Path) -> None:
        self.root = root

        self.broken: dict[str, str] = {}  # archives that can't be read, and why; known once files were listed
        self.refused: dict[str, dict[str, str]] = {}  # archives with members that are never read, and what those are

    def images(self, split: str) -> dict[str, File]:
        """`<city>/<city>_<sequence>_<frame>` -> its image, in the order of these keys."""
        return self._listed.get(("leftImg8bit", split, ".png"), {})

    def labels(self, kind: str, split: str) -> dict[str, File]:
        """Such a key -> its label ids, or its polygons where there are none. `kind`: gtFine or gtCoarse."""
        drawn = self._listed.get((kind, split, "_polygons.json"), {})
        return {**drawn, **self._listed.get((kind, split, "_labelIds.png"), {})}

    @cached_property
    def _listed(self) -> dict[tuple[str, str, str], dict[str, File]]:
        """(kind, split, end of the names) -> key -> file. What is unpacked comes before what is still packed."""
        found: dict[tuple[str, str, str], dict[str, File]] = {}
        for place, folder in self._places():
            try:
                tree = Tree.open(place)
                names = tree.names()
            except DataError as error:  # a download that was cut off must not take the other splits along
                self.broken[place.name] = str(error)
                continue
            if tree.refused:
                self.refused[place.name] = tree.refused
            for name in names:
                match = _FILE.fullmatch(folder + name)
                if match:
                    files = found.setdefault((match["kind"], match["split"], match["what"]), {})
                    files.setdefault(match["key"], File(tree, name))
        return {which: dict(sorted(files.items())) for which, files in found.items()}

    def _places(self) -> Iterator[tuple[Path, str]]:
        """Folders and archives to list, and what to put before the names in them."""
        if self.root.is_file():
            yield self.root, ""
            return
        for kind in KINDS:
            if (self.root / kind).is_dir():
                yield self.root / kind, f"{kind}/"
        yield from ((path, "") for path in archives(self.root))


def locate(candidate: Path) -> Path | None:
    """The folder that holds `leftImg8bit/` and the like, or their archives; or one archive that holds all of it."""
    if candidate.is_file():
        if _ARCHIVE.fullmatch(candidate.name):
            return candidate.parent  # the others lie beside it
        return candidate if _holds_files(candidate) else None
    root = candidate.parent if candidate.name in KINDS else candidate
    folders = [root / kind / split for kind in KINDS for split in SPLITS]
    return root if any(folder.is_dir() for folder in folders) or archives(root) else None


def archives(folder: Path) -> list[Path]:
    """Archives with the publisher's names, or repacked as tars, in a folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _ARCHIVE.fullmatch(path.name) and path.is_file())


def _holds_files(archive: Path) -> bool:
    try:
        return any(_FILE.fullmatch(name) for name in Tree.open(archive).names())
    except DataError:
        return False  # no archive at all
