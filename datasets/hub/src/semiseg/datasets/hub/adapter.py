"""The adapter: opens a data set of the `datasets` library, finds its columns and classes, and lists its rows."""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from semiseg.data import DataError, RawSample, Split, Taxonomy, unknown
from semiseg.datasets.hub.classes import Classes, describe_classes, names_beside, read_names
from semiseg.datasets.hub.columns import Columns, class_names, find_columns
from semiseg.datasets.hub.listing import Listing, list_rows
from semiseg.datasets.hub.masks import read_label
from semiseg.datasets.hub.opening import Opened, open_splits
from semiseg.datasets.hub.rows import Rows, read_image

UNLABELED = "-unlabeled"
"""Suffix of the split that holds the rows without a mask, if other rows of the split have one."""


class Hub:
    """A data set of the `datasets` library: a hub id, a folder of `save_to_disk`, parquet files, an imagefolder.

    root        the id or the path
    image, mask columns; by default found by type and common names. `mask="none"`: images only
    name        name of the data set; default: the end of the id or path
    config, revision, streaming   as for `datasets.load_dataset`
    splits      only these, as a list or separated by commas; default: all
    names       classes: a JSON file {"0": "wall", ...}, a text file with one name per line (ids from 0) or lines
                "R G B name" for coloured masks, or a column whose type lists them. Default: the type of the mask column,
                then `id2label.json` beside the data; without either, every mask is read once to find the ids
    void        ids or names that are not classes; default: 255, and classes called void, unlabeled or ignore
    foreground  names of classes that are objects; default: all but "background"
    key, tags   columns with keys and image-level labels

    A data set with random access is read in any order by any number of processes. A streamed one is read from its start,
    once to plan the shards and once more by each process that writes. Splits keep the publisher's names. Raises DataError
    if the data can't be opened, columns are ambiguous, or names can't be read.
    """

    name: ClassVar[str] = "hub"
    summary: ClassVar[str] = (
        "any Hugging Face data set with an image and a mask column: hub id, disk, parquet, imagefolder"
    )
    home: ClassVar[str] = "https://huggingface.co/datasets"
    taxonomies: ClassVar[tuple[Taxonomy, ...]] = ()

    def __init__(
        self,
        root: Path | None = None,
        *,
        image: str | None = None,
        mask: str | None = None,
        name: str | None = None,
        config: str | None = None,
        revision: str | None = None,
        streaming: bool = False,
        splits: str | Sequence[str] | None = None,
        names: str | Path | None = None,
        void: int | str | Sequence[int | str] | None = None,
        foreground: str | Sequence[str] | None = None,
        key: str | None = None,
        tags: str | None = None,
        dataset: Any = None,
    ) -> None:
        """`dataset`: a Dataset, DatasetDict or streamed data set that is already open, instead of a root."""
        opened = open_splits(
            root, dataset, config=config, revision=revision, streaming=bool(streaming), only=_words(splits)
        )
        self.root = opened.folder
        # In other data sets these are class attributes; here they are known once the data set is open.
        own = vars(self)
        own.update(name=_name(str(name) if name is not None else opened.name), home=opened.home or type(self).home)
        self.where = f"data set '{self.name}'"
        self._revision = revision
        self._rows: dict[str, Rows] = opened.splits
        self._columns: Columns = find_columns(self.where, self._rows, image=image, mask=mask, key=key, tags=tags)
        self._given = self._given_names(names, opened)
        self._listings: dict[str, Listing] = {}
        found = None
        if not self._given.names and self._columns.mask is not None:
            found = set[int]().union(*(self._listing(split).ids for split in self._rows))
        self.raw_space, own["taxonomies"] = describe_classes(
            self.name, self._given, found, void=_several(void), foreground=_words(foreground)
        )

    @property
    def version(self) -> str:
        """The columns that are read, and the revision if one was given."""
        columns = "+".join(filter(None, (self._columns.image, self._columns.mask)))
        return columns + (f"@{self._revision}" if self._revision else "")

    def splits(self) -> dict[str, Split]:
        """The publisher's splits; if only some rows of a split have masks, the others form a separate split."""
        found: dict[str, Split] = {}
        for name in self._rows:
            listing = self._listing(name)
            if not listing.rows:
                found[name] = Split(name=name, samples=0, missing="it has no rows")
            for labeled, called in _parts(name, listing):
                count = sum(row.labeled == labeled for row in listing.rows)
                found[called] = Split(name=called, samples=count, labeled=labeled)
        return found

    def samples(self, split: str) -> Iterator[RawSample]:
        """The samples in the order of the rows."""
        for name in self._rows:
            for labeled, called in _parts(name, self._listing(name)):
                if called == split:
                    return self._samples(name, labeled)
        known = self.splits()
        if split in known:
            raise DataError(f"{self.where}, split '{split}': {known[split].missing}")
        raise DataError(f"{self.where}: {unknown('split', split, known)}")

    def notes(self) -> list[str]:
        """The columns that are read, and whether the classes have names."""
        masks = f"masks from column '{self._columns.mask}'" if self._columns.mask is not None else "no masks"
        notes = [f"images from column '{self._columns.image}', {masks}"]
        if self.taxonomies and not self._given.names:
            ids = ", ".join(map(str, self.taxonomies[0].ids))
            notes.append(f"the classes have no names; masks contain the ids {ids}: name them with --option names=FILE")
        return notes

    def next_steps(self, splits: Sequence[str], to: str) -> list[str]:
        return []

    def _samples(self, name: str, labeled: bool) -> Iterator[RawSample]:
        rows, columns = self._rows[name], self._columns
        for row in self._listing(name).rows:
            if row.labeled == labeled:
                yield RawSample(
                    key=row.key,
                    image=partial(read_image, rows, row.number, columns.image),
                    label=partial(read_label, rows, row.number, str(columns.mask), self._given.colours)
                    if labeled
                    else None,
                    size=row.size,
                    tags=row.tags,
                    meta={"source": row.source, "row": row.number},
                    stamp=row.stamp,
                )

    def _listing(self, name: str) -> Listing:
        if name not in self._listings:
            self._listings[name] = list_rows(
                f"{self.where}, split '{name}'",
                self._rows[name],
                self._columns,
                colours=self._given.colours,
                scan=not self._given.names,
            )
        return self._listings[name]

    def _given_names(self, names: str | Path | None, opened: Opened) -> Classes:
        """Class names, if they are known without reading the masks."""
        features = next(iter(self._rows.values())).features
        if names is not None:
            listed = class_names(features[str(names)]) if str(names) in features else None
            return Classes(dict(enumerate(listed))) if listed else read_names(self.where, Path(names), sorted(features))
        if self._columns.mask is not None and (listed := class_names(features[self._columns.mask])):
            return Classes(dict(enumerate(listed)))
        beside = names_beside(opened)
        return read_names(self.where, beside, []) if beside else Classes({})


def _parts(name: str, listing: Listing) -> list[tuple[bool, str]]:
    """(labeled or not, name) of the splits that a split of the publisher is divided into."""
    kinds = sorted({row.labeled for row in listing.rows}, reverse=True)
    return [(labeled, name if labeled or len(kinds) == 1 else name + UNLABELED) for labeled in kinds]


def _name(text: str) -> str:
    """A name that is valid as a folder and on the command line."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_") or "hub"


def _words(value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The values of an option given as a list or as text with commas."""
    if value is None:
        return None
    listed = value.split(",") if isinstance(value, str) else value
    return tuple(str(word).strip() for word in listed)


def _several(value: int | str | Sequence[int | str] | None) -> tuple[int | str, ...] | None:
    """Ids and names; numbers in text are ids."""
    if value is None or isinstance(value, int):
        return None if value is None else (value,)
    listed = value.split(",") if isinstance(value, str) else value
    return tuple(int(text) if (text := str(word).strip()).isdecimal() else text for word in listed)
