"""Mutations of overlays' facts, plan files, indexes and class files: right, or the error for users; never another one.

SEMISEG_FUZZ_EXAMPLES: how many mutations of each kind.
"""

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from semiseg.data import (
    DataError,
    OverlaySet,
    SemisegError,
    ShardSet,
    canonical,
    merge,
    open_dataset,
    sha256,
    shard,
    shard_part,
    verify,
    write_overlay,
)

fuzz = settings(
    max_examples=int(os.environ.get("SEMISEG_FUZZ_EXAMPLES", "25")),
    derandomize="SEMISEG_FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(["", "../x", "\x1b[2J", "a\nb", -1, 0, 1e300, "x" * 3000, "[/road]", "000001", "/etc"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source")
    random = np.random.default_rng(0)
    for folder, shape, most in (("images", (8, 8, 3), 256), ("masks", (8, 8), 2)):
        (root / folder).mkdir()
        for number in range(4):
            (root / folder / f"k{number}.png").write_bytes(png(random.integers(0, most, shape, np.uint8)))
    (root / "classes.toml").write_text('classes = ["sky", "road"]\n')
    return root


@pytest.fixture(scope="module")
def part(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("part")
    adapter = open_dataset("folder", source, name="fig")
    shard_part(adapter, next(iter(adapter.splits())), root, part=(1, 1))
    return next(root.glob("*/*"))


@pytest.fixture(scope="module")
def overlay(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("overlay")
    adapter = open_dataset("folder", source, name="fig")
    split = next(iter(adapter.splits()))
    shard(adapter, split, root)
    base = ShardSet(root / "fig" / split)
    labels = np.zeros((8, 8), np.uint8)
    write_overlay(base, "made", base.taxonomies[0], lambda _: labels, settings={"threshold": 0.5})
    return root / "fig" / f"{split}@made"


def message(error: SemisegError) -> None:
    assert all(line.isprintable() and len(line) < 4000 for line in str(error).split("\n"))


def mutated(data: st.DataObject, document: Any) -> Any:
    """The document with any value at one place, or without it."""
    document = {"": json.loads(json.dumps(document))}
    at, key = document, ""
    while isinstance(at[key], dict | list) and at[key] and data.draw(st.booleans()):
        at = at[key]
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
    if at is not document and data.draw(st.booleans()):
        del at[key]
    else:
        at[key] = data.draw(VALUES)
    return document[""]


@fuzz
@given(st.data())
def test_mutated_bytes(part, tmp_path_factory, data):
    """Some bytes of an index, plan or note of an index: merging refuses, or the set is what it was."""
    folder = tmp_path_factory.mktemp("flipped") / "fig" / part.name
    shutil.copytree(part, folder)
    names = sorted(path.name for path in folder.iterdir())
    path = folder / data.draw(st.sampled_from([name for name in names if not name.endswith(".tar")]))
    content = bytearray(path.read_bytes())
    how = data.draw(st.sampled_from(["flip", "cut", "append", "insert"]))
    place = data.draw(st.integers(0, len(content) - 1))
    if how == "flip":
        content[place] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        del content[place:]
    else:
        place = len(content) if how == "append" else place
        content[place:place] = data.draw(st.binary(min_size=1, max_size=100))
    path.write_bytes(content)
    try:
        merge(folder)
    except DataError as error:
        message(error)
        assert not (folder / "manifest.json").exists()
    else:
        assert verify(folder).ok and len(ShardSet(folder)) == 3
    shutil.rmtree(folder.parent.parent)


@fuzz
@given(st.data())
def test_mutated_plans(part, tmp_path_factory, data):
    """A plan that a stranger has signed: nothing is written outside, and what is merged can be verified."""
    root = tmp_path_factory.mktemp("plans")
    folder = root / "fig" / part.name
    shutil.copytree(part, folder)
    path = folder / "plan.1-of-1.json"
    fields = {name: value for name, value in json.loads(path.read_bytes()).items() if name != "sha256"}
    changed = mutated(data, fields)
    signed = changed | {"sha256": sha256(canonical(changed))} if isinstance(changed, dict) else changed
    path.write_bytes(canonical(signed))
    try:
        merge(folder)
    except DataError as error:
        message(error)
    else:
        verify(folder)
    assert [path.name for path in root.iterdir()] == ["fig"]
    assert [path.name for path in (root / "fig").iterdir()] == [part.name]
    shutil.rmtree(root)


@fuzz
@given(st.data())
def test_mutated_overlays(overlay, data):
    """Facts that a stranger has signed: an overlay opens only on the split that it was made for."""
    path = overlay / "manifest.json"
    before = path.read_text()
    fields = json.loads(before)
    facts = mutated(data, json.loads(fields["version"]))
    fields["version"] = canonical(facts).decode() if data.draw(st.booleans()) else str(facts)
    described = {name: fields[name] for name in ("dataset", "version", "split", "settings")}
    space = {"name": fields["raw_space"], "ids": sorted(int(number) for number in fields["raw_ids"])}
    shards = [{"samples": entry["samples"], "content": entry["content"]} for entry in fields["shards"]]
    members = [f"image.{fields['image']}", "label.png", "meta.json"]
    fields["digest"] = sha256(canonical(described | {"raw_space": space, "members": members, "shards": shards}))
    del fields["sha256"]
    body = json.dumps(fields, indent=1).removesuffix("\n}")
    path.write_text(f'{body},\n "sha256": "{sha256(body.encode())}"\n}}\n')
    try:
        opened = OverlaySet(overlay)
    except DataError as error:
        message(error)
    else:
        assert opened.rows() == [0, 1, 2]
    finally:
        path.write_text(before)


CLASS_FILES = {
    "classes.toml": 'ignore = [255]\nforeground = ["road"]\nclasses = [{ name = "sky", id = 0, colour = [0, 0, 0] }, "road"]\n',
    "classes.txt": "sky\nroad\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nsky:0,0,0::\nroad:1,1,1::\n",
    "_classes.csv": "Pixel Value, Class\n0, sky\n1, road\n",
    "classes.json": '{"classes": [{"title": "sky", "color": "#000000"}, {"title": "road", "color": "#010101"}]}',
    "data.yaml": "names:\n  0: sky\n  1: road\n",
}


@fuzz
@given(st.data())
def test_mutated_class_files(source, tmp_path_factory, data):
    root = tmp_path_factory.mktemp("classes")
    for folder in ("images", "masks"):
        (root / folder).symlink_to(source / folder)
    name = data.draw(st.sampled_from(sorted(CLASS_FILES)))
    content = bytearray(CLASS_FILES[name].encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(place, min(len(content), place + 8)))
        content[place:stop] = data.draw(
            st.binary(max_size=6)
            | st.sampled_from([b"\x1b[2J", b"\n", b"[" * 2000, b"9" * 5000, b"a." * 5000, b"\xff", b"-1"])
        )
    (root / name).write_bytes(content)
    try:
        adapter = open_dataset("folder", root, name="fig", classes=name)
        adapter.splits()
        names = [text for taxonomy in adapter.taxonomies for text in taxonomy.names]
        assert len(set(names)) == len(names) and all(names)
    except DataError as error:
        message(error)
    shutil.rmtree(root)


def test_an_overlay_with_keys_of_another_set_is_refused(overlay, tmp_path):
    """Its facts name the split's digest, but its samples are not in the split."""
    shutil.copytree(overlay.parent, tmp_path / "fig")
    base = tmp_path / "fig" / overlay.name.partition("@")[0]
    opened = OverlaySet(tmp_path / "fig" / overlay.name)
    other = tmp_path / "other"
    (other / "images").mkdir(parents=True)
    for number in range(3):
        (other / "images" / f"z{number}.png").write_bytes(png(np.full((8, 8, 3), number, np.uint8)))
    adapter = open_dataset("folder", other, name="fig")
    shard(adapter, next(iter(adapter.splits())), tmp_path / "shards")
    opened.base = ShardSet(next((tmp_path / "shards").glob("fig/*")))
    with pytest.raises(DataError, match=r"is not in .*: the overlay was made for other images; delete it"):
        opened.rows()
    assert OverlaySet(tmp_path / "fig" / overlay.name, base).rows() == [0, 1, 2]
