"""Complete a set whose parts were written by many machines: check that all shards are present and of one configuration.

Reads plan files, indexes and the sizes of tars, not the tars: their writers computed the sha256, and `verify` reads every
byte. The manifest is the same as that of a single writer.
"""

import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from semiseg.data.errors import DataError, reading
from semiseg.data.format.index import Index
from semiseg.data.format.manifest import Manifest, ShardEntry, canonical, sha256, shard_content
from semiseg.data.format.names import MANIFEST, part_of
from semiseg.data.format.proof import index_fault
from semiseg.data.remedies import absent, shard_command
from semiseg.data.storage.atomic import atomic
from semiseg.data.storage.lock import held
from semiseg.data.storage.storage import Storage
from semiseg.data.storage.target import target
from semiseg.data.taxonomy import ranges
from semiseg.data.write.layout import part_numbers
from semiseg.data.write.leftovers import clear, differences, leftovers, plan_files, sealed
from semiseg.data.write.shard import entry_of

_AT_ONCE = 16  # indexes to read at a time: on an object store, each costs a round trip


def merge(url: str | os.PathLike[str]) -> Manifest:
    """Complete the set at `url`, <to>/<dataset>/<split>, whose parts `shard_part` has written; a second call does nothing.

    Several merges at a time write the same bytes. Raises DataError that names every part that is missing, not finished, or
    of another configuration, with the command that writes it.
    """
    folder = target(url)
    try:
        return _merged(folder, str(url))
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be merged ({error.strerror or error}); give the folder of one split, with permission to "
            "read and write it"
        ) from error


def _merged(folder: Path, url: str) -> Manifest:
    if not folder.exists():
        raise DataError(absent(Storage(url)))
    with held(folder, busy="it is being written", wait=True):
        if (folder / MANIFEST).exists():
            manifest = Manifest.from_json((folder / MANIFEST).read_text(errors="replace"), str(folder / MANIFEST))
        elif planned := plan_files(folder):
            manifest = _manifest(folder, planned)
            with atomic(folder / MANIFEST) as file:
                file.write(manifest.to_json().encode())
        else:
            raise DataError(absent(Storage(url)))
        if leftovers(folder):
            clear(folder)
    return manifest


def _manifest(folder: Path, planned: Mapping[str, dict[str, Any]]) -> Manifest:
    """The manifest of all shards; DataError if any is missing, damaged or of another configuration."""
    plan = _agreed(folder, planned)
    shards = plan["shards"]
    described = {name: value for name, value in plan.items() if name != "taxonomies"}
    with reading(str(folder), "delete the plan files, and write the parts again"):
        whole = Manifest.of(plan, ())
    check = partial(_check, folder, whole, sha256(canonical(described)))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        results = list(pool.map(check, shards))
    faults = {number: fault for number, fault in enumerate(results) if isinstance(fault, str)}
    if faults:
        raise DataError(_say(folder, plan, planned, faults))
    return Manifest.of(plan, (entry for entry in results if isinstance(entry, ShardEntry)))


def _agreed(folder: Path, planned: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The plan that all parts share; DataError that names those that differ from most, and in what."""
    texts = {name: canonical(plan) for name, plan in planned.items()}
    common, _ = Counter(texts.values()).most_common(1)[0]
    first = next(name for name, text in texts.items() if text == common)
    lines = []
    for name, text in texts.items():
        if text != common:
            what = "; ".join(differences(planned[name], planned[first])).replace(" now", f" in {_called(first)}")
            lines.append(f"  {_called(name)}: {what}")
    if lines:
        raise DataError(
            f"{folder}: parts of different configurations:\n" + "\n".join(lines) + "\n"
            "delete the shards and plan files of those parts, then write them again with the options and files of the others"
        )
    return planned[first]


def _check(folder: Path, plan: Manifest, configuration: str, shard: Mapping[str, Any]) -> ShardEntry | str:
    """The entry of a shard, or what is wrong with it; sets of earlier versions have no sha256 of their indexes."""
    name = shard["name"]
    tar, path = folder / f"{name}.tar", folder / f"{name}.index.parquet"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return "missing"  # a tar without an index is unfinished
    except OSError as error:
        return f"with an unreadable index ({error.strerror or error})"
    try:
        index = Index(data)
        entry = entry_of(name, index.facts, data)
        written_for = index.facts["configuration"]
        if written_for != configuration or entry.samples != shard["samples"]:
            return "of another configuration"
        if sealed(folder, name) not in (None, sha256(data)):
            return "with a damaged index"
        if index_fault(index, entry, plan) is not None or shard_content(index.contents()) != entry.content:
            return "with a damaged index"
    except Exception:  # of damaged bytes, pyarrow makes many kinds of errors
        return "with a damaged index"
    try:
        size = tar.stat().st_size
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable ({error.strerror or error})"
    return entry if size == entry.bytes else "cut off or damaged"


def _say(folder: Path, plan: Mapping[str, Any], planned: Mapping[str, Any], faults: Mapping[int, str]) -> str:
    """Every part with faults, its shards and the command that writes them; only the shards, if counts of parts are mixed."""
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
            note = "" if part in known else " (not started, or failed)"
            if broken:
                lines.append(f"  part {part[0]}/{count}{note}: {_named(broken)}: {command} --part {part[0]}/{count}")
    state = f"only {total - len(faults)} of {total} shards are complete, so nothing is merged"
    return f"{folder}: {state}; write the others (with ROOT and options, if any):\n" + "\n".join(lines)


def _named(faults: Mapping[int, str]) -> str:
    """Shards with what is wrong with them: "shards 2..4 missing, shard 7 cut off or damaged"."""
    found = {what: [number for number in faults if faults[number] == what] for what in dict.fromkeys(faults.values())}
    return ", ".join(
        f"shard{'s' * (len(numbers) > 1)} {ranges(dict.fromkeys(numbers, ''))} {what}"
        for what, numbers in found.items()
    )


def _called(name: str) -> str:
    part = part_of(name)
    return f"part {part[0]}/{part[1]}" if part else "the complete set"
