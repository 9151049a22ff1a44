"""Take from run folders what a report needs, and nothing else: small, without weights, images or this machine's paths."""

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from semiseg.data import SemisegError, unwritable
from semiseg.train.report.index import TABLE, Index, index_runs, merged, unread
from semiseg.train.report.runs import (
    RUNS,
    CollectedRun,
    is_collected,
    read_collected,
    read_run,
    why_incomplete,
    write_collected,
)
from semiseg.train.run.results import differs

ROWS = 60  # of training that are kept of a run's metrics; every evaluation is


@dataclass
class Collected:
    """The outcome: which runs were taken, why others were not, and which earlier ones are no longer in the sweep."""

    index: Index
    taken: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


def collect(runs: Path, to: Path) -> Collected:
    """Write `to/runs.jsonl`: the index, and every complete run in `runs`.

    The file is replaced at once, at the end. A run replaces an earlier one of its name; all other lines stay.
    Raises SemisegError if `runs` is not a folder of runs, or `to` holds those of another study.
    """
    if is_collected(runs):
        raise SemisegError(f"{runs} was collected already ({RUNS}); name the folder that `semiseg sweep` trained into")
    if to.resolve() == runs.resolve():
        raise SemisegError(f"--to {to} is the folder of the runs; choose another one")
    own = index = index_runs(runs)
    records: dict[str, CollectedRun] = {}
    dropped: list[str] = []
    if is_collected(to):
        before, records = read_collected(to)
        index = merged(before, own, to)
        dropped = [name for name in before.runs if name not in index.runs and name in records]
    elif (to / TABLE).is_file() or any(to.glob("*/recipe.toml")):
        raise SemisegError(
            f"{to} is a folder of runs, not one that `semiseg collect` wrote; choose another one with --to"
        )
    done = Collected(index, left=unread(runs), dropped=dropped)
    for name in own.runs:
        planned = index.plan.get(name, {})
        try:
            reason = why_incomplete(runs / name, planned)
            run = None if reason else _kept(read_run(runs / name))
        except SemisegError as error:
            reason, run = str(error), None
        if run:
            records[name] = run
            done.taken.append(name)
        else:
            done.left[name] = reason + _earlier(records.get(name), planned)
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(error, to) from None
    write_collected(to, index, records)
    return done


def thinned(rows: list[dict[str, Any]], count: int = ROWS) -> list[dict[str, Any]]:
    """Every row of an evaluation, and at most `count` others, evenly spaced with the first and the last, in order."""
    training = [number for number, row in enumerate(rows) if "lr" in row]
    dropped = set()
    if len(training) > count:
        dropped = set(training) - {training[round(i * (len(training) - 1) / (count - 1))] for i in range(count)}
    return [row for number, row in enumerate(rows) if number not in dropped]


def portable(value: Any, root: Path) -> Any:
    """JSON without this machine's absolute paths: relative to `root` if below it, otherwise their last component."""
    if isinstance(value, dict):
        return {name: portable(part, root) for name, part in value.items()}
    if isinstance(value, list):
        return [portable(part, root) for part in value]
    return _portable_text(value, root) if isinstance(value, str) else value


def _kept(run: CollectedRun) -> CollectedRun:
    """What is stored of a run."""
    root, strings = Path.cwd(), re.compile(r'"(?:[^"\\\n]|\\.)*"')
    for launch in run.launches:
        match launch.get("command"):
            case [str(started), *words] if started.endswith("__main__.py"):
                launch["command"] = ["semiseg.train", *words]
    recipe = strings.sub(
        lambda found: json.dumps(_portable_text(json.loads(found[0]), root), ensure_ascii=False), run.recipe
    )
    return replace(
        run,
        results=portable(run.results, root),
        launches=portable(run.launches, root),
        recipe=recipe,
        metrics=thinned(run.metrics),
    )


def _portable_text(text: str, root: Path) -> str:
    text = text.replace("file://", "")
    before, sign, rest = text.rpartition("=")  # key=/path of a command; a path alone may contain spaces
    if rest.startswith("/"):
        return f"{before}{sign}{_place(rest, root)}"
    return re.sub(r"(?<![^\s='\"(\[,])/[^\s'\",;)\]]+", lambda found: _place(found[0], root), text)


def _place(path: str, root: Path) -> str:
    place = PurePosixPath(path)
    inside = place.is_relative_to(root) and place != PurePosixPath(root)
    return str(place.relative_to(root)) if inside else place.name or "."


def _earlier(run: CollectedRun | None, planned: dict[str, Any]) -> str:
    """What happens to a run that was collected before."""
    if run is None:
        return ""
    try:
        run.check("", "")
    except SemisegError:
        return ", an earlier one is damaged"
    if differs(run.results, planned):
        return ", an earlier one is ignored: it is not of this plan"
    return ", an earlier one stays"
