"""What an earlier run left in a set's folder: to be continued, to be written anew, or another's work to keep hands off."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from semiseg.data.errors import DataError
from semiseg.data.layout import Layout
from semiseg.data.manifest import MANIFEST, PLAN, Manifest, canonical
from semiseg.data.storage import atomic, remove_stale, stale

_SOURCE = {"listing", "samples", "shards"}  # of a plan: what follows from the publisher's files
_SHARD = re.compile(r"\d{6,}\.(tar|index\.parquet)")


def check_folder(folder: Path, layout: Layout) -> Manifest | None:
    """The manifest that is there, if any; DataError where the folder holds the work of another configuration.

    A set that is not finished may be of a source that has changed since: a file that was broken is whole now.
    """
    manifest, found = _found(folder)
    differences = _differing(found, layout)
    if differences and (manifest is not None or differences - _SOURCE):
        lines = "\n".join(f"  {line}" for line in _differences(found, _wanted(layout)))
        raise DataError(
            f"{folder} holds shards of another configuration:\n{lines}\n"
            f"write to another folder (--to), or delete {folder} first"
        )
    return manifest


def begin(folder: Path, layout: Layout) -> None:
    """Prepare the folder for writing: no leftovers, and the plan, which goes when the manifest comes."""
    remove_stale(folder)
    manifest, found = _found(folder)
    if manifest is None and _differing(found, layout):  # the source has changed: what was planned then is void
        for path in folder.iterdir():
            if _SHARD.fullmatch(path.name):
                path.unlink()
    with atomic(folder / PLAN) as file:
        file.write(canonical(layout.describe()) + b"\n")


def leftovers(folder: Path) -> bool:
    """Whether a finished set has traces of its writing."""
    return (folder / PLAN).exists() or any(stale(folder))


def clear(folder: Path) -> None:
    """Remove the traces of writing from a finished set, where the folder lets us."""
    with suppress(OSError):
        remove_stale(folder)
        (folder / PLAN).unlink(missing_ok=True)


def give_up(folder: Path, upto: Path) -> None:
    """After a failure: where no shard was finished, leave nothing, no folder either, `upto` and above excepted."""
    with suppress(OSError):
        remove_stale(folder)
        if any(folder.glob("*.tar")) or (folder / MANIFEST).exists():
            return
        (folder / PLAN).unlink(missing_ok=True)
        while folder != upto:
            folder.rmdir()  # fails where anything else lies in it
            folder = folder.parent


def _found(folder: Path) -> tuple[Manifest | None, dict[str, Any]]:
    """The manifest, and what it or else the plan says. A plan without a tar beside it promises nothing."""
    try:
        if (folder / MANIFEST).exists():
            text = (folder / MANIFEST).read_text(errors="replace")
            manifest = Manifest.from_json(text, str(folder / MANIFEST))
            return manifest, _described(manifest)
        if (folder / PLAN).exists() and any(folder.glob("*.tar")):
            return None, dict(json.loads((folder / PLAN).read_bytes()))
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be read ({error.strerror or error}); change its permissions, or name another folder (--to)"
        ) from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{folder}: its plan can't be read ({error}); delete the folder and write it again") from error
    return None, {}


def _wanted(layout: Layout) -> dict[str, Any]:
    return json.loads(canonical(layout.describe()))


def _differing(found: dict[str, Any], layout: Layout) -> set[str]:
    """Names of what differs; none where nothing is there."""
    wanted = _wanted(layout)
    return {name for name in wanted if found.get(name) != wanted[name]} if found else set()


def _described(manifest: Manifest) -> dict[str, Any]:
    """A manifest in the words of plan.json."""
    fields = json.loads(manifest.to_json())
    shards = [{"name": entry["name"], "samples": entry["samples"]} for entry in fields["shards"]]
    left_out = ("bytes", "digest", "taxonomies")
    return {name: fields[name] for name in fields if name not in left_out} | {"shards": shards}


def _differing_settings(found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    words = {"size": "size of shards", "resize": "size of images", "format": "format of images"}
    for name in words:
        old, new = found.get(name), wanted.get(name)
        if old == new:
            continue
        if name == "size":
            old, new = (f"{value or 0:,} bytes" for value in (old, new))
        yield f"{words[name]}: {old or 'kept'} there, {new or 'kept'} now"


def _differing_ids(found: dict[str, str], wanted: dict[str, str]) -> Iterator[str]:
    """Ids and names of the raw space that came, went or changed; the others would bury them."""
    for number in sorted(found.keys() | wanted.keys(), key=int):
        old, new = found.get(number), wanted.get(number)
        if old != new:
            told = ["not" if name is None else f"'{name}'" for name in (old, new)]
            yield f"id {number} of the raw space: {told[0]} there, {told[1]} now"


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    words = {
        "listing": "keys, sizes, tags and meta of the source's samples",
    }
    for name in wanted:
        old, new = found.get(name), wanted[name]
        if old == new:
            continue
        if name == "shards":
            old, new = (f"{len(value or [])} shards" for value in (old, new))
            if old == new:
                continue  # follows from another difference
        elif name == "settings":
            yield from _differing_settings(old or {}, new)
            continue
        elif name == "raw_ids":
            yield from _differing_ids(old or {}, new)
            continue
        elif name == "listing":
            old, new = (f"listing {str(value)[:12]}" for value in (old, new))
        yield f"{words.get(name, name)}: {old} there, {new} now"
