"""`semiseg data list | shard | merge | verify | show | stats`. Commands import heavy modules only when they run."""

import inspect
import json
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from semiseg.data.console import echo
from semiseg.data.errors import DataError, visible
from semiseg.data.registry import installed
from semiseg.data.sizes import readable

if TYPE_CHECKING:
    from semiseg.data.read.shard_set import ShardSet
    from semiseg.data.source.adapter import Adapter
    from semiseg.data.taxonomy import Taxonomy

app = typer.Typer(help="Write data sets as shards; list, merge, verify, show and count them.", no_args_is_help=True)

TARGET = typer.Argument(
    metavar="NAME|PATH", help="A data set (see --split and --shards), or a folder or URL of shards."
)
SPLIT = typer.Option(None, "--split", help="Only this split; default: all that are written.")
SHARDS = typer.Option("shards/", "--shards", help="Folder or URL that holds NAME/SPLIT/ of each data set.")
JSON = typer.Option(False, "--json", help="Print JSON instead of text.")


@app.command("list")
def list_(shards: str = SHARDS, as_json: bool = JSON) -> None:
    """List installed data sets with their classes, and the shards that are written."""
    from semiseg.data.commands.summary import datasets

    found = datasets(shards.rstrip("/"))
    if as_json:
        return echo(json.dumps(found, indent=1))
    for dataset in found["datasets"]:
        absent = f"not installed (your own data, or pip install semiseg-{dataset['name']})"
        echo(f"{dataset['name']}: {dataset['summary'] or absent}")
        if dataset["installed"]:
            echo(f"  publisher   {dataset['home']}")
        if dataset["installed"] or dataset["taxonomies"]:
            names = ", ".join(
                f"{visible(name)} ({count} class{'es' * (count != 1)})" for name, count in dataset["taxonomies"].items()
            )
            spaces = f"{names}; raw space {visible(', '.join(dataset['raw_spaces']))}"
            echo(f"  taxonomies  {spaces if names else 'those of your own files'}")
        for split, facts in dataset["shards"].items():
            size = facts.get("problem") or f"{facts['samples']} samples, {readable(facts['bytes'])}"
            echo(f"  shards      {split}: {size}")
        if not dataset["shards"]:
            own = "" if dataset["taxonomies"] else " ROOT --option name=NAME"
            echo(f"  shards      none under {shards}; write them with: semiseg data shard {dataset['name']}{own}")
    for name, why in found["broken"].items():
        echo(f"{name}: could not be loaded: {why}", err=True)
    if not found["datasets"]:
        echo("no data set is installed; install one with: pip install semiseg-<name>", err=True)
    return None


@app.command()
def shard(
    name: str = typer.Argument(help="A data set from `semiseg data list`."),
    root: Path = typer.Argument(None, help="The publisher's files; default: $SEMISEG_DATA/NAME, else ./data/NAME."),
    split: list[str] = typer.Option(None, "--split", help="A split to write, repeatable; default: all available."),
    to: str = typer.Option("shards/", "--to", help="Folder or URL for all shards; written to NAME/SPLIT/ in it."),
    shard_size: str = typer.Option("256MB", "--shard-size", help="Approximate size of a shard."),
    size: str = typer.Option(
        None,
        "--size",
        metavar="WxH|N",
        help="Resize images and labels to W x H pixels, or shrink the longer side to N.",
    ),
    image_format: str = typer.Option(
        "keep", "--format", metavar="keep|jpeg|png", help="Convert images, or keep them as they are."
    ),
    workers: int = typer.Option(None, "--workers", min=1, help="Number of processes; default: one per CPU core."),
    part: str = typer.Option(
        None,
        "--part",
        metavar="I/N",
        help="Write only part I of N (from 1), on one of N machines; then run `data merge`.",
    ),
    option: list[str] = typer.Option(
        None, "--option", metavar="KEY=VALUE", help="An option of the data set, repeatable."
    ),
) -> None:
    """Write a data set as shards, or resume writing; complete sets are left as they are."""
    from semiseg.data.commands.writing import write_parts, write_sets
    from semiseg.data.parallel import cores
    from semiseg.data.source.adapter import Guide, open_dataset
    from semiseg.data.write.layout import lay_out
    from semiseg.data.write.parts import parse_part

    if not to.strip():
        raise typer.BadParameter("it is empty; name a folder or URL", param_hint="--to")
    chosen = parse_part(part) if part else None
    try:
        adapter = open_dataset(name, root, **_options(option or [], name))
        echo(f"{adapter.name} ({adapter.version})" + (f" at {adapter.root}" if adapter.root else ""))
        available = _print_splits(adapter)
        for note in adapter.notes() if isinstance(adapter, Guide) else ():
            echo(f"note: {note}")
        wanted = _wanted(adapter, split or [], available)
        layouts = [lay_out(adapter, one, size=shard_size, resize=size, format=image_format) for one in wanted]
        if chosen:
            return write_parts(adapter, layouts, to, workers or cores(), chosen)
        write_sets(adapter, layouts, to, workers or cores())
    except KeyboardInterrupt:
        echo("stopped; finished shards are kept; rerun the command to resume", err=True)
        raise typer.Exit(130) from None
    steps = [f"semiseg data show {adapter.name} --split {wanted[0]} --shards {shlex.quote(to)}"]
    steps += adapter.next_steps(wanted, to) if isinstance(adapter, Guide) else []
    for number, step in enumerate(steps):
        echo(f"{'next:' if number == 0 else '     '} {step}")
    return None


@app.command()
def merge(target: str = TARGET, split: str = SPLIT, shards: str = SHARDS) -> None:
    """Merge the parts that `data shard --part` wrote, or list what is missing. Safe to repeat."""
    from semiseg.data.commands.summary import find_sets
    from semiseg.data.commands.tables import plural
    from semiseg.data.write.merge import merge as commit

    for url in find_sets(target, split, shards):
        manifest = commit(url)
        size = f"{plural(len(manifest.shards), 'shard')}, {readable(manifest.bytes)}"
        echo(f"{url}: {manifest.samples} samples in {size}; digest {manifest.digest[:12]}")


@app.command()
def verify(
    target: str = TARGET,
    split: str = SPLIT,
    shards: str = SHARDS,
    share: str = typer.Option(
        "1/1", "--share", metavar="I/N", help="Check only every N-th shard, starting with the I-th (from 1)."
    ),
    workers: int = typer.Option(None, "--workers", min=1, help="Number of processes; default: one per CPU core."),
    as_json: bool = JSON,
) -> None:
    """Check all checksums, images and labels of shards. Exit code 1 if there is a problem."""
    from dataclasses import asdict

    from semiseg.data.commands.summary import find_sets
    from semiseg.data.commands.tables import plural
    from semiseg.data.parallel import cores
    from semiseg.data.progress import Bar
    from semiseg.data.read.verify import verify as check

    reports = []
    for url in find_sets(target, split, shards):
        with Bar(f"verifying {url}") as bar:
            reports.append(check(url, share=share, workers=workers or cores(), progress=bar))
        if not as_json:
            report = reports[-1]
            state = "ok" if report.ok else plural(len(report.problems), "problem")
            share_of = "" if report.share == "1/1" else f"share {report.share}: {plural(report.shards, 'shard')}, "
            echo(f"{url}: {share_of}{report.samples} samples, {readable(report.bytes)}: {state}")
            for problem in report.problems:
                echo(f"  {visible(str(problem), keep=chr(10))}")
            for remedy in dict.fromkeys(problem.remedy for problem in report.problems):
                echo(f"  remedy: {visible(remedy)}")
    if as_json:
        echo(json.dumps([asdict(report) | {"ok": report.ok} for report in reports], indent=1))
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


@app.command()
def show(
    target: str = TARGET,
    split: str = SPLIT,
    shards: str = SHARDS,
    out: Path = typer.Option(None, "--out", help="PNG to write; default: NAME-SPLIT.png."),
    count: int = typer.Option(6, "--count", min=1, help="Number of samples, chosen at random."),
    seed: int = typer.Option(0, "--seed", help="Seed of the random choice."),
    keys: str = typer.Option(None, "--keys", metavar="KEY,KEY,...", help="Keys of samples to show instead."),
    taxonomy: str = typer.Option(
        None, "--taxonomy", help="Taxonomy whose classes are drawn; default: the data set's first."
    ),
) -> None:
    """Draw a contact sheet of images and labels, with the colours of the classes."""
    from semiseg.data.commands.summary import choose_taxonomy, find_sets
    from semiseg.data.read.shard_set import ShardSet

    sets = find_sets(target, split, shards)
    if out is not None and len(sets) > 1:
        names = ", ".join(url.rsplit("/", 1)[-1] for url in sets)
        raise DataError(f"--out names one file, but {target} has several splits ({names}); choose one with --split")
    for url in sets:
        stored = ShardSet(url)
        chosen = _choose(stored, keys.split(",") if keys else None, count, seed)
        path = out or Path(f"{stored.manifest.dataset}-{stored.manifest.split}.png")
        _draw(stored, chosen, choose_taxonomy(stored, taxonomy), path)
        echo(f"{path}: {len(chosen)} of {len(stored)} samples of {url}")


@app.command()
def stats(
    target: str = TARGET,
    split: str = SPLIT,
    shards: str = SHARDS,
    taxonomy: str = typer.Option(
        None, "--taxonomy", help="Taxonomy whose classes are counted; default: the data set's first."
    ),
    as_json: bool = JSON,
) -> None:
    """Count samples, sizes, tags, and pixels and images per class, from the indexes alone."""
    from semiseg.data.commands.summary import choose_taxonomy, find_sets, statistics
    from semiseg.data.commands.tables import print_statistics
    from semiseg.data.read.shard_set import ShardSet

    sets = [ShardSet(url) for url in find_sets(target, split, shards)]
    found = [statistics(stored, choose_taxonomy(stored, taxonomy)) for stored in sets]
    if as_json:
        return echo(json.dumps(found, indent=1))
    for facts in found:
        print_statistics(facts)
    return None


def _options(words: list[str], name: str) -> dict[str, Any]:
    """Parse `key=value` words by the types of the options: text stays as it is typed, the rest is TOML or else text."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"'{word}' is not of the form KEY=VALUE", param_hint="--option")
        if found.setdefault(key, value) != value:
            raise DataError(f"data set '{name}': option {key} is given twice, as {found[key]} and {value}; keep one")
    adapter = installed().get(name) if found else None
    parameters = _parameters(adapter) if adapter else {}
    return {key: _value(value, parameters.get(key), f"data set '{name}': option {key}") for key, value in found.items()}


def _parameters(adapter: type[Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(adapter, eval_str=True).parameters
    except NameError:  # an annotation that is imported for type checkers only
        return inspect.signature(adapter).parameters


def _value(text: str, parameter: inspect.Parameter | None, where: str) -> Any:
    """The value of an option. A name such as 2024_05 or 0x10 is a number in TOML, so options of text are not parsed."""
    kinds = set() if parameter is None else set(get_args(parameter.annotation) or (parameter.annotation,))
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except (RecursionError, ValueError):
        value = text
    if kinds and kinds <= {str, Path, type(None)}:
        return value if isinstance(value, str) else text
    if parameter is not None and isinstance(parameter.default, bool) and not isinstance(value, bool):
        if str(value).strip().lower() not in ("true", "false"):
            raise DataError(f"{where}={text}: expected true or false")
        return str(value).strip().lower() == "true"
    return value


def _print_splits(adapter: "Adapter") -> list[str]:
    """Print what was found of each split; returns the names of those that are written by default."""
    found = adapter.splits()
    width = max(map(len, found), default=0)
    for split in found.values():
        text = f"missing: {split.missing}"
        if split.missing is None:
            kind = "labeled" if split.labeled else "unlabeled"
            differs = split.expected is not None and split.expected != split.samples
            text = f"{split.samples} samples, {kind}" + (f" (the publisher has {split.expected})" if differs else "")
            text += "" if split.default else f"; only with --split {split.name}"
        echo(f"  {split.name:{width}}  {text}")
    return [split.name for split in found.values() if split.missing is None and split.default]


def _wanted(adapter: "Adapter", asked: list[str], available: list[str]) -> list[str]:
    if not asked and not available:
        raise DataError(f"{adapter.name}: no split is available; get what is missing (see above) from {adapter.home}")
    return list(dict.fromkeys(asked)) or available


def _choose(stored: "ShardSet", keys: list[str] | None, count: int, seed: int) -> list[int]:
    from semiseg.data.keyed import permutation
    from semiseg.data.order.subset import by_keys

    if keys is not None:
        by_keys(stored, keys)  # refuses unknown keys
        places = {key: number for number, key in enumerate(stored.keys())}
        return [places[key] for key in keys]
    return sorted(permutation(len(stored), "show", seed)[:count].tolist())


def _draw(stored: "ShardSet", chosen: list[int], taxonomy: "Taxonomy | None", path: Path) -> None:
    from semiseg.data.image.paint import contact_sheet, overlay
    from semiseg.data.storage.atomic import atomic

    rows: list[list[Any]] = []
    captions = []
    for number in chosen:
        sample = stored[number]
        captions.append(" ".join([sample.key, *sample.tags]))
        rows.append([sample.image])
        if taxonomy is not None and sample.label is not None:
            ids = taxonomy.map(sample.label)
            rows[-1] += [overlay(sample.image, ids, taxonomy), ids]
    titles = ["image"] if taxonomy is None else ["image", "label over image", taxonomy.name]
    sheet = contact_sheet(rows, titles=titles, taxonomy=taxonomy, captions=captions)
    with atomic(path) as file:
        sheet.save(file, "PNG")
