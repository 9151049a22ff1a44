"""JSON in users' files: whatever is wrong with it is one line that names the file, and nothing is read in two ways."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from semiseg.data import DataError, Manifest, open_dataset, parse_json
from semiseg.data.image.decode import read_meta
from semiseg.data.overlays import overlay_facts
from semiseg.data.remedies import absent
from semiseg.data.storage.storage import Storage
from semiseg.datasets.cityscapes.polygons import draw
from semiseg.datasets.hub.classes import read_names
from semiseg.datasets.hub.opening import refuse_strange_places

FALSE = {
    "deep lists": '{"key": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep objects": '{"key": ' * 50_000 + "1" + "}" * 50_000,
    "unclosed": "[" * 100_000,
    "digits": '{"key": ' + "7" * 5000 + "}",
    "digits in a fraction": '{"key": 1e' + "9" * 5000 + "}",
    "nan": '{"key": NaN}',
    "infinity": '{"key": -Infinity}',
    "large": '{"key": 1e999}',
    "twice": '{"key": 1, "key": 2}',
    "half a character": '{"key": "\\ud800"}',
    "empty": "",
    "cut": '{"key": ',
    "zeros": "\0" * 1000,
    "utf-16": '{"key": 1}'.encode("utf-16").decode("latin-1"),
}


@pytest.mark.parametrize("name", FALSE)
def test_the_reader_refuses(name):
    with pytest.raises(ValueError) as caught:
        parse_json(FALSE[name])
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -2.5, 1e300, "\\u00e9\\ud83d\\ude00", null, true, {}]}',
        "[" * 64 + "]" * 64,
        "18446744073709551615",
        '"[[["',
    ],
)
def test_the_reader_agrees_with_the_standard_library(text):
    assert parse_json(text) == parse_json(text.encode()) == json.loads(text)


def overlay(text: str, _: Path) -> None:
    overlay_facts(cast(Manifest, SimpleNamespace(version=text, dataset="voc", split="train@x")))


def hub_names(text: str, folder: Path) -> None:
    (folder / "id2label.json").write_text(text)
    read_names("data set 'x'", folder / "id2label.json", [])


def hub_state(text: str, folder: Path) -> None:
    (folder / "state.json").write_text(text)
    refuse_strange_places(folder)


def folder_classes(text: str, folder: Path) -> None:
    (folder / "images").mkdir()
    (folder / "id2label.json").write_text(text)
    open_dataset("folder", folder, name="x", classes="id2label.json").splits()


READERS: dict[str, Callable[[str, Path], Any]] = {
    "overlay": overlay,
    "meta": lambda text, _: read_meta("key", text.encode()),
    "polygons": lambda text, _: draw(text.encode(), "x_polygons.json"),
    "names of the hub's ids": hub_names,
    "state of the hub's library": hub_state,
    "classes of a folder": folder_classes,
}


@pytest.mark.parametrize("name", FALSE)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_in_one_line(tmp_path, reader, name):
    with pytest.raises(DataError) as caught:
        READERS[reader](FALSE[name], tmp_path)
    lines = str(caught.value).split("\n")
    assert all(line.isprintable() and len(line) < 1000 for line in lines)
    assert len(lines) == 1 or reader == "classes of a folder"


FACTS: list[Any] = [{}, [], 3, {"base": 1, "taxonomy": "x", "settings": {}}, {"base": "1", "taxonomy": [], "settings": {}},
                    {"base": "1", "taxonomy": "x", "settings": []}]  # fmt: skip


@pytest.mark.parametrize("facts", FACTS, ids=str)
def test_false_facts_of_overlays_are_refused(tmp_path, facts):
    with pytest.raises(DataError, match="is not an overlay"):
        overlay(json.dumps(facts), tmp_path)


@pytest.mark.parametrize("text", [*FALSE.values(), '{"dataset": "../x", "split": "; rm -r", "settings": {}}', "[]"])
def test_a_false_plan_only_removes_the_hint(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    assert absent(Storage(tmp_path)) == f"{tmp_path}: writing was interrupted; rerun the command to resume"
