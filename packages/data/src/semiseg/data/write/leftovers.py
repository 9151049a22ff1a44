"""What an earlier run left in a set's folder: work to resume, to write again, or of another configuration to refuse."""

import json
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from semiseg.data.errors import DataError, visible
from semiseg.data.format.json_text import parse_json
from semiseg.data.format.manifest import Manifest, canonical, sha256
from semiseg.data.format.names import (
    ANY_PLAN,
    MANIFEST,
    PLAN,
    SEAL,
    SHARD_FILE,
    check_count,
    check_folder_name,
    part_of,
    part_plan,
    shard_name,
)
from semiseg.data.storage.atomic import atomic, stale
from semiseg.data.storage.lock import remove_unheld
from semiseg.data.write.layout import Layout, part_numbers

_SOURCE = {"listing", "samples", "shards"}  # fields of a plan file that depend on the publisher's files
_FIELDS = _SOURCE | {"format", "dataset", "version", "split", "raw_space", "raw_ids", "labeled", "image", "settings"}
_MOST_READ = 8  # plan files of other parts, before a part starts: each of a thousand parts must not read a thousand
_WORDS = {"listing": "keys, sizes, tags, meta and stamps of the source's samples"}


def check_folder(folder: Path, layout: Layout) -> Manifest | None:
    """The folder's manifest, if any; DataError if the folder has shards of another configuration.

    The source of an unfinished set may have changed since, for example because a broken file was replaced.
    """
    manifest, found = _found(folder)
    for plan in found.values():
        differing = _differing(plan, layout)
        if differing and (manifest is not None or differing - _SOURCE):
            raise _another(folder, plan, layout)
    return manifest


def begin(folder: Path, layout: Layout) -> None:
    """Prepare the folder for writing: remove leftovers and write plan.json, which is removed after the manifest is written."""
    remove_stale(folder)
    manifest, found = _found(folder)
    if manifest is None and any(_differing(plan, layout) for plan in found.values()):
        for path in folder.iterdir():  # the source has changed, so earlier shards are useless
            if SHARD_FILE.fullmatch(path.name) or ANY_PLAN.fullmatch(path.name):
                path.unlink()
    with atomic(folder / PLAN) as file:
        file.write(layout.plan_json)


def begin_part(folder: Path, layout: Layout, part: tuple[int, int]) -> None:
    """Write a part's plan file, unless it exists; DataError if other shards in the folder have another configuration.

    Also if only the source has changed: it is unknown whether all machines have seen the change.
    """
    for plan in _found(folder)[1].values():
        if _differing(plan, layout):
            raise _another(folder, plan, layout)
    path = folder / part_plan(part)
    if not path.exists() or path.read_bytes() != layout.plan_json:
        with atomic(path) as file:
            file.write(layout.plan_json)


def plan_files(folder: Path, most: int | None = None) -> dict[str, dict[str, Any]]:
    """The contents of plan.json and of the plan files of parts (at most `most`), by name; DataError if one can't be read."""
    found: dict[str, dict[str, Any]] = {}
    parsed: dict[bytes, dict[str, Any]] = {}  # those of parts are equal, and large if there are many shards
    for path in sorted(_plan_paths(folder), key=lambda path: (path.name != PLAN, path.name))[:most]:
        with suppress(FileNotFoundError):  # a merge has just removed it
            data = path.read_bytes()
            try:
                found[path.name] = parsed.setdefault(data, parsed.get(data) or _plan(data))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise DataError(
                    f"{path}: the plan file can't be read ({error}); delete it and write the part again"
                ) from error
    return found


def _plan(data: bytes) -> dict[str, Any]:
    """The fields of a plan file without their sha256; ValueError if it is damaged. Earlier versions wrote no sha256."""
    plan = dict(parse_json(data))
    seal = plan.pop("sha256", None)
    if missing := _FIELDS - plan.keys():
        raise ValueError(f"it has no {min(missing)}")
    if unknown := plan.keys() - _FIELDS - {"taxonomies"}:
        raise ValueError(f"it has a field '{visible(min(unknown))[:80]}', which no writer gives")
    if seal not in (None, sha256(canonical(plan))):
        raise ValueError("its sha256 does not match its contents: it was edited or damaged")
    check_folder_name("dataset", plan["dataset"])
    check_folder_name("split", plan["split"])
    for number, shard in enumerate(plan["shards"]):
        if shard["name"] != shard_name(number):
            raise ValueError(f"shard {ascii(shard['name'])[:80]} is in place {number}")
        check_count("samples", shard["samples"], least=1)
    return plan


def sealed(folder: Path, name: str) -> str | None:
    """The sha256 that the writer of a shard noted of its index, "" if the note is damaged; None if there is no note."""
    try:
        text = (folder / f"{name}{SEAL}").read_text(errors="replace")
    except FileNotFoundError:
        return None
    match = re.fullmatch(rf"([0-9a-f]{{64}})  {name}\.index\.parquet\n", text)
    return match[1] if match else ""


def seal(folder: Path, name: str, index: bytes) -> None:
    """Note the sha256 of an index, in the form of `sha256sum`, before it is written; `clear` removes the note."""
    with atomic(folder / f"{name}{SEAL}") as file:
        file.write(f"{sha256(index)}  {name}.index.parquet\n".encode())


def leftovers(folder: Path) -> bool:
    """Whether a finished set still has plan files, notes of indexes, or temp files."""
    return bool(_plan_paths(folder)) or any(folder.glob(f"*{SEAL}")) or any(stale(folder))


def clear(folder: Path) -> None:
    """Remove plan files, notes of indexes and temp files from a finished set, if permissions allow."""
    with suppress(OSError):
        remove_stale(folder)
        for path in (*folder.glob(f"*{SEAL}"), *_plan_paths(folder)):
            path.unlink(missing_ok=True)


def remove_stale(folder: Path, shards: Collection[str] | None = None) -> None:
    """Remove temp files of killed writers, for all shards or some; running writers hold theirs."""
    for path in stale(folder):
        if shards is None or path.name.split(".")[1] in shards:
            remove_unheld(path)


def give_up(folder: Path, upto: Path) -> None:
    """After a failure: if no shard was finished, remove the folder, and empty folders above it below `upto`."""
    with suppress(OSError):
        remove_stale(folder)
        if any(folder.glob("*.tar")) or (folder / MANIFEST).exists():
            return
        for path in (folder / PLAN, *folder.glob(f"*{SEAL}")):
            path.unlink(missing_ok=True)
        while folder != upto:
            folder.rmdir()  # fails if it is not empty
            folder = folder.parent


def give_up_part(folder: Path, part: tuple[int, int], shards: Collection[str]) -> None:
    """After a failure: if no shard of the part was finished, remove its plan file. The folder stays, for other parts."""
    with suppress(OSError):
        remove_stale(folder, shards)
        if not any((folder / f"{name}.tar").exists() for name in shards):
            (folder / part_plan(part)).unlink(missing_ok=True)


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    """Lines on the differences between two plan files: "version: 1 there, 2 now"."""
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
        elif name == "taxonomies":
            yield "names or colours of classes: different"
            continue
        elif name == "listing":
            old, new = (f"listing {str(value)[:12]}" for value in (old, new))
        yield f"{_WORDS.get(name, name)}: {old} there, {new} now"


def _plan_paths(folder: Path) -> list[Path]:
    return [path for path in folder.glob("plan*.json") if ANY_PLAN.fullmatch(path.name)]


def _another(folder: Path, plan: dict[str, Any], layout: Layout) -> DataError:
    lines = "\n".join(f"  {line}" for line in differences(plan, _wanted(layout)))
    return DataError(
        f"{folder} holds shards of another configuration:\n{lines}\n"
        f"write to another folder (--to), or delete {folder} first"
    )


def _found(folder: Path) -> tuple[Manifest | None, dict[str, dict[str, Any]]]:
    """The manifest, and its fields or else those of the plan files; plan files without any of their tars do not count."""
    try:
        if (folder / MANIFEST).exists():
            text = (folder / MANIFEST).read_text(errors="replace")
            manifest = Manifest.from_json(text, str(folder / MANIFEST))
            return manifest, {MANIFEST: _described(manifest)}
        tars = {path.name.removesuffix(".tar") for path in folder.glob("*.tar")}
        return None, {
            name: plan for name, plan in plan_files(folder, _MOST_READ).items() if tars & _planned(name, plan)
        } if tars else {}
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be read ({error.strerror or error}); change its permissions, or name another folder (--to)"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{folder}: its plan file can't be read ({error}); delete the folder and write it again"
        ) from error


def _planned(name: str, plan: dict[str, Any]) -> set[str]:
    """The shards of a plan file: all, or those of a part."""
    shards = [shard["name"] for shard in plan["shards"]]
    part = part_of(name)
    mine = part_numbers(len(shards), part) if part else range(len(shards))
    return set(shards[mine.start : mine.stop])


def _wanted(layout: Layout) -> dict[str, Any]:
    return json.loads(canonical(layout.describe()))


def _differing(found: dict[str, Any], layout: Layout) -> set[str]:
    """Names of differing fields; none if nothing was found."""
    wanted = _wanted(layout)
    return {name for name in wanted if found.get(name) != wanted[name]} if found else set()


def _described(manifest: Manifest) -> dict[str, Any]:
    """A manifest's fields in the form of plan.json."""
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
    """Only the ids and names of the raw space that were added, removed or changed."""
    for number in sorted(found.keys() | wanted.keys(), key=int):
        old, new = found.get(number), wanted.get(number)
        if old != new:
            before, now = ("not" if name is None else f"'{name}'" for name in (old, new))
            yield f"id {number} of the raw space: {before} there, {now} now"
