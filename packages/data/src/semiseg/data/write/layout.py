"""Decide which sample goes into which shard, and check the samples, before anything is written.

A layout is a function of the adapter's listing and the size of shards. While shards are written, it is kept beside them as
plan.json, so that a second call either resumes the same work or refuses.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from semiseg.data.errors import DataError, unknown
from semiseg.data.format.manifest import FORMAT, canonical, sha256
from semiseg.data.format.names import shard_name
from semiseg.data.image.convert import Conversion, parse_resize
from semiseg.data.image.decode import TAGS, check_kind, image_kind
from semiseg.data.image.reading import AS_IT_IS, Converter
from semiseg.data.parallel import share
from semiseg.data.sizes import parse_size
from semiseg.data.source.adapter import Adapter, RawSample
from semiseg.data.taxonomy import Taxonomy
from semiseg.data.write.encode import Contents, describe, fetch

LONGEST_KEY = 200  # characters; with its extension below 255, the longest file name
_SPLIT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.@-]*")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A split divided into shards: everything that determines the bytes of a shard set."""

    version: str
    contents: Contents
    size: int
    listing: str
    shards: tuple[tuple[RawSample, ...], ...]
    taxonomies: tuple[Taxonomy, ...] = ()  # how its labels are read; affects no byte

    @property
    def samples(self) -> int:
        return sum(len(shard) for shard in self.shards)

    @property
    def settings(self) -> dict[str, int | str]:
        """The writer's settings, as in a manifest."""
        return {"size": self.size, **self.contents.conversion.settings()}

    def packed(self, ratio: float = 1.0) -> float:
        """Approximate bytes of the set on disk, if members take `ratio` times the adapter's estimate."""
        members = sum(sample.size for shard in self.shards for sample in shard)
        return ratio * members + 2 * 1024 * self.samples + 16 * 1024 * len(self.shards)  # headers, padding; indexes

    def folder(self, to: Path) -> Path:
        """The set's folder below the folder of all shards."""
        return to / self.contents.dataset / self.contents.split

    @property
    def configuration(self) -> str:
        """Identifies what a shard was written from; kept in its index, so that shards of other layouts are not mistaken."""
        return sha256(canonical(self.describe()))

    @property
    def plan_json(self) -> bytes:
        """The contents of plan.json: everything that a manifest needs except the shards' checksums."""
        fields = self.describe() | {"taxonomies": [taxonomy.fields() for taxonomy in self.taxonomies]}
        return canonical(fields | {"sha256": sha256(canonical(fields))}) + b"\n"

    def describe(self) -> dict[str, Any]:
        """Everything that determines the bytes; a call may resume an earlier one exactly if theirs are equal."""
        contents = self.contents
        return {
            "format": FORMAT,
            "dataset": contents.dataset,
            "version": self.version,
            "split": contents.split,
            "raw_space": contents.raw_space,
            "raw_ids": {str(number): name for number, name in sorted(contents.raw_ids.items())},
            "labeled": contents.labeled,
            "image": contents.image,
            "settings": self.settings,
            "samples": self.samples,
            "listing": self.listing,
            "shards": [{"name": shard_name(n), "samples": len(shard)} for n, shard in enumerate(self.shards)],
        }


def lay_out(
    adapter: Adapter,
    split: str,
    *,
    size: int | str = "256MB",
    resize: int | str | tuple[int, int] | None = None,
    format: str = "keep",
) -> Layout:
    """Divide a split into shards: greedy by `RawSample.size`, in the adapter's order; `resize` and `format` as in `shard`.

    Reads the first image, for its kind, and one more if the names suggest another kind. Raises DataError for a split that is
    unknown, missing or empty, malformed or duplicate keys, labels on only some of the samples, and meta with different names.
    """
    where = f"{adapter.name}/{split}"
    limit = parse_size(size)
    reading = adapter.reading if isinstance(adapter, Converter) else AS_IT_IS
    conversion = Conversion(resize=parse_resize(resize), format=format, reading=reading)
    known = adapter.splits()
    if split not in known:
        raise DataError(f"{adapter.name}: {unknown('split', split, known)}")
    if not _SPLIT.fullmatch(split):
        raise DataError(f"{adapter.name}: split '{split}' can't name a folder; use letters, digits, '_', '-', '.'")
    if known[split].missing is not None:
        raise DataError(f"{where}: {known[split].missing}")
    samples = list(adapter.samples(split))
    if not samples:
        raise DataError(f"{where}: the adapter lists no samples; check its root ({adapter.root})")
    _check(where, samples, labeled=known[split].labeled)
    first = samples[0]
    contents = Contents(
        dataset=adapter.name,
        split=split,
        labeled=known[split].labeled,
        image=conversion.kind or _only_kind(where, samples),
        conversion=conversion,
        first=describe(first),
        raw_space=adapter.raw_space.name,
        raw_ids=dict(adapter.raw_space.names),
    )
    return Layout(
        version=adapter.version,
        contents=contents,
        size=limit,
        listing=_listing(samples),
        shards=tuple(_greedy(samples, limit)),
        taxonomies=tuple(taxonomy for taxonomy in adapter.taxonomies if taxonomy.raw == adapter.raw_space),
    )


def part_numbers(shards: int, part: tuple[int, int]) -> range:
    """The shards of part (i, n), 1 <= i <= n: contiguous, since archives are read forward; sizes differ by at most one."""
    number, count = part
    return share(0, shards, number - 1, count)


def _listing(samples: list[RawSample]) -> str:
    """A hash of everything that an adapter lists; it changes with the source."""
    rows = [
        [
            sample.key,
            sample.size,
            list(sample.tags),
            dict(sample.meta),
            *([sample.stamp] if sample.stamp is not None else []),
        ]
        for sample in samples
    ]
    return sha256(canonical(rows))


def _greedy(samples: Iterable[RawSample], limit: int) -> Iterator[tuple[RawSample, ...]]:
    """Consecutive samples while they fit; a sample larger than the limit gets a separate shard."""
    shard: list[RawSample] = []
    total = 0
    for sample in samples:
        if shard and total + sample.size > limit:
            yield tuple(shard)
            shard, total = [], 0
        shard.append(sample)
        total += sample.size
    if shard:
        yield tuple(shard)


def _only_kind(where: str, samples: list[RawSample]) -> str:
    """The kind of all images, as far as the first one and the names of the publisher's files show."""

    def kind(sample: RawSample) -> str:
        place = f"{where}: {describe(sample)}"
        return image_kind(place, fetch(place, "image", sample.image))

    first = kind(samples[0])
    others = {".jpg", ".jpeg"} if first == "png" else {".png"}
    for sample in samples:
        if PurePosixPath(str(sample.meta.get("source"))).suffix.lower() in others:
            check_kind(f"{where}: {describe(sample)}", kind(sample), describe(samples[0]), first)
            break  # the name is wrong; the writer checks every file anyway
    return first


def _check(where: str, samples: list[RawSample], *, labeled: bool) -> None:
    """Check everything that can be checked without reading a sample."""
    wrong = [sample for sample in samples if (sample.label is not None) != labeled]
    if wrong:
        have, kind = ("no label", "a labeled") if labeled else ("a label", "an unlabeled")
        raise DataError(
            f"{where}: {len(wrong)} of {len(samples)} samples have {have} in {kind} split, "
            f"first {describe(wrong[0])}; "
            "put unlabeled images into a separate split (plain readers lose samples whose members differ)"
        )
    seen: dict[str, RawSample] = {}
    shape = _shape(samples[0])
    for sample in samples:
        if sample.key in seen:
            raise DataError(
                f"{where}: two samples have the key '{sample.key}': "
                f"{describe(seen[sample.key])} and {describe(sample)}; "
                "make the adapter give them different keys, which must be unique within a split"
            )
        seen[sample.key] = sample
        _check_key(where, sample)
        if (other := _shape(sample)) != shape:
            raise DataError(
                f"{where}: {describe(sample)} has the meta {_say(other)}, {describe(samples[0])} has {_say(shape)}; "
                "plain readers lose samples that differ: give all samples the same names and types, empty if unknown"
            )


def _check_key(where: str, sample: RawSample) -> None:
    if sample.key.startswith("__"):
        raise DataError(
            f"{where}: {describe(sample)}: plain readers skip keys that start with '__'; choose another key"
        )
    if len(sample.key) > LONGEST_KEY:
        raise DataError(
            f"{where}: {describe(sample)}: a key of {len(sample.key)} characters is too long for unpacking the tars on "
            f"some file systems; use at most {LONGEST_KEY}"
        )
    reserved = {"key", "tags"} & set(sample.meta)
    if reserved:
        raise DataError(
            f"{where}: {describe(sample)}: its meta has the name '{min(reserved)}', which the writer adds; rename it"
        )
    broken = [tag for tag in sample.tags if not tag or TAGS in tag]
    if broken:
        raise DataError(f"{where}: {describe(sample)}: tag {broken[0]!r} is empty or contains a '{TAGS}'; rename it")
    try:
        canonical(dict(sample.meta))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {describe(sample)}: its meta is not JSON ({error}); correct the adapter") from error


def _shape(sample: RawSample) -> dict[str, str]:
    """Names and JSON types of a sample's meta."""
    kinds = {
        bool: "true/false",
        int: "integer",
        float: "number",
        str: "text",
        type(None): "null",
        list: "list",
        tuple: "list",
    }
    return {name: kinds.get(type(value), "object") for name, value in sorted(sample.meta.items())}


def _say(shape: dict[str, str]) -> str:
    return "{" + ", ".join(f"{name}: {kind}" for name, kind in shape.items()) + "}"
