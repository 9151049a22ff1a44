"""Lists of classes that other programs write: names, ids and colours, or the reason why a list is not used."""

from collections.abc import Callable
from pathlib import Path

import pytest

from semiseg.data import DataError, Tree
from semiseg.datasets.folder import Folder
from semiseg.datasets.folder.class_lists import read_class_file
from semiseg.datasets.folder.problems import Problems

Put = Callable[..., Path]
RED, BLUE, BLACK = (200, 0, 0), (0, 0, 200), (0, 0, 0)
NAMES = [("ground", 0, None), ("roof", 1, None), ("tree", 2, None)]
COLOURS = [("ground", 0, BLACK), ("roof", 1, RED), ("tree", 2, BLUE)]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("codes.txt", "ground\nroof\ntree\n", NAMES),
        ("obj.names", "ground\r\nroof\r\ntree\r\n", NAMES),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nground:0,0,0::\nroof:200,0,0:a,b:c\ntree:0,0,200::\n", COLOURS),
        ("label_colors.txt", "0 0 0\tground\n200 0 0\troof\n0 0 200\ttree\n", COLOURS),
        ("_classes.csv", "Pixel Value, Class\n0, ground\n1, roof\n2, tree\n", NAMES),
        ("_classes.csv", "\ufeffPixel Value;Class\n2;tree\n0;ground\n1;roof\n", [NAMES[2], NAMES[0], NAMES[1]]),
        ("class_dict.csv", "name,r,g,b\nground,0,0,0\nroof,200,0,0\ntree,0,0,200\n", COLOURS),
        ("class_dict.csv", "name, r, g, b\n\nground, 0, 0, 0\nroof, 200, 0, 0\ntree, 0, 0, 200\n\n", COLOURS),
        ("classes.csv", 'id,name,color\n0,ground,#000000\n1,roof,"200, 0, 0"\n2,tree,"[0, 0, 200]"\n', COLOURS),
        ("objectInfo150.txt", "Idx\tRatio\tName\n1\t0.2\twall\n2\t0.1\tbuilding, edifice\n",
         [("wall", 1, None), ("building, edifice", 2, None)]),
        ("id2label.json", '{"0": "ground", "1": "roof", "2": "tree"}', NAMES),
        ("classes.json", '["ground", "roof", "tree"]', NAMES),
        ("classes.json", '{"ground": 0, "roof": 1, "tree": 2}', NAMES),
        ("classes.json", '{"ground": [0, 0, 0], "roof": [200, 0, 0], "tree": "#0000c8"}', COLOURS),
        ("classes.json", '[{"id": 7, "name": "roof", "color": [200, 0, 0]}]', [("roof", 7, RED)]),
        ("config.json", '{"version": 1, "labels": [{"readable": "ground", "color": [0, 0, 0]}, {"readable": "roof", "color": '
         '[200, 0, 0]}, {"readable": "tree", "color": [0, 0, 200]}]}', COLOURS),
        ("config.json", '{"id2label": {"0": "ground", "1": "roof", "2": "tree"}, "hidden": 5}', NAMES),
        ("meta.json", '{"classes": [{"title": "roof", "shape": "bitmap", "color": "#C80000", "id": 91}, {"title": "tree", '
         '"shape": "polygon", "color": "#0000C8", "id": 90}]}', [("background", 0, BLACK), *COLOURS[1:]]),
        ("obj_class_to_machine_color.json", '{"roof": [40, 40, 40], "tree": [80, 80, 80]}',
         [("background", 0, BLACK), ("roof", 40, (40, 40, 40)), ("tree", 80, (80, 80, 80))]),
        ("data.yaml", "path: ../x\nnames:\n  0: ground\n  1: roof\n  2: tree\nnc: 3\n", NAMES),
        ("data.yaml", "names:\n- ground\n- roof # red\n- 'tree'\nval: x\n", NAMES),
        ("data.yaml", 'names: [ground, "roof",\n  tree]\nnc: 3\n', NAMES),
        ("data.yml", "names: {0: ground, 1: roof, 2: tree}\n", NAMES),
        ("classes.txt", "0 ground\n1 roof\n255 void\n", NAMES[:2]),
    ],
)  # fmt: skip
def test_lists(put: Put, name: str, text: str, expected: list) -> None:
    problems, notes = Problems(), []
    found = read_class_file(Tree.open(put(name, text)), None, problems, notes)
    assert not problems.rows and found is not None
    assert [(entry.name, entry.id, entry.colour) for entry in found.classes] == expected
    assert not found.ignore_given
    if name != "classes.txt":
        assert notes == [f"classes: {len(expected)} from {name}; --option classes=none reads masks without it"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("labelmap.txt", "a:0,0,0::\nb:0,0,999::\n", "bands are 0 to 255"),
        ("_classes.csv", "Pixel Value, Class\nx, a\n", "a: id x is not an integer 0..65535"),
        ("_classes.csv", "Pixel Value, Class\n0, a\n0, b\n", "2 classes have the id 0"),
        ("class_dict.csv", "name,r,g,b\n,0,0,0\n", "entry 0 has no name"),
        ("class_dict.csv", "name,r,g,b\na,0,0,red\n", "invalid literal"),
        ("id2label.json", "{", "can't be read as a list of classes"),
        ("id2label.json", "[" * 100_000, "can't be read as a list of classes"),
        ("id2label.json", '{"0": "a", "' + "1" * 5000 + '": "b"}', "can't be read as a list of classes"),
        ("id2label.json", "3", "contains no names"),
        ("id2label.json", '{"a": {"b": 1}}', "contains no names"),
        ("classes.json", '[{"name": 3}]', "entry 0 has no name"),
        ("classes.toml", "classes = [" + "[" * 50_000, "not TOML"),
        ("classes.toml", "x = " + "1" * 5000, "not TOML"),
        ("classes.toml", 'foreground = 3\nclasses = ["a"]', "foreground: expected a list of class names"),
        ("classes.toml", 'ignore = ["#c80000"]\nclasses = [{name = "a", colour = "#c80000"}]', "is also in `ignore`"),
        ("classes.txt", "", "contains no names"),
        ("codes.txt", "a\nb\na\n", "2 classes have the name a"),
        ("classes.csv", "id,name\n1,a" + "x" * 200_000 + "\n", "can't be read as a list of classes"),
        ("names.txt", b"\xff\xfea\x00", "not UTF-8 text"),
    ],
)
def test_lists_that_are_wrong(pairs: Callable[..., Path], put: Put, name: str, text: str | bytes, words: str) -> None:
    pairs(3)
    root = put(name, text)
    with pytest.raises(DataError, match="class file") as raised:
        Folder(root, val=0)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", '{"epochs": 3}'),
        ("meta.json", "not JSON"),
        ("data.yaml", "train: images\n"),
        ("labels.csv", "id,label\na0.png,roof\na1.png,roof\n"),
        ("labels.csv", "name,id\nroof,1\nroof,1\n"),
        ("config.json", "[" * 100_000),
    ],
)
def test_files_that_may_hold_anything_else_are_named_and_left(
    pairs: Callable[..., Path], put: Put, name: str, text: str
) -> None:
    pairs(3)
    folder = Folder(put(name, text), val=0)
    assert folder.taxonomies[0].names == ("class_0", "class_1", "class_2")
    assert [note for note in folder.notes() if note.startswith(f"{name}: not a list of classes (")]


def test_one_list_is_used_and_the_others_are_named(pairs: Callable[..., Path], put: Put) -> None:
    pairs(3)
    put("classes.txt", "ground\nroof\ntree\n")
    put("train/_classes.csv", "Pixel Value, Class\n0, a\n1, b\n2, c\n")
    root = put("valid/_classes.csv", "Pixel Value, Class\n0, a\n1, b\n2, c\n")
    assert Folder(root, val=0).taxonomies[0].names == ("ground", "roof", "tree")
    (note,) = [note for note in Folder(root, val=0).notes() if "not used" in note and "lists of classes" in note]
    assert note == (
        "other lists of classes, not used: train/_classes.csv, valid/_classes.csv; choose one with --option classes=FILE"
    )
    chosen = Folder(root, val=0, classes="valid/_classes.csv")
    assert chosen.taxonomies[0].names == ("a", "b", "c")
    (root / "classes.txt").unlink()
    assert Folder(root, val=0).taxonomies[0].names == ("a", "b", "c")  # both say the same
    assert Folder(root, val=0, classes="none").taxonomies[0].names == ("class_0", "class_1", "class_2")
    with pytest.raises(DataError, match=r"class file +nope.txt +does not exist; correct the option classes"):
        Folder(root, val=0, classes="nope.txt")
