"""Folders that a run writes, step-<n>/ and best-<n>/: their names, and a seal that shows any changed byte."""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from semiseg.data import parse_json

SEAL = "seal.json"
_NAME = re.compile(r"(step|best)-(\d{8,})")


def all_steps(run: Path) -> list[Path]:
    """What is named as a run names its checkpoints, oldest first: not step-backup, step-00000010.bak or a copy of one."""
    return _named(run, "step")


def all_best(run: Path) -> list[Path]:
    """The models of the best evaluations that are kept, the best one last; without copies under another name."""
    return [folder for folder in _named(run, "best") if folder.is_dir() and not _is_copy(folder)]


def step_of(folder: Path) -> int:
    """The step in the name of a folder of `all_steps` or `all_best`."""
    return int(folder.name.partition("-")[2])


def is_own(folder: Path) -> bool:
    """Whether a run may remove this folder: neither a link, nor a copy under another name."""
    return folder.is_dir() and not folder.is_symlink() and not _is_copy(folder)


def seal(folder: Path, name: str) -> None:
    """Write seal.json into a folder that will be called `name`: size and sha256 of every file in it."""
    files = {}
    for path in sorted(_files(folder)):
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256}
    content = {"name": name, "files": files}
    (folder / SEAL).write_text(json.dumps(content | {"sha256": _digest(content)}, indent=2))


def fault(folder: Path, *, only: Collection[str] = ()) -> str:
    """What is wrong with a folder, by its seal; "" if nothing is, or if it was written before there were seals.

    only: files to check, instead of all; the folder may then be a copy under another name.
    """
    try:
        content = _read(folder)
        if content is None:
            return ""
        if content["name"] != folder.name and not only:
            return f"it is a copy of {content['name']}"
        for name, expected in content["files"].items():
            if only and name not in only:
                continue
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if (size := path.stat().st_size) != expected["bytes"]:
                return f"{name} has {size} bytes, expected {expected['bytes']}"
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                    return f"{name} has changed since it was written (sha256 differs)"
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return f"{SEAL}: {getattr(error, 'strerror', None) or error}"
    return ""


def _read(folder: Path) -> dict[str, Any] | None:
    """The contents of a seal; None if there is none. ValueError if it is damaged."""
    try:
        content = parse_json((folder / SEAL).read_bytes())
    except FileNotFoundError:
        return None
    if not isinstance(content, dict) or content.pop("sha256", None) != _digest(content):
        raise ValueError("it has changed since it was written")
    return content


def _is_copy(folder: Path) -> bool:
    try:
        content = _read(folder)
    except (OSError, ValueError):
        return False
    return content is not None and content.get("name") != folder.name


def _named(run: Path, kind: str) -> list[Path]:
    try:
        names = os.listdir(run)  # noqa: PTH208 (only the names)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [match for name in names if (match := _NAME.fullmatch(name)) and match[1] == kind]
    steps = {int(match[2]): match[0] for match in found if match[0] == f"{kind}-{int(match[2]):08d}"}
    return [run / steps[step] for step in sorted(steps)]


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path != folder / SEAL)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
