"""Write a set on many machines: each writes the shards of its part, then one call of `merge` writes the manifest.

    plan.3-of-8.json       the layout that part 3 of 8 is written from, before its first shard
    000025.tar ...         the part's shards, the same bytes as in a set that one machine writes
    manifest.json          written by `merge`, which then removes the plan files

Parts are independent: no part waits, and an interrupted part is resumed by calling it again.
"""

import os
import re

from semiseg.data.errors import DataError, unwritable
from semiseg.data.format.manifest import ShardEntry
from semiseg.data.format.names import part_plan
from semiseg.data.parallel import Progress
from semiseg.data.source.adapter import Adapter
from semiseg.data.storage.lock import held
from semiseg.data.storage.target import target
from semiseg.data.write.current import refuse_changed, refuse_stale
from semiseg.data.write.layout import Layout, lay_out, part_numbers
from semiseg.data.write.leftovers import begin_part, give_up_part, remove_stale
from semiseg.data.write.shard import complete, finish, jobs


def shard_part(
    adapter: Adapter,
    split: str,
    to: str | os.PathLike[str],
    *,
    part: tuple[int, int],
    size: int | str = "256MB",
    workers: int = 1,
    progress: Progress | None = None,
    resize: int | str | tuple[int, int] | None = None,
    format: str = "keep",
) -> tuple[ShardEntry, ...]:
    """Write part (i, n) of what `shard` writes, 1 <= i <= n, and return the entries of its shards; `merge` completes the set.

    Every machine lists all samples and writes a contiguous n-th of the shards, none if there are fewer shards than parts.
    `to` is a folder that all machines share, or an object store. The function depends on its arguments only, so it can be a
    task of Ray or Dask. Raises DataError as `shard`, and if another part in the folder has another configuration.
    """
    layout = lay_out(adapter, split, size=size, resize=resize, format=format)
    refuse_stale(adapter, [layout], target(to).absolute())
    return write_part(layout, to, part, workers=workers, progress=progress)


def write_part(
    layout: Layout,
    to: str | os.PathLike[str],
    part: tuple[int, int],
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> tuple[ShardEntry, ...]:
    """`shard_part` for a given layout."""
    if workers < 1:
        raise DataError(f"workers is {workers}; at least one process has to write")
    check_numbers(part)
    mine = part_numbers(len(layout.shards), part)
    folder = layout.folder(target(to)).absolute()
    if (manifest := complete(layout, to)) is not None:
        refuse_changed(layout, folder)
        return manifest.shards[mine.start : mine.stop]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(error, folder) from error
    number, count = part
    with held(folder, shared=True, busy="another process writes or merges the complete set here"):
        if (manifest := complete(layout, to)) is not None:  # a merge may have come first
            return manifest.shards[mine.start : mine.stop]
        begin_part(folder, layout, part)
        with held(folder / part_plan(part), busy=f"another process is writing part {number}/{count} here"):
            chosen = jobs(folder, layout)[mine.start : mine.stop]
            names = {job.name for job in chosen}
            try:
                remove_stale(folder, names)
                return tuple(finish(chosen, sum(len(job.samples) for job in chosen), workers, progress))
            except BaseException:
                give_up_part(folder, part, names)
                raise


def parse_part(text: str) -> tuple[int, int]:
    """(3, 8) of "3/8"; DataError for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise DataError(f"invalid part {text!r}; write the third of eight parts as 3/8")
    part = int(match[1]), int(match[2])
    check_numbers(part)
    return part


def check_numbers(part: tuple[int, int]) -> None:
    number, count = part
    if not 1 <= number <= count:
        raise DataError(
            f"there is no part {number}/{count}: parts count from 1 to {max(count, 1)}; if your scheduler counts from 0, add 1"
        )
