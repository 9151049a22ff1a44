"""Find the publisher's files: in folders, in the downloaded zips, or in both."""

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
    """A file of one sample; `name` is its path in `tree`."""

    tree: Tree
    name: str

    @property
    def drawn(self) -> bool:
        """Whether it holds polygons, from which the label is drawn."""
        return self.name.endswith(".json")


class Files:
    """The images and labels below a root. They are listed once, on first use; no file is read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.broken: dict[str, str] = {}  # archives that can't be read, and why; filled by listing
        self.refused: dict[str, dict[str, str]] = {}  # archive -> members that are skipped, and why

    def images(self, split: str) -> dict[str, File]:
        """Key `<city>/<city>_<sequence>_<frame>` -> image, sorted by key."""
        return self._listed.get(("leftImg8bit", split, ".png"), {})

    def labels(self, kind: str, split: str) -> dict[str, File]:
        """Key -> label ids, or polygons if there are none. `kind`: gtFine or gtCoarse."""
        drawn = self._listed.get((kind, split, "_polygons.json"), {})
        return {**drawn, **self._listed.get((kind, split, "_labelIds.png"), {})}

    @cached_property
    def _listed(self) -> dict[tuple[str, str, str], dict[str, File]]:
        """(kind, split, suffix) -> key -> file. Unpacked files take precedence over those in archives."""
        found: dict[tuple[str, str, str], dict[str, File]] = {}
        for place, folder in self._places():
            try:
                tree = Tree.open(place)
                names = tree.names()
            except DataError as error:  # an incomplete download must not make the other splits unreadable
                self.broken[place.name] = str(error)
                continue
            if tree.refused:
                self.refused[place.name] = tree.refused
            for name in names:
                match = _FILE.fullmatch(folder + name)
                if match:
                    files = found.setdefault((match["kind"], match["split"], match["what"]), {})
                    files.setdefault(match["key"], File(tree, name))
        return {group: dict(sorted(files.items())) for group, files in found.items()}

    def _places(self) -> Iterator[tuple[Path, str]]:
        """Folders and archives to list, and the prefix of the names in them."""
        if self.root.is_file():
            yield self.root, ""
            return
        for kind in KINDS:
            if (self.root / kind).is_dir():
                yield self.root / kind, f"{kind}/"
        yield from ((path, "") for path in archives(self.root))


def locate(candidate: Path) -> Path | None:
    """The folder that holds `leftImg8bit/`, `gtFine/`, `gtCoarse/` or their archives; or one archive of all."""
    if candidate.is_file():
        if _ARCHIVE.fullmatch(candidate.name):
            return candidate.parent  # the others are in the same folder
        return candidate if _holds_files(candidate) else None
    root = candidate.parent if candidate.name in KINDS else candidate
    folders = [root / kind / split for kind in KINDS for split in SPLITS]
    return root if any(folder.is_dir() for folder in folders) or archives(root) else None


def archives(folder: Path) -> list[Path]:
    """Archives in a folder with the publisher's names, also repacked as tars."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _ARCHIVE.fullmatch(path.name) and path.is_file())


def _holds_files(archive: Path) -> bool:
    try:
        return any(_FILE.fullmatch(name) for name in Tree.open(archive).names())
    except DataError:
        return False  # not an archive
