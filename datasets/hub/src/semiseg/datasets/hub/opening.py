"""Open a path or a hub id, in any supported form, as rows by split."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semiseg.data import DataError, parse_json, reading, unknown
from semiseg.datasets.hub.rows import Rows, Stream, Table

FORMS = (
    "a hub id (owner/name), a folder written by save_to_disk, a folder of parquet files, one parquet file, or an imagefolder "
    "(images with a metadata.csv whose columns file_name and mask_file_name name the pairs)"
)
_SPLIT = re.compile(r"(train|validation|valid|val|dev|test)(?![a-z])")  # how file names of a single split start
_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The splits of a data set, and where they come from: a local `folder`, or a `repository` of the hub."""

    name: str
    splits: dict[str, Rows]
    folder: Path | None = None
    repository: str | None = None
    revision: str | None = None

    @property
    def home(self) -> str | None:
        return f"https://huggingface.co/datasets/{self.repository}" if self.repository else None


def open_splits(
    root: Path | None,
    dataset: Any = None,
    *,
    config: str | None,
    revision: str | None,
    streaming: bool,
    only: Sequence[str] | None,
) -> Opened:
    """Open a path, an id, or a data set that is already open. The DataError says what was tried and what to do."""
    if dataset is not None:
        return Opened(name="hub", splits=_rows(dataset, only, "the data set"))
    if root is None:
        raise DataError(f"data set 'hub': no path or id given; expected {FORMS}")
    path = root.expanduser()
    if path.exists():
        return _open_path(path.absolute(), config, streaming, only)
    return _open_id(root.as_posix(), config, revision, streaming, only)


def _open_path(path: Path, config: str | None, streaming: bool, only: Sequence[str] | None) -> Opened:
    import datasets

    folder = path if path.is_dir() else path.parent
    refuse_strange_places(path)
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        if streaming:
            raise DataError(f"{path} was written by save_to_disk and is always read in place; leave out streaming")
        found = _tried(str(path), lambda: datasets.load_from_disk(str(path)))
    elif path.is_file() and path.suffix != ".parquet":
        raise DataError(f"{path} is a file, but not a parquet file; expected {FORMS}")
    else:
        split = _SPLIT.match(path.stem) if path.is_file() else None
        if path.is_dir() and not any(path.iterdir()):
            raise DataError(f"{path} is an empty folder; expected {FORMS}")
        arguments: dict[str, Any] = {"path": str(path), "name": config}
        if path.is_file():
            arguments = {"path": "parquet", "data_files": {split[1] if split else "train": str(path)}}
        found = _tried(str(path), lambda: datasets.load_dataset(**arguments, streaming=streaming))
    named = path.stem if path.is_file() and not _SPLIT.match(path.stem) else folder.name
    return Opened(name=named, splits=_rows(found, only, str(path), [str(folder)]), folder=folder)


def refuse_strange_places(folder: Path) -> None:
    """DataError if a file that the library obeys names data outside of the folder: another folder, or an address.

    These are the list of data files in README.md, and the lists that save_to_disk writes.
    """
    for file in (*folder.glob("README.md"), *folder.glob("dataset_dict.json"), *folder.rglob("state.json")):
        with reading(str(file)):
            text = file.read_text(encoding="utf-8", errors="replace")
            if file.suffix == ".json":
                fields = parse_json(text)
                names = [*fields.get("splits", []), *(entry["filename"] for entry in fields.get("_data_files", []))]
            else:
                head = text.split("---")[1] if text.startswith("---") and text.count("---") > 1 else ""
                names = re.findall(r"[^\s,\[\]'\"]+", head) if "data_files" in head or "data_dir" in head else []
        for name in map(str, names):
            if "://" in name or name.startswith(("/", "~")) or ".." in re.split(r"[/\\]", name):
                raise DataError(
                    f"{file} names data outside of its folder, {ascii(name)[:200]}, which is not opened; name files in the "
                    "folder, or remove that line"
                )


def _open_id(
    name: str, config: str | None, revision: str | None, streaming: bool, only: Sequence[str] | None
) -> Opened:
    import datasets.config

    import datasets

    if not _ID.fullmatch(name):
        raise DataError(f"{name}: no such file or folder, and not a hub id; expected {FORMS}")
    found = _tried(name, lambda: datasets.load_dataset(name, config, revision=revision, streaming=streaming))
    homes = [f"hf://datasets/{name}", str(datasets.config.HF_DATASETS_CACHE), str(_cache(name))]
    splits = _rows(found, only, name, homes)
    return Opened(name=name.rsplit("/", 1)[-1], splits=splits, repository=name, revision=revision)


def _tried(what: str, opening: Any) -> Any:
    """The result of `opening`; any error of the library becomes a DataError."""
    try:
        return opening()
    except Exception as error:
        message = " ".join(str(error).split())
        remedies = {
            "gated": "accept the terms on its page, then log in: hf auth login",
            "config name is missing": "choose one with --option config=NAME",
            "scripts are no longer supported": "convert it to parquet, or try --option revision=refs/convert/parquet",
            "offline": "it is not in the cache; unset HF_HUB_OFFLINE, or copy the data here and name the folder",
            "couldn't reach": "check the id and the network, or copy the data here and name the folder",
        }
        text = f"{type(error).__name__} {message}".lower()
        remedy = next((remedy for sign, remedy in remedies.items() if sign in text), f"expected {FORMS}")
        raise DataError(f"{what} could not be opened ({type(error).__name__}: {message}); {remedy}") from error


def _cache(name: str) -> Path:
    """Where the hub's library keeps the files of a repository."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"


def _rows(found: Any, only: Sequence[str] | None, where: str, homes: Sequence[str] | None = None) -> dict[str, Rows]:
    import datasets

    if not isinstance(found, Mapping):
        found = {str(found.split or "train"): found}
    for name in only or ():
        if name not in found:
            raise DataError(f"{where}: {unknown('split', name, found)}")
    kinds = {datasets.Dataset: Table, datasets.IterableDataset: Stream}
    rows: dict[str, Rows] = {}
    for name, split in found.items():
        kind = next((kind for library, kind in kinds.items() if isinstance(split, library)), None)
        if kind is None:
            raise DataError(f"{where}: split '{name}' is a {type(split).__name__}; expected a datasets.Dataset")
        if only is None or name in only:
            rows[name] = kind(split, homes)
    if not rows:
        raise DataError(f"{where}: it has no splits")
    return rows
