"""What a report says in words: what was trained, what came out, on which machines, and what its numbers don't tell."""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from semiseg.data import SemisegError
from semiseg.train.recipe.shipped import find_sweep
from semiseg.train.report.study import Run, Study
from semiseg.train.run.records import differs, plan
from semiseg.train.sweep.grid import expand, read_sweep


def lead(study: Study) -> str:
    """One sentence: how many runs of what, trained and scored on what."""
    index = study.index
    counts = " × ".join(f"{len(labels)} {_plural(axis, len(labels))}" for axis, labels in index.axes.items())
    recipes = [run.recipe for run in study.runs]
    steps = _range(recipe.get("steps", 0) for recipe in recipes)
    encoders = _list(_of(recipe, "model", "encoder", "name") for recipe in recipes)
    domains = [each for recipe in recipes for each in recipe.get("data", {}).get("domains", {}).values()]
    trained = _list(_source(each.get("labeled")) for each in domains)
    scored = _list(_source(each.get("val")) for each in domains)
    looked = " or ".join(dict.fromkeys(_looks(recipe) for recipe in recipes))
    images = _range(each.get("images", 0) for run in study.runs for each in run.results["last"]["domains"].values())
    return (
        f"{counts}: {len(study.runs)} of {len(index.runs)} runs, {steps} updates each. Encoder {encoders}; trained on "
        f"{trained}; scored on {scored} ({images} images), {looked}, after the last update unless said otherwise."
    )


def _looks(recipe: dict[str, Any]) -> str:
    """How images were looked at when they were scored."""
    evaluate = recipe.get("evaluate", {})
    scales = evaluate.get("scales", [1.0])
    words = (
        f"at scale {scales[0]:g}" if len(scales) == 1 else f"over scales {', '.join(f'{each:g}' for each in scales)}"
    )
    return words + (" and mirrored" if evaluate.get("flip") else "") + (", in tiles" if evaluate.get("tile") else "")


def finding(study: Study) -> list[str]:
    """What the intervals of the differences say, counted."""
    told = []
    if not study.compares:
        return [
            "No method is another one's supervised twin by its name (as supervised is cct's), so nothing is said of what a "
            "method adds to supervised training."
        ]
    repeats = study.index.repeats or "run"
    for domain in study.domains:
        cells = [cell for cell in study.cells(domain) if cell.gain and cell.gain.half is not None]
        if not cells:
            continue
        by = {
            verdict: [c for c in cells if c.gain and c.gain.verdict == verdict]
            for verdict in ("above 0", "below 0", "includes 0")
        }
        on = f"On {domain}: of" if len(study.domains) > 1 else "Of"
        counts = f"{len(by['above 0'])} lie above zero, {len(by['below 0'])} below, {len(by['includes 0'])} include it"
        told.append(
            f"{on} {len(cells)} differences to a supervised twin, paired by {repeats}, the 95 % intervals of {counts}."
        )
        for words, verdict in (("Above", "above 0"), ("Below", "below 0")):
            for x in study.xs:
                if named := [cell.method for cell in by[verdict] if cell.x == x]:
                    at = f" at {study.place(x)}" if x else ""
                    told.append(f"{words}{at}: {', '.join(named)}.")
    if not told:
        return [
            f"No method has two runs beside runs of its supervised twin at equal {repeats}: no difference has an interval yet."
        ]
    return [
        *told,
        "About one interval in twenty leaves out zero by chance alone; where one includes it, nothing was shown.",
    ]


def facts(study: Study) -> dict[str, str]:
    """Name -> HTML."""
    launches = [launch for run in study.runs for launch in run.launches]
    hours = [float(run.results["hours"]) for run in study.runs]
    found = {"hours": f"{sum(hours):.1f} in all, {min(hours):.2f} to {max(hours):.2f} a run"}
    machines = (f"{each.get('device')}, {each.get('threads')} threads, {each.get('platform')}" for each in launches)
    found["machine"] = escape(_list(machines))
    found["software"] = escape(_list(map(_software, launches)))
    found["commit"] = escape(_list(_commit(launch) for launch in launches))
    papers = dict.fromkeys(run.recipe.get("paper", "") for run in study.runs)
    links = [
        f"<a href='{escape(each)}'>{escape(each.removeprefix('https://'))}</a>"
        for each in papers
        if each.startswith("https://")
    ]
    if links:
        found["papers"] = ", ".join(links)
    changed = [run.name for run in study.runs if any(launch.get("changes") for launch in run.launches)]
    if changed:
        found["continued with changes"] = escape(", ".join(changed))
    if command := _sweep_command(study):
        found["to repeat all"] = f"<code>{escape(command)}</code>"
    return found


def notes(study: Study, domain: str, taught: bool) -> list[str]:
    """What a reader of the scores has to know."""
    twins = (
        "A twin is supervised training with the same loss where that was run (cct_abce: supervised_abce), else supervised; "
        f"the difference is taken run by run at equal {study.index.repeats or 'place'}. "
    )
    told = [
        f"± is half of a 95 % interval by Student's t; one run has none. {twins if study.compares else ''}"
        "“Best” is the best evaluation of each run, chosen on the very images "
        "that it is told for, so it is optimistic; compare by the last."
    ]
    if taught:
        told.append(
            "Teacher: the moving average of the trained network, scored on the same images at the last step. All other "
            "columns are those of the trained network itself."
        )
    judged = [
        m
        for m in study.methods
        if any(r.method == m and _of(r.recipe, "evaluate", "weights") == "teacher" for r in study.runs)
    ]
    if judged:
        told.append(f"For {', '.join(judged)} all scores are those of the moving average: their recipes say so.")
    told += _unlike(study, domain)
    short = [cell for cell in study.cells(domain) if len(cell.runs) < cell.planned]
    if short:
        names = (
            f"{cell.method} at {study.place(cell.x) or 'all'} ({len(cell.runs)} of {cell.planned})" for cell in short
        )
        told.append(f"Fewer runs than planned: {', '.join(names)}.")
    if study.index.repeats and _same_labels(study, domain):
        told.append(
            "All runs at one place share the same labeled images, so the intervals tell of chance in training alone, not of "
            "which images were labeled."
        )
    return told


def _unlike(study: Study, domain: str) -> list[str]:
    """What keeps runs from being compared as equals: other code, other looks, other validation images."""
    told = []
    commits = list(dict.fromkeys(_commit(launch) for run in study.runs for launch in run.launches))
    if len(commits) > 1 or any("uncommitted" in commit for commit in commits):
        told.append(
            f"The runs are not all of one clean commit: {', '.join(commits)}; the list of runs says which is which."
        )
    looks = list(dict.fromkeys(_looks(run.recipe) for run in study.runs))
    if len(looks) > 1:
        told.append(f"Not scored alike: {' or '.join(looks)}.")
    data = {digest for run in study.runs if (digest := run.results.get("data", {}).get(f"{domain}/val"))}
    if len(data) > 1:
        told.append("Not scored on the same images: the validation shards differ between runs.")
    return told


def listing(study: Study) -> list[list[str]]:
    """A row of HTML cells for each run."""
    rows = []
    for run in study.runs:
        scores = [run.results[when].get("miou") for when in ("last", "best")]
        commits = dict.fromkeys(_commit(launch) for launch in run.launches)
        rows.append(
            [f"<th scope='row'>{escape(run.name)}</th>", f"<td>{escape(str(run.results.get('seed', '')))}</td>"]
            + [f"<td class='words'>{escape(_base(run))}</td>"]
            + [f"<td>{'–' if score is None else f'{score:.2f}'}</td>" for score in scores]
            + [f"<td>{float(run.results['hours']):.2f}</td>", f"<td class='words'>{escape(', '.join(commits))}</td>"]
        )
    return rows


def _base(run: Run) -> str:
    """The recipe that a run was started from, by its last start."""
    words = run.launches[-1].get("command", []) if run.launches else []
    return next(
        (word.rpartition("/")[2].removesuffix(".toml") for word in words[1:] if "=" not in word and word != "train"), ""
    )


def _software(launch: dict[str, Any]) -> str:
    versions = launch.get("packages", {})
    own = versions.get("semiseg-train") or versions.get("semiseg")
    return f"Python {launch.get('python')}, torch {versions.get('torch')}, semiseg {own}"


def _commit(launch: dict[str, Any]) -> str:
    commit = launch.get("commit")
    return "unknown" if not commit else f"{commit[:10]}{' with uncommitted changes' if launch.get('dirty') else ''}"


def _same_labels(study: Study, domain: str) -> bool:
    """Whether the runs of each cell chose the same labeled images, by the hash of their keys."""
    hashes = [
        {run.results.get("subsets", {}).get(f"{domain}/labeled", "") for run in study.runs if run.x == x}
        for x in study.xs
    ]
    return all(len(each) <= 1 for each in hashes)


def _sweep_command(study: Study) -> str:
    """The command of the shipped sweep that these runs are of; "" where they are of another one, or one differs from it."""
    file = study.index.study.replace("-", "_")
    try:
        planned = {each.recipe.name: plan(each.recipe) for each in expand(read_sweep(find_sweep(file)))}
    except SemisegError:
        return ""
    alike = all(run.name in planned and not differs(run.results, planned[run.name]) for run in study.runs)
    return f"semiseg sweep {file}" if alike else ""


def again(study: Study) -> str:
    """The command that trains the first run again. A path below the working folder, else from the results' own parent."""
    run, here = study.runs[0], Path.cwd()
    folder = study.folder.resolve()
    place = folder.relative_to(here) if folder.is_relative_to(here) else Path(folder.name)
    threads = {launch.get("threads") for launch in run.launches}
    first = f"OMP_NUM_THREADS={threads.pop()} " if len(threads) == 1 and None not in threads else ""
    return f"{first}semiseg train {place / run.name / 'recipe.toml'} data.shards=shards/ runs=again/"


def _source(source: dict[str, Any] | None) -> str:
    if not source:
        return ""
    splits = source.get("split", "")
    return f"{source.get('dataset')} {splits if isinstance(splits, str) else ' + '.join(splits)}"


def _of(recipe: dict[str, Any], *keys: str) -> Any:
    found: Any = recipe
    for key in keys:
        found = found.get(key, {}) if isinstance(found, dict) else {}
    return found or ""


def _list(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(each) for each in values if each)) or "unknown"


def _range(values: Iterable[float]) -> str:
    found = sorted(set(values))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def _plural(noun: str, count: int) -> str:
    noun = "label count" if noun == "labels" else "step count" if noun == "steps" else noun
    return noun if count == 1 or noun.endswith("s") else f"{noun}s"
