"""Write a split as WebDataset tars: in parallel, atomically, resumable after a kill, always with the same bytes.

The order of events: plan.json, then each tar followed by its index, then manifest.json, which completes the set. A shard
depends on its samples only, so any number of processes writes the same bytes.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from semiseg.data.errors import DataError, unwritable
from semiseg.data.format.index import Index, pack
from semiseg.data.format.manifest import Manifest, ShardEntry, sha256, shard_content
from semiseg.data.format.names import MANIFEST, shard_name
from semiseg.data.format.tar import header, padded, tar_format
from semiseg.data.parallel import Progress, Tick, run_all
from semiseg.data.source.adapter import Adapter, RawSample
from semiseg.data.storage.atomic import atomic
from semiseg.data.storage.lock import only_writer
from semiseg.data.storage.storage import Storage
from semiseg.data.storage.target import target
from semiseg.data.write.claim import claim, confirm
from semiseg.data.write.current import differing, newer_than, refuse_changed, refuse_stale, written
from semiseg.data.write.encode import Contents, Encoded, crc32, encode
from semiseg.data.write.layout import Layout, lay_out
from semiseg.data.write.leftovers import begin, check_folder, clear, give_up, leftovers, seal, sealed

if TYPE_CHECKING:
    from webdataset.writer import TarWriter


def shard(
    adapter: Adapter,
    split: str,
    to: str | os.PathLike[str],
    *,
    size: int | str = "256MB",
    workers: int = 1,
    progress: Progress | None = None,
    resize: int | str | tuple[int, int] | None = None,
    format: str = "keep",
) -> Manifest:
    """Write `<to>/<adapter.name>/<split>/`, or finish writing it, and return its manifest.

    `size` is the approximate size of a shard; `workers` processes share the shards (a script with several needs the usual
    `if __name__ == "__main__":`). A complete set is left as it is. Raises DataError for bad samples, a folder with another
    configuration, or a full disk; finished shards stay, and the same call resumes.

    Images are stored as published unless `resize` or `format` say otherwise: `resize` is (width, height) or "640x480"
    exactly, or one number, to which a longer side is shrunk; labels are resized by the nearest id. `format` is "keep",
    "jpeg" (quality 95, 4:2:0) or "png", for sets of several kinds, or of kinds that shards do not support. Both are settings
    in the manifest and therefore in the digest. Converted files depend on the version of Pillow, and so does their digest.
    """
    layout = lay_out(adapter, split, size=size, resize=resize, format=format)
    refuse_stale(adapter, [layout], target(to).absolute())
    return write(layout, to, workers=workers, progress=progress)


def write(
    layout: Layout,
    to: str | os.PathLike[str],
    *,
    workers: int = 1,
    progress: Progress | None = None,
    checked: bool = False,
) -> Manifest:
    """`shard` for a given layout. `checked`: the caller has compared a complete set with the source (`refuse_changed`)."""
    if workers < 1:
        raise DataError(f"workers is {workers}; at least one process has to write")
    folder = layout.folder(target(to)).absolute()
    if (manifest := complete(layout, to)) is not None:
        if not checked:
            refuse_changed(layout, folder)
        return _renamed(folder, manifest, layout)
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(error, folder) from error
    with only_writer(folder):
        claim(folder, layout)
        try:
            if (manifest := complete(layout, to)) is None:  # another writer may have come first
                begin(folder, layout)
                entries = finish(jobs(folder, layout), layout.samples, workers, progress)
                confirm(folder, layout, entries)
                manifest = _manifest(layout, entries)
                with atomic(folder / MANIFEST) as file:
                    file.write(manifest.to_json().encode())
            clear(folder)
        except BaseException:
            give_up(folder, there)
            raise
    return _renamed(folder, manifest, layout)


def complete(layout: Layout, to: str | os.PathLike[str]) -> Manifest | None:
    """The manifest of a complete set, else None; DataError if its folder has another configuration.

    Checks names and sizes only; `verify` reads every byte.
    """
    folder = layout.folder(target(to))
    manifest = check_folder(folder, layout)
    if manifest is None:
        return None
    files = [(entry.tar, entry.bytes) for entry in manifest.shards]
    files += [(entry.index, entry.index_bytes) for entry in manifest.shards]
    try:
        there = all((folder / name).stat().st_size == size for name, size in files)
    except OSError:
        return None
    return manifest if there else None


def jobs(folder: Path, layout: Layout) -> list["Job"]:
    """One job per shard of the set, in order."""
    configuration = layout.configuration
    return [
        Job(str(folder), shard_name(number), samples, layout.contents, configuration)
        for number, samples in enumerate(layout.shards)
    ]


def finish(jobs: list["Job"], samples: int, workers: int, progress: Progress | None) -> list[ShardEntry]:
    """The entries of some shards, written now or already finished; `samples` is the number in all of them."""
    return run_all(finish_shard, jobs, workers=workers, samples=samples, progress=progress, preload=("webdataset",))


def _renamed(folder: Path, manifest: Manifest, layout: Layout) -> Manifest:
    """The manifest of a complete set, rewritten if names or colours of classes have changed.

    Also removes what a writer left that was killed at the end.
    """
    renamed = manifest.taxonomies != layout.taxonomies
    if not renamed and not leftovers(folder):
        return manifest
    with only_writer(folder):
        clear(folder)
        if renamed:
            manifest = replace(manifest, taxonomies=layout.taxonomies)
            with atomic(folder / MANIFEST) as file:
                file.write(manifest.to_json().encode())
    return manifest


@dataclass(frozen=True, slots=True)
class Job:
    """One shard to write, for another process."""

    folder: str
    name: str
    samples: tuple[RawSample, ...]
    contents: Contents
    configuration: str  # of the layout that the shard is part of


def finish_shard(job: Job, tick: Tick) -> ShardEntry:
    """The entry of a shard, which is written unless an earlier run has finished it."""
    entry = _finished(job)
    if entry is not None:
        tick(entry.samples, entry.bytes)
        return entry
    from webdataset.writer import TarWriter  # imports torch if it is installed: 1.3 s

    tar = target(job.folder) / f"{job.name}.tar"
    rows: list[dict[str, Any]] = []
    with atomic(tar) as file:
        stream = _Hashing(file)
        with TarWriter(cast(Any, stream), user="", group="", mode=0o644, mtime=0, encoder=False) as writer:
            for sample in job.samples:
                start = writer.tarstream.offset
                rows.append(_add(writer, encode(sample, job.contents)))
                tick(1, writer.tarstream.offset - start)
    facts = {
        "bytes": str(stream.bytes),
        "sha256": stream.sha256.hexdigest(),
        "samples": str(len(rows)),
        "content": shard_content([row["content"] for row in rows]),
        "configuration": job.configuration,
    }
    index = pack(rows, facts)
    seal(tar.parent, job.name, index)
    with atomic(tar.with_name(f"{job.name}.index.parquet")) as file:
        file.write(index)
    return entry_of(job.name, facts, index)


def _add(writer: "TarWriter", sample: Encoded) -> dict[str, Any]:
    """Append a sample to the tar; returns its row of the index, with the offsets of its members."""
    row = dict(sample.row)
    offset = writer.tarstream.offset
    names = {extension: f"{sample.key}.{extension}" for extension in sample.members}
    form = writer.tarstream.format = tar_format([*names.values()])  # TarWriter's parameter has no effect
    for extension, data in sample.members.items():
        member = extension.split(".")[0]
        offset += len(header(names[extension], len(data), form))
        row |= {f"{member}_offset": offset, f"{member}_size": len(data), f"{member}_crc32": crc32(data)}
        offset += padded(len(data))
    writer.write({"__key__": sample.key, **sample.members})  # it sorts them by name: image, label, meta
    if writer.tarstream.offset != offset:
        raise DataError(
            f"'{sample.key}' ends at {writer.tarstream.offset} of its tar instead of {offset}; please report this bug"
        )
    return row


class _Hashing:
    """A stream that counts the bytes written and their sha256."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.bytes += len(data)
        return self.file.write(data)


def entry_of(name: str, facts: Mapping[str, str], index: bytes) -> ShardEntry:
    """A shard's entry in the manifest, from the facts in its index and the index's bytes."""
    return ShardEntry(
        name=name,
        samples=int(facts["samples"]),
        bytes=int(facts["bytes"]),
        sha256=facts["sha256"],
        index_bytes=len(index),
        index_sha256=sha256(index),
        content=facts["content"],
    )


def _finished(job: Job) -> ShardEntry | None:
    """The entry of a shard that is finished: its index has this configuration, and its tar the sha256 in the index."""
    tar = target(job.folder) / f"{job.name}.tar"
    try:
        data = tar.with_name(f"{job.name}.index.parquet").read_bytes()
        if sealed(tar.parent, job.name) not in (None, sha256(data)):
            return None
        index = Index(data)
        if index.keys != [sample.key for sample in job.samples] or tar.stat().st_size != int(index.facts["bytes"]):
            return None
        if index.facts["configuration"] != job.configuration:
            return None
        if any(differing(newer_than(written(Storage(job.folder), tar.name), job.samples), index, job.contents)):
            return None
        with tar.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, KeyError, ValueError):  # pyarrow's errors are among them
        return None  # whatever is wrong, the shard is written again
    return entry_of(job.name, index.facts, data) if found == index.facts["sha256"] else None


def _manifest(layout: Layout, entries: list[ShardEntry]) -> Manifest:
    return Manifest(
        dataset=layout.contents.dataset,
        version=layout.version,
        split=layout.contents.split,
        raw_space=layout.contents.raw_space,
        raw_ids=layout.contents.raw_ids,
        labeled=layout.contents.labeled,
        image=layout.contents.image,
        settings=layout.settings,
        listing=layout.listing,
        shards=tuple(entries),
        taxonomies=layout.taxonomies,
    )
