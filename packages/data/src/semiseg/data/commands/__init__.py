"""`semiseg data list | shard | merge | verify | show | stats`. Nothing heavy is imported before a command runs."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from semiseg.data.errors import DataError

if TYPE_CHECKING:
    from semiseg.data.read.shard_set import ShardSet
    from semiseg.data.source.adapter import Adapter
    from semiseg.data.taxonomy import Taxonomy

app = typer.Typer(help="Data sets as shards: list, write, verify, look at, count.", no_args_is_help=True)

TARGET = typer.Argument(metavar="NAME|PATH", help="A data set, with --split and --shards, or a folder of shards.")
SPLIT = typer.Option(None, "--split", help="One split; default: all that are written.")
SHARDS = typer.Option("shards/", "--shards", help="Folder or URL of all shards.")
JSON = typer.Option(False, "--json", help="Print JSON.")


@app.command("list")
def list_(shards: str = SHARDS, as_json: bool = JSON) -> None:
    """Installed data sets, their label spaces, and which of them have shards."""
    from semiseg.data.commands.summary import datasets
    from semiseg.data.sizes import readable

    found = datasets(shards.rstrip("/"))
    if as_json:
        return typer.echo(json.dumps(found, indent=1))
    for each in found["datasets"]:
        absent = f"not installed (own data, or pip install semiseg-{each['name']})"
        typer.echo(f"{each['name']}: {each['summary'] or absent}")
        if each["installed"]:
            typer.echo(f"  publisher   {each['home']}")
        if each["installed"] or each["taxonomies"]:
            names = ", ".join(
                f"{name} ({count} class{'es' * (count != 1)})" for name, count in each["taxonomies"].items()
            )
            spaces = f"{names}; raw space {', '.join(each['raw_spaces'])}"
            typer.echo(f"  taxonomies  {spaces if names else 'those of your own files'}")
        for split, facts in each["shards"].items():
            size = facts.get("problem") or f"{facts['samples']} samples, {readable(facts['bytes'])}"
            typer.echo(f"  shards      {split}: {size}")
        if not each["shards"]:
            own = "" if each["taxonomies"] else " ROOT --option name=NAME"
            typer.echo(f"  shards      none under {shards}; write them with: semiseg data shard {each['name']}{own}")
    for name, why in found["broken"].items():
        typer.echo(f"{name}: could not be loaded: {why}", err=True)
    if not found["datasets"]:
        typer.echo("no data set is installed; they install as pip install semiseg-<name>", err=True)
    return None


@app.command()
def shard(
    name: str = typer.Argument(help="A data set that `semiseg data list` shows."),
    root: Path = typer.Argument(None, help="The publisher's files; default: $SEMISEG_DATA/NAME, ./data/NAME."),
    split: list[str] = typer.Option(None, "--split", help="A split, again for more; default: all that are there."),
    to: str = typer.Option("shards/", "--to", help="Folder of all shards; written below it: NAME/SPLIT/."),
    shard_size: str = typer.Option("256MB", "--shard-size", help="About how large a shard gets."),
    size: str = typer.Option(
        None, "--size", metavar="WxH|N", help="Resize images and labels: to W x H pixels, or the longer side down to N."
    ),
    image_format: str = typer.Option("keep", "--format", metavar="keep|jpeg|png", help="Convert images; keep: do not."),
    workers: int = typer.Option(None, "--workers", min=1, help="Processes; default: one a CPU core."),
    part: str = typer.Option(
        None, "--part", metavar="I/N", help="Only the I-th of N parts (from 1), as one machine of N; then: data merge."
    ),
    option: list[str] = typer.Option(None, "--option", metavar="KEY=VALUE", help="An option of the data set."),
) -> None:
    """Write a data set as shards, or continue writing; a set that is complete is left as it is."""
    from semiseg.data.commands.writing import write_parts, write_sets
    from semiseg.data.parallel import cores
    from semiseg.data.source.adapter import Guide, open_dataset
    from semiseg.data.write.layout import lay_out
    from semiseg.data.write.parts import parse_part

    if not to.strip():
        raise typer.BadParameter("it names no folder", param_hint="--to")
    chosen = parse_part(part) if part else None
    try:
        adapter = open_dataset(name, root, **_options(option or [], name))
        typer.echo(f"{adapter.name} ({adapter.version})" + (f" at {adapter.root}" if adapter.root else ""))
        present = _say_splits(adapter)
        for note in adapter.notes() if isinstance(adapter, Guide) else ():
            typer.echo(f"note: {note}")
        wanted = _wanted(adapter, split or [], present)
        layouts = [lay_out(adapter, each, size=shard_size, resize=size, format=image_format) for each in wanted]
        if chosen:
            return write_parts(layouts, to, workers or cores(), chosen)
        write_sets(layouts, to, workers or cores())
    except KeyboardInterrupt:
        typer.echo("stopped; finished shards are kept, and the same command continues", err=True)
        raise typer.Exit(130) from None
    steps = [f"semiseg data show {adapter.name} --split {wanted[0]} --shards {shlex.quote(to)}"]
    steps += adapter.next_steps(wanted, to) if isinstance(adapter, Guide) else []
    for number, step in enumerate(steps):
        typer.echo(f"{'next:' if number == 0 else '     '} {step}")
    return None


@app.command()
def merge(target: str = TARGET, split: str = SPLIT, shards: str = SHARDS) -> None:
    """Commit sets whose parts (data shard --part) are written; names what is missing. A second time, nothing happens."""
    from semiseg.data.commands.summary import find_sets
    from semiseg.data.commands.tables import plural
    from semiseg.data.sizes import readable
    from semiseg.data.write.merge import merge as commit

    for url in find_sets(target, split, shards):
        manifest = commit(url)
        size = f"{plural(len(manifest.shards), 'shard')}, {readable(manifest.bytes)}"
        typer.echo(f"{url}: {manifest.samples} samples in {size}; digest {manifest.digest[:12]}")


@app.command()
def verify(
    target: str = TARGET,
    split: str = SPLIT,
    shards: str = SHARDS,
    share: str = typer.Option("1/1", "--share", metavar="I/N", help="Every N-th shard, from the I-th on (from 1)."),
    workers: int = typer.Option(None, "--workers", min=1, help="Processes; default: one a CPU core."),
    as_json: bool = JSON,
) -> None:
    """Prove shards whole: every checksum, every image and label decoded and counted again. Exit code 1 for a problem."""
    from dataclasses import asdict

    from semiseg.data.commands.summary import find_sets
    from semiseg.data.commands.tables import plural
    from semiseg.data.parallel import cores
    from semiseg.data.progress import Bar
    from semiseg.data.read.verify import verify as prove
    from semiseg.data.sizes import readable

    reports = []
    for url in find_sets(target, split, shards):
        with Bar(f"verifying {url}") as bar:
            reports.append(prove(url, share=share, workers=workers or cores(), progress=bar))
        if not as_json:
            report = reports[-1]
            state = "whole" if report.ok else plural(len(report.problems), "problem")
            looked = "" if report.share == "1/1" else f"share {report.share}: {plural(report.shards, 'shard')}, "
            typer.echo(f"{url}: {looked}{report.samples} samples, {readable(report.bytes)}: {state}")
            for problem in report.problems:
                typer.echo(f"  {problem}")
            for remedy in dict.fromkeys(problem.remedy for problem in report.problems):
                typer.echo(f"  remedy: {remedy}")
    if as_json:
        typer.echo(json.dumps([asdict(report) | {"ok": report.ok} for report in reports], indent=1))
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


@app.command()
def show(
    target: str = TARGET,
    split: str = SPLIT,
    shards: str = SHARDS,
    out: Path = typer.Option(None, "--out", help="PNG to write; default: NAME-SPLIT.png."),
    count: int = typer.Option(6, "--count", min=1, help="How many samples, drawn at random."),
    seed: int = typer.Option(0, "--seed", help="Another seed draws other samples."),
    keys: str = typer.Option(None, "--keys", metavar="KEY,KEY,...", help="These samples instead."),
    taxonomy: str = typer.Option(None, "--taxonomy", help="Classes to paint; default: the data set's first."),
) -> None:
    """Draw a contact sheet: image, label over image, label, and the classes' colours."""
    from semiseg.data.commands.summary import choose_taxonomy, find_sets
    from semiseg.data.read.shard_set import ShardSet

    sets = find_sets(target, split, shards)
    if out is not None and len(sets) > 1:
        names = ", ".join(url.rsplit("/", 1)[-1] for url in sets)
        raise DataError(f"--out names one sheet, {target} has several splits ({names}); choose one with --split")
    for url in sets:
        stored = ShardSet(url)
        chosen = _choose(stored, keys.split(",") if keys else None, count, seed)
        path = out or Path(f"{stored.manifest.dataset}-{stored.manifest.split}.png")
        _draw(stored, chosen, choose_taxonomy(stored, taxonomy), path)
        typer.echo(f"{path}: {len(chosen)} of {len(stored)} samples of {url}")


@app.command()
def stats(
    target: str = TARGET,
    split: str = SPLIT,
    shards: str = SHARDS,
    taxonomy: str = typer.Option(None, "--taxonomy", help="Classes to count; default: the data set's first."),
    as_json: bool = JSON,
) -> None:
    """Count samples, image sizes, tags, pixels of every class, images that hold it, void. Reads indexes, no pixels."""
    from semiseg.data.commands.summary import choose_taxonomy, find_sets, statistics
    from semiseg.data.commands.tables import print_statistics
    from semiseg.data.read.shard_set import ShardSet

    sets = [ShardSet(url) for url in find_sets(target, split, shards)]
    found = [statistics(each, choose_taxonomy(each, taxonomy)) for each in sets]
    if as_json:
        return typer.echo(json.dumps(found, indent=1))
    for facts in found:
        print_statistics(facts)
    return None


def _options(words: list[str], name: str) -> dict[str, Any]:
    """`key=value` words, values read as TOML or else as text; "False" as false where the data set wants that."""
    import inspect
    import tomllib

    from semiseg.data.registry import installed

    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"'{word}' is not of the form KEY=VALUE", param_hint="--option")
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    parameters = inspect.signature(installed()[name]).parameters if found and name in installed() else {}
    for key, value in found.items():
        if key in parameters and isinstance(parameters[key].default, bool) and not isinstance(value, bool):
            told = str(value).strip().lower()
            if told not in ("true", "false"):
                raise DataError(f"data set '{name}': option {key}={value}: expected true or false")
            found[key] = told == "true"
    return found


def _say_splits(adapter: "Adapter") -> list[str]:
    """Print what was found of each split; the names of those that are written unless others are asked for."""
    found = adapter.splits()
    width = max(map(len, found), default=0)
    for each in found.values():
        told = f"missing: {each.missing}"
        if each.missing is None:
            kind = "labeled" if each.labeled else "unlabeled"
            differs = each.expected is not None and each.expected != each.samples
            told = f"{each.samples} samples, {kind}" + (f" (the publisher has {each.expected})" if differs else "")
            told += "" if each.default else f"; only with --split {each.name}"
        typer.echo(f"  {each.name:{width}}  {told}")
    return [each.name for each in found.values() if each.missing is None and each.default]


def _wanted(adapter: "Adapter", asked: list[str], present: list[str]) -> list[str]:
    if not asked and not present:
        raise DataError(f"{adapter.name}: no split is there; see above what is missing, and {adapter.home}")
    return list(dict.fromkeys(asked)) or present


def _choose(stored: "ShardSet", keys: list[str] | None, count: int, seed: int) -> list[int]:
    from semiseg.data.keyed import permutation
    from semiseg.data.order.subset import by_keys

    if keys is not None:
        by_keys(stored, keys)  # complains about unknown ones
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
