"""The commands that error messages recommend."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semiseg.data.format.json_text import parse_json
from semiseg.data.format.manifest import Manifest
from semiseg.data.format.names import MANIFEST, PART_PLAN, PLAN, check_folder_name
from semiseg.data.registry import installed
from semiseg.data.storage.storage import Storage

_DEFAULT_SIZE = 256_000_000  # bytes of --shard-size


def absent(storage: Storage) -> str:
    """The message for a folder without a manifest."""
    dataset, split, root = _place(storage.url)
    if not storage.exists(PLAN):
        if has_parts(storage):
            merge = f"semiseg data merge {shlex.quote(storage.url)}"
            return (
                f"{storage.url}: some parts are written (it has no {MANIFEST}); when all are, merge them with: {merge}"
            )
        if below := _sets_in(storage):
            some = ", ".join(below[:5]) + ", ..." * (len(below) > 5)
            return (
                f"{storage.url} holds the splits {some}; name one of them, such as {storage.url.rstrip('/')}/{below[0]}"
            )
        if "@" in split:
            base, name = storage.url.rstrip("/").rsplit("@", 1)
            weak = f"semiseg weak labels {shlex.quote(base)} --classifier CLASSIFIER --name {shlex.quote(name)}"
            own = f"semiseg weak predict MODEL {shlex.quote(base)} --name {shlex.quote(name)}"
            return f"no pseudo-labels at {storage.url} (it has no {MANIFEST}); write them with: {weak}, or {own}"
        command = _command(dataset, split, root, {})
        if dataset != "<dataset>" and dataset not in installed():  # images of the user's own
            own = f"data shard folder ROOT --option name={shlex.quote(dataset)}"
            command = command.replace(f"data shard {shlex.quote(dataset)}", own, 1)
        return f"no shards at {storage.url} (it has no {MANIFEST}); write them with: {command}"
    what = f"{storage.url}: writing was interrupted; "
    try:
        plan = parse_json(storage.read(PLAN))
        dataset, split = check_folder_name("dataset", plan["dataset"]), check_folder_name("split", plan["split"])
        settings = dict(plan["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return what + "rerun the command to resume"
    if dataset not in installed():
        return what + "rerun the command that wrote it to resume"
    command = _command(dataset, split, root, settings)
    return f"{what}rerun the command to resume: {command} (with its ROOT and options, if any)"


def _sets_in(storage: Storage) -> list[str]:
    """The splits of a data set's folder; none for one that is not on a disk."""
    folder = Path(storage.url)
    return sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}")) if folder.is_dir() else []


def has_parts(storage: Storage) -> bool:
    """Whether a folder without a manifest has plan files of parts."""
    try:
        return any(re.fullmatch(PART_PLAN, name) for name in storage.names())
    except OSError:
        return False


def shard_command(url: str, plan: Mapping[str, Any]) -> str:
    """The command that writes the set of a plan file at `url`."""
    root = url.rstrip("/").removesuffix(f"{plan['dataset']}/{plan['split']}") or "."
    return _command(plan["dataset"], plan["split"], root.rstrip("/") or "/", plan["settings"])


def remedy(url: str, manifest: Manifest) -> str:
    """What to do about a damaged shard."""
    root = url.rstrip("/").removesuffix(f"{manifest.dataset}/{manifest.split}") or "."
    again = "rerun the command that wrote it"
    if manifest.dataset in installed():
        again = f"run `{_command(manifest.dataset, manifest.split, root, manifest.settings)}`"
    return (
        f"list all damage with `semiseg data verify {shlex.quote(url)}`, then copy the file again from its source, "
        f"or delete it and {again}"
    )


def _command(dataset: str, split: str, root: str, settings: Mapping[str, Any]) -> str:
    """The command that writes a set."""
    name = dataset if dataset == "<dataset>" else shlex.quote(dataset)
    words = ["--split", split, "--to", root]
    if (size := settings.get("size", _DEFAULT_SIZE)) != _DEFAULT_SIZE:
        words += ["--shard-size", str(size)]
    if "resize" in settings:
        words += ["--size", str(settings["resize"])]
    if "format" in settings:
        words += ["--format", str(settings["format"])]
    return f"semiseg data shard {name} {shlex.join(words)}"


def _place(url: str) -> tuple[str, str, str]:
    """Data set, split and root of a set, from its URL: <root>/<dataset>/<split>."""
    parts = url.rstrip("/").split("/")
    dataset, split = parts[-2:] if len(parts) > 1 else ("<dataset>", parts[-1])
    return dataset, split, "/".join(parts[:-2]) or ("/" if url.startswith("/") else ".")
