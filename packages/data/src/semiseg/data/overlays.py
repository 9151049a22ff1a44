"""Overlays: labels made later for the images of a written split, as a shard set beside it; the split never changes.

    <root>/<dataset>/<split>@<name>/    label.png holds class ids, image.png shows them in colours

An overlay is written by the writer of all shard sets, so it is atomic, continues after a kill, and verifies. Its version
names the digest of the split and the settings that made the labels. It may cover a part of the split; rows are joined by
their keys. Its raw space is the classes of one taxonomy, with 255 for what has no label: raw ids of the split itself would
not do, since some spaces have none for void, and several ids may be one class.
"""

import io
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any, cast

import numpy as np
from PIL import Image

from semiseg.data.errors import DataError
from semiseg.data.format.manifest import Manifest, canonical
from semiseg.data.format.names import MANIFEST, PLAN, shard_name
from semiseg.data.parallel import Progress
from semiseg.data.read.shard_set import Members, ShardSet
from semiseg.data.source.adapter import JSON, Adapter, RawSample, Split
from semiseg.data.storage.storage import Storage
from semiseg.data.taxonomy import RawSpace, Taxonomy
from semiseg.data.write.shard import shard

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def write_overlay(
    base: ShardSet,
    name: str,
    taxonomy: Taxonomy,
    label: Callable[[int], np.ndarray],
    *,
    settings: Mapping[str, JSON],
    rows: Sequence[int] | None = None,
    size: int | str = "1MB",
    to: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Write `<base>@<name>`, or finish writing it, and return its manifest.

    label: number of a sample in `base` -> class ids of the taxonomy, uint8 [h, w] of its image's size, 255 = no label;
    called once for each sample that is not written yet, in order, in this process (and once for the first one in any case).
    settings: all that decides the labels; another call with other settings is refused. rows: the samples to cover, None
    for all. size: about how large a shard gets; what a kill loses is at most the shard at work (1 MB: about 100 VOC labels).
    to: the folder of all shards, None for the base's own. Raises DataError as `semiseg.data.write.shard` does, and for a label
    that does not fit its image.
    """
    if not _NAME.fullmatch(name):
        raise DataError(f"an overlay's name '{name}' may hold letters, digits, '_' and '-' only")
    place = f"{base.manifest.dataset}/{base.manifest.split}"
    if to is None:
        if not f"/{base.url.rstrip('/')}".endswith(f"/{place}"):
            raise DataError(f"{base.url}: is not at <shards>/{place}; say where the overlay goes: to=...")
        to = base.url.rstrip("/").removesuffix(place).rstrip("/") or ("/" if base.url.startswith("/") else ".")
    adapter = _Labels(base, name, taxonomy, label, settings, range(len(base)) if rows is None else rows)
    _check_settings(f"{str(to).rstrip('/')}/{adapter.name}/{adapter.split}", json.loads(adapter.version))
    return shard(cast(Adapter, adapter), adapter.split, to, size=size, progress=progress)


class OverlaySet(ShardSet):
    """The covered images of a split with an overlay's labels; a `ShardSet` to whoever reads it, hence a subclass.

    url: `<split>@<name>`; base: the split's URL where it is not the same without `@<name>`. Numbers, keys, sizes, class
    statistics and the digest are the overlay's; images, tags and meta come from the split. Raises DataError where either
    is missing, or where the split was written anew since: a row would then have the label of another image.
    """

    def __init__(self, url: str | PathLike[str], base: str | PathLike[str] | None = None) -> None:
        stem, at, name = str(url).rstrip("/").rpartition("@")
        if not Storage(url).exists(MANIFEST) and at:
            raise DataError(
                f"no overlay '{name}' at {url} (it has no {MANIFEST}); `semiseg weak labels` writes overlays, and "
                "continues one that was cut off"
            )
        super().__init__(url)
        made_on = overlay_facts(self.manifest)["base"]
        self.base = ShardSet(base or stem)
        if self.base.digest != made_on:
            raise DataError(
                f"{url}: its labels were made for shards of digest {made_on[:12]}, {self.base.url} has digest "
                f"{self.base.digest[:12]}: they were written anew since, and rows no longer match; delete the overlay and "
                "make it again"
            )
        self._rows: list[int] = []

    def raw(self, number: int) -> Members:
        """Image and meta as the split has them, the label as the overlay has it."""
        labels = super().raw(number)
        below = self.base.raw(self.row(number))
        return Members(labels.key, below.image, labels.label, below.meta)

    def row(self, number: int) -> int:
        """The number in the split of a sample of the overlay."""
        return self.rows()[number]

    def rows(self) -> list[int]:
        """The number in the split of every sample of the overlay. Reads every index of both."""
        if not self._rows:
            places = {key: row for row, key in enumerate(self.base.keys())}
            self._rows = [places[key] for key in self.keys()]
        return self._rows

    def ahead(self, shards: Iterable[int]) -> None:
        """As `ShardSet.ahead`, for the split too."""
        shards = list(shards)
        super().ahead(shards)
        starts = np.cumsum([0, *self.shard_sizes])
        rows = [row for number in shards for row in self.rows()[starts[number] : starts[number + 1]]]
        stops = np.cumsum(self.base.shard_sizes)
        self.base.ahead(dict.fromkeys(np.searchsorted(stops, rows, side="right").tolist()))

    def _remedy(self) -> str:
        return (
            f"see all the damage with `semiseg data verify {shlex.quote(self.url)}`, then delete the file and run the command "
            "that made the overlay"
        )


def overlay_facts(manifest: Manifest) -> dict[str, Any]:
    """What an overlay says of itself: "base", the digest of its split; "taxonomy"; "settings". DataError for another set."""
    try:
        facts = json.loads(manifest.version)
        if facts.keys() == {"base", "taxonomy", "settings"}:
            return facts
    except (ValueError, AttributeError):
        pass
    raise DataError(f"{manifest.dataset}/{manifest.split} is no overlay: its version is '{manifest.version}'")


def class_space(taxonomy: Taxonomy) -> Taxonomy:
    """The taxonomy that reads its own class ids: same name, classes and colours, 255 = no label."""
    names = dict(enumerate(taxonomy.names)) | {taxonomy.ignore: "no label"}
    return Taxonomy(
        name=taxonomy.name,
        raw=RawSpace(name=f"classes of {taxonomy.name}", names=names),
        names=taxonomy.names,
        colours=taxonomy.colours,
        ids={number: number for number in range(len(taxonomy.names))},
        foreground=taxonomy.foreground,
    )


def _check_settings(url: str, now: dict[str, Any]) -> None:
    """DataError where an overlay of other settings, finished or begun, is in the place."""
    storage = Storage(url)
    begun = MANIFEST if storage.exists(MANIFEST) else PLAN if storage.exists(f"{shard_name(0)}.tar") else None
    if begun is None or not storage.exists(begun):
        return
    try:
        there = json.loads(json.loads(storage.read(begun))["version"])
        pairs = {"base": there["base"], "taxonomy": there["taxonomy"], **there["settings"]}
    except (ValueError, KeyError, TypeError):
        return  # damaged, or no overlay: the writer says so
    wanted = {"base": now["base"], "taxonomy": now["taxonomy"], **now["settings"]}
    names = [name for name in wanted | pairs if pairs.get(name) != wanted.get(name)]
    if names:
        lines = "\n".join(f"  {name}: {pairs.get(name)} there, {wanted.get(name)} now" for name in names)
        raise DataError(
            f"{url} holds labels of other settings:\n{lines}\ngive this overlay another name, or delete that one first"
        )


class _Labels:
    """Labels as the writer of shards asks for a publisher's files (`Adapter`)."""

    summary = home = ""
    root = None

    def __init__(
        self,
        base: ShardSet,
        name: str,
        taxonomy: Taxonomy,
        label: Callable[[int], np.ndarray],
        settings: Mapping[str, JSON],
        rows: Sequence[int],
    ) -> None:
        self.base, self.label, self.rows = base, label, rows
        self.name = base.manifest.dataset
        self.split = f"{base.manifest.split}@{name}"
        self.taxonomy = class_space(taxonomy)
        self.taxonomies = (self.taxonomy,)
        self.raw_space = self.taxonomy.raw
        facts = {"base": base.digest, "taxonomy": taxonomy.name, "settings": dict(settings)}
        self.version = canonical(facts).decode()
        self.sizes = base.sizes()
        self.made: tuple[int, np.ndarray] | None = None

    def splits(self) -> dict[str, Split]:
        return {self.split: Split(name=self.split, samples=len(self.rows))}

    def samples(self, split: str) -> Iterator[RawSample]:
        keys, tags = self.base.keys(), self.base.tags()
        for row in self.rows:
            height, width = self.sizes[row].tolist()
            yield RawSample(
                key=keys[row],
                image=partial(self.picture, row),
                label=partial(self.ids, row),
                size=2000 + height * width // 20,  # both members; labels of VOC take less
                tags=tags[row],
            )

    def ids(self, row: int) -> np.ndarray:
        """Made once for both members, which are asked for one after the other."""
        if self.made is None or self.made[0] != row:
            label = np.asarray(self.label(row))
            height, width = self.sizes[row].tolist()
            if label.shape != (height, width):
                raise DataError(f"the label is of shape {list(label.shape)}, the image {[height, width]}")
            self.made = row, label
        return self.made[1]

    def picture(self, row: int) -> bytes:
        """The label in the taxonomy's colours, for people: a palette PNG."""
        picture = Image.fromarray(self.ids(row).astype(np.uint8))
        palette = np.full((256, 3), 104, np.uint8)
        palette[: len(self.taxonomy.colours)] = self.taxonomy.colours
        picture.putpalette(palette.tobytes())
        file = io.BytesIO()
        picture.save(file, "png")
        return file.getvalue()
