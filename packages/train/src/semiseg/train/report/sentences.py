"""The sentences of a report: what was trained, the findings, the machines, and the limits of its numbers."""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from shlex import quote
from typing import Any

from semiseg.data import SemisegError
from semiseg.train.recipe.shipped import find_sweep
from semiseg.train.report.runs import is_collected
from semiseg.train.report.study import Run, Study
from semiseg.train.run.results import differs, plan
from semiseg.train.sweep.grid import expand, read_sweep


def lead(study: Study) -> str:
    """One sentence: how many runs of what, trained and scored on what."""
    index = study.index
    counts = " × ".join(f"{len(labels)} {_plural(axis, len(labels))}" for axis, labels in index.axes.items())
    recipes = [run.recipe for run in study.runs]
    steps = _range(recipe.get("steps", 0) for recipe in recipes)
    encoders = _list(_of(recipe, "model", "encoder", "name") for recipe in recipes)
    domains = [domain for recipe in recipes for domain in recipe.get("data", {}).get("domains", {}).values()]
    trained = _list(_source(domain.get("labeled")) for domain in domains)
    scored = _list(_source(domain.get("val")) for domain in domains)
    views = " or ".join(dict.fromkeys(_views(recipe) for recipe in recipes))
    images = _range(scores.get("images", 0) for run in study.runs for scores in run.results["last"]["domains"].values())
    return (
        f"{counts}: {len(study.runs)} of {len(index.runs)} runs, {steps} updates each. Encoder {encoders}; trained on "
        f"{trained}; scored on {scored} ({images} images), {views}, after the last update unless said otherwise."
    )


def _views(recipe: dict[str, Any]) -> str:
    """The views of an image that were averaged for its score."""
    evaluate = recipe.get("evaluate", {})
    scales = evaluate.get("scales", [1.0])
    words = "at scale " if len(scales) == 1 else "over scales "
    words += ", ".join(f"{scale:g}" for scale in scales)
    return words + (" and flipped" if evaluate.get("flip") else "") + (", in tiles" if evaluate.get("tile") else "")


def finding(study: Study) -> list[str]:
    """What the intervals of the differences show, counted."""
    if not study.compares:
        return [
            "No method has a supervised baseline by its name (as cct has supervised), so the report does not say what a method "
            "adds to supervised training."
        ]
    sentences = []
    repeats = study.index.repeats or "run"
    for domain in study.domains:
        cells = [cell for cell in study.cells(domain) if cell.gain and cell.gain.half is not None]
        if not cells:
            continue
        by = {
            verdict: [cell for cell in cells if cell.gain and cell.gain.verdict == verdict]
            for verdict in ("above 0", "below 0", "includes 0")
        }
        on = f"On {domain}: of" if len(study.domains) > 1 else "Of"
        counts = f"{len(by['above 0'])} lie above zero, {len(by['below 0'])} below, {len(by['includes 0'])} include it"
        sentences.append(
            f"{on} {len(cells)} differences from a supervised baseline, paired by {repeats}, the 95% intervals of {counts}."
        )
        for words, verdict in (("Above", "above 0"), ("Below", "below 0")):
            for x in study.xs:
                if named := [cell.method for cell in by[verdict] if cell.x == x]:
                    at = f" at {study.place(x)}" if x else ""
                    sentences.append(f"{words}{at}: {', '.join(named)}.")
    if not sentences:
        return [f"No method has two runs paired with its baseline by {repeats}, so no difference has an interval yet."]
    return [
        *sentences,
        "On average, one interval in twenty excludes zero by chance; one that includes zero shows nothing.",
    ]


def facts(study: Study) -> dict[str, str]:
    """Name -> HTML."""
    launches = [launch for run in study.runs for launch in run.launches]
    hours = [float(run.results["hours"]) for run in study.runs]
    found = {"hours": f"{sum(hours):.1f} in total, {min(hours):.2f} to {max(hours):.2f} a run"}
    machines = (
        f"{launch.get('device')}, {launch.get('threads')} threads, {launch.get('platform')}" for launch in launches
    )
    found["machine"] = escape(_list(machines))
    found["software"] = escape(_list(map(_software, launches)))
    found["commit"] = escape(_list(_commit(launch) for launch in launches))
    papers = dict.fromkeys(run.recipe.get("paper", "") for run in study.runs)
    links = [
        f"<a href='{escape(paper)}'>{escape(paper.removeprefix('https://'))}</a>"
        for paper in papers
        if paper.startswith("https://")
    ]
    if links:
        found["papers"] = ", ".join(links)
    changed = [run.name for run in study.runs if any(launch.get("changes") for launch in run.launches)]
    if changed:
        found["resumed with changes"] = escape(", ".join(changed))
    if command := _sweep_command(study):
        found["to repeat all"] = f"<code>{escape(command)}</code>"
    return found


def notes(study: Study, domain: str, taught: bool) -> list[str]:
    """What a reader of the scores has to know."""
    baselines = (
        "The baseline of a method is supervised training with the same loss if that was run (cct_abce: supervised_abce), else "
        f"supervised; differences are taken run by run at equal {study.index.repeats or 'place'}. "
    )
    sentences = [
        "± is half the 95% confidence interval by Student's t; a single run has none. "
        f"{baselines if study.compares else ''}“Best” is the best evaluation of each run, chosen on the same images that it is "
        "reported on, so it is optimistic; compare the last."
    ]
    if taught:
        sentences.append(
            "Teacher: the moving average of the trained network, scored on the same images at the last step. All other "
            "columns are those of the trained network itself."
        )
    averaged = {run.method for run in study.runs if _of(run.recipe, "evaluate", "weights") == "teacher"}
    if averaged:
        names = ", ".join(method for method in study.methods if method in averaged)
        sentences.append(f"For {names}, all scores are those of the moving average, as their recipes ask.")
    sentences += _unlike(study, domain)
    short = [
        f"{cell.method} at {study.place(cell.x) or 'all'} ({len(cell.runs)} of {cell.planned})"
        for cell in study.cells(domain)
        if len(cell.runs) < cell.planned
    ]
    if short:
        sentences.append(f"Fewer runs than planned: {', '.join(short)}.")
    if study.index.repeats and _same_labels(study, domain):
        sentences.append(
            "All runs at one place share their labeled images, so the intervals describe random variation in training, not the "
            "choice of labeled images."
        )
    return sentences


def _unlike(study: Study, domain: str) -> list[str]:
    """Why runs may not be comparable: other code, other views, other validation images."""
    sentences = []
    commits = list(dict.fromkeys(_commit(launch) for run in study.runs for launch in run.launches))
    if len(commits) > 1 or any("uncommitted" in commit for commit in commits):
        sentences.append(
            f"The runs are not all of one clean commit: {', '.join(commits)}; the list of runs has the commit of each."
        )
    views = list(dict.fromkeys(_views(run.recipe) for run in study.runs))
    if len(views) > 1:
        sentences.append(f"Not scored in the same way: {' or '.join(views)}.")
    data = {digest for run in study.runs if (digest := run.results.get("data", {}).get(f"{domain}/val"))}
    if len(data) > 1:
        sentences.append("Not scored on the same images: the validation shards differ between runs.")
    return sentences


def listing(study: Study) -> list[list[str]]:
    """A row of HTML cells for every run."""
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
    """The recipe that a run was last started from."""
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
    """Whether all runs at a place have the same labeled images, by the hash of their keys."""
    hashes = [
        {run.results.get("subsets", {}).get(f"{domain}/labeled", "") for run in study.runs if run.x == x}
        for x in study.xs
    ]
    return all(len(different) <= 1 for different in hashes)


def _sweep_command(study: Study) -> str:
    """The command of the shipped sweep that planned these runs; "" if there is none, or a run differs from its plan."""
    file = study.index.study.replace("-", "_")
    try:
        planned = {entry.recipe.name: plan(entry.recipe) for entry in expand(read_sweep(find_sweep(file)))}
    except SemisegError:
        return ""
    alike = all(run.name in planned and not differs(run.results, planned[run.name]) for run in study.runs)
    return f"semiseg sweep {file}" if alike else ""


def again(study: Study) -> str:
    """The command that trains the first run again, with paths relative to the working folder or else to that of the results."""
    run, here, folder = study.runs[0], Path.cwd(), study.folder.resolve()
    place = folder.relative_to(here) if folder.is_relative_to(here) else Path(folder.name)
    threads = {launch.get("threads") for launch in run.launches}
    first = f"OMP_NUM_THREADS={threads.pop()} " if len(threads) == 1 and None not in threads else ""
    recipe, printed = place / run.name / "recipe.toml", ""
    if is_collected(study.folder):
        shown = quote(str(place))
        recipe, printed = "again.toml", f"semiseg report {shown} --recipe {quote(run.name)} > again.toml\n"
    return f"{printed}{first}semiseg train {quote(str(recipe))} data.shards=shards/ runs=again/"


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
    return ", ".join(dict.fromkeys(str(value) for value in values if value)) or "unknown"


def _range(values: Iterable[float]) -> str:
    found = sorted(set(values))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def _plural(noun: str, count: int) -> str:
    noun = "label count" if noun == "labels" else "step count" if noun == "steps" else noun
    return noun if count == 1 or noun.endswith("s") else f"{noun}s"
