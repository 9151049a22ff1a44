"""The runs of a study: read from a folder of runs, or from the one file that `semiseg collect` writes, into the same records.

`runs.jsonl` has the study's index in its first line and a run in every other one, sorted by name. `predictions.zip` beside it
has the predicted masks, <run>/<key>.png.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, ZipInfo

from semiseg.data import SemisegError, atomic, parse_json, write_text
from semiseg.train.recipe.load import digest, load
from semiseg.train.recipe.problems import shortened
from semiseg.train.recipe.typed import is_plain
from semiseg.train.report.checked import LARGEST, check_record
from semiseg.train.report.index import Index, index_runs, read_json, unread
from semiseg.train.run.launches import read_launches
from semiseg.train.run.results import differs

RUNS, PREDICTIONS = "runs.jsonl", "predictions.zip"
_EARLIER_FORM = "runs.json"


@dataclass(frozen=True, kw_only=True)
class CollectedRun:
    """What a report needs of a complete run: results.json, the text of recipe.toml, every start (env.json), metrics.jsonl."""

    name: str
    results: dict[str, Any]
    recipe: str
    launches: list[dict[str, Any]]
    metrics: list[dict[str, Any]]

    def check(self, place: object, remedy: str) -> None:
        """Raise SemisegError, with the place and the remedy, unless everything that a report reads has the right type."""
        try:
            check_record(vars(self))
        except ValueError as error:
            raise SemisegError(f"{place}: damaged ({shortened(str(error))}); {remedy}") from None


def read_runs(folder: Path) -> tuple[Index, list[CollectedRun], dict[str, str]]:
    """A study's index, its complete runs in that order, and why others do not count, from either form.

    Raises SemisegError for a folder of neither form, and for damage.
    """
    left: dict[str, str] = {}
    if is_collected(folder):
        index, records = read_collected(folder)
        runs = [records[name] for name in index.runs if name in records]
        for run in runs:
            run.check(f"{folder / RUNS}: {run.name}", "collect it again, or delete its line")
    else:
        index, runs = index_runs(folder), []
        for name in index.runs:
            if not (folder / name / "results.json").is_file():
                continue
            if reason := why_incomplete(folder / name, index.plan.get(name, {})):
                left[name] = reason
            else:
                runs.append(read_run(folder / name))
        left |= unread(folder)
    reasons = {run.name: differs(run.results, index.plan.get(run.name, {})) for run in runs}
    left |= {name: reason for name, reason in reasons.items() if reason}
    return index, [run for run in runs if not reasons[run.name]], left


def read_run(folder: Path) -> CollectedRun:
    """Read a run's own folder. Raises SemisegError for damage."""
    remedy = "remove the folder and train the run again"
    results, launches = read_json(folder / "results.json", remedy=remedy), read_launches(folder)
    try:
        recipe = (folder / "recipe.toml").read_text(encoding="utf-8")
        metrics = [parse_json(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise SemisegError(f"{folder}: damaged ({type(error).__name__}: {error}); {remedy}") from None
    run = CollectedRun(name=folder.name, results=results, recipe=recipe, launches=launches, metrics=metrics)
    run.check(folder, remedy)
    return run


def why_incomplete(run: Path, planned: dict[str, Any]) -> str:
    """Why a run's folder can't be collected; "" if it can. planned: what its results must say, see `records.plan`."""
    if not run.is_dir():
        return "not begun"
    missing = [name for name in ("recipe.toml", "env.json", "metrics.jsonl") if not (run / name).is_file()]
    if missing:
        return f"no {missing[0]}"
    if not (run / "results.json").is_file():
        return "not finished"
    try:
        results = parse_json((run / "results.json").read_bytes())
        known = results["recipe"]
        if not all(results[when].get("domains") for when in ("last", "best")):
            return "was never evaluated"
        other = differs(results, planned)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its results.json is damaged"
    try:
        own = digest(load(run / "recipe.toml"))
    except SemisegError as error:
        return str(error)
    if known != own:
        return "its results.json is of another recipe than its recipe.toml"
    return other


def is_collected(folder: Path) -> bool:
    """Whether `semiseg collect` wrote here. Raises SemisegError for what an earlier version of it wrote."""
    if (folder / RUNS).is_file():
        return True
    if (folder / _EARLIER_FORM).is_file():
        raise SemisegError(
            f"{folder}: collected in an earlier form ({_EARLIER_FORM}); empty the folder, then collect again: "
            f"semiseg collect RUNS --to {folder}"
        )
    return False


def read_collected(folder: Path) -> tuple[Index, dict[str, CollectedRun]]:
    """The index and every line of `runs.jsonl` by the run's name, not yet checked. Raises SemisegError for damaged lines."""
    path = folder / RUNS
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise ValueError(f"{size / 1e6:.0f} MB; a study has a few")
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise SemisegError(f"{path}: cannot be read ({error}); restore it, or collect into another folder") from None
    try:
        index = Index.of(parse_json(lines[0]))
    except ValueError as error:
        raise SemisegError(
            f"{path}:1: not what `semiseg collect` writes ({error}); restore the file, or collect into another folder"
        ) from None
    runs: dict[str, CollectedRun] = {}
    for number, line in enumerate(lines[1:], 2):
        try:
            run = CollectedRun(**parse_json(line))
            if not isinstance(run.name, str) or not is_plain(run.name):
                raise ValueError("its name is not that of a run's folder")
            if run.name in runs:
                raise ValueError(f"{run.name} has two lines")
            runs[run.name] = run
        except (ValueError, TypeError) as error:
            raise SemisegError(
                f"{path}:{number}: damaged ({shortened(str(error))}); restore the line, or delete it and collect its run again"
            ) from None
    return index, runs


def write_collected(folder: Path, index: Index, runs: Mapping[str, CollectedRun]) -> None:
    """Write `runs.jsonl`: the same bytes for the same runs, and completely or not at all."""
    write_text(
        folder / RUNS,
        "".join(json.dumps(asdict(part)) + "\n" for part in (index, *(runs[name] for name in sorted(runs)))),
    )


def read_predictions(folder: Path) -> dict[str, bytes]:
    """<run>/<key>.png -> the PNG of every predicted mask; nothing where none were collected. Raises SemisegError for damage."""
    path = folder / PREDICTIONS
    if not path.is_file():
        return {}
    try:
        with ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > path.stat().st_size:  # masks are stored as they are
                raise ValueError("it holds more bytes than the file has")
            return {entry.filename: archive.read(entry) for entry in entries}
    except (OSError, ValueError, RuntimeError, EOFError, BadZipFile, zlib.error) as error:
        raise SemisegError(f"{path}: cannot be read ({error}); delete it and collect with --predict again") from None


def write_predictions(folder: Path, masks: Mapping[str, bytes]) -> None:
    """Write `predictions.zip`: the same bytes for the same masks, and completely or not at all."""
    with atomic(folder / PREDICTIONS) as file, ZipFile(file, "w") as archive:
        for name in sorted(masks):
            entry = ZipInfo(name)  # of 1980; stored, as a PNG is compressed already
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # on every system
            archive.writestr(entry, masks[name])
