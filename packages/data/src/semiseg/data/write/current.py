"""Whether shards still agree with the source: files replaced at equal size, samples that have moved to another split."""

import functools
import shlex
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from semiseg.data.errors import DataError
from semiseg.data.format.index import Index
from semiseg.data.format.manifest import Manifest
from semiseg.data.format.names import MANIFEST, shard_name
from semiseg.data.source.adapter import Adapter, RawSample
from semiseg.data.storage.storage import Storage
from semiseg.data.write.encode import Contents, describe, encode, fetch
from semiseg.data.write.layout import Layout

_MARGIN_S = 60.0  # a file may be replaced while the shard that holds it is written
_MARGIN_REMOTE_S = 900.0  # the clock of an object store may differ


def refuse_changed(layout: Layout, folder: Path) -> None:
    """DataError if files of the source have changed since a complete set was written, although their sizes have not.

    Only files that were modified, replaced or moved there after their shard was written are read.
    """
    storage = Storage(str(folder))
    changed: list[RawSample] = []
    for number, samples in enumerate(layout.shards):
        name = shard_name(number)
        if newer := list(newer_than(written(storage, f"{name}.tar"), samples)):
            index = Index(storage.read(f"{name}.index.parquet"))
            changed += differing(newer, index, layout.contents)
    if changed:
        count = f"{len(changed)} of {layout.samples} samples, first {describe(changed[0]).removeprefix('sample ')}"
        raise DataError(
            f"{folder} was written before files of the source changed: {count}\n"
            f"write to another folder (--to), or delete {folder} first"
        )


def written(storage: Storage, name: str) -> float:
    """The time from which on a source file may be younger than a shard, in seconds; 0 if the store does not tell."""
    margin = _MARGIN_REMOTE_S if storage.folder is None else _MARGIN_S
    return storage.modified(name) - margin


def newer_than(time: float, samples: Iterable[RawSample]) -> Iterator[RawSample]:
    """The samples with a file that was modified, replaced or moved there since."""
    known: dict[str, float] = {}
    for sample in samples:
        for path in (*_paths(sample.image), *_paths(sample.label)):
            if path not in known:
                state = Path(path).stat()
                known[path] = max(state.st_mtime, state.st_ctime)
            if known[path] >= time:
                yield sample
                break


def differing(samples: Iterable[RawSample], index: Index, contents: Contents) -> Iterator[RawSample]:
    """The samples whose files give other contents than those in the index."""
    rows = {key: row for row, key in enumerate(index.keys)}
    stored = index.table["content"]
    for sample in samples:
        row = rows.get(sample.key)
        if row is None:
            yield sample
            continue
        sums = {member: crc for member, _, _, crc in index.places[row]}
        if not _same(sample, sums) and encode(sample, contents).row["content"] != stored[row].as_py():
            yield sample


def refuse_stale(adapter: Adapter, layouts: Collection[Layout], to: Path) -> None:
    """DataError if another set of the data set holds samples that now belong to the splits that are about to be written.

    A sample that got a mask after the unlabeled split was written would otherwise be in two sets, one of them perhaps val.
    """
    layouts = [
        layout for layout in layouts if "@" not in layout.contents.split and not (layout.folder(to) / MANIFEST).exists()
    ]  # overlays, <split>@<name>, hold the samples of their split by design
    if not layouts:
        return
    home = layouts[0].folder(to).parent
    splits, writing = adapter.splits(), {layout.contents.split for layout in layouts}
    now = {sample.key: layout.contents.split for layout in layouts for shard in layout.shards for sample in shard}
    stale: dict[str, list[str]] = {}
    for split in _sets(home):
        if split in writing or "@" in split:
            continue
        offered = split in splits and splits[split].missing is None
        mine = {sample.key for sample in adapter.samples(split)} if offered else set()
        if moved := [key for key in _keys(Storage(f"{home}/{split}")) if key in now and key not in mine]:
            stale[split] = moved
    if not stale:
        return
    lines = [
        f"  {split}: {len(keys)} samples now in {', '.join(sorted({now[key] for key in keys}))}, such as {keys[0]}"
        for split, keys in stale.items()
    ]
    folders = " ".join(shlex.quote(f"{home}/{split}") for split in stale)
    raise DataError(
        f"{home} holds splits of an earlier state of the source, whose samples have moved:\n"
        + "\n".join(lines)
        + f"\ndelete them and write them again with this command, without --split: rm -r {folders}"
    )


def _same(sample: RawSample, sums: Mapping[str, int]) -> bool:
    """Whether the files of a sample are stored unchanged, by their checksums: cheaper than to encode them."""
    label = sample.label
    if callable(label):
        label = label()
    if label is not None and (not isinstance(label, bytes) or zlib.crc32(label) != sums.get("label")):
        return False
    return zlib.crc32(fetch(sample.key, "image", sample.image)) == sums["image"]


def _paths(member: Any) -> Iterator[str]:
    """Files that a member is read from: absolute paths among the arguments of nested `functools.partial`s, or in `path`."""
    if not isinstance(member, functools.partial):
        return
    for value in (*member.args, *member.keywords.values()):
        if isinstance(value, functools.partial):
            yield from _paths(value)
            continue
        value = value if isinstance(value, str | Path) else getattr(value, "path", None)  # what reads one large file
        if (isinstance(value, Path) or (isinstance(value, str) and Path(value).is_absolute())) and Path(
            value
        ).is_file():
            yield str(value)


def _sets(home: Path) -> list[str]:
    storage = Storage(str(home))
    try:
        names = storage.names()
    except OSError:
        return []
    return [name for name in names if Storage(f"{home}/{name}").exists(MANIFEST)]


def _keys(storage: Storage) -> list[str]:
    try:
        manifest = Manifest.from_json(storage.read(MANIFEST).decode("utf-8", "replace"), storage.where(MANIFEST))
        return [key for entry in manifest.shards for key in Index(storage.read(entry.index)).keys]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # a broken set can't be trained on either; reading it reports what is wrong
