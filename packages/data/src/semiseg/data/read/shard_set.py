"""Read a written split: any sample by its number, from a local folder or any fsspec URL.

A sample costs one range read, since its members are adjacent; a shard's index is read with the first of its samples, and
kept while its window is read. Every member is checked against its crc32: damage is an error that says where, never a
wrong pixel.
"""

import operator
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image

from semiseg.data.errors import DataError
from semiseg.data.format.index import Index
from semiseg.data.format.manifest import Manifest
from semiseg.data.format.names import MANIFEST
from semiseg.data.format.proof import extent, faults
from semiseg.data.image.convert import rgb
from semiseg.data.image.decode import check_pair, decode_image, decode_label, read_meta
from semiseg.data.order.uniform import Anchors
from semiseg.data.read.prefetch import cached, read_index
from semiseg.data.remedies import absent, remedy
from semiseg.data.storage.storage import Storage
from semiseg.data.taxonomy import RawSpace, Taxonomy

_INDEXES = 64  # that a reader keeps, at about 2 kB per sample; more if `ahead` announces more


@dataclass(frozen=True, slots=True)
class Sample:
    """One decoded sample: `image` in RGB, `label` of raw ids (uint8 or uint16 [h, w]), None in an unlabeled set."""

    key: str
    image: Image.Image
    label: np.ndarray | None
    tags: tuple[str, ...]
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Members:
    """One sample as stored: bytes of a JPEG or PNG, of a PNG of raw ids, and of JSON; checksums are verified."""

    key: str
    image: bytes
    label: bytes | None
    meta: bytes


class ShardSet:
    """The samples of one written split, in the order of the tars.

    Pickles without handles; each process opens its own. Raises DataError if there is no manifest (with the command
    that writes one), and if a shard does not match its manifest and index.
    """

    def __init__(self, url: str | PathLike[str]) -> None:
        self.url = str(url)
        self._storage = Storage(url)
        self.manifest = read_manifest(self._storage)
        self._files = cached(self._storage, self.manifest.shards)
        self.shard_sizes = tuple(entry.samples for entry in self.manifest.shards)
        self._stops = list(accumulate(self.shard_sizes))
        self._indexes: dict[int, Index] = {}
        self._kept = _INDEXES

    @property
    def digest(self) -> str:
        """Identifies contents and settings: part of the key of every order of this set."""
        return self.manifest.digest

    @property
    def raw_space(self) -> RawSpace:
        return self.manifest.space

    @property
    def taxonomies(self) -> tuple[Taxonomy, ...]:
        """Those that were written with the set, known without the data set's package."""
        return self.manifest.taxonomies

    def taxonomy(self, name: str) -> Taxonomy:
        """The taxonomy of that name, from the set or else from an installed package; `check` says whether it reads this set.

        Raises DataError with the nearest name if there is none.
        """
        return Taxonomy.get(name, self.taxonomies)

    @property
    def labeled(self) -> bool:
        return self.manifest.labeled

    def __len__(self) -> int:
        return self._stops[-1] if self._stops else 0

    def __getitem__(self, number: int) -> Sample:
        return self.read(number)

    def read(self, number: int, *, label: bool = True) -> Sample:
        """A decoded sample; `label=False` saves decoding its label."""
        members = self.raw(number)
        try:
            image = decode_image(members.image)
            ids = decode_label(members.label) if label and members.label is not None else None
            check_pair(image, ids, self._size(number), self.manifest)
            tags, meta = read_meta(members.key, members.meta)
        except DataError as error:  # its checksum is right: it was broken when it was written
            raise self._damaged(*self._locate(number), str(error)) from error
        return Sample(members.key, rgb(image), ids, tuple(tags), meta)

    def __iter__(self) -> Iterator[Sample]:
        for number in range(len(self)):
            shard, row = self._locate(number)
            if row == 0:
                self.ahead(range(shard, min(shard + 2, len(self.shard_sizes))))
            yield self[number]

    def raw(self, number: int) -> Members:
        """The encoded members, for callers who decode them; one range read."""
        shard, row = self._locate(number)
        index, entry, extensions = self._index(shard), self.manifest.shards[shard], self.manifest.members
        start, stop = extent(index, row, entry, extensions)
        try:
            span = self._files.read_range(entry.tar, start, stop)
        except OSError as error:
            raise self._unreadable(shard, error) from error
        for fault in faults(index, row, entry, extensions, span, start):
            if self._files.forget(entry.tar):
                return self.raw(number)  # the copy on this machine is damaged, not the shard
            raise self._damaged(shard, row, str(fault))
        found = {member: span[at - start : at - start + size] for member, at, size, _ in index.places[row]}
        return Members(index.keys[row], found["image"], found.get("label"), found["meta"])

    def ahead(self, shards: Iterable[int]) -> None:
        """Announce the numbers of shards that will be read soon; remote ones are fetched in the background."""
        entries = [self.manifest.shards[shard] for shard in shards]
        self._kept = max(self._kept, len(entries))
        self._files.ahead([name for entry in entries for name in (entry.index, entry.tar)])

    def keys(self) -> list[str]:
        """Every sample's key, in order. Reads every index."""
        return [key for index in self._all() for key in index.keys]

    def sizes(self) -> np.ndarray:
        """Heights and widths, int64 [n, 2]. Reads every index."""
        columns = [[index.table[name].to_numpy() for name in ("height", "width")] for index in self._all()]
        return np.concatenate([np.stack(pair, axis=1) for pair in columns]).astype(np.int64)

    def image_checksums(self) -> np.ndarray:
        """Bytes and crc32 of every sample's stored image, int64 [n, 2]: equal images have equal rows. Reads every index."""
        columns = [[index.table[f"image_{what}"].to_numpy() for what in ("size", "crc32")] for index in self._all()]
        return np.concatenate(
            [np.stack(pair, axis=1).astype(np.int64) for pair in columns] or [np.empty((0, 2), np.int64)]
        )

    def flags(self) -> list[tuple[str, ...]]:
        """What the writer marked each sample with, such as "constant-image". Reads every index."""
        return [tuple(flags) for index in self._all() for flags in index.table["flags"].to_pylist()]

    def tags(self) -> list[tuple[str, ...]]:
        """Every sample's image-level labels. Reads every index."""
        return [tuple(tags) for index in self._all() for tags in index.table["tags"].to_pylist()]

    def class_pixels(self, taxonomy: Taxonomy) -> np.ndarray:
        """Pixels of each class in each sample, int64 [n, classes]; ignored pixels are not counted. Reads every index."""
        self.check(taxonomy)
        pixels = np.zeros((len(self), len(taxonomy.names)), np.int64)
        first = 0
        for index in self._all():
            rows, ids, counts = index.statistics()
            classes = taxonomy.lookup[ids]
            kept = classes != taxonomy.ignore
            np.add.at(pixels, (rows[kept] + first, classes[kept]), counts[kept])
            first += len(index.keys)
        return pixels

    def anchors(self, taxonomy: Taxonomy) -> Anchors:
        """The centroid of each class in each tile of each sample, for class-uniform crops. Reads every index."""
        self.check(taxonomy)
        columns: list[tuple[np.ndarray, ...]] = []
        first = 0
        for index in self._all():
            rows, tiles, ids, sums = index.sums()
            classes = taxonomy.lookup[ids].astype(np.int64)
            kept = classes != taxonomy.ignore
            columns.append((rows[kept] + first, tiles[kept], classes[kept], sums[kept]))
            first += len(index.keys)
        sample, tile, label, sums = (np.concatenate(column) for column in zip(*columns, strict=True))
        return Anchors.merged(sample, tile, label, sums)

    def check(self, taxonomy: Taxonomy) -> None:
        """DataError unless this set has labels of the taxonomy's raw space."""
        _check_space(self.url, self.raw_space, taxonomy)
        if not self.labeled:
            raise DataError(f"{self.url}: has no labels, hence no classes; use a labeled split")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_indexes": {}}

    def _locate(self, number: int) -> tuple[int, int]:
        position = operator.index(number)
        if position < 0:
            position += len(self)
        if not 0 <= position < len(self):
            raise IndexError(f"sample {number} of {len(self)} in {self.url}")
        shard = bisect_right(self._stops, position)
        return shard, position - self._stops[shard] + self.shard_sizes[shard]

    def _index(self, shard: int) -> Index:
        index = self._indexes.get(shard)
        if index is None:
            index = read_index(self._files, self.manifest.shards[shard], self.manifest, self._remedy())
            self._indexes[shard] = index
            # Removes the oldest, not the least recently used: a hit changes nothing, so threads need no lock.
            for old in list(self._indexes)[: -self._kept]:
                self._indexes.pop(old, None)
        return index

    def _all(self) -> Iterator[Index]:
        return (self._index(shard) for shard in range(len(self.shard_sizes)))

    def _damaged(self, shard: int, row: int, what: str) -> DataError:
        return DataError(f"{self._where(shard)}: sample '{self._index(shard).keys[row]}': {what}; {self._remedy()}")

    def _size(self, number: int) -> tuple[int, int]:
        """Width and height of a sample, from the index."""
        shard, row = self._locate(number)
        return self._index(shard).sizes[row]

    def _unreadable(self, shard: int, error: OSError) -> DataError:
        what = f"cannot be read ({error.strerror or error})"
        return DataError(f"{self._where(shard)}: {what}; {self._remedy()}")

    def _where(self, shard: int) -> str:
        return self._storage.where(self.manifest.shards[shard].tar)

    def _remedy(self) -> str:
        return remedy(self.url, self.manifest)


def read_manifest(storage: Storage) -> Manifest:
    """The manifest of a set; DataError with the command that writes one if there is none."""
    try:
        return Manifest.from_json(storage.read(MANIFEST).decode(errors="replace"), storage.where(MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise DataError(
            f"{storage.where(MANIFEST)}: {what}; give the folder of one split, with permission to read it"
        ) from error
    raise DataError(absent(storage))


def _check_space(url: str, space: RawSpace, taxonomy: Taxonomy) -> None:
    if taxonomy.raw_space != space.name:
        raise DataError(
            f"{url}: its labels are of raw space '{space.name}', taxonomy '{taxonomy.name}' reads "
            f"'{taxonomy.raw_space}'; choose a taxonomy of '{space.name}' (`semiseg data list` shows them)"
        )
