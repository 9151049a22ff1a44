"""Two writers of one set on an object store, which has no locks: one of another configuration is refused.

The first writer creates plan.json on the condition that there is none. Before the manifest is written, plan.json and the
indexes are read back: a store that ignores the condition, or a writer that was believed to be gone, is noticed then.
"""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from semiseg.data.errors import DataError
from semiseg.data.format.json_text import parse_json
from semiseg.data.format.manifest import ShardEntry, canonical, sha256
from semiseg.data.format.names import MANIFEST, PLAN
from semiseg.data.storage.target import RemotePath
from semiseg.data.write.layout import Layout
from semiseg.data.write.leftovers import check_folder, differences

_LIVE_S = 3600.0  # a plan without a shard is believed to be of a running writer for so long
_AT_ONCE = 16  # indexes to read at a time
_SOURCE = {"listing", "samples", "shards"}  # differ too if only the publisher's files have changed


def claim(folder: "Path | RemotePath", layout: Layout) -> None:
    """Write plan.json unless another writer has; DataError if that one has other settings and may be running."""
    if isinstance(folder, Path):
        return  # a lock holds the folder
    plan = folder / PLAN
    if plan.created(layout.plan_json):
        return
    try:
        data = plan.read_bytes()
        other = dict(parse_json(data))
        age = time.time() - plan.modified()
    except (FileNotFoundError, ValueError, TypeError):
        return  # it has just ended, or is damaged, which the caller reports
    if data != layout.plan_json and _settings(other, layout) and age < _LIVE_S:
        raise _another(folder, other, layout, f"wait for it to end; if it was killed, delete {plan}")


def confirm(folder: "Path | RemotePath", layout: Layout, entries: Sequence[ShardEntry]) -> None:
    """DataError if another writer has replaced what this one wrote, before a manifest says that the set is complete."""
    if isinstance(folder, Path):
        return
    try:
        data = (folder / PLAN).read_bytes()
        if data != layout.plan_json:
            raise _another(folder, dict(parse_json(data)), layout, "then write this set again")
    except FileNotFoundError:
        if (folder / MANIFEST).exists():
            check_folder(folder, layout)  # type: ignore[arg-type]  # has the methods of Path that this needs
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda entry: _unchanged(folder, entry), entries)
        changed = [entry.name for entry, same in zip(entries, found, strict=True) if not same]
    if changed:
        raise DataError(
            f"{folder}: another process has replaced {len(changed)} shards while they were written, first {changed[0]}; let "
            "only one write here, then rerun the command"
        )


def _unchanged(folder: RemotePath, entry: ShardEntry) -> bool:
    try:
        return sha256((folder / entry.index).read_bytes()) == entry.index_sha256
    except FileNotFoundError:
        return False


def _settings(plan: dict[str, Any], layout: Layout) -> set[str]:
    """Fields that differ, unless only the source's files have changed."""
    wanted = json.loads(canonical(layout.describe()))
    return {name for name in wanted if plan.get(name) != wanted[name]} - _SOURCE


def _another(folder: RemotePath, plan: dict[str, Any], layout: Layout, remedy: str) -> DataError:
    lines = "\n".join(f"  {line}" for line in differences(plan, json.loads(canonical(layout.describe()))))
    return DataError(
        f"{folder} is being written by another process, with another configuration:\n{lines}\n"
        f"write to another folder (--to), or {remedy}"
    )
