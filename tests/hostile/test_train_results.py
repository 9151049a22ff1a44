"""Results of strangers: reports escape every text, refuse every other type, and write nothing outside their folder."""

import csv
import json
import shutil
import time
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from semiseg.data import SemisegError
from semiseg.train.report.collect import collect
from semiseg.train.report.report import report
from semiseg.train.report.runs import PREDICTIONS, RUNS, read_runs
from semiseg.train.report.study import read_study
from semiseg.train.report.tables import table_csv, table_markdown
from semiseg.train.run.launches import RecordError, read_launches
from semiseg.train.run.results import read_results
from semiseg.train.sweep.cells import csv_cell, markdown_cell

SECONDS = 20  # 0.7 at most on a machine that is not shared
REAL = Path(__file__).parents[2] / "results" / "camvid-subsets-methods"
EVIL = "<script>alert(1)</script>"


class Lines:
    """A study's index and two of its runs, to edit and write."""

    def __init__(self, folder: Path) -> None:
        index, *runs = (REAL / RUNS).read_text().rstrip("\n").split("\n")
        self.folder, self.index, self.runs = folder, json.loads(index), [json.loads(run) for run in runs[:2]]
        names = [run["name"] for run in self.runs]
        for key in ("runs", "plan"):
            self.index[key] = {name: self.index[key][name] for name in names}
        self.index["predictions"] = None

    def write(self) -> Path:
        lines = [json.dumps(self.index), *(json.dumps(run) for run in self.runs)]
        (self.folder / RUNS).write_text("\n".join(lines) + "\n")
        return self.folder


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    (tmp_path / "stranger").mkdir()
    return Lines(tmp_path / "stranger")


def refused(act: Callable[[], Any], folder: Path) -> str:
    before = sorted(folder.parent.rglob("*"))
    start = time.monotonic()
    with pytest.raises(SemisegError) as caught:
        act()
    assert time.monotonic() - start < SECONDS
    message = str(caught.value)
    assert str(folder) in message and message.isprintable() and len(message) < 1500
    assert sorted(folder.parent.rglob("*")) == before, "nothing is written"
    return message


def put(value: Any, *path: str | int) -> Callable[[Lines], None]:
    """Set one value of the study: of "index", or of the first run."""

    def edit(lines: Lines) -> None:
        at: Any = lines.index if path[0] == "index" else lines.runs[0]
        keys = path[1:] if path[0] == "index" else path
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = value

    return edit


LAST, DOMAIN = ("results", "last"), ("results", "last", "domains", "camvid")
DEEP: Any = json.loads("[" * 300 + "]" * 300)
EDITS = [
    *(put(value, "name") for value in (None, 5, "", "../../victim", "/abs", "a/b", ".hidden", "a\x1b[2J", "a\nb", "x" * 300)),
    *(put(value, "results") for value in (None, [], "x", {}, {"last": {}}, DEEP)),
    *(put(value, *LAST) for value in (None, [], {}, {"domains": None}, {"domains": {}}, {"domains": {"camvid": {}}})),
    *(put(value, *DOMAIN, "miou") for value in ("50", [50], 1e300, -5, 101, True, {}, 10**400, float("nan"), float("inf"))),
    *(put(value, *DOMAIN, "iou") for value in (None, [], {"sky": "x"}, {"sky": 1e9}, {"a\x1b[2J": 5.0}, {"sky": [5]})),
    *(put(value, *DOMAIN, "images") for value in ("101", -1, 1.5, [], 10**30)),
    *(put({name: {"miou": 5.0, "iou": {}}}, *LAST, "domains")
      for name in ("../../victim", "/abs/victim", "..", "", "a\0b", "a\nb")),
    *(put(value, "results", "hours") for value in (None, "1", -1, 1e300, float("nan"), [], True)),
    *(put(value, "results", "recipe") for value in (None, 5, "\x1b[2J")),
    *(put(value, "results", "best") for value in (None, 5, {}, {"domains": [1]})),
    *(put(value, "results", "data") for value in ([], {"camvid/val": [1]}, {"camvid/val": {}})),
    *(put(value, "launches") for value in (None, {}, [1], ["x"], [{"command": "rm -rf"}], [{"command": [1, 2]}],
                                           [{"commit": 5}], [{"packages": []}], [{"threads": []}], [{"device": "\x1b[2J"}])),
    *(put(value, "metrics") for value in (None, {}, [1], [{}], [{"step": "x"}], [{"step": -1}],
                                          [{"step": 1, "camvid/miou": "x"}],
                                          [{"step": 1, "camvid/miou": 1e300}], [{"step": 10**30}])),
    *(put(value, "recipe") for value in (None, 5, "x = ", "x = " + "[" * 50_000, "steps = " + "1" * 5000, "steps = \"x\"",
                                         "objectives = 3", "objectives = [1]", "paper = 3", "data = 3",
                                         "evaluate = {scales = 5}",
                                         "evaluate = {scales = [\"x\"]}", "data.domains.x.labeled = 3", "steps = 1e300")),
    *(put(value, "index", "axes") for value in (None, [], {"labels": 5}, {"labels": [5]}, {"a\x1b": ["x"]}, {"labels": []})),
    *(put(value, "index", "runs") for value in (None, [], {"../victim": {}}, {"x": 5}, {"x": {"labels": 20}})),
    *(put(value, "index", "study") for value in (None, 5, "\x1b]0;title\x07", "a\nb")),
    *(put(value, "index", "plan") for value in (None, [], {"x": 5})),
    *(put(value, "index", "repeats") for value in (None, 5)),
    *(put({"camvid": value}, "index", "classes") for value in (None, [], {"names": 5, "colours": []}, {"names": ["a"]},
                                                               {"names": ["a"], "colours": [[0, 0, "url(javascript:x)"]]},
                                                              
                                                               {"names": ["a"], "colours": [[0, 0, 300]]},
                                                               {"names": [1], "colours": []})),
    put(1, "index", "surprise"),
    put(1, "surprise"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(EDITS)))
def test_values_of_another_type_are_refused(lines: Lines, number: int) -> None:
    EDITS[number](lines)
    folder = lines.write()
    refused(lambda: report(folder, folder), folder)


GOOD_PREDICTIONS = {
    "domain": "camvid", "taxonomy": "camvid-11", "dataset": "camvid", "splits": ["val"], "keys": ["k"], "rule": "r",
    "runs": {}, "scores": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"keys": None}, {"keys": []}, {"keys": [5]}, {"keys": ["a\x1b"]}, {"runs": {}}, {"runs": {"m": "../victim"}},
        {"runs": {"m": "nowhere"}}, {"dataset": "../../private"}, {"splits": ["../private"]}, {"splits": []}, {"splits": "val"},
        {"rule": None}, {"scores": [1]}, {"scores": {"x": "y"}}, {"domain": 5},
    ],
    ids=range(15),
)  # fmt: skip
def test_predictions_of_another_kind_are_refused(lines: Lines, change: dict[str, Any]) -> None:
    name = lines.runs[0]["name"]
    score = lines.runs[0]["results"]["last"]["miou"]
    lines.index["predictions"] = GOOD_PREDICTIONS | {"runs": {"m": name}, "scores": {name: score}} | change
    folder = lines.write()
    refused(lambda: report(folder, folder, shards=str(folder)), folder)


def png(mode: str, size: tuple[int, int]) -> bytes:
    file = BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


def zipped(content: bytes, name: str, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["bomb", "text", "empty", "eps", "huge", "missing", "half", "encrypted", "truncated"])
def test_damaged_predictions_are_refused(
    lines: Lines, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is unpacked beyond the size of the file, and no program is started for another format than PNG."""
    programs, started = tmp_path / "bin", tmp_path / "started"
    programs.mkdir()
    for program in ("gs", "gswin64c"):
        (programs / program).write_text(f"#!/bin/sh\ntouch {started}\n")
        (programs / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    name = lines.runs[0]["name"]
    score = lines.runs[0]["results"]["last"]["miou"]
    lines.index["predictions"] = GOOD_PREDICTIONS | {"runs": {"m": name}, "scores": {name: score}}
    folder, member = lines.write(), f"{name}/k.png"
    good = zipped(png("L", (8, 8)), member)
    large = bytearray(png("L", (8, 8)))
    large[16:24] = (60_000).to_bytes(4, "big") * 2
    content = {
        "bomb": zipped(bytes(10_000_000), member, zipfile.ZIP_DEFLATED),
        "text": b"no zip",
        "empty": b"",
        "eps": zipped(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", member),
        "huge": zipped(bytes(large), member),
        "missing": zipped(b"x", "other.png"),
        "half": good[: len(good) // 2],
        "encrypted": good.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
        "truncated": zipped(png("L", (8, 8))[:40], member),
    }[kind]
    (folder / PREDICTIONS).write_bytes(content)
    assert "--predict again" in refused(lambda: report(folder, folder), folder)
    assert not started.exists()


LINES = [b"", b"\n\n", b"\xff\xfe", b"[" * 100_000, b"null\n", b"{}\n", b'"x"\n', b"1" * 5000, b'{"study": NaN}']


@pytest.mark.parametrize("number", range(len(LINES)))
def test_lines_that_are_no_records_are_refused(lines: Lines, number: int) -> None:
    folder = lines.write()
    good = (folder / RUNS).read_bytes()
    (folder / RUNS).write_bytes(LINES[number])
    refused(lambda: read_runs(folder), folder)
    if LINES[number].strip():
        (folder / RUNS).write_bytes(good + LINES[number] + b"\n")
        refused(lambda: read_runs(folder), folder)


class Tags(HTMLParser):
    """What a browser would find on a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_every_text_is_escaped_on_the_page_and_in_the_tables(lines: Lines) -> None:
    attacks = [EVIL, "'><img src=x onerror=alert(1)>", "a|b", "=cmd|' /C calc'!A0", "[x](javascript:alert(1))"]
    old = list(lines.index["runs"])
    axes = {"labels": ["20"], "subset": ["0"], "method": [attacks[1], attacks[3]]}
    lines.index |= {"study": EVIL, "axes": axes, "repeats": "subset", "plan": {}}
    lines.index["runs"] = {
        name: {"labels": "20", "subset": "0", "method": method}
        for name, method in zip(old, axes["method"], strict=True)
    }
    lines.index["classes"] = {"camvid": {"name": "c", "names": [EVIL, "a|b"], "colours": [[1, 2, 3], [4, 5, 6]]}}
    for run in lines.runs:
        domain = run["results"]["last"]["domains"].pop("camvid")
        run["results"]["last"]["domains"]["camvid"] = {**domain, "iou": {EVIL: 5.0, attacks[4]: 6.0}}
        run["recipe"] = (
            f'steps = 5\npaper = "https://x/\' onmouseover=alert(1) {EVIL}"\nobjectives = [{{ kind = "{EVIL}" }}]\n'
            f'[data.domains.camvid]\nlabeled = {{ dataset = "{EVIL}", split = "{EVIL}" }}\n'
        )
        run["launches"] = [
            {"command": ["train", EVIL], "device": EVIL, "commit": EVIL, "platform": EVIL, "packages": {"torch": EVIL}}
        ]
    lines.runs[1]["recipe"] = 'steps = 5\npaper = "javascript:alert(1)"\n'
    folder = lines.write()
    report(folder, folder)
    tags = Tags((folder / "report.html").read_text()).found
    assert len(tags) > 100 and not {"script", "img", "iframe", "object", "embed", "link", "base"} & {
        tag for tag, _ in tags
    }
    assert all(not name.startswith("on") for _, attributes in tags for name in attributes)
    links = [attributes["href"] or "" for tag, attributes in tags if tag == "a"]
    assert links and all(link.startswith(("https://", "#")) for link in links)
    study = read_study(folder)
    markdown = table_markdown(study)
    assert "<img" not in markdown and "&lt;img" in markdown
    pipes = {line.count("|") - line.count("\\|") for line in markdown.split("\n") if line.startswith("|")}
    assert len(pipes) == 1, "every row has as many cells as the head"
    rows = list(csv.reader(StringIO(table_csv(study))))
    assert {row[2] for row in rows[1:]} == {"'><img src=x onerror=alert(1)>", "'=cmd|' /C calc'!A0"}
    float(rows[1][5])


def test_cells_begin_with_no_formula_and_numbers_stay_numbers() -> None:
    for text in ("=1+1", "+cmd|'x'!A0", "-2+3", "@SUM(A1)", "\tx", "\rx", "--1", "-", "+", "-1e5x", "\uff1dx"):
        assert csv_cell(text) == f"'{text}"
    for text in ("-0.5", "+3", "-1e-05", "5", "a=b", "cct_abce", "K -4", "", ".5", "x-y"):
        assert csv_cell(text) == text
    assert markdown_cell("a|b\nc <b> & `x` [y](z) cct_abce") == "a\\|b c &lt;b&gt; &amp; \\`x\\` \\[y\\](z) cct_abce"


TEXTS = [b"", b"{", b"[]", b"null", b"[" * 100_000, b"1" * 5000, b"\xff", b'{"launches": [' + b"[" * 100_000,
         b'{"launches": 5}',
         b'{"launches": [1]}', b'{"recipe": "x", "steps": 5, "hours": NaN, "last": {}, "best": {}}',
         b'{"recipe": "x", "steps": 5, "hours": 1, "last": {"domains": {"a": 5}}, "best": {}}',
         b'{"recipe": "x", "steps": 5, "hours": 1, "last": {"domains": {"a": {"miou": "x", "iou": {}}}}, "best": {}}',
         b'{"recipe": "x", "steps": 5, "hours": 1e999, "last": {}, "best": {}}',
         b'{"recipe": "x", "steps": "5", "hours": 1, "last": {}, "best": {}}']  # fmt: skip


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_damaged_files_of_a_run_do_not_count(tmp_path: Path, number: int) -> None:
    (tmp_path / "results.json").write_bytes(TEXTS[number])
    assert read_results(tmp_path) is None
    (tmp_path / "env.json").write_bytes(TEXTS[number])
    with pytest.raises(RecordError, match=r"env.json is damaged") as caught:
        read_launches(tmp_path)
    assert str(caught.value).isprintable()


def test_results_of_runs_that_are_never_evaluated_count(tmp_path: Path) -> None:
    found = {"recipe": "x", "steps": 5, "hours": 1.5, "last": {}, "best": {}}
    (tmp_path / "results.json").write_text(json.dumps(found))
    assert read_results(tmp_path) == found


@pytest.mark.parametrize(
    "table",
    [
        "[]", "{}", "[" * 100_000, '{"runs": 5}', '{"sweep": "s", "rows": [], "runs": [{"folder": "a/.."}]}',
        '{"sweep": "s", "rows": [], "runs": [{"folder": 5}]}',
        '{"sweep": "s", "rows": [1], "runs": [{"folder": "a", "x": "1"}]}',
        '{"sweep": "s\\u001b", "rows": [], "runs": [{"folder": "a", "seed": "1"}]}',
        '{"sweep": "s", "rows": [], "runs": [{"folder": "a", "se\\ned": "1"}]}', '{"sweep": "s", "rows": {}, "runs": {}}',
    ],
    ids=range(10),
)  # fmt: skip
def test_tables_that_no_sweep_wrote_are_refused(tmp_path: Path, table: str) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "table.json").write_text(table)
    assert "rerun the same `semiseg sweep`" in refused(lambda: collect(runs, tmp_path / "to"), runs)


def test_real_results_are_read_as_before(tmp_path: Path) -> None:
    shutil.copytree(REAL, tmp_path / "real")
    assert table_markdown(read_study(tmp_path / "real")) == (REAL / "table.md").read_text()
