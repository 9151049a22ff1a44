"""Overlays: labels made later for the images of a written split, as a shard set beside it; the split never changes.

    <root>/<dataset>/<split>@<name>/    label.png has class ids, image.png shows them in colours

An overlay is written like any shard set, so it is atomic, resumes after a kill, and can be verified. Its version contains
the digest of the split and the settings of the labels. It may cover part of the split; rows are joined by their keys. Its
raw space is the classes of one taxonomy, with 255 for "no label": the split's raw ids would not do, since some raw spaces
have no void, and several ids may be one class.
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
from semiseg.data.format.json_text import parse_json
from semiseg.data.format.manifest import Manifest, canonical
from semiseg.data.format.names import MANIFEST, PLAN, check_text, shard_name
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

    label: number of a sample in `base` -> class ids of the taxonomy, uint8 [h, w] in its image's size, 255 = no label;
    called once for each sample that is not written yet, in order, in this process (and always once for the first one).
    settings: everything that the labels depend on; a call with other settings is refused. rows: the samples to cover, None
    for all. size: approximate size of a shard; a kill loses at most the current shard (1 MB: about 100 VOC labels).
    to: the folder of all shards, None for that of the base. Raises DataError as `semiseg.data.shard` does, and for a label
    that does not fit its image.
    """
    if not _NAME.fullmatch(name):
        raise DataError(f"an overlay's name '{name}' may contain letters, digits, '_' and '-' only")
    place = f"{base.manifest.dataset}/{base.manifest.split}"
    if to is None:
        if not f"/{base.url.rstrip('/')}".endswith(f"/{place}"):
            raise DataError(f"{base.url}: is not at <shards>/{place}; give the folder for the overlay: to=...")
        to = base.url.rstrip("/").removesuffix(place).rstrip("/") or ("/" if base.url.startswith("/") else ".")
    adapter = _Labels(base, name, taxonomy, label, settings, range(len(base)) if rows is None else rows)
    _check_settings(f"{str(to).rstrip('/')}/{adapter.name}/{adapter.split}", json.loads(adapter.version))
    return shard(cast(Adapter, adapter), adapter.split, to, size=size, progress=progress)


class OverlaySet(ShardSet):
    """The covered images of a split with the labels of an overlay; read like any `ShardSet`, hence a subclass.

    url: `<split>@<name>`; base: the split's URL if it is not the same without `@<name>`. Numbers, keys, sizes, class
    statistics and the digest are the overlay's; images, tags and meta come from the split. Raises DataError if either is
    missing, or if the split was rewritten since: a row could then have the label of another image.
    """

    def __init__(self, url: str | PathLike[str], base: str | PathLike[str] | None = None) -> None:
        stem, at, name = str(url).rstrip("/").rpartition("@")
        if not Storage(url).exists(MANIFEST) and at:
            raise DataError(
                f"no overlay '{name}' at {url} (it has no {MANIFEST}); `semiseg weak labels` writes overlays, and "
                "resumes interrupted ones"
            )
        super().__init__(url)
        made_on = overlay_facts(self.manifest)["base"]
        self.base = ShardSet(base or stem)
        if self.base.digest != made_on:
            raise DataError(
                f"{url}: its labels were made for shards of digest {made_on[:12]}, {self.base.url} has digest "
                f"{self.base.digest[:12]}: they were rewritten since, and rows no longer match; delete the overlay and "
                "write it again"
            )
        self._rows: list[int] = []

    def raw(self, number: int) -> Members:
        """Image and meta from the split, the label from the overlay."""
        labels = super().raw(number)
        below = self.base.raw(self.row(number))
        return Members(labels.key, below.image, labels.label, below.meta)

    def row(self, number: int) -> int:
        """The number that a sample of the overlay has in the split."""
        return self.rows()[number]

    def rows(self) -> list[int]:
        """The numbers that the overlay's samples have in the split. Reads every index of both."""
        if not self._rows:
            places = {key: row for row, key in enumerate(self.base.keys())}
            keys = self.keys()
            if strange := next((key for key in keys if key not in places), None):
                raise DataError(
                    f"{self.url}: sample '{strange}' is not in {self.base.url}: the overlay was made for other images; "
                    "delete it and write it again"
                )
            self._rows = [places[key] for key in keys]
        return self._rows

    def image_checksums(self) -> np.ndarray:
        """Those of the split's images."""
        return self.base.image_checksums()[self.rows()]

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
            f"list all damage with `semiseg data verify {shlex.quote(self.url)}`, then delete the file and rerun the command "
            "that wrote the overlay"
        )


def overlay_facts(manifest: Manifest) -> dict[str, Any]:
    """An overlay's "base" (the digest of its split), "taxonomy" and "settings". DataError for any other set."""
    try:
        facts = parse_json(manifest.version)
        if facts.keys() == {"base", "taxonomy", "settings"}:
            check_text("base", facts["base"])
            check_text("taxonomy", facts["taxonomy"])
            if isinstance(facts["settings"], dict):
                return facts
    except (ValueError, AttributeError):
        pass
    shown = manifest.version if len(manifest.version) <= 80 else f"{manifest.version[:77]}..."
    raise DataError(f"{manifest.dataset}/{manifest.split} is not an overlay: its version is '{shown}'")


def class_space(taxonomy: Taxonomy) -> Taxonomy:
    """The taxonomy with class ids as raw ids: same name, classes and colours, 255 = no label."""
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
    """DataError if an overlay with other settings, finished or not, is at `url`."""
    storage = Storage(url)
    file = MANIFEST if storage.exists(MANIFEST) else PLAN if storage.exists(f"{shard_name(0)}.tar") else None
    if file is None or not storage.exists(file):
        return
    try:
        facts = parse_json(parse_json(storage.read(file))["version"])
        found = {"base": facts["base"], "taxonomy": facts["taxonomy"], **facts["settings"]}
    except (ValueError, KeyError, TypeError):
        return  # damaged, or not an overlay: the writer reports that
    wanted = {"base": now["base"], "taxonomy": now["taxonomy"], **now["settings"]}
    names = [name for name in wanted | found if found.get(name) != wanted.get(name)]
    if names:
        lines = "\n".join(f"  {name}: {found.get(name)} there, {wanted.get(name)} now" for name in names)
        raise DataError(
            f"{url} has labels with other settings:\n{lines}\ngive this overlay another name, or delete that one first"
        )


class _Labels:
    """Labels in the form of a publisher's files (`Adapter`), for the writer of shards."""

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
                size=2000 + height * width // 20,  # both members; labels of VOC are smaller
                tags=tags[row],
            )

    def ids(self, row: int) -> np.ndarray:
        """Class ids of a row, computed once for both members, which are read one after the other."""
        if self.made is None or self.made[0] != row:
            label = np.asarray(self.label(row))
            height, width = self.sizes[row].tolist()
            if label.shape != (height, width):
                raise DataError(f"the label has shape {list(label.shape)}, the image {[height, width]}")
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
