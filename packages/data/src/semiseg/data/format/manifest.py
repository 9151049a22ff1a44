"""The manifest of a shard set: what it contains, with checksums and a digest.

    <root>/<dataset>/<split>/manifest.json           written last: a folder without it is not a shard set
    <root>/<dataset>/<split>/000000.tar              <key>.image.<jpg|png>  <key>.label.png  <key>.meta.json
    <root>/<dataset>/<split>/000000.index.parquet    one row per sample: where its members are, and statistics of its label

The digest identifies the contents and the settings; every random order is derived from it. Two sets with the same digest
have the same samples with the same pixels in the same shards; time, tools, locations and PNG compression do not matter.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from semiseg.data.errors import DataError, visible
from semiseg.data.format.json_text import parse_json
from semiseg.data.format.names import MANIFEST, check_count, check_folder_name, check_text, shard_name
from semiseg.data.taxonomy import RawSpace, Taxonomy

FORMAT = 1
_FIELDS = 15  # of a manifest without its sha256
# The last field: the sha256 of the text before it. The digest leaves out what no order depends on, such as class names.
_SEAL = re.compile(r',\n "sha256": "([0-9a-f]{64})"\n}\n\Z')


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One tar and its index: sizes in bytes, sha256 of the files, and a hash of the contents, which the digest uses."""

    name: str
    samples: int
    bytes: int
    sha256: str
    index_bytes: int
    index_sha256: str
    content: str

    def __post_init__(self) -> None:
        # They become file names, here and in the cache: none may lead to another folder.
        if not (isinstance(self.name, str) and re.fullmatch("[0-9]{6,18}", self.name)):
            raise ValueError(f"shard {ascii(self.name)[:80]} has a name that no writer gives")
        for field in ("sha256", "index_sha256", "content"):
            if not (isinstance(value := getattr(self, field), str) and re.fullmatch("[0-9a-f]{64}", value)):
                raise ValueError(f"shard {self.name}: {field} is {ascii(value)[:80]}, that no writer gives")
        for field in ("samples", "bytes", "index_bytes"):
            check_count(f"shard {self.name}: {field}", getattr(self, field), least=1)

    @property
    def tar(self) -> str:
        return f"{self.name}.tar"

    @property
    def index(self) -> str:
        return f"{self.name}.index.parquet"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A written split: what it is, what its labels mean, and every shard with its checksums.

    version     the adapter's version of the publisher's files
    image       kind of every image: "jpg" or "png"
    settings    the writer's settings: {"size": bytes per shard}, and "resize" and "format" if images are converted
    listing     hash of keys, sizes, tags, meta and stamps as the adapter listed them; changes with the source
    taxonomies  those of the adapter that read these labels, for use without the data set's package; names and colours of
                classes are not contents, so the digest leaves them out
    """

    dataset: str
    version: str
    split: str
    raw_space: str
    raw_ids: Mapping[int, str]
    labeled: bool
    image: str
    settings: Mapping[str, int | str]
    listing: str
    shards: tuple[ShardEntry, ...]
    taxonomies: tuple[Taxonomy, ...] = ()

    @property
    def samples(self) -> int:
        return sum(entry.samples for entry in self.shards)

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.shards)

    @property
    def members(self) -> tuple[str, ...]:
        """The members of every sample, in their order in the tar."""
        return members(self.image, self.labeled)

    @property
    def space(self) -> RawSpace:
        return RawSpace(name=self.raw_space, names=self.raw_ids)

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of contents and settings: part of the key of every order of this set."""
        return sha256(
            canonical(
                {
                    "dataset": self.dataset,
                    "version": self.version,
                    "split": self.split,
                    "raw_space": {"name": self.raw_space, "ids": sorted(self.raw_ids)},
                    "members": self.members,
                    "settings": dict(self.settings),
                    "shards": [{"samples": entry.samples, "content": entry.content} for entry in self.shards],
                }
            )
        )

    def to_json(self) -> str:
        """The text of manifest.json."""
        fields = {
            "format": FORMAT,
            "dataset": self.dataset,
            "version": self.version,
            "split": self.split,
            "raw_space": self.raw_space,
            "raw_ids": {str(number): name for number, name in sorted(self.raw_ids.items())},
            "taxonomies": [taxonomy.fields() for taxonomy in self.taxonomies],
            "labeled": self.labeled,
            "image": self.image,
            "samples": self.samples,
            "bytes": self.bytes,
            "settings": dict(self.settings),
            "listing": self.listing,
            "shards": [asdict(entry) for entry in self.shards],
            "digest": self.digest,
        }
        text = json.dumps(fields, indent=1).removesuffix("\n}")
        return f'{text},\n "sha256": "{sha256(text.encode())}"\n}}\n'

    @classmethod
    def of(cls, fields: Mapping[str, Any], shards: Iterable[ShardEntry]) -> "Manifest":
        """From the fields of plan.json or manifest.json, with the shards."""
        names = {_id(number): check_text(f"raw_ids.{number}", name) for number, name in fields["raw_ids"].items()}
        space = RawSpace(name=check_text("raw_space", fields["raw_space"]), names=names)
        labeled, image, settings = (fields[name] for name in ("labeled", "image", "settings"))
        if not isinstance(labeled, bool) or image not in ("jpg", "png"):
            raise ValueError(
                f"labeled is {ascii(labeled)[:80]}, image {ascii(image)[:80]}; expected true or false, jpg or png"
            )
        for name, value in settings.items():
            if type(value) not in (int, str):
                raise ValueError(f"settings.{ascii(name)[1:-1][:80]} is {ascii(value)[:80]}; expected a number or text")
        return cls(
            dataset=check_folder_name("dataset", fields["dataset"]),
            version=check_text("version", fields["version"], most=1_000_000),
            split=check_folder_name("split", fields["split"]),
            raw_space=space.name,
            raw_ids=space.names,
            labeled=labeled,
            image=image,
            settings=settings,
            listing=check_text("listing", fields["listing"]),
            shards=_in_order(shards),
            taxonomies=tuple(Taxonomy.from_fields(taxonomy, space) for taxonomy in fields.get("taxonomies", ())),
        )

    @classmethod
    def from_json(cls, text: str, where: str = MANIFEST) -> "Manifest":
        """Read manifest.json; DataError if it is damaged, of another format, or edited (its digest shows that)."""
        remedy = "copy it again from its source, or delete the folder and write the shards again"
        try:
            fields = parse_json(text)
            found = fields["format"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{where}: not a manifest ({type(error).__name__}: {visible(str(error))}); {remedy}"
            ) from error
        if type(found) is not int or found != FORMAT:
            raise DataError(
                f"{where}: format {ascii(found)[:80]}, this semiseg-data reads format {FORMAT}; "
                "install the version of semiseg-data that wrote it, or write the shards again"
            )
        try:
            manifest = cls.of(fields, (ShardEntry(**entry) for entry in fields["shards"]))
            found = {name: getattr(manifest, name) for name in ("samples", "bytes", "digest")}
            wrong = next((name for name, value in found.items() if fields[name] != value), None)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, DataError) as error:
            raise DataError(
                f"{where}: damaged manifest ({type(error).__name__}: {visible(str(error))}); {remedy}"
            ) from error
        seal = _SEAL.search(text)
        if wrong is not None:
            what = f"it says {wrong} {fields[wrong]}, its contents give {found[wrong]}"
        elif seal is not None and sha256(text[: seal.start()].encode()) != seal[1]:
            what = f"its sha256 {seal[1]} does not match its text"
        elif seal is None and len(fields) > _FIELDS:
            what = "its sha256 is damaged"
        else:
            return manifest  # manifests of earlier versions have no sha256
        raise DataError(f"{where}: {what}: it was edited or damaged; {remedy}")


def _id(text: str) -> int:
    """The raw id that is a name in JSON; `int` would also accept "+1", "1_0" and digits of other scripts."""
    if not re.fullmatch("0|[1-9][0-9]{0,5}", text):
        raise ValueError(f"raw id {ascii(text)[:80]} is not a number 0..65535")
    return int(text)


def _in_order(shards: Iterable[ShardEntry]) -> tuple[ShardEntry, ...]:
    """The shards; ValueError unless they are numbered from 0: none twice, none missing, none swapped."""
    found = tuple(shards)
    for number, entry in enumerate(found):
        if entry.name != shard_name(number):
            raise ValueError(f"shard {entry.name} is in place {number}, where {shard_name(number)} belongs")
    return found


def members(image: str, labeled: bool) -> tuple[str, ...]:
    """Extensions of a sample's members, in their order in the tar."""
    return (f"image.{image}", "label.png", "meta.json") if labeled else (f"image.{image}", "meta.json")


def shard_content(contents: list[str]) -> str:
    """The content hash of a shard, from those of its samples in order."""
    return sha256("\n".join(contents).encode())


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, ASCII. ValueError for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
