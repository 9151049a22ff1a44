"""Reports: statistics against scipy, nothing hidden, one page that stands alone, looked at by a real browser."""

import csv
import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from io import BytesIO, StringIO
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from scipy import stats

from semiseg.data import SemisegError
from semiseg.train.recipe.load import digest, load
from semiseg.train.recipe.resolved import to_toml
from semiseg.train.recipe.shipped import find
from semiseg.train.report.charts import difference, label_efficiency, training
from semiseg.train.report.collect import collect
from semiseg.train.report.index import Index
from semiseg.train.report.page import _DARK, _LIGHT
from semiseg.train.report.page import page as draw_page
from semiseg.train.report.papers import claims
from semiseg.train.report.report import report
from semiseg.train.report.runs import CollectedRun, read_collected, write_collected, write_predictions
from semiseg.train.report.sentences import notes
from semiseg.train.report.study import Study, read_study
from semiseg.train.report.tables import table_csv, table_markdown
from semiseg.train.sweep.figures import DARK, LIGHT, Point, draw_series, new_figure, png, set_scores, style, svg, themed
from semiseg.train.sweep.intervals import Estimate, estimate

CLASSES = ("Sky", "Road <wet>", "Car")
METHODS = {
    "supervised": "camvid_supervised",
    "supervised_abce": "camvid_supervised",
    "cct": "camvid_cct",
    "cct_abce": "camvid_cct",
    "cutmix": "camvid_cutmix",
    "structured": "camvid_structured",
    "cct_structured": "camvid_cct_structured",
}
LABELS, SEEDS = (20, 50, 100), (0, 1, 2)
ABSENT = {
    *(("cutmix", 50, 1), ("cct", 100, 0), ("cct", 100, 2), ("supervised", 50, 2)),
    *(("structured", 20, seed) for seed in SEEDS),
}


def made_up() -> dict[tuple[str, int, int], float]:
    """mIoU of every run that is there."""
    generator = np.random.default_rng(0)
    places = ((method, labels, seed) for method in METHODS for labels in LABELS for seed in SEEDS)
    gain = {method: 0.7 * number for number, method in enumerate(METHODS)}
    scores = {place: 40 + place[1] / 8 + gain[place[0]] + generator.normal() for place in places}
    return {place: score for place, score in scores.items() if place not in ABSENT}


def write_sweep(folder: Path, scores: Mapping[tuple[str, int, int], float]) -> Path:
    """A sweep's folder as its runs leave it, with these scores."""
    planned = []
    for method, labels, seed in ((m, n, s) for m in METHODS for n in LABELS for s in SEEDS):
        name = f"{method}-labels{labels}-seed{seed}"
        loss = ["objectives.0.loss={kind='bootstrapped'}"] * method.endswith("abce")
        changes = [f"name={name}", f"seed={seed}", f"data.domains.camvid.labeled.subset.count={labels}", *loss]
        recipe = load(find(METHODS[method]), changes)
        at = {"method": method, "labels": str(labels), "seed": str(seed)}
        planned.append({"folder": f"elsewhere/{name}", **at, "recipe": digest(recipe), "complete": True})
        if (method, labels, seed) not in scores:
            continue
        run, score = folder / name, scores[method, labels, seed]
        run.mkdir(parents=True)
        iou = {name: score + shift for name, shift in zip(CLASSES, (-5.0, 0.0, 5.0), strict=True)}
        last, best, taught = (
            {
                "step": step,
                "miou": miou,
                "domains": {"camvid": {"miou": miou, "iou": iou, "accuracy": 1, "images": 101}},
            }
            for step, miou in ((2000, score), (1500, score + 1), (2000, score + 0.5))
        )
        if "cutmix" in method:
            last["teacher"] = taught
        results = {"recipe": digest(recipe), "seed": seed, "steps": 2000, "last": last, "best": best, "hours": 0.25}
        (run / "results.json").write_text(json.dumps({**results, "subsets": {"camvid/labeled": f"hash of {labels}"}}))
        launch = {"command": ["x/__main__.py", f"{METHODS[method]}.toml"], "commit": "abcdef0123456789", "dirty": True}
        (run / "env.json").write_text(json.dumps({"launches": [{**launch, "device": "<gpu>", "packages": {}}]}))
        (run / "recipe.toml").write_text(to_toml(recipe))
        curve = [{"step": step, "camvid/miou": score - 3 + step / 500} for step in (500, 1000, 1500, 2000)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curve))
    rows = [{"method": "supervised", "labels": "20", "domain": "camvid", "n": 3}]
    (folder / "table.json").write_text(json.dumps({"sweep": "made-up & small", "rows": rows, "runs": planned}))
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("made_up") / "sweep", made_up())


@pytest.fixture(scope="module")
def study(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Collected, with predictions of two images by two methods."""
    to = tmp_path_factory.mktemp("results") / "camvid"
    collect(sweep, to)
    index, found = read_collected(to)
    runs = {method: f"{method}-labels20-seed0" for method in ("supervised", "cct")}
    mask, file = Image.fromarray(np.eye(96, 128, dtype=np.uint8)).convert("P"), BytesIO()
    mask.putpalette([0, 0, 0, 200, 30, 30])
    mask.save(file, "PNG")
    write_predictions(to, {f"{run}/{key}.png": file.getvalue() for run in runs.values() for key in ("a", "b")})
    predictions = {"domain": "camvid", "taxonomy": "camvid-11", "dataset": "camvid", "splits": ["val"]}
    scores = {run: made_up()[method, 20, 0] for method, run in runs.items()}
    predictions |= {"keys": ["a", "b"], "rule": "evenly spaced", "runs": runs, "scores": scores}
    classes = {"camvid": {"names": CLASSES, "colours": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}}
    write_collected(to, replace(index, predictions=predictions, classes=classes), found)
    return read_study(to)


def edited(folder: Path, to: Path, change: Callable[[CollectedRun], None], method: str = "") -> Path:
    """A copy of collected results, with a change to every run, or to those of one method."""
    index, runs = read_collected(folder)
    for name, run in runs.items():
        if index.method(name) == method or not method:
            change(run)
    to.mkdir()
    write_collected(to, replace(index, predictions=None), runs)
    return to


@pytest.fixture(scope="module")
def page(study: Study, tmp_path_factory: pytest.TempPathFactory) -> str:
    written = report(study.folder, tmp_path_factory.mktemp("report"))
    assert [path.name for path in written] == ["report.html", "curve.png", "table.csv", "table.md"]
    assert written[0].stat().st_size < 1_000_000
    with Image.open(written[1]) as curve:
        assert curve.size[0] == 1440 and len(curve.convert("RGB").getcolors(1 << 16) or ()) > 50
    return written[0].read_text()


def test_means_intervals_and_differences_are_scipys(study: Study):
    scores = made_up()
    for cell in study.cells("camvid"):
        mine = {seed: scores[place] for seed in SEEDS if (place := (cell.method, int(cell.x), seed)) in scores}
        assert cell.planned == 3 and len(cell.runs) == len(mine)
        if not mine:
            assert cell.last is None and cell.gain is None
            continue
        values = list(mine.values())
        assert cell.last and cell.last.mean == pytest.approx(np.mean(values)) and cell.last.n == len(values)
        assert cell.best and cell.best.mean == pytest.approx(np.mean(values) + 1)
        assert (cell.teacher is None) == (cell.method != "cutmix")
        if len(values) == 1:
            assert cell.last.half is None
        else:
            interval = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
            assert (cell.last.mean - (cell.last.half or 0)) == pytest.approx(interval[0], abs=2e-3)
        if cell.baseline is None:
            assert cell.method == "supervised" and cell.gain is None
            continue
        others = {seed: scores.get((cell.baseline, int(cell.x), seed)) for seed in SEEDS}
        pairs = [(score, other) for seed, score in mine.items() if (other := others[seed]) is not None]
        assert cell.gain and cell.gain.n == len(pairs) > 0
        if len(pairs) > 1:
            left, right = np.array(pairs).T
            paired = stats.ttest_rel(left, right).confidence_interval(0.95)
            half = cell.gain.half or 0
            assert (cell.gain.mean - half, cell.gain.mean + half) == pytest.approx((paired.low, paired.high), abs=3e-3)
            expected = "above 0" if paired.low > 0 else "below 0" if paired.high < 0 else "includes 0"
            assert cell.gain.verdict == expected


def test_each_method_has_the_baseline_of_its_loss(study: Study):
    baselines = {method: study.baseline(method) for method in METHODS}
    assert baselines == dict.fromkeys(METHODS, "supervised") | {"supervised": None, "cct_abce": "supervised_abce"}
    for name, other in {
        "supervised, batch 4": None,
        "cct, batch 4": "supervised, batch 4",
        "cct_abce, batch 4": "supervised_abce, batch 4",
        "supervised_abce, batch 4": "supervised, batch 4",
        "cct, batch 8": None,
        "camvid-cct": "camvid-supervised",
        "camvid-supervised": None,
    }.items():
        names = ("supervised, batch 4", "supervised_abce, batch 4", "camvid-supervised", "cct, batch 8", "camvid-cct")
        axes = {"method": list(names), "labels": ["20"], "seed": ["0"]}
        runs = {str(number): {"method": method, "labels": "20", "seed": "0"} for number, method in enumerate(names)}
        known = replace(study, index=replace(study.index, axes=axes, runs=runs))
        assert known.baseline(name) == other, name
    assert estimate([]) is None and estimate([2.0]).verdict == "one pair alone"  # type: ignore[union-attr]


def test_tables_hide_no_missing_run(study: Study, sweep: Path):
    rows = list(csv.DictReader(StringIO(table_csv(study))))
    assert len(rows) == len(METHODS) * len(LABELS)
    counts = {(row["method"], int(row["labels"])): (int(row["n"]), int(row["planned"])) for row in rows}
    for (method, labels), (n, planned) in counts.items():
        assert (n, planned) == (3 - sum((method, labels, seed) in ABSENT for seed in SEEDS), 3)
    assert next(row for row in rows if row["method"] == "structured")["last_mean"] == ""
    markdown = table_markdown(study)
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + len(METHODS) and {line.count("|") for line in lines} == {8}
    assert "(2 of 3)" in markdown and "0 of 3" in markdown
    assert lines[0].startswith("| method | 20 labels | vs. baseline | 50 labels |")
    at_50 = {line.split("|")[1].strip(): line.split("|")[5] for line in lines}
    assert at_50["cct"].endswith(" (2 pairs) ") and at_50["cutmix"].endswith(" (1 pair) ")
    assert "pair" not in at_50["cct_abce"]
    one = next(line for line in lines if line.startswith("| cct |")).split("|")[6]
    assert "(1 of 3)" in one and "±" not in one
    bold = {cell.gain.verdict != "includes 0" for cell in study.cells("camvid") if cell.gain and cell.gain.half}
    assert bold == {True, False} and "**+" in markdown
    assert table_csv(read_study(sweep)) == table_csv(study)  # straight from the sweep's folder


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_loads_nothing_and_can_be_heard(page: str):
    tags = Tags(page).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "object", "base", "audio", "video"}
    for tag, attributes in tags:
        for name in ("src", "srcset", "href", "data", "action", "style"):
            value = attributes.get(name) or ""
            ours = tag == "a" and name == "href" and value.startswith("https://arxiv.org/")
            assert ours or value.startswith("data:image/png;base64,") or ("//" not in value and "url(" not in value), (
                tag,
                value,
            )
    assert "url(" not in page and "@import" not in page
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    assert sum(tag == "img" for tag, _ in tags) == 4
    assert all(
        attributes.get("aria-label") or attributes.get("aria-hidden") for tag, attributes in tags if tag == "svg"
    )
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")
    assert sum(tag == "h1" for tag, _ in tags) == 1 and ("html", {"lang": "en"}) in tags
    assert "<wet>" not in page and "<gpu>" not in page and "made-up &amp; small" in page


def test_the_page_says_what_is_missing_and_what_includes_zero(page: str, study: Study):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    verdicts = [cell.gain.verdict for cell in study.cells("camvid") if cell.gain]
    for words in ("above 0", "includes 0"):
        assert verdicts.count(words) == len(re.findall(rf"\b{words}\b", text))
    counted = [verdicts.count(words) for words in ("above 0", "below 0", "includes 0")]
    assert f"Of {sum(counted)} differences" in text
    assert f"{counted[0]} lie above zero, {counted[1]} below, {counted[2]} include it" in text
    assert "cutmix at 50 labels (2 of 3)" in text and "structured at 20 labels (0 of 3)" in text
    for method, labels, seed in ABSENT:
        assert f"{method}-labels{labels}-seed{seed}" in text
    assert "abcdef0123 with uncommitted changes" in text and "share their labeled images" in text
    assert "chosen on the same images" in text and "made without the data" in text
    assert all(claim.figure in text for claim in claims(["cross_consistency", "structured_consistency"]))


def test_class_differences_are_those_of_pairs(page: str, study: Study):
    """CutMix at 50 labels has seeds 0 and 2, its baseline 0 and 1: one pair."""
    scores = made_up()
    table = page[page.index("IoU in percent, 50 labels") :]
    row = re.sub(
        r"<[^>]+>", " ", table[table.index("Car</th>") : table.index("</tr>", table.index("Car</th>"))]
    ).split()[1:]
    shown = dict(zip([method for method in METHODS if method != "structured"], row[:1] + row[1::2], strict=False))
    assert float(shown["supervised"]) == pytest.approx(
        np.mean([scores["supervised", 50, s] + 5 for s in (0, 1)]), abs=0.06
    )
    cell = study.cell("50", "cutmix", "camvid")
    assert cell.gain and cell.gain.mean == pytest.approx(scores["cutmix", 50, 0] - scores["supervised", 50, 0])
    wanted = f"{cell.gain.mean:+z.1f}".replace("-", "−")
    mean = np.mean([scores["cutmix", 50, seed] + 5 for seed in (0, 2)])
    assert re.search(rf"{mean:.1f} {re.escape(wanted)}", " ".join(row))


def test_labels_of_methods_are_no_markup(study: Study):
    bad = "lr<0.1 <img src=x onerror=alert(1)>"
    runs = [replace(run, method=bad if run.method == "cct" else run.method) for run in study.runs]
    at = {
        name: {**at, "method": bad if at["method"] == "cct" else at["method"]} for name, at in study.index.runs.items()
    }
    axes = {**study.index.axes, "method": [bad if name == "cct" else name for name in study.index.axes["method"]]}
    text = draw_page(replace(study, runs=runs, index=replace(study.index, runs=at, axes=axes, predictions=None)))
    assert "<img src=x" not in text and text.count("lr&lt;0.1") > 5


def test_a_study_without_any_labeled_pixel_is_still_a_page(study: Study):
    none = {"miou": None, "domains": {"camvid": {"miou": None, "iou": {"Sky": None}, "images": 1}}}
    runs = [replace(run, results={**run.results, "last": none, "best": none}, metrics=[]) for run in study.runs]
    assert "<h1>" in draw_page(replace(study, runs=runs, index=replace(study.index, predictions=None)))


def test_each_domain_has_its_own_curve_tables_and_sections(study: Study, tmp_path: Path):
    def halved(run: CollectedRun):
        for domains in (run.results[when]["domains"] for when in ("last", "best")):
            domains["sun"] = {**domains["camvid"], "miou": domains["camvid"]["miou"] / 2}
        for row in run.metrics:
            row["sun/miou"] = row["camvid/miou"] / 2

    folder = edited(study.folder, tmp_path / "two", halved)
    written = {path.name: path for path in report(folder, tmp_path / "report")}
    assert list(written) == ["report.html", "curve-camvid.png", "curve-sun.png", "table.csv", "table.md"]
    assert written["curve-camvid.png"].read_bytes() != written["curve-sun.png"].read_bytes()
    rows = list(csv.DictReader(written["table.csv"].read_text().splitlines()))
    means = {
        domain: [float(row["last_mean"]) for row in rows if row["domain"] == domain and row["last_mean"]]
        for domain in ("camvid", "sun")
    }
    assert means["sun"] == pytest.approx([mean / 2 for mean in means["camvid"]])
    text = written["report.html"].read_text()
    assert [len(re.findall(rf"<h2>[^<]* on {domain}\b", text)) for domain in ("camvid", "sun")] == [4, 4]


def test_a_method_that_lacks_a_domain_is_not_missing_there(study: Study, tmp_path: Path):
    def joined(run: CollectedRun):
        for domains in (run.results[when]["domains"] for when in ("last", "best")):
            domains["sun"] = domains["camvid"]

    folder = edited(study.folder, tmp_path / "two", joined, method="cct")
    joint = read_study(folder)
    counts = {cell.method: (len(cell.runs), cell.planned) for cell in joint.cells("sun") if cell.x == "20"}
    assert counts["cct"] == (3, 3) and "cct_abce" not in counts and "supervised" not in counts
    rows = [row for row in csv.DictReader(StringIO(table_csv(joint))) if row["domain"] == "sun" and row["n"] != "0"]
    assert {row["method"] for row in rows} == {"cct"}
    sun = table_markdown(joint).split(" on sun after")[1]
    assert next(line for line in sun.splitlines() if line.startswith("| supervised |")).startswith("| supervised | - |")


def test_runs_that_are_no_longer_in_the_sweep_are_ignored(sweep: Path, tmp_path: Path):
    folder, to = tmp_path / "sweep", tmp_path / "results"
    shutil.copytree(sweep, folder)
    before = collect(folder, to).index
    table = json.loads((folder / "table.json").read_text())
    table["runs"] = [run for run in table["runs"] if run["seed"] != "2" and run["method"] != "cutmix"]
    (folder / "table.json").write_text(json.dumps(table))
    done = collect(folder, to)
    assert "cutmix" in before.methods and "cutmix" not in done.index.methods and done.index.axes["seed"] == ["0", "1"]
    assert {"cutmix-labels20-seed0", "cct-labels20-seed2"} <= set(done.dropped)
    assert not any(name in done.index.runs for name in done.dropped)
    assert set(done.dropped) <= read_collected(to)[1].keys()  # kept, for a sweep that has them again
    assert table_csv(read_study(to)) == table_csv(read_study(folder))


def test_places_and_methods_in_words():
    axes = {"labels": ["20", "labels50"], "compile": ["true", "false"], "seed": ["0"]}
    runs = {f"{n}{c}": {"labels": n, "compile": c, "seed": "0"} for n in axes["labels"] for c in axes["compile"]}
    index = Index(study="s", axes=axes, repeats="seed", runs=runs)
    study = Study(folder=Path(), index=index, runs=[], missing={})
    assert [study.place(x) for x in study.xs] == ["20 labels", "labels50"]
    assert study.methods == ["compile true", "compile false"]


def test_runs_that_are_not_of_the_plan_do_not_count(sweep: Path, tmp_path: Path):
    folder, to = tmp_path / "sweep", tmp_path / "results"
    shutil.copytree(sweep, folder)
    collect(folder, to)
    whole = read_study(folder)
    assert [run.name for run in whole.runs] == [run.name for run in read_study(to).runs]
    table = json.loads((folder / "table.json").read_text())
    longer, looked = "cct-labels20-seed0", "cct-labels20-seed1"
    for run in table["runs"]:
        if run["folder"].endswith(longer):  # the recipe was edited since
            run["recipe"] = "0" * 64
        run["evaluation"] = {"weights": "student", "scales": [1.0], "flip": run["folder"].endswith(looked)}
    (folder / "table.json").write_text(json.dumps(table))
    results = json.loads((folder / looked / "results.json").read_text())
    results["last"]["evaluation"] = {"weights": "student", "scales": [1.0], "flip": False}
    (folder / looked / "results.json").write_text(json.dumps(results))
    done = collect(folder, to)
    why = "it was trained with another recipe than planned"
    assert done.left[longer] == f"{why}, an earlier one is ignored: it is not of this plan"
    assert done.left[looked].startswith("it was scored with {") and "'flip': True} as planned" in done.left[looked]
    for study in (read_study(folder), read_study(to)):
        assert {run.name for run in whole.runs} - {run.name for run in study.runs} - {looked} == {longer}
        assert study.missing[longer] == why
    assert f"{longer} ({why})" in draw_page(read_study(to))
    (folder / "table.json").write_text(json.dumps({**table, "sweep": "another"}))
    with pytest.raises(
        SemisegError, match="holds runs of made-up & small, these are of another; choose another folder"
    ):
        collect(folder, to)


def test_runs_that_are_not_comparable_are_reported(study: Study):
    def notes_with(number: int, **other: object) -> str:
        runs = [replace(run, **other) if i == number else run for i, run in enumerate(study.runs)]  # type: ignore[arg-type]
        return " ".join(notes(replace(study, runs=runs), "camvid", False))

    first = study.runs[0]
    assert "not all of one clean commit" in notes_with(-1) and "Not scored" not in notes_with(-1)
    recipe = {**first.recipe, "evaluate": {"scales": [1.0, 2.0], "flip": True}}
    assert "Not scored in the same way: over scales 1, 2 and flipped or at scale 0.75" in notes_with(0, recipe=recipe)
    data = [{**run.results, "data": {"camvid/val": str(number)}} for number, run in enumerate(study.runs[:2])]
    both = [replace(run, results=result) for run, result in zip(study.runs, data, strict=False)]
    assert "Not scored on the same images" in " ".join(notes(replace(study, runs=both), "camvid", False))


def test_predictions_of_weights_that_have_changed_are_left_out(study: Study):
    collected = study.index.predictions
    assert collected and "as predicted by cct" in draw_page(study)
    stale = {**collected, "scores": {**collected["scores"], collected["runs"]["cct"]: 1.0}}
    text = draw_page(replace(study, index=replace(study.index, predictions=stale)))
    assert "as predicted by cct" not in text and "as predicted by supervised" in text and "changed since: " in text


def test_colours_can_be_read_in_light_and_dark():
    """WCAG 2: 4.5 to 1 for text, 3 to 1 for marks."""
    for palette in (_LIGHT, _DARK):
        for under in ("paper", "band"):
            assert all(contrast(palette[name], palette[under]) >= 4.5 for name in ("ink", "faint", "link"))
            assert all(contrast(palette[f"s{number}"], palette[under]) >= 3 for number in range(7))
        assert all(contrast(palette["ink"], palette[name]) >= 4.5 for name in ("more", "less"))
    assert LIGHT.keys() == DARK.keys() and len({style(number) for number in range(14)}) == 14
    assert len({style(number).marker for number in range(7)}) == 7  # not colour alone


def test_colour_blind_readers_can_tell_the_series_apart():
    """Machado et al. 2009, full protanopia, deuteranopia and tritanopia; distances in CIELAB, where 2.3 can just be seen."""
    blind = (
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    )
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    for palette in (LIGHT, DARK):
        for matrix in (np.eye(3), *map(np.array, blind)):
            seen = [np.clip(matrix @ linear(palette[f"s{number}"]), 0, 1) for number in range(7)]
            x, y, z = np.cbrt(np.array([to_xyz @ colour / (0.9505, 1, 1.089) for colour in seen])).T
            lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
            assert min(np.linalg.norm(a - b) for a, b in combinations(lab, 2)) > 10


def contrast(first: str, second: str) -> float:
    low, high = sorted(float(linear(colour) @ (0.2126, 0.7152, 0.0722)) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


def linear(colour: str) -> np.ndarray:
    """sRGB as light."""
    parts = np.frombuffer(bytes.fromhex(colour[1:]), np.uint8) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


@themed
def one_series() -> Figure:
    """A mean of 50 with an error bar from 40 to beyond the axis, seven styles."""
    figure, (axes,) = new_figure(360, 200)
    set_scores(axes, 40, 60)
    points = {label: Point(mean=50, half=11, scores=(45, 55)) for label in ("10", "100", "1000")}
    draw_series(axes, list(points), {f"series {number}": points for number in range(7)})
    return figure


def test_a_picture_shows_what_was_drawn():
    with Image.open(BytesIO(png(one_series()))) as opened:
        pixels = np.array(opened.convert("RGB"))
    assert pixels.shape == (400, 720, 3) and tuple(pixels[0, 0]) == (255, 255, 255)
    seen = {"#" + bytes(pixel).hex() for pixel in pixels.reshape(-1, 3)}
    assert {LIGHT[f"s{number}"] for number in range(7)} <= seen
    assert png(one_series()) == png(one_series())  # the same bytes every time


def test_a_figure_on_a_page_has_the_colours_of_the_page():
    drawn = svg(one_series(), "a & b", css_class="wide")
    assert drawn == svg(one_series(), "a & b", css_class="wide")
    assert 'aria-label="a &amp; b"' in drawn and 'viewBox="0 0 360 200"' in drawn
    assert not re.search(r"[ :]#[0-9a-f]{6}|url\(|<style|<metadata|<!--", drawn)
    assert {f"--s{number}" for number in range(1, 7)} | {"--ink", "--paper", "--band"} <= set(
        re.findall(r"--\w+", drawn)
    )
    ids = re.findall(r' id="([^"]*)"', drawn)
    assert ids and len(set(ids)) == len(ids) and set(ids) >= set(re.findall(r'href="#([^"]*)"', drawn))
    assert not set(ids) & set(re.findall(r' id="([^"]*)"', svg(one_series(), "a & b", css_class="narrow")))


def test_the_axis_of_scores_has_round_ends_and_shows_at_least_a_point():
    for low, high, ends in (
        (41.3, 48.2, (40, 50)),
        (43.05, 43.08, (42.4, 43.6)),
        (0.0, 0.2, (0, 0.6)),
        (12, 99.9, (0, 100)),
    ):
        _, (axes,) = new_figure(300, 200)
        set_scores(axes, low, high)
        assert axes.get_ylim() == pytest.approx(ends) and 4 <= len(axes.get_yticks()) <= 9


def test_series_are_side_by_side_at_places_on_a_logarithmic_axis():
    (axes,) = one_series().axes
    assert axes.get_xticks() == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    means = [line.get_xdata() for line in axes.lines if line.get_linestyle() == "None" and line.get_zorder() == 3][1::2]
    x = sorted(float(place) for places in means for place in places)  # type: ignore[union-attr]
    assert len(x) == 21 and min(right - left for left, right in pairwise(x)) > 0.03
    caps = [line.get_ydata() for line in axes.lines if line.get_marker() == "_"]
    assert len(caps) == 21 and all(list(ends) == [] for ends in caps)  # type: ignore[arg-type]
    bars = [list(line.get_ydata()) for line in axes.lines if list(line.get_ydata()) == [40, 60]]  # type: ignore[arg-type]
    assert len(bars) == 21  # bars that go on beyond the axis end there, without a cap


def test_nothing_on_a_figure_is_cut_off_or_overlaps(study: Study):
    figures = [label_efficiency(study, "camvid", width=width) for width in (720, 360)]
    alike = replace(
        study, runs=[replace(run, metrics=study.runs[0].metrics) for run in study.runs]
    )  # curves end at one place
    figures += [training(shown, method, "camvid") for shown in (study, alike) for method in ("cct", "structured")]
    for figure in figures:
        figure.draw_without_rendering()
        boxes = [
            text.get_window_extent()
            for text in figure.findobj(Text)
            if isinstance(text, Text) and text.get_text() and text.get_visible()
        ]
        width, height = figure.bbox.size
        assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
        assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))


def test_the_interval_of_a_difference_lies_beside_zero():
    def drawn(mean: float, half: float | None) -> list[float]:
        found = difference(Estimate(mean=mean, half=half, n=3), 4)
        return [float(number) for number in re.search(r"M([\d.]+) 10H([\d.]+).*cx=\"([\d.]+)", found).groups()]  # type: ignore[union-attr]

    assert drawn(0, 2) == [32, 84, 58] and drawn(2, 1) == [71, 97, 84]
    assert drawn(3, 9) == [6, 110, 97] and drawn(-1, None) == [45, 45, 45]


def test_without_matplotlib_the_tables_are_written(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in [
        name for name in sys.modules if name.startswith(("matplotlib", "semiseg.train.report.", "semiseg.train.sweep."))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SemisegError, match=r"only table.csv and table.md were written.*semiseg-train\[plots\]"):
        importlib.import_module("semiseg.train.report.report").report(study.folder, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.md"]


def test_damage_is_reported_with_the_remedy(sweep: Path, tmp_path: Path):
    to, name = tmp_path / "results", "cct-labels20-seed0"
    collect(sweep, to)
    index, runs = read_collected(to)
    wrong = json.loads(json.dumps(runs[name].results).replace('"iou": {', '"iou": {"Tree": "much", '))
    for damage in (
        {"results": {}},
        {"results": wrong},
        {"metrics": ["x"]},
        {"recipe": "= 1"},
        {"launches": None},
        {"launches": [3]},
    ):
        write_collected(to, index, runs | {name: replace(runs[name], **damage)})
        with pytest.raises(SemisegError, match=rf"runs\.jsonl: {name}: damaged.*collect it again, or delete its line"):
            report(to, tmp_path / "out")
    write_collected(to, index, runs)
    folder = tmp_path / "sweep"
    shutil.copytree(sweep, folder)
    for file, content, words in (
        ("results.json", json.dumps(wrong), "damaged"),
        ("metrics.jsonl", "x", "damaged"),
        ("env.json", '{"launches": [3]}', r"env\.json.*damaged"),
    ):
        before = (folder / name / file).read_text()
        (folder / name / file).write_text(content)
        with pytest.raises(SemisegError, match=rf"{name}.*{words}"):
            report(folder, tmp_path / "out")
        assert re.search(rf"{name}.*{words}", collect(folder, tmp_path / "others").left[name])
        (folder / name / file).write_text(before)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SemisegError, match="no such folder"):
        report(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(SemisegError, match="cannot be written"):
        report(to, tmp_path / "file")


def test_a_real_browser_shows_it_without_scrolling_sideways(page: str, tmp_path: Path):
    """Framed at 390 pixels, as on a phone, and at 1200; read by the browser itself."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("NO CHROMIUM: install it to look at the page as a reader does")
    found = {}
    for width in (390, 1200):
        frame = tmp_path / f"{width}.html"
        frame.write_text(
            f'<body style="margin:0"><iframe style="border:0;width:{width}px;height:900px" srcdoc="{escape(page)}"></iframe>'
            "<script>document.querySelector('iframe').onload = event => { const page = event.target.contentDocument;"
            "const shown = [...page.querySelectorAll('svg')].filter(svg => svg.getBoundingClientRect().width > 0);"
            "const broken = [...page.images].filter(image => !image.naturalWidth);"
            "document.title = [page.documentElement.scrollWidth, page.documentElement.clientWidth, shown.length, broken.length,"
            "page.defaultView.performance.getEntriesByType('resource').filter(entry => !entry.name.startsWith('data:')).length]"
            "}</script>"
        )
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
        ]
        command += [
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
        ]
        done = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=120, check=False)
        title = re.search(r"<title>([\d,]+)</title>", done.stdout)
        assert title, done.stderr[-2000:]
        found[width] = [int(part) for part in title[1].split(",")]
        scrolled, there, drawings, broken, loaded = found[width]
        assert scrolled <= there <= width and broken == 0 and loaded == 0
        assert drawings > 20
