"""Commit a set whose parts were written by many machines: all shards there, all of one configuration, one manifest.

Looks at plans, indexes and the sizes of tars, not into the tars: who wrote them took their sha256, and `verify` reads
every byte. The manifest is the one that a single writer would have written.
"""

import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from semiseg.data.errors import DataError
from semiseg.data.format.index import Index
from semiseg.data.format.manifest import Manifest, ShardEntry, canonical, sha256
from semiseg.data.format.names import MANIFEST, part_of
from semiseg.data.remedies import absent, shard_command
from semiseg.data.storage.atomic import atomic
from semiseg.data.storage.lock import held
from semiseg.data.storage.storage import Storage
from semiseg.data.storage.target import place
from semiseg.data.taxonomy import ranges
from semiseg.data.write.layout import part_numbers
from semiseg.data.write.leftovers import clear, differences, leftovers, plans
from semiseg.data.write.shard import entry_of

_AT_ONCE = 16  # indexes that are read at a time: on an object store each costs a round trip


def merge(url: str | os.PathLike[str]) -> Manifest:
    """Commit the set at `url`, <to>/<dataset>/<split>, whose parts `shard_part` has written; a second time, nothing happens.

    Several merges at a time end in the same bytes. Raises DataError that names every part that is missing, or not finished,
    or of another configuration, with the command that mends it.
    """
    folder = place(url)
    if not folder.exists():
        raise DataError(absent(Storage(url)))
    with held(folder, told="it is being written", wait=True):
        if (folder / MANIFEST).exists():
            manifest = Manifest.from_json((folder / MANIFEST).read_text(errors="replace"), str(folder / MANIFEST))
        elif planned := plans(folder):
            manifest = _manifest(folder, planned)
            with atomic(folder / MANIFEST) as file:
                file.write(manifest.to_json().encode())
        else:
            raise DataError(absent(Storage(url)))
        if leftovers(folder):
            clear(folder)
    return manifest


def _manifest(folder: Path, planned: Mapping[str, dict[str, Any]]) -> Manifest:
    """What a single writer would have said of the shards that are there; DataError unless they are all and alike."""
    plan = _agreed(folder, planned)
    shards = plan["shards"]
    described = {name: value for name, value in plan.items() if name != "taxonomies"}
    look = partial(_look, folder, sha256(canonical(described)))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        looked = list(pool.map(look, shards))
    faults = {number: each for number, each in enumerate(looked) if isinstance(each, str)}
    if faults:
        raise DataError(_say(folder, plan, planned, faults))
    return Manifest.of(plan, (each for each in looked if isinstance(each, ShardEntry)))


def _agreed(folder: Path, planned: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The plan of all parts; DataError that names those which differ from most, and in what."""
    texts = {name: canonical(plan) for name, plan in planned.items()}
    common, _ = Counter(texts.values()).most_common(1)[0]
    first = next(name for name, text in texts.items() if text == common)
    lines = []
    for name, text in texts.items():
        if text != common:
            told = "; ".join(differences(planned[name], planned[first])).replace(" now", f" in {_called(first)}")
            lines.append(f"  {_called(name)}: {told}")
    if lines:
        raise DataError(
            f"{folder}: parts of different configurations:\n" + "\n".join(lines) + "\n"
            "delete the shards and plans of those parts and write them again with the options and the files of the others"
        )
    return planned[first]


def _look(folder: Path, configuration: str, shard: Mapping[str, Any]) -> ShardEntry | str:
    """The entry of a shard, or what is wrong with it."""
    name = shard["name"]
    tar, path = folder / f"{name}.tar", folder / f"{name}.index.parquet"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return "missing"  # a tar without an index is one that was being written
    try:
        index = Index(data)
        entry = entry_of(name, index.facts, data)
        written_for = index.facts["configuration"]
    except (KeyError, ValueError):  # pyarrow's errors are among them
        return "with a damaged index"
    if written_for != configuration or entry.samples != shard["samples"]:
        return "of another configuration"
    try:
        size = tar.stat().st_size
    except FileNotFoundError:
        return "missing"
    return entry if size == entry.bytes else "cut off or damaged"


def _say(folder: Path, plan: Mapping[str, Any], planned: Mapping[str, Any], faults: Mapping[int, str]) -> str:
    """Every part that has faults, its shards, and what mends it; shards alone, where parts of several counts are mixed."""
    known = {part for name in planned if (part := part_of(name)) is not None}
    counts = {count for _, count in known}
    total = len(plan["shards"])
    command = shard_command(str(folder), plan)
    lines = [f"  {_named(faults)}: {command}"]
    if len(counts) == 1 and len(known) == len(planned):
        (count,) = counts
        lines = []
        for part in ((number, count) for number in range(1, count + 1)):
            broken = {number: faults[number] for number in part_numbers(total, part) if number in faults}
            begun = "" if part in known else " (it was never begun, or has failed)"
            if broken:
                lines.append(f"  part {part[0]}/{count}{begun}: {_named(broken)}: {command} --part {part[0]}/{count}")
    whole = f"{total - len(faults)} of {total} shards are whole, nothing is committed"
    return f"{folder}: {whole} (ROOT and options, where the other parts had them, are to be added)\n" + "\n".join(lines)


def _named(faults: Mapping[int, str]) -> str:
    """Shards with what is wrong with them: "shards 2..4 missing, shard 7 cut off or damaged"."""
    found = {what: [number for number in faults if faults[number] == what] for what in dict.fromkeys(faults.values())}
    return ", ".join(
        f"shard{'s' * (len(numbers) > 1)} {ranges(dict.fromkeys(numbers, ''))} {what}"
        for what, numbers in found.items()
    )


def _called(name: str) -> str:
    part = part_of(name)
    return f"part {part[0]}/{part[1]}" if part else "the whole set"
