"""What `semiseg data stats` prints."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from semiseg.data.console import echo
from semiseg.data.errors import visible
from semiseg.data.sizes import readable


def print_statistics(facts: dict[str, Any]) -> None:
    kind = "labeled" if facts["labeled"] else "unlabeled"
    shards = plural(facts["shards"], "shard")
    echo(f"{facts['url']}: {facts['samples']} samples, {kind}, in {shards}, {readable(facts['bytes'])}")
    sizes = ", ".join(f"{count} of {size}" for size, count in list(facts["sizes"].items())[:5])
    if len(facts["sizes"]) > 5:
        low, middle, high = (facts["size"][name] for name in ("min", "median", "max"))
        sizes = f"{low} to {high}, median {middle} ({len(facts['sizes'])} sizes)"
    echo(f"  pixels: {sizes}")
    if facts["tags"]:
        listed = ", ".join(f"{visible(tag)} {count}" for tag, count in facts["tags"].items())
        echo(f"  tags: {listed}")
    for flag, count in facts["flags"].items():
        echo(f"  {count} marked {visible(flag)}")
    if "classes" not in facts:
        return
    table = Table(
        "id",
        "class",
        "pixels",
        "images",
        title=Text(f"{visible(facts['taxonomy'])}, shares of all pixels", style="italic"),
        title_justify="left",
    )
    for column in (0, 2, 3):
        table.columns[column].justify = "right"
    for row in facts["classes"]:
        table.add_row(str(row["id"]), Text(visible(row["name"])), f"{row['share']:.2%}", str(row["images"]))
    table.add_section()
    table.add_row("", "void", f"{facts['void']:.2%}", "")
    Console(highlight=False).print(table)


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
