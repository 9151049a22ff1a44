"""What an earlier run left in a set's folder: to be continued, to be written anew, or another's work to keep hands off."""

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from semiseg.data.errors import DataError
from semiseg.data.format.manifest import Manifest, canonical
from semiseg.data.format.names import ANY_PLAN, MANIFEST, PLAN, SHARD_FILE, part_of, part_plan
from semiseg.data.storage.atomic import atomic, stale
from semiseg.data.storage.lock import remove_unheld
from semiseg.data.write.layout import Layout, part_numbers

_SOURCE = {"listing", "samples", "shards"}  # of a plan: what follows from the publisher's files
_FIELDS = _SOURCE | {"format", "dataset", "version", "split", "raw_space", "raw_ids", "labeled", "image", "settings"}
_LOOKED_AT = 8  # plans of other parts, before one begins: a thousand parts must not read a thousand plans each
_WORDS = {"listing": "keys, sizes, tags, meta and stamps of the source's samples"}


def check_folder(folder: Path, layout: Layout) -> Manifest | None:
    """The manifest that is there, if any; DataError where the folder holds the work of another configuration.

    A set that is not finished may be of a source that has changed since: a file that was broken is whole now.
    """
    manifest, found = _found(folder)
    for plan in found.values():
        differing = _differing(plan, layout)
        if differing and (manifest is not None or differing - _SOURCE):
            raise _another(folder, plan, layout)
    return manifest


def begin(folder: Path, layout: Layout) -> None:
    """Prepare the folder for writing: no leftovers, and the plan, which goes when the manifest comes."""
    remove_stale(folder)
    manifest, found = _found(folder)
    if manifest is None and any(_differing(plan, layout) for plan in found.values()):
        for path in folder.iterdir():  # the source has changed: what was planned then is void
            if SHARD_FILE.fullmatch(path.name) or ANY_PLAN.fullmatch(path.name):
                path.unlink()
    with atomic(folder / PLAN) as file:
        file.write(layout.plan)


def begin_part(folder: Path, layout: Layout, part: tuple[int, int]) -> None:
    """Write a part's plan, unless it is there; DataError where other shards in the folder are of another configuration.

    Also where the source alone has changed: nobody could tell whether all machines have seen the change.
    """
    for plan in _found(folder)[1].values():
        if _differing(plan, layout):
            raise _another(folder, plan, layout)
    path = folder / part_plan(part)
    if not path.exists() or path.read_bytes() != layout.plan:
        with atomic(path) as file:
            file.write(layout.plan)


def plans(folder: Path, most: int | None = None) -> dict[str, dict[str, Any]]:
    """What plan.json and the plans of parts, or `most` of them, say, by their names; DataError where one can't be read."""
    found: dict[str, dict[str, Any]] = {}
    parsed: dict[bytes, dict[str, Any]] = {}  # those of parts are the same, and large where there are many shards
    there = [path for path in folder.glob("plan*.json") if ANY_PLAN.fullmatch(path.name)]
    for path in sorted(there, key=lambda path: (path.name != PLAN, path.name))[:most]:
        with suppress(FileNotFoundError):  # a merge has just removed it
            data = path.read_bytes()
            try:
                plan = found[path.name] = parsed.setdefault(data, parsed.get(data) or dict(json.loads(data)))
                if missing := _FIELDS - plan.keys():
                    raise ValueError(f"it has no {min(missing)}")
            except (ValueError, TypeError) as error:
                raise DataError(f"{path}: the plan can't be read ({error}); delete it and write it again") from error
    return found


def leftovers(folder: Path) -> bool:
    """Whether a finished set has traces of its writing."""
    return any(ANY_PLAN.fullmatch(path.name) for path in folder.glob("plan*.json")) or any(stale(folder))


def clear(folder: Path) -> None:
    """Remove the traces of writing from a finished set, where the folder lets us."""
    with suppress(OSError):
        remove_stale(folder)
        for path in [path for path in folder.glob("plan*.json") if ANY_PLAN.fullmatch(path.name)]:
            path.unlink(missing_ok=True)


def remove_stale(folder: Path, shards: Collection[str] | None = None) -> None:
    """Remove the temp files that killed writers left, of all shards or of some; those of a writer at work are held."""
    for path in stale(folder):
        if shards is None or path.name.split(".")[1] in shards:
            remove_unheld(path)


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


def give_up_part(folder: Path, part: tuple[int, int], shards: Collection[str]) -> None:
    """After a failure: where no shard of the part was finished, its plan goes. The folder stays, for others."""
    with suppress(OSError):
        remove_stale(folder, shards)
        if not any((folder / f"{name}.tar").exists() for name in shards):
            (folder / part_plan(part)).unlink(missing_ok=True)


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    """Lines on what differs between two plans: "version: 1 there, 2 now"."""
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
            yield "names or colours of classes: others there"
            continue
        elif name == "listing":
            old, new = (f"listing {str(value)[:12]}" for value in (old, new))
        yield f"{_WORDS.get(name, name)}: {old} there, {new} now"


def _another(folder: Path, plan: dict[str, Any], layout: Layout) -> DataError:
    lines = "\n".join(f"  {line}" for line in differences(plan, _wanted(layout)))
    return DataError(
        f"{folder} holds shards of another configuration:\n{lines}\n"
        f"write to another folder (--to), or delete {folder} first"
    )


def _found(folder: Path) -> tuple[Manifest | None, dict[str, dict[str, Any]]]:
    """The manifest, and what it or else the plans say. A plan without any of its tars beside it promises nothing."""
    try:
        if (folder / MANIFEST).exists():
            text = (folder / MANIFEST).read_text(errors="replace")
            manifest = Manifest.from_json(text, str(folder / MANIFEST))
            return manifest, {MANIFEST: _described(manifest)}
        tars = {path.name.removesuffix(".tar") for path in folder.glob("*.tar")}
        return None, {
            name: plan for name, plan in plans(folder, _LOOKED_AT).items() if tars & _planned(name, plan)
        } if tars else {}
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be read ({error.strerror or error}); change its permissions, or name another folder (--to)"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{folder}: its plan can't be read ({error}); delete the folder and write it again") from error


def _planned(name: str, plan: dict[str, Any]) -> set[str]:
    """The shards that a plan is about: all, or those of a part."""
    shards = [shard["name"] for shard in plan["shards"]]
    part = part_of(name)
    mine = part_numbers(len(shards), part) if part else range(len(shards))
    return set(shards[mine.start : mine.stop])


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
