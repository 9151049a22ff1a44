"""Take from run folders what a report needs, and nothing else: small, without weights, images or this machine's places."""

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from semiseg.data import SemisegError, replaced, unwritable, write_text
from semiseg.train.recipe.load import digest, load
from semiseg.train.report.index import INDEX, Index, merged, read_index, read_json, unread
from semiseg.train.run.records import differs, read_launches, read_results

LINES = 60  # of training that are kept of a run's metrics; every evaluation is


@dataclass
class Collected:
    """What happened: names of the runs that were taken, why others were not, and earlier ones that no plan has any more."""

    index: Index
    taken: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


def collect(runs: Path, to: Path) -> Collected:
    """Write `to/<run>/{results.json, recipe.toml, env.json, metrics.jsonl}` of every complete run in `runs`, and the index.

    A run is written whole or not at all and replaces an earlier one of its name; what else lies in `to` stays. Raises
    SemisegError where `runs` is no folder of runs, or `to` holds those of another study.
    """
    if (runs / INDEX).is_file():
        raise SemisegError(f"{runs} was collected already ({INDEX}); name the folder that `semiseg sweep` trained into")
    if to.resolve() == runs.resolve():
        raise SemisegError(f"--to {to} is the folder of the runs; choose another one")
    own = index = read_index(runs)
    earlier: dict[str, dict[str, str]] = {}
    if (to / INDEX).is_file():
        before = read_index(to)
        earlier, index = before.runs, merged(before, own, to)
    elif other := next((name for name in index.runs if (to / name).exists()), None):
        raise SemisegError(
            f"{to} holds {other}, which `semiseg collect` did not write; choose another folder with --to"
        )
    dropped = [name for name in earlier if name not in index.runs and (to / name).is_dir()]
    done = Collected(index, left=unread(runs), dropped=dropped)
    try:
        to.mkdir(parents=True, exist_ok=True)
        write_index(index, to)  # first: whatever stops this, the same command goes on
        for name in own.runs:
            planned = index.plan.get(name, {})
            reason = why_incomplete(runs / name, planned)
            try:
                if not reason:
                    with replaced(to / name) as fresh:
                        _copy(runs / name, fresh)
            except SemisegError as error:
                reason = str(error)
            if reason:
                done.left[name] = reason + _earlier(to / name, planned)
            else:
                done.taken.append(name)
    except OSError as error:
        raise unwritable(error, Path(error.filename or to)) from None
    return done


def write_index(index: Index, to: Path) -> None:
    """Whole or not at all."""
    write_text(to / INDEX, index.to_json())


def why_incomplete(run: Path, planned: dict[str, Any]) -> str:
    """Why a run can't be collected; nothing where it can. planned: what its results must say, see `records.plan`."""
    if not run.is_dir():
        return "not begun"
    missing = [name for name in ("recipe.toml", "env.json", "metrics.jsonl") if not (run / name).is_file()]
    if missing:
        return f"no {missing[0]}"
    if not (run / "results.json").is_file():
        return "not at its end"
    try:
        found = json.loads((run / "results.json").read_text())
        known = found["recipe"]
        if not all(found[when].get("domains") for when in ("last", "best")):
            return "was never evaluated"
        other = differs(found, planned)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its results.json is damaged"
    try:
        own = digest(load(run / "recipe.toml"))
    except SemisegError as error:
        return str(error)
    if known != own:
        return "its results.json is of another recipe than its recipe.toml"
    return other


def thinned(lines: list[str], count: int = LINES) -> list[str]:
    """Every line that evaluates, and at most `count` others, evenly spread with the first and the last, in order."""
    training = [number for number, line in enumerate(lines) if "lr" in json.loads(line)]
    dropped = set()
    if len(training) > count:
        dropped = set(training) - {training[round(each * (len(training) - 1) / (count - 1))] for each in range(count)}
    return [line for number, line in enumerate(lines) if number not in dropped]


def portable(value: Any, root: Path) -> Any:
    """JSON without this machine's absolute paths: those below `root` relative to it, of others the last name."""
    if isinstance(value, dict):
        return {name: portable(each, root) for name, each in value.items()}
    if isinstance(value, list):
        return [portable(each, root) for each in value]
    return _portable_text(value, root) if isinstance(value, str) else value


def _copy(run: Path, to: Path) -> None:
    root, launches = Path.cwd(), read_launches(run)
    for launch in launches:
        match launch.get("command"):
            case [str(started), *words] if started.endswith("__main__.py"):
                launch["command"] = ["semiseg.train", *words]
    results = read_json(run / "results.json", remedy=f"the run {run.name} has to be trained again")
    for name, told in (("results.json", results), ("env.json", {"launches": launches})):
        (to / name).write_text(json.dumps(portable(told, root), indent=1) + "\n", encoding="utf-8")
    recipe = (run / "recipe.toml").read_text(encoding="utf-8")
    strings = re.compile(r'"(?:[^"\\\n]|\\.)*"')
    recipe = strings.sub(
        lambda found: json.dumps(_portable_text(json.loads(found[0]), root), ensure_ascii=False), recipe
    )
    (to / "recipe.toml").write_text(recipe, encoding="utf-8")
    try:
        lines = thinned((run / "metrics.jsonl").read_text().splitlines())
    except ValueError as error:
        raise SemisegError(f"{run / 'metrics.jsonl'}: damaged ({error}); train that run again") from None
    (to / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


def _portable_text(text: str, root: Path) -> str:
    text = text.replace("file://", "")
    before, sign, rest = text.rpartition("=")  # key=/path of a command; a path alone may hold spaces
    if rest.startswith("/"):
        return f"{before}{sign}{_place(rest, root)}"
    return re.sub(r"(?<![^\s='\"(\[,])/[^\s'\",;)\]]+", lambda found: _place(found[0], root), text)


def _place(path: str, root: Path) -> str:
    place = PurePosixPath(path)
    inside = place.is_relative_to(root) and place != PurePosixPath(root)
    return str(place.relative_to(root)) if inside else place.name or "."


def _earlier(run: Path, planned: dict[str, Any]) -> str:
    """What becomes of a run that was collected before."""
    if not run.is_dir():
        return ""
    found = read_results(run)
    if found is None:
        return ", an earlier one is damaged"
    return (
        ", an earlier one is not of this plan and counts no more"
        if differs(found, planned)
        else ", an earlier one stays"
    )


def with_predictions(index: Index, predictions: dict[str, Any], to: Path) -> Index:
    """The index with what lies in `to/predictions`, written."""
    index = replace(index, predictions=predictions)
    write_index(index, to)
    return index
