"""Shard sets of strangers, signed but false, and damaged ones: one line, at once, and no file outside is read or written."""

import io
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from semiseg.data import (
    Adapter,
    DataError,
    Manifest,
    RawSample,
    RawSpace,
    ShardSet,
    Split,
    Taxonomy,
    canonical,
    merge,
    sha256,
    shard,
    shard_part,
    verify,
    visible,
)
from semiseg.data.commands import app

SECONDS = 5  # one at most on a machine that is not shared
SPACE = RawSpace(name="figs", names={0: "sky", 1: "[/road]", 255: "void"})
CLASSES = Taxonomy(
    name="figs-2",
    raw=SPACE,
    names=("sky", "[/road]"),
    colours=((0, 0, 0), (9, 9, 9)),
    ids={0: 0, 1: 1},
    foreground=frozenset({1}),
)


class Figs:
    """Four small images with labels."""

    name, summary, home, root, version = "fig", "figs", "https://example.org", None, "1"
    raw_space, taxonomies = SPACE, (CLASSES,)

    def splits(self) -> dict[str, Split]:
        return {"train": Split(name="train", samples=4)}

    def samples(self, split: str) -> Iterator[RawSample]:
        random = np.random.default_rng(0)
        for number in range(4):
            image, label = (
                png(random.integers(0, 256, (8, 8, 3), np.uint8)),
                png(random.integers(0, 2, (8, 8), np.uint8)),
            )
            yield RawSample(key=f"k{number}", image=image, label=label, size=600, tags=("[/road]",))


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


ADAPTER = cast(Adapter, Figs())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("figs")
    shard(ADAPTER, "train", root, size="1300B")
    return root / "fig" / "train"


@pytest.fixture(scope="module")
def text(written: Path) -> str:
    return (written / "manifest.json").read_text()


def refused(make: Callable[[], Any]) -> str:
    """The one line of a DataError, which comes at once."""
    start = time.monotonic()
    with pytest.raises(DataError) as caught:
        make()
    assert time.monotonic() - start < SECONDS
    message = str(caught.value)
    assert "\n" not in message and len(message) < 2000
    assert all(c.isprintable() for c in message), message
    return message


def signed(fields: dict[str, Any]) -> str:
    """A manifest as a stranger signs it: digest and sha256 fit the fields, whatever these are."""
    fields = {name: value for name, value in fields.items() if name != "sha256"}
    names = ("dataset", "version", "split", "settings")
    described = {name: fields.get(name) for name in names}
    try:
        members = [f"image.{fields['image']}", *["label.png"] * bool(fields["labeled"]), "meta.json"]
        space = {"name": fields["raw_space"], "ids": sorted(int(number) for number in fields["raw_ids"])}
        shards = [{"samples": entry["samples"], "content": entry["content"]} for entry in fields["shards"]]
        fields["digest"] = sha256(canonical(described | {"raw_space": space, "members": members, "shards": shards}))
        fields["samples"] = sum(entry["samples"] for entry in fields["shards"])
        fields["bytes"] = sum(entry["bytes"] for entry in fields["shards"])
    except (TypeError, KeyError, ValueError, AttributeError):
        pass  # nothing to sign
    body = json.dumps(fields, indent=1).removesuffix("\n}")
    return f'{body},\n "sha256": "{sha256(body.encode())}"\n}}\n'


def test_a_signed_manifest_is_read(text):
    assert Manifest.from_json(signed(json.loads(text))) == Manifest.from_json(text)


NAMES = [
    "/abs/victim/fig", "..", "../x", "a/b", "a\\b", "C:x", "C:\\x", "x\0y", "x\ny", "x\x1b[2J", "~", "~root", "$HOME",
    "`id`", "file:///etc", "s3://b", "http://127.0.0.1/", "simplecache::x", "a::b", "-x", "--to", ".", "", ".hidden",
    "a..b", "x" * 300, "\u202ex", "\ud800", "a b", "a;b", "é", "a\tb", "%2e%2e", None, 3, ["x"], {"a": 1}, True,
]  # fmt: skip


@pytest.mark.parametrize("field", ["dataset", "split"])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_leads_elsewhere_is_refused(text, field, name):
    words = refused(lambda: Manifest.from_json(signed(json.loads(text) | {field: name}), "x/manifest.json"))
    assert words.startswith("x/manifest.json: ") and "copy it again from its source" in words
    assert "can't name a folder" in words or "surrogate" in words


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(name, str)], ids=ascii)
def test_show_writes_no_file_elsewhere(written, text, tmp_path, monkeypatch, name):
    victim = tmp_path / "victim" / "fig-train.png"
    victim.parent.mkdir()
    victim.write_bytes(b"precious")
    folder = tmp_path / "set"
    shutil.copytree(written, folder)
    name = str(victim.parent / "fig") if name.startswith("/abs") else name
    (folder / "manifest.json").write_text(signed(json.loads(text) | {"dataset": name}))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = CliRunner().invoke(app, ["show", str(folder)])
    assert isinstance(result.exception, DataError)
    assert victim.read_bytes() == b"precious" and not list((tmp_path / "here").iterdir())


VALUES = [
    None, True, -1, 0, 1.5, 1e300, 10**19, "", "x", [], [1], {}, {"a": 1}, {"1": "a", "x": "b"}, {"-1": "a"}, {"70000": "x"},
    {"1_0": "a"}, {"٣": "a"}, {str(n): "x" for n in range(65_537)}, [[]], [{}], [None], "9" * 5000,
]  # fmt: skip
FIELDS = [
    "format", "dataset", "version", "split", "raw_space", "raw_ids", "taxonomies", "labeled", "image", "settings", "listing",
    "shards",
]  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("number", range(len(VALUES)))
def test_a_false_value_is_refused_or_harmless(text, field, number):
    """Whatever is accepted has the types that the code relies on."""
    changed = signed(json.loads(text) | {field: VALUES[number]})
    start = time.monotonic()
    try:
        manifest = Manifest.from_json(changed, "m")
    except DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
    else:
        assert isinstance(manifest.version, str) and isinstance(manifest.samples, int)
        assert all(
            isinstance(value, str) for value in (*manifest.raw_ids.values(), manifest.raw_space, manifest.listing)
        )
        assert field in (
            "version",
            "dataset",
            "split",
            "raw_space",
            "raw_ids",
            "taxonomies",
            "settings",
            "listing",
            "shards",
            "labeled",
        )
    assert time.monotonic() - start < SECONDS


ENTRY = [
    {"name": "../000000"}, {"name": "²²²²²²"}, {"name": 0}, {"sha256": "x"}, {"sha256": "A" * 64}, {"index_sha256": None},
    {"samples": -1}, {"samples": 1.0}, {"samples": True}, {"bytes": 10**19}, {"bytes": "1"}, {"content": ""}, {"new": 1},
]  # fmt: skip


@pytest.mark.parametrize("change", ENTRY, ids=ascii)
def test_a_false_entry_is_refused(text, change):
    fields = json.loads(text)
    fields["shards"][0] |= change
    refused(lambda: Manifest.from_json(signed(fields)))


@pytest.mark.parametrize("how", ["twice", "swapped", "first missing", "renamed twice"])
def test_entries_twice_swapped_or_missing_are_found(written, text, tmp_path, how):
    fields = json.loads(text)
    first, second = fields["shards"][:2]
    fields["shards"] = {
        "twice": [first, first],
        "swapped": [second, first],
        "first missing": [second],
        "renamed twice": [first, first | {"name": "000001"}],
    }[how]
    shutil.copytree(written, tmp_path / "set")
    (tmp_path / "set" / "manifest.json").write_text(signed(fields))
    assert not verify(tmp_path / "set").ok


RAW = {
    "deep lists": "[" * 100_000 + "]" * 100_000,
    "deep objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "unclosed": "[" * 100_000,
    "digits": '{"format": ' + "1" * 5000 + "}",
    "nan": '{"format": NaN}',
    "infinity": '{"format": -Infinity}',
    "twice": '{"format": 1, "format": 1}',
    "list": "[1]",
    "number": "1",
    "null": "null",
    "empty": "",
    "surrogate": '{"format": "\\ud800"}',
    "keys": "{" + ",".join(f'"k{n}": 1' for n in range(100_000)) + "}",
    "escape": '{"format": "\\u001b[2J\\u202e"}',
    "utf16": "{}".encode("utf-16").decode("latin-1"),
    "bom": "\ufeff{}",
    "zeros": "\0" * 1000,
}


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_manifest_is_refused(name, tmp_path):
    refused(lambda: Manifest.from_json(RAW[name], "m"))
    (tmp_path / "manifest.json").write_bytes(RAW[name].encode("utf-8", "surrogatepass"))
    refused(lambda: ShardSet(tmp_path))
    assert not verify(tmp_path).ok


def test_every_changed_byte_of_a_manifest_is_found(text):
    data = text.encode()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        with pytest.raises(DataError):
            Manifest.from_json(changed.decode(errors="replace"))


def test_every_changed_byte_of_an_index_or_plan_is_found_by_merge(tmp_path):
    shard_part(ADAPTER, "train", tmp_path, part=(1, 1), size="9KB")
    folder = tmp_path / "fig" / "train"
    for name in ("000000.index.parquet", "plan.1-of-1.json", "000000.index.sha256"):
        data = (folder / name).read_bytes()
        for place in range(0, len(data), 7 if name.endswith("parquet") else 3):
            changed = bytearray(data)
            changed[place] ^= 1 << place % 8
            (folder / name).write_bytes(changed)
            with pytest.raises(DataError):
                merge(folder)
        (folder / name).write_bytes(data)
    merge(folder)
    assert verify(folder).ok
    assert sorted(path.name for path in folder.iterdir()) == ["000000.index.parquet", "000000.tar", "manifest.json"]


@pytest.mark.parametrize("change", [[-1], None, "x", [{"name": "../../etc", "samples": 4}], [{}], 3])
def test_a_false_plan_is_refused_by_merge(tmp_path, change):
    shard_part(ADAPTER, "train", tmp_path, part=(1, 1), size="9KB")
    path = tmp_path / "fig" / "train" / "plan.1-of-1.json"
    fields = {name: value for name, value in json.loads(path.read_text()).items() if name != "sha256"}
    for field in ("shards", "dataset", "split", "raw_ids"):
        false = fields | {field: change}
        path.write_bytes(canonical(false | {"sha256": sha256(canonical(false))}))
        with pytest.raises(DataError):
            merge(path.parent)


@settings(max_examples=int(os.environ.get("SEMISEG_FUZZ_EXAMPLES", "40")), deadline=None, derandomize=True)
@given(st.data())
def test_mutated_manifests(data):
    """Any JSON value at any place of a signed manifest."""
    fields = json.loads(MADE)
    place: Any = fields
    path = data.draw(st.sampled_from(FIELDS))
    while isinstance(place[path], dict | list) and place[path] and data.draw(st.booleans()):
        place = place[path]
        path = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    place[path] = data.draw(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
    try:
        changed = signed(fields)
        Manifest.from_json(changed)
    except DataError as error:
        assert "\n" not in str(error)


MADE = json.dumps(
    {
        "format": 1, "dataset": "fig", "version": "1", "split": "train", "raw_space": "figs", "raw_ids": {"0": "a", "1": "b"},
        "taxonomies": [{"name": "t", "names": ["a"], "colours": [[0, 0, 0]], "ids": {"0": 0}, "foreground": []}],
        "labeled": True, "image": "png", "settings": {"size": 9}, "listing": "x", "samples": 1, "bytes": 1,
        "shards": [
            {"name": "000000", "samples": 1, "bytes": 1, "sha256": "0" * 64, "index_bytes": 1, "index_sha256": "0" * 64,
             "content": "0" * 64},
        ],
    }
)  # fmt: skip


def test_control_characters_in_names_are_not_sent_to_a_terminal(tmp_path):
    names = {0: "sky", 1: "\x1b[2Jroad\u202e", 255: "void"}
    space = RawSpace(name="esc", names=names)
    adapter = Figs()
    adapter.raw_space = space
    adapter.taxonomies = (
        Taxonomy(name="\x1b]0;t\x07", raw=space, names=("sky", names[1]), colours=((0, 0, 0), (9, 9, 9)), ids={0: 0, 1: 1},
                 foreground=frozenset()),
    )  # fmt: skip
    shard(cast(Adapter, adapter), "train", tmp_path)
    (tmp_path / "fig" / "\x1b[2Jx").mkdir()
    for words in (["stats", "fig"], ["list"], ["verify", "fig"], ["stats", "fig", "--json"]):
        result = CliRunner().invoke(app, [*words, "--shards", str(tmp_path)], catch_exceptions=False)
        assert result.exit_code == 0 and "\x1b" not in result.output and "\u202e" not in result.output
    assert "\\x1b[2Jroad" in CliRunner().invoke(app, ["stats", "fig", "--shards", str(tmp_path)]).output


def test_markup_in_names_is_shown_as_it_is(written):
    result = CliRunner().invoke(app, ["stats", str(written)], catch_exceptions=False)
    assert result.exit_code == 0 and result.output.count("[/road]") == 2


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\u202eabc", "\x07", "\ud800", "\x85", "\u2028"], ids=ascii)
def test_control_characters_are_shown(text):
    shown = visible(text)
    assert shown.isprintable() and re.search(r"\\(x|u|n)", shown)
    assert str(DataError(text.replace("\n", "\r"))).isprintable()


@pytest.mark.parametrize("command", ["stats", "show", "verify", "merge"])
def test_a_name_that_is_too_long_is_one_line(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [command, f"./{'x' * 300}"])
    assert isinstance(result.exception, DataError) and "File name too long" in str(result.exception)
