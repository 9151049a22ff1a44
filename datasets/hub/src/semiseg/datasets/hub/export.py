"""A shard set as a Hugging Face data set."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from semiseg.data import TAGS, DataError, ShardSet, parse_json
from semiseg.datasets.hub.upright import as_stored

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


@overload
def to_hf(
    shards: ShardSet | str | os.PathLike[str], *, streaming: Literal[False] = False, cache_dir: str | None = None
) -> "Dataset": ...
@overload
def to_hf(
    shards: ShardSet | str | os.PathLike[str], *, streaming: Literal[True], cache_dir: str | None = None
) -> "IterableDataset": ...
def to_hf(
    shards: ShardSet | str | os.PathLike[str], *, streaming: bool = False, cache_dir: str | None = None
) -> "Dataset | IterableDataset":
    """A written split as a `datasets.Dataset` with the columns image, label, key, tags, meta.

    `image` holds the publisher's file, `label` a PNG of raw ids (None in an unlabeled set), `tags` a list of text, `meta` JSON.
    The EXIF orientation of a file is set to upright, because the library would rotate it, while pairs fit as stored. The
    meaning of ids is in `dataset.info.description`, as JSON of ids and names. Samples are copied once into the cache of the
    library (`cache_dir`); with `streaming` nothing is copied, and the shards are distributed over the workers of a
    DataLoader. `Dataset.push_to_hub` and `save_to_disk` work on the result.
    """
    import datasets

    stored = shards if isinstance(shards, ShardSet) else ShardSet(shards)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.Image(),
            "key": datasets.Value("string"),
            "tags": datasets.Sequence(datasets.Value("string")),
            "meta": datasets.Value("string"),
        }
    )
    # The arguments identify the cache entry: the digest distinguishes sets written to the same place.
    arguments: dict[str, Any] = {
        "features": features,
        "gen_kwargs": {"url": stored.url, "digest": stored.digest, "shards": list(range(len(stored.shard_sizes)))},
    }
    if streaming:
        found = datasets.IterableDataset.from_generator(rows, **arguments)
    else:
        arguments |= {} if cache_dir is None else {"cache_dir": cache_dir}
        found = datasets.Dataset.from_generator(rows, **arguments)
    assert not isinstance(found, dict)
    found.info.description = _classes(stored)
    return found


def rows(url: str, digest: str, shards: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The rows of some shards of a set, with images as files; the library distributes the shards over workers."""
    stored = ShardSet(url)
    if stored.digest != digest:
        raise DataError(f"{url}: its digest is {stored.digest}, not {digest}: it was rewritten; call to_hf again")
    for shard in shards:
        start = sum(stored.shard_sizes[:shard])
        for number in range(start, start + stored.shard_sizes[shard]):
            yield _row(stored, number)


def _row(stored: ShardSet, number: int) -> dict[str, Any]:
    members = stored.raw(number)
    meta = parse_json(members.meta)
    label = members.label
    return {
        "image": {"bytes": as_stored(members.image), "path": f"{members.key}.{stored.manifest.image}"},
        "label": None if label is None else {"bytes": as_stored(label), "path": f"{members.key}.png"},
        "key": members.key,
        "tags": [tag for tag in meta["tags"].split(TAGS) if tag],
        "meta": members.meta.decode(),
    }


def _classes(stored: ShardSet) -> str:
    space = stored.raw_space
    return json.dumps(
        {"raw_space": space.name, "id2label": {str(number): name for number, name in space.names.items()}}
    )
