"""Estimate the disk space and time to write shards, from a sample of the images."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semiseg.data.errors import DataError
from semiseg.data.format.names import shard_name
from semiseg.data.sizes import readable
from semiseg.data.write.encode import encode
from semiseg.data.write.layout import Layout, part_numbers

_IMAGES, _SECONDS = 8, 2.0  # limits per layout


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Bytes needed, bytes free under `place` (None: unknown, an object store), and seconds for one process."""

    place: Path
    need: int
    free: int | None
    seconds: float

    def say(self, workers: int) -> str:
        seconds = self.seconds / workers
        took = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(1, round(seconds))} s"
        spread = f" with {workers} processes" if workers > 1 else ""
        room = f"needs about {readable(self.need)}"
        room += f"; {readable(self.free)} are free under {self.place}" if self.free is not None else ""
        return f"{room}; takes about {took}{spread}"

    def check(self) -> None:
        """DataError if there is not enough space."""
        if self.free is not None and self.need > self.free:
            raise DataError(
                f"{self.place}: about {readable(self.need)} are needed, {readable(self.free)} are free; "
                "free some space, name another folder with --to, or write fewer splits with --split"
            )


def forecast(layouts: Sequence[Layout], to: Path, part: tuple[int, int] = (1, 1)) -> Forecast:
    """Encode the first images of each layout; DataError for those that can't be stored, before anything is written.

    Only the first ones, since a source that can only be read forward would have to be read completely for others.
    """
    need, seconds = 0.0, 0.0
    for layout in layouts:
        mine = part_numbers(len(layout.shards), part)
        if not mine:
            continue
        planned, stored, took, count = 0, 0, 0.0, 0
        for sample in layout.shards[mine.start][:_IMAGES]:
            began = time.perf_counter()
            stored += sum(map(len, encode(sample, layout.contents).members.values()))
            took += time.perf_counter() - began
            planned += sample.size
            count += 1
            if took > _SECONDS:
                break
        names = {f"{shard_name(number)}.tar" for number in mine}
        there = [path.stat().st_size for path in layout.folder(to).glob("*.tar") if path.name in names]
        own = replace(layout, shards=layout.shards[mine.start : mine.stop])
        total = own.packed(stored / planned if planned else 1.0)
        left = max(0.0, total - sum(there))
        need += left
        seconds += took / count * own.samples * left / total
    if not isinstance(to, Path):
        return Forecast(place=to, need=round(need), free=None, seconds=seconds)
    place = next(path for path in (to.absolute(), *to.absolute().parents) if path.exists())
    return Forecast(place=place, need=round(need), free=shutil.disk_usage(place).free, seconds=seconds)
