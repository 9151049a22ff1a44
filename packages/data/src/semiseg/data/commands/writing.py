"""The second half of `semiseg data shard`: check disk space, write the layouts, and report both."""

import shlex

from semiseg.data.commands.tables import plural
from semiseg.data.console import echo
from semiseg.data.errors import DataError
from semiseg.data.progress import Bar
from semiseg.data.sizes import readable
from semiseg.data.source.adapter import Adapter
from semiseg.data.storage.target import check_target, target
from semiseg.data.write.current import refuse_changed, refuse_stale
from semiseg.data.write.forecast import forecast
from semiseg.data.write.layout import Layout, part_numbers
from semiseg.data.write.parts import write_part
from semiseg.data.write.shard import complete, write


def unfinished(adapter: Adapter, layouts: list[Layout], to: str) -> list[Layout]:
    """The sets to write; DataError, on all of them at once, if earlier sets do not agree with the source any more."""
    todo: list[Layout] = []
    problems: dict[str, str] = {}
    for layout in layouts:
        folder = layout.folder(target(to))
        check_target(folder)
        try:
            if complete(layout, to) is None:
                todo.append(layout)
            else:
                refuse_changed(layout, folder.absolute())
        except DataError as error:
            problems[str(folder)] = str(error)
    if len(problems) == 1:
        raise DataError(next(iter(problems.values())))
    if problems:
        text = "\n".join(problems.values())
        raise DataError(f"{text}\nto write all of them again: rm -r {' '.join(map(shlex.quote, problems))}")
    refuse_stale(adapter, todo, target(to).absolute())
    return todo


def write_sets(adapter: Adapter, layouts: list[Layout], to: str, workers: int) -> None:
    """Compare with what was written earlier, check disk space, then write the splits that are not complete."""
    todo = unfinished(adapter, layouts, to)
    if todo:
        expected = forecast(todo, target(to))
        echo(expected.say(min(workers, max(len(layout.shards) for layout in todo))))
        expected.check()
    for layout in layouts:
        folder = layout.folder(target(to))
        if layout in todo:
            with Bar(f"writing {layout.contents.split}") as bar:
                manifest = write(layout, to, workers=workers, progress=bar)
            state = f"{manifest.samples} samples in {plural(len(manifest.shards), 'shard')}, {readable(manifest.bytes)}"
        else:
            write(
                layout, to, checked=True
            )  # names and colours of classes, which only the manifest holds, may have changed
            state = f"already complete, {layout.samples} samples"
        echo(f"{folder}: {state}")


def write_parts(adapter: Adapter, layouts: list[Layout], to: str, workers: int, part: tuple[int, int]) -> None:
    """Write this machine's part of each split."""
    todo = unfinished(adapter, layouts, to)
    if todo:
        expected = forecast(todo, target(to), part)
        shards = max(len(part_numbers(len(layout.shards), part)) for layout in todo)
        echo(expected.say(max(1, min(workers, shards))))
        expected.check()
    for layout in layouts:
        title = f"{layout.contents.split}, part {part[0]}/{part[1]}"
        with Bar(f"writing {title}") as bar:
            entries = write_part(layout, to, part, workers=workers, progress=bar)
        size = f"{sum(entry.samples for entry in entries)} samples, {readable(sum(entry.bytes for entry in entries))}"
        count = f"{len(entries)} of {plural(len(layout.shards), 'shard')}"
        echo(f"{layout.folder(target(to))}: {title}: {count}, {size}")
    for layout in layouts:
        echo(f"when all parts are written: semiseg data merge {shlex.quote(str(layout.folder(target(to))))}")
