"""Which data sets are installed and written, and what they contain: the facts for `semiseg data list` and `stats`."""

from collections import Counter
from shlex import quote
from typing import Any

import numpy as np

from semiseg.data.errors import DataError, reading, unknown
from semiseg.data.format.names import MANIFEST, PLAN, is_folder_name
from semiseg.data.read.shard_set import ShardSet, read_manifest
from semiseg.data.registry import broken, installed
from semiseg.data.remedies import has_parts
from semiseg.data.storage.storage import Storage
from semiseg.data.taxonomy import Taxonomy


def datasets(shards: str) -> dict[str, Any]:
    """Every installed data set and every one with shards under `shards`: what `data list --json` prints."""
    adapters = installed()
    names = sorted({*adapters, *(name for name in folders(shards) if splits(f"{shards}/{name}"))})
    return {"datasets": [_dataset(name, adapters.get(name), shards) for name in names], "broken": broken()}


def find_sets(target: str, split: str | None, shards: str) -> list[str]:
    """The URLs of the sets that a command means: one set, those in a folder, or those of data set NAME under `shards`."""
    base = target.rstrip("/") or target
    if "/" not in base and not base.startswith("."):  # a name: under `shards`, or else in the current folder
        under = f"{shards.rstrip('/')}/{base}"
        if splits(under) or shards.rstrip("/") != "shards" or not (_is_set(base) or splits(base)):
            base = under
    if _is_set(base):
        return [base]
    found = splits(base)
    name = base.rsplit("/", 1)[-1]
    command = f"semiseg data shard {quote(name)} --to {quote(base.removesuffix(name).rstrip('/') or '.')}"
    if split is not None:
        if found and split not in found:
            what = unknown("split", split, found).replace("unknown", "no shards of").replace("known", "written")
            raise DataError(f"{base}: {what}; write others with: {command} --split <split>")
        return [f"{base}/{split}"]  # if it is missing, opening it reports that, with the remedy
    if not found:
        known = sorted({*installed(), *folders(shards)})
        hint = "" if name in known else f" ({unknown('data set', name, known)})"
        raise DataError(f"no shards at {base}{hint}; write them with: {command}")
    return [f"{base}/{name}" for name in found]


def _is_set(url: str) -> bool:
    storage = Storage(url)
    with reading(url, "give the folder of a data set or of one split, with permission to read it"):
        return storage.exists(MANIFEST) or storage.exists(PLAN) or has_parts(storage)


def folders(url: str) -> list[str]:
    """Names in a folder; none if it does not exist. A server's listing may hold links to anywhere."""
    try:
        storage = Storage(url)
        return [name for name in storage.names() if storage.folder is not None or is_folder_name(name)]
    except OSError:
        return []


def splits(url: str) -> list[str]:
    """Names of the shard sets in a data set's folder, unfinished ones too."""
    return [name for name in folders(url) if _is_set(f"{url}/{name}")]


def choose_taxonomy(stored: ShardSet, name: str | None) -> Taxonomy | None:
    """The taxonomy of that name, or the first one that reads the set, from the set or installed; None without labels."""
    if not stored.labeled:
        return None
    if name is not None:
        taxonomy = stored.taxonomy(name)
        stored.check(taxonomy)
        return taxonomy
    if stored.taxonomies:
        return stored.taxonomies[0]
    manifest = stored.manifest
    own = installed().get(manifest.dataset)
    for taxonomy in (*(own.taxonomies if own else ()), *Taxonomy.all().values()):
        if taxonomy.raw_space == manifest.raw_space:
            return taxonomy
    raise DataError(
        f"{stored.url}: no installed taxonomy reads raw space '{manifest.raw_space}'; "
        f"install the data set's package (pip install semiseg-{manifest.dataset}), or choose one with --taxonomy"
    )


def statistics(stored: ShardSet, taxonomy: Taxonomy | None) -> dict[str, Any]:
    """Sizes, tags, flags and class shares of one set. Shares are of all pixels: those of classes and void sum to one.

    "size" has the smallest, median and largest image by area, "tags" the number of samples per tag, largest first.
    """
    sizes = stored.sizes()
    areas = sizes.prod(axis=1)
    total, order = int(areas.sum()), np.argsort(areas, kind="stable")
    tags = Counter(tag for tags in stored.tags() for tag in tags)
    flags = Counter(flag for flags in stored.flags() for flag in flags)
    facts: dict[str, Any] = {
        "url": stored.url,
        "dataset": stored.manifest.dataset,
        "split": stored.manifest.split,
        "version": stored.manifest.version,
        "samples": len(stored),
        "labeled": stored.labeled,
        "shards": len(stored.shard_sizes),
        "bytes": stored.manifest.bytes,
        "digest": stored.digest,
        "sizes": {f"{w}x{h}": n for (h, w), n in sorted(Counter(map(tuple, sizes.tolist())).items())},
        "size": {
            name: "{1}x{0}".format(*sizes[order[place]])
            for name, place in (("min", 0), ("median", (len(order) - 1) // 2), ("max", -1))
        },
        "tags": dict(sorted(tags.items(), key=lambda item: (-item[1], item[0]))),
        "flags": dict(sorted(flags.items())),
        "pixels": total,
    }
    if taxonomy is not None:
        pixels = stored.class_pixels(taxonomy)
        sums, images = pixels.sum(axis=0), np.count_nonzero(pixels, axis=0)
        facts |= {
            "taxonomy": taxonomy.name,
            "void": 1 - int(sums.sum()) / total,
            "classes": [
                {"id": i, "name": name, "pixels": int(sums[i]), "share": int(sums[i]) / total, "images": int(images[i])}
                for i, name in enumerate(taxonomy.names)
            ],
        }
    return facts


def _dataset(name: str, adapter: Any, shards: str) -> dict[str, Any]:
    written = {split: _written(f"{shards}/{name}/{split}") for split in splits(f"{shards}/{name}")}
    # Shards carry their classes, for data sets without an installed package.
    carried = [taxonomy for facts in written.values() for taxonomy in facts.pop("taxonomies", ())]
    taxonomies = {taxonomy.name: taxonomy for taxonomy in (adapter.taxonomies if adapter else carried)}
    return {
        "name": name,
        "installed": adapter is not None,
        "summary": adapter.summary if adapter else None,
        "home": adapter.home if adapter else None,
        "raw_spaces": sorted({taxonomy.raw_space for taxonomy in taxonomies.values()}),
        "taxonomies": {taxonomy.name: len(taxonomy.names) for taxonomy in taxonomies.values()},
        "shards": written,
    }


def _written(url: str) -> dict[str, Any]:
    try:
        manifest = read_manifest(Storage(url))
    except DataError as error:
        return {"url": url, "problem": str(error)}
    facts = {"url": url, "samples": manifest.samples, "bytes": manifest.bytes, "digest": manifest.digest}
    return facts | {"taxonomies": manifest.taxonomies}
