"""Random edits of models' settings, recipes and results: an error is always the one for users, and never slow.

SEMISEG_FUZZ_EXAMPLES: how many edits of each kind.
"""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semiseg.data import SemisegError
from semiseg.models.config import read_config
from semiseg.train.recipe.load import load
from semiseg.train.recipe.problems import RecipeError
from semiseg.train.report.runs import RUNS
from semiseg.train.report.study import read_study
from semiseg.train.report.tables import table_csv, table_markdown
from semiseg.train.score.described import check_description

ROOT = Path(__file__).parents[2]
fuzz = settings(
    max_examples=int(os.environ.get("SEMISEG_FUZZ_EXAMPLES", "60")),
    derandomize="SEMISEG_FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=20)
    | st.sampled_from(["", "../x", "\x1b[2J", "a\nb", 10**400, -1, 0, 1e300, "x" * 3000, "[/road]", "<script>", "=1"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)

CONFIG = {
    "format": "semiseg-segmenter/1",
    "model": {
        "encoder": "resnet18", "output_stride": 8, "low_stride": 4, "levels": [], "mean": [0.5] * 3, "std": [0.5] * 3,
        "classes": {"street": 2}, "context": "none", "context_channels": 16, "context_rates": None, "context_width": None,
        "decoder": "subpixel", "last_relu": False, "norm": "batch",
    },
    "metadata": {
        "taxonomies": {"street": {"name": "s", "names": ["a", "b"], "colours": [[0, 0, 0], [1, 1, 1]]}},
        "resize": {"street": None},
        "views": {"scales": [1.0], "flip": False, "tile": None, "overlap": 0.3},
    },
}  # fmt: skip


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every value in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(place for key, inner in items for place in places(inner, (*path, key)))]


def edited(document: Any, path: tuple[str | int, ...], value: Any, *, remove: bool) -> Any:
    document = copy.deepcopy(document)
    at = document
    for key in path[:-1]:
        at = at[key]
    if remove:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return document


def check_message(error: Exception, place: Path) -> None:
    message = str(error)
    assert str(place) in message and all(line.isprintable() and len(line) < 4000 for line in message.split("\n"))


@fuzz
@given(path=st.sampled_from(places(CONFIG)), value=VALUES, remove=st.booleans())
def test_edits_of_a_models_settings(tmp_path: Path, path: tuple[str | int, ...], value: Any, remove: bool) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(edited(CONFIG, path, value, remove=remove)))
    try:
        found, metadata = read_config(file)
        check_description(metadata, found["classes"], file)
    except (ValueError, SemisegError) as error:
        check_message(error, file)


TEXT = (ROOT / "recipes" / "quickstart.toml").read_text()
PIECES = st.sampled_from(
    ["[", "]", "{", "}", "=", ".", '"', "'", "\n", "#", "\x00", "nan", "1e999", "0x", "-", "\r", "\ufeff", "[["]
)


@fuzz
@given(at=st.integers(0, len(TEXT)), length=st.integers(0, 30), new=st.text(max_size=10) | PIECES)
def test_edits_of_a_recipe(tmp_path: Path, at: int, length: int, new: str) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes((TEXT[:at] + new + TEXT[at + length :]).encode("utf-8", "surrogatepass"))
    try:
        load(file)
    except RecipeError as error:
        check_message(error, file)


KEYS = ["steps", "seed", "name", "optimizer.lr", "data.workers", "objectives.1.weight", "model.context", "data.domains.street",
        "evaluate.scales", "evaluate.tile", "expect", "runs", "objectives", "model.encoder.weights", "teacher",
        "a.b"]  # fmt: skip


@fuzz
@given(key=st.sampled_from(KEYS) | st.text(max_size=12), value=VALUES | st.text(max_size=30))
def test_arguments(key: str, value: Any) -> None:
    try:
        load(ROOT / "recipes" / "quickstart.toml", [f"{key}={value}", f"{key}={json.dumps(value)}"])
    except RecipeError as error:
        assert all(line.isprintable() for line in str(error).split("\n"))


REAL = ROOT / "results" / "camvid-subsets-methods" / RUNS
INDEX, RUN = (json.loads(line) for line in REAL.read_text().split("\n")[:2])
INDEX |= {"predictions": None, "runs": {RUN["name"]: INDEX["runs"][RUN["name"]]}, "plan": {}}
RUN["metrics"] = RUN["metrics"][-2:]


@fuzz
@given(path=st.sampled_from([("index", *place) for place in places(INDEX)] + [("run", *place) for place in places(RUN)]),
       value=VALUES, remove=st.booleans())  # fmt: skip
def test_edits_of_results(tmp_path: Path, path: tuple[str | int, ...], value: Any, remove: bool) -> None:
    found = edited({"index": INDEX, "run": RUN}, path, value, remove=remove)
    (tmp_path / RUNS).write_text(f"{json.dumps(found['index'])}\n{json.dumps(found['run'])}\n")
    try:
        study = read_study(tmp_path)
        table_csv(study)
        table_markdown(study)
    except SemisegError as error:
        check_message(error, tmp_path)


def test_the_unedited_documents_are_taken(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    found, metadata = read_config(tmp_path / "config.json")
    check_description(metadata, found["classes"], tmp_path)
    (tmp_path / RUNS).write_text(f"{json.dumps(INDEX)}\n{json.dumps(RUN)}\n")
    assert len(read_study(tmp_path).runs) == 1
    with pytest.raises(RecipeError):
        load(tmp_path / "x.toml")
