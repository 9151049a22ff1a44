"""The second half of `semiseg data shard`: check disk space, write the layouts, and report both."""

import shlex

import typer

from semiseg.data.commands.tables import plural
from semiseg.data.progress import Bar
from semiseg.data.sizes import readable
from semiseg.data.storage.target import check_target, target
from semiseg.data.write.forecast import forecast
from semiseg.data.write.layout import Layout, part_numbers
from semiseg.data.write.parts import write_part
from semiseg.data.write.shard import complete, write


def write_sets(layouts: list[Layout], to: str, workers: int) -> None:
    """Check disk space, then write the splits that are not complete, one after the other."""
    for layout in layouts:
        check_target(layout.folder(target(to)))
    todo = [layout for layout in layouts if complete(layout, to) is None]
    if todo:
        expected = forecast(todo, target(to))
        typer.echo(expected.say(min(workers, max(len(layout.shards) for layout in todo))))
        expected.check()
    for layout in layouts:
        folder = layout.folder(target(to))
        if layout in todo:
            with Bar(f"writing {layout.contents.split}") as bar:
                manifest = write(layout, to, workers=workers, progress=bar)
            state = f"{manifest.samples} samples in {plural(len(manifest.shards), 'shard')}, {readable(manifest.bytes)}"
        else:
            write(layout, to)  # names and colours of classes, which only the manifest holds, may have changed
            state = f"already complete, {layout.samples} samples"
        typer.echo(f"{folder}: {state}")


def write_parts(layouts: list[Layout], to: str, workers: int, part: tuple[int, int]) -> None:
    """Write this machine's part of each split."""
    for layout in layouts:
        check_target(layout.folder(target(to)))
    todo = [layout for layout in layouts if complete(layout, to) is None]
    if todo:
        expected = forecast(todo, target(to), part)
        shards = max(len(part_numbers(len(layout.shards), part)) for layout in todo)
        typer.echo(expected.say(max(1, min(workers, shards))))
        expected.check()
    for layout in layouts:
        title = f"{layout.contents.split}, part {part[0]}/{part[1]}"
        with Bar(f"writing {title}") as bar:
            entries = write_part(layout, to, part, workers=workers, progress=bar)
        size = f"{sum(entry.samples for entry in entries)} samples, {readable(sum(entry.bytes for entry in entries))}"
        count = f"{len(entries)} of {plural(len(layout.shards), 'shard')}"
        typer.echo(f"{layout.folder(target(to))}: {title}: {count}, {size}")
    for layout in layouts:
        typer.echo(f"when all parts are written: semiseg data merge {shlex.quote(str(layout.folder(target(to))))}")
