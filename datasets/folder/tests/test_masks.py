"""What masks mean: ids, palettes, colours, black and white; with a class file and without."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data import DataError, ShardSet, Tree, shard
from semiseg.datasets.folder import Folder
from semiseg.datasets.folder.masks import Seen, first_pixel, look

Put = Callable[..., Path]
COLOURS = np.array([(0, 0, 0), (200, 0, 0), (0, 0, 200)], np.uint8)
WITH_COLOURS = """
ignore = [255, [224, 224, 192]]
foreground = ["roof"]
classes = [
  { name = "rest", colour = [0, 0, 0] }, { name = "roof", colour = "#c80000" }, { name = "tree", colour = [0, 0, 200] },
]
"""


def palette(ids: np.ndarray, colours: list[tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray(ids).convert("P")
    image.putpalette([band for colour in colours for band in colour])
    return image


def read(root: Path, tmp_path: Path, **options: object) -> tuple[Folder, dict[str, np.ndarray]]:
    """The folder, and class ids of every mask by its key, read from shards."""
    folder = Folder(root, val=0, **options)  # type: ignore[arg-type]
    shard(folder, "train", tmp_path / "shards")
    stored = ShardSet(tmp_path / "shards" / folder.name / "train")
    return folder, {s.key: stored.taxonomy(folder.name).map(s.label) for s in stored if s.label is not None}


def test_ids_keep_their_bytes_and_classes_are_made_up(put: Put, ids: Callable, tmp_path: Path) -> None:
    mask = ids(0) * 7
    mask[0, :3] = 255
    put("images/x.jpg")
    root = put("masks/x.png", mask)
    folder, found = read(root, tmp_path)
    assert np.array_equal(found["x"], np.where(mask == 255, 255, mask // 7))
    taxonomy = folder.taxonomies[0]
    assert taxonomy.names == ("class_0", "class_7", "class_14") and folder.version == "ids"
    (sample,) = folder.samples("train")
    assert callable(sample.label) and sample.label() == (root / "masks/x.png").read_bytes()
    (proposal,) = [note for note in folder.notes() if "made up" in note]
    written = "\n".join(line.strip() for line in proposal.splitlines() if line.startswith("  "))
    put("classes.toml", written.replace("class_0", "background").replace("class_7", "roof"))
    named = Folder(root, val=0)
    assert named.taxonomies[0].names == ("background", "roof", "class_14")
    assert named.taxonomies[0].foreground == {1, 2}
    assert not [note for note in named.notes() if "made up" in note]
    manifest = shard(named, "train", tmp_path / "shards")  # names are no contents: nothing is written again
    assert manifest.taxonomies == named.taxonomies
    assert ShardSet(tmp_path / "shards/roofs/train").taxonomy("roofs").names[1] == "roof"


@pytest.mark.parametrize("form", ["L", "1", "P", "RGB", "bmp"])
def test_black_and_white(put: Put, ids: Callable, tmp_path: Path, form: str) -> None:
    classes = ids(0, count=2)
    images = {
        "L": Image.fromarray(classes * 255),
        "1": Image.fromarray(classes * 255).convert("1"),
        "P": palette(classes, [(0, 0, 0), (255, 255, 255)]),
        "RGB": Image.fromarray(classes * 255).convert("RGB"),
        "bmp": Image.fromarray(classes * 255),
    }
    put("images/x.png")
    folder, found = read(put(f"masks/x.{'bmp' if form == 'bmp' else 'png'}", images[form]), tmp_path)
    assert np.array_equal(found["x"], classes)
    if form != "P":
        assert folder.taxonomies[0].names == ("background", "foreground")
        assert any("black and white: 0 is background, 255 is foreground" in note for note in folder.notes())


def test_a_list_of_two_names_fits_black_and_white(put: Put, ids: Callable, tmp_path: Path) -> None:
    put("images/x.png")
    put("masks/x.png", ids(0, count=2) * np.uint8(255))
    folder, found = read(put("classes.txt", "# from the survey\nground\nroof\n"), tmp_path)
    assert np.array_equal(found["x"], ids(0, count=2))
    assert folder.taxonomies[0].names == ("ground", "roof") and set(folder.raw_space.names) == {0, 255}


def test_colours_with_a_class_file(put: Put, ids: Callable, tmp_path: Path) -> None:
    picture = COLOURS[ids(0)]
    picture[0, 0] = (224, 224, 192)
    put("images/x.jpg")
    put("images/dark.jpg")
    put("masks/dark.png", np.zeros((9, 12, 3), np.uint8))  # grey, and still a colour
    put("masks/x.png", picture)
    folder, found = read(put("classes.toml", WITH_COLOURS), tmp_path)
    expected = ids(0)
    expected[0, 0] = 255
    assert np.array_equal(found["x"], expected) and not found["dark"].any()
    assert folder.taxonomies[0].colours == ((0, 0, 0), (200, 0, 0), (0, 0, 200))
    assert folder.taxonomies[0].foreground == {1}
    assert folder.version.startswith("colours-")


def test_an_unknown_colour_names_file_and_pixel(put: Put, ids: Callable) -> None:
    for name in "xy":
        picture = COLOURS[ids(0)]
        picture[3, 5] = (199, 0, 1)
        put(f"images/{name}.jpg")
        put(f"masks/{name}.png", picture)
    with pytest.raises(DataError) as raised:
        Folder(put("classes.toml", WITH_COLOURS))
    for name in "xy":
        expected = rf"masks/{name}.png +colour \(199, 0, 1\) in 1 pixel, first at x=5, y=3; nearest: roof \(200, 0, 0\)"
        assert re.search(expected, str(raised.value))


def test_colours_without_a_class_file(put: Put, ids: Callable, tmp_path: Path) -> None:
    put("images/x.jpg")
    put("images/y.jpg")
    put("masks/y.png", COLOURS[ids(1, count=2)])
    folder, found = read(put("masks/x.png", COLOURS[ids(0)]), tmp_path)
    order = [0, 2, 1]  # black first, then by colour: blue before red
    assert np.array_equal(found["x"], np.array(order, np.uint8)[ids(0)])
    assert folder.taxonomies[0].colours == ((0, 0, 0), (0, 0, 200), (200, 0, 0))
    assert any('{ name = "class_1", id = 1, colour = [0, 0, 200] }' in note for note in folder.notes())


def test_palettes_mean_ids_where_they_agree_and_colours_where_they_do_not(
    put: Put, ids: Callable, tmp_path: Path
) -> None:
    rgb = [(0, 0, 0), (200, 0, 0), (0, 0, 200)]
    put("images/x.jpg")
    put("images/y.jpg")
    put("masks/x.png", palette(ids(0), rgb))
    root = put("masks/y.png", palette(ids(1), rgb))
    folder, found = read(root, tmp_path)
    assert folder.version == "ids" and np.array_equal(found["y"], ids(1))
    assert folder.taxonomies[0].colours == tuple(rgb)
    swapped = [rgb[0], rgb[2], rgb[1]]  # an editor's own order
    put("masks/y.png", palette(np.array([0, 2, 1], np.uint8)[ids(1)], swapped))
    folder, found = read(root, tmp_path / "again")
    assert folder.version.startswith("colours-")
    assert np.array_equal(found["y"], np.array([0, 2, 1], np.uint8)[ids(1)])
    put("classes.toml", WITH_COLOURS)
    _, found = read(root, tmp_path / "named")
    assert np.array_equal(found["x"], ids(0)) and np.array_equal(found["y"], ids(1))


def test_wide_and_narrow_ids(put: Put, ids: Callable, tmp_path: Path) -> None:
    put("images/x.jpg")
    root = put("masks/x.png", ids(0).astype(np.uint16) * 1000)
    put("classes.toml", 'classes = [{name = "a"}, {name = "b", id = 1000}, {name = "c", id = 2000}]')
    _, found = read(root, tmp_path)
    assert np.array_equal(found["x"], ids(0))
    put("masks/x.png", Image.fromarray(ids(0)), bits=2)  # values 0..2 of 3, which Pillow reads as 0, 85, 170
    put("classes.toml", 'classes = ["a", "b", "c"]')
    _, found = read(root, tmp_path / "narrow")
    assert np.array_equal(found["x"], ids(0))


def test_grey_with_transparency(put: Put, ids: Callable, tmp_path: Path) -> None:
    put("images/x.jpg")
    seen = np.dstack([ids(0), ids(1) * np.uint8(100)])
    root = put("masks/x.png", Image.fromarray(seen))
    with pytest.raises(DataError, match=r"masks/x.png +\d+ pixels \(.*%\) are partly transparent .*transparent=opaque"):
        Folder(root)
    _, found = read(root, tmp_path, transparent="opaque")
    assert np.array_equal(found["x"], ids(0))
    put("masks/x.png", Image.fromarray(ids(0)), transparency=0)
    _, found = read(put("read me", ""), tmp_path / "marked")
    assert np.array_equal(found["x"], ids(0))


def test_ids_that_the_class_file_does_not_list(put: Put, ids: Callable) -> None:
    mask = ids(0)
    mask[2, 4] = 9
    put("images/x.jpg")
    put("masks/x.png", mask)
    with pytest.raises(DataError, match=r"masks/x.png +id 9 in 1 pixel, first at x=4, y=2; add it to classes.toml"):
        Folder(put("classes.toml", 'classes = ["a", "b", "c"]'))


def test_smoothed_masks_are_refused(put: Put, photo: Callable) -> None:
    put("images/x.jpg")
    root = put("masks/x.png", photo(0))
    with pytest.raises(DataError, match=r"too many values +masks/x.png +108 colours.*without smoothing"):
        Folder(root)
    put("masks/x.png", np.arange(108, dtype=np.uint8).reshape(9, 12) * np.uint8(2))
    with pytest.raises(DataError, match=r"too many values +masks/x.png +108 ids.*without smoothing"):
        Folder(root)


def test_everything_wrong_with_a_class_file(pairs: Callable[..., Path], put: Put) -> None:
    pairs(1)
    root = put(
        "classes.toml",
        'ignor = 3\nforeground = ["rooof"]\nclasses = [{name="roof", id=-1}, {name="roof", color="red"}, {id=3}, '
        '{name="tree", colr=[0,0,0], id=255}]\nignore = [255]',
    )
    with pytest.raises(DataError) as raised:
        Folder(root)
    for message in (
        "unknown key 'ignor'; did you mean 'ignore'",
        "roof: id -1 is not an integer 0..65535",
        'roof: expected a colour as three numbers 0..255 or "#rrggbb"',
        "class 2 has no name",
        "tree: unknown key 'colr'; did you mean 'colour'",
        "foreground: unknown class 'rooof'; did you mean 'roof'",
        "2 classes have the name roof; it must be unique",
        "tree: id 255 is also in `ignore`",
    ):
        assert message in str(raised.value), message
    put("classes.toml", "classes = [")
    with pytest.raises(DataError, match=r"class file +classes.toml +not TOML"):
        Folder(root)


def test_coloured_masks_need_colours_in_the_class_file(put: Put, ids: Callable) -> None:
    put("images/x.jpg")
    put("masks/x.png", COLOURS[ids(0)])
    with pytest.raises(DataError, match=r"masks are coloured .*\[200, 0, 0\].*give every class a colour"):
        Folder(put("classes.toml", 'classes = ["a", "b", "c"]'))


def test_another_colour_table_gives_another_version(put: Put, ids: Callable, tmp_path: Path) -> None:
    put("images/x.jpg")
    put("masks/x.png", COLOURS[ids(0)])
    root = put("classes.toml", WITH_COLOURS)
    shard(Folder(root, val=0), "train", tmp_path)
    put(
        "classes.toml",
        WITH_COLOURS.replace("#c80000", "#0000c8").replace(
            '"tree", colour = [0, 0, 200]', '"tree", colour = [200, 0, 0]'
        ),
    )
    with pytest.raises(DataError, match=r"another configuration:\s+version: colours-"):
        shard(Folder(root, val=0), "train", tmp_path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_corrected_mask_of_the_same_size_is_another_source(
    put: Put, ids: Callable, tmp_path: Path, suffix: str
) -> None:
    options = {"compress_level": 0} if suffix == "png" else {}
    put("images/x.jpg")
    root = put(f"masks/x.{suffix}", ids(0), **options)
    before = (root / f"masks/x.{suffix}").stat().st_size
    manifest = shard(Folder(root, val=0), "train", tmp_path)
    assert shard(Folder(root, val=0), "train", tmp_path) == manifest
    put(f"masks/x.{suffix}", np.array([0, 2, 1], np.uint8)[ids(0)], **options)
    assert (root / f"masks/x.{suffix}").stat().st_size == before
    with pytest.raises(DataError, match=r"another configuration[\s\S]*source's samples[\s\S]*delete"):
        shard(Folder(root, val=0), "train", tmp_path)


def test_white_that_is_not_in_the_class_file_is_never_ignored_silently(put: Put, ids: Callable, tmp_path: Path) -> None:
    put("images/x.png")
    put("masks/x.png", ids(0, count=2) * np.uint8(255))
    for name, text in (("classes.txt", "roof\n"), ("classes.toml", 'classes = ["ground", "roof", "tree"]')):
        with pytest.raises(
            DataError, match=rf"class file +{name} +masks are black and white.*id = 255.*ignore = \[255\]"
        ):
            Folder(put(name, text))
    named = 'classes = [{ name = "roof", id = 255 }, { name = "ground", id = 0 }]'
    _, found = read(put("classes.toml", named), tmp_path)
    assert np.array_equal(found["x"], 1 - ids(0, count=2))
    root = put("classes.toml", 'ignore = [255]\nclasses = ["roof"]')
    with pytest.raises(DataError, match=r"all labeled pixels are roof, and 255 is ignored \(\d\d\.\d% of all pixels\)"):
        Folder(root)
    put("images/y.png")
    root = put("masks/y.png", ids(1, count=2))
    _, found = read(put("classes.toml", 'ignore = [255]\nclasses = ["ground", "roof"]'), tmp_path / "ignored")
    assert np.array_equal(found["x"], ids(0, count=2) * np.uint8(255)) and np.array_equal(found["y"], ids(1, count=2))
    (root / "images/y.png").unlink()
    (root / "masks/y.png").unlink()
    swapped = 'classes = [{ name = "roof", id = 1 }, { name = "ground", id = 0 }]'
    folder, found = read(put("classes.toml", swapped), tmp_path / "swapped")
    names = folder.taxonomies[0].names
    assert names[found["x"][0, 0]] == ("ground", "roof")[ids(0, count=2)[0, 0]]


@pytest.mark.parametrize(
    ("text", "names", "numbers"),
    [
        ("__ignore__\n_background_\nroof\ntree\n", ("_background_", "roof", "tree"), (0, 1, 2)),
        ("1 roof\n0 ground\n2 old tree\n", ("roof", "ground", "old tree"), (1, 0, 2)),
        ("0: ground\n1: roof\n\n# seen once\n2: tree\n", ("ground", "roof", "tree"), (0, 1, 2)),
        ("0, ground\n1,roof\n2,tree\n255,void\n", ("ground", "roof", "tree"), (0, 1, 2)),
        ("ground\n2 storeys\nroof\n", ("ground", "2 storeys", "roof"), (0, 1, 2)),  # no id on every line
        ("0 0 0 ground\n9 0 0 roof\n8 0 0 tree\n", ("ground", "roof", "tree"), (0, 1, 2)),
    ],
)
def test_text_lists_with_ids_colours_or_labelmes_first_line(
    pairs: Callable[..., Path], put: Put, text: str, names: tuple[str, ...], numbers: tuple[int, ...]
) -> None:
    pairs(1)
    (taxonomy,) = Folder(put("labels.txt", text), val=0).taxonomies
    assert taxonomy.names == names
    assert dict(taxonomy.ids) == {number: place for place, number in enumerate(numbers)}
    if "_background_" in names:
        assert taxonomy.foreground == {1, 2}


def test_labelmes_class_names_take_precedence_over_its_labels(pairs: Callable[..., Path], put: Put) -> None:
    pairs(1)
    put("labels.txt", "roof\nground\ntree\n")
    assert Folder(put("class_names.txt", "_background_\nroof\ntree\n"), val=0).taxonomies[0].names[1] == "roof"
    put("class_names.txt", "0 ground\n0 roof\n70000 tree\n")
    with pytest.raises(DataError, match=r"class_names.txt") as raised:
        Folder(put("read me", ""))
    assert "2 classes have the id 0" in str(raised.value) and "tree: id 70000 is not an integer" in str(raised.value)


@pytest.mark.parametrize("wide", [False, True])
def test_of_a_photograph_as_a_mask_a_few_values_and_their_count_are_kept(put: Put, photo: Callable, wide: bool) -> None:
    picture = np.random.default_rng(0).integers(0, 60_000, (90, 120)).astype(np.uint16) if wide else photo(0, 90, 120)
    put("images/x.png", photo(1, 90, 120))
    root = put("masks/x.png", picture)
    count = len(np.unique(picture.reshape(90 * 120, -1), axis=0))
    seen = look(Tree.open(root), "masks/x.png")
    assert seen.values == count > 4096 and len(seen.colours) + len(seen.ids) == 256
    assert all(n == int((picture == np.array(value)).reshape(90 * 120, -1).all(-1).sum())
               for value, n in itertools.islice({**seen.colours, **seen.ids}.items(), 20))  # fmt: skip
    row = rf"too many values +masks/x.png +{count} {'ids' if wide else 'colours'}"
    with pytest.raises(DataError, match=rf"{row}, {count} in all masks"):
        Folder(root)
    with pytest.raises(DataError, match=rf"unknown value in a mask[\s\S]*{row}: save masks without smoothing"):
        Folder(put("classes.toml", WITH_COLOURS))


def test_only_masks_shown_in_the_table_are_decoded_again(
    put: Put, ids: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def counted(tree: Tree, seen: Seen, value: object) -> tuple[int, int]:
        looked.append(seen.name)
        return first_pixel(tree, seen, value)  # type: ignore[arg-type]

    monkeypatch.setattr("semiseg.datasets.folder.unknown.first_pixel", counted)
    for number in range(40):
        put(f"images/{number}.png")
        put(f"masks/{number}.png", ids(number) + np.uint8(7))
    root = put("classes.txt", "a\nb\nc\n")
    with pytest.raises(DataError, match=r"120 problems[\s\S]*id 7 in \d+ pixels, first at x=\d+, y=0; add it to"):
        Folder(root)
    assert len(looked) == 25
