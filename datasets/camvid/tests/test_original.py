"""The original release: 32 colours to ids, in folders and zips, with lists and without."""

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semiseg.data import DataError, ShardSet, Taxonomy, shard
from semiseg.datasets.camvid import CamVid


@pytest.fixture
def root(original: Any, tmp_path: Path) -> Path:
    return original.unpack(tmp_path / "CamVid")


def test_every_label_is_read_as_the_ids_that_its_colours_stand_for(root: Path, original: Any) -> None:
    samples = list(CamVid(root).samples("all"))
    assert [sample.key for sample in samples] == sorted(original.ids)
    seen = set()
    for sample in samples:
        ids = _ids(sample)
        assert ids.dtype == np.uint8 and np.array_equal(ids, original.ids[sample.key])
        seen |= set(ids.ravel().tolist())
        image = original.files[f"701_StillsRaw_full/{sample.key}.png"]
        assert callable(sample.image) and sample.image() == image
        assert sample.size == len(image) + len(original.files[f"LabeledApproved_full/{sample.key}_L.png"])
        assert sample.meta == {"source": f"701_StillsRaw_full/{sample.key}.png"}
    assert seen == set(range(32))


def test_the_eleven_classes_are_segnets_on_every_pixel(root: Path, original: Any) -> None:
    ours, segnets = Taxonomy.get("camvid-original-11"), Taxonomy.get("camvid-11")
    assert (ours.names, ours.colours, ours.foreground) == (segnets.names, segnets.colours, segnets.foreground)
    for sample in CamVid(root).samples("all"):
        assert np.array_equal(ours.map(_ids(sample)), segnets.map(original.segnet[sample.key]))


def test_thirtytwo_classes_are_the_published_table(original: Any) -> None:
    taxonomy = Taxonomy.get("camvid-32")
    lines = original.files["label_colors.txt"].decode().split("\r\n")
    table = [
        f"{' '.join(map(str, colour))}\t{name}" for name, colour in zip(taxonomy.names, taxonomy.colours, strict=True)
    ]
    assert [line for line in lines if line] == table
    ids = np.arange(32, dtype=np.uint8)[None]
    assert np.array_equal(taxonomy.map(ids), ids)
    things = {taxonomy.names[i] for i in taxonomy.foreground}
    assert {"Car", "Child", "TrafficLight", "Column_Pole"} <= things
    assert not things & {"Sky", "Road", "Wall", "Void", "Fence", "Tree"}


@pytest.mark.parametrize("form", ["two zips", "one of them unpacked", "one zip of all", "unpacked into double folders"])
def test_packed_files_give_the_same_samples(root: Path, original: Any, tmp_path: Path, form: str) -> None:
    place = tmp_path / "other"
    if form == "one zip of all":
        place.mkdir()
        with zipfile.ZipFile(place / "camvid-master.zip", "w") as archive:
            for name, data in original.files.items():
                archive.writestr(f"camvid-master/{name}", data)
    elif form == "unpacked into double folders":
        place.mkdir()
        (root / "701_StillsRaw_full").rename(place / "701_StillsRaw_full")
        (root / "701_StillsRaw_full").mkdir()
        (place / "701_StillsRaw_full").rename(root / "701_StillsRaw_full/701_StillsRaw_full")
        place = root
    else:
        original.pack(place)
    if form == "one of them unpacked":
        (place / "LabeledApproved_full.zip").unlink()
        (root / "LabeledApproved_full").rename(place / "LabeledApproved_full")
    samples = list(CamVid(place).samples("all"))
    assert [sample.key for sample in samples] == sorted(original.ids)
    for sample in samples:
        assert np.array_equal(_ids(sample), original.ids[sample.key])
        assert callable(sample.image) and sample.image() == original.files[f"701_StillsRaw_full/{sample.key}.png"]


def test_one_official_zip_stands_for_its_folder(original: Any, tmp_path: Path) -> None:
    dataset = CamVid(original.pack(tmp_path) / "LabeledApproved_full.zip")
    assert dataset.root == tmp_path and len(list(dataset.samples("all"))) == 10


def test_without_lists_there_is_one_split_and_the_others_say_why(root: Path) -> None:
    dataset = CamVid(root)
    assert dataset.version == "original-960x720"
    assert (dataset.raw_space.name, dataset.raw_space.names[30]) == ("camvid-32", "Void")
    splits = dataset.splits()
    assert {name: split.samples for name, split in splits.items()} == {"train": 0, "val": 0, "test": 0, "all": 10}
    assert (splits["all"].default, splits["all"].expected, splits["all"].missing) == (True, 701, None)
    with pytest.raises(DataError, match=r"split 'train': .*put a list train\.txt into .* or .*lists=FOLDER"):
        dataset.samples("train")


@pytest.mark.parametrize("beside", [True, False])
def test_segnets_lists_make_its_splits_in_their_order(root: Path, original: Any, tmp_path: Path, beside: bool) -> None:
    folder = original.list_splits(root if beside else tmp_path / "lists")
    dataset = CamVid(root) if beside else CamVid(root, lists=str(folder))
    assert dataset.version == "original-960x720-train4-val2-test3"
    stems = sorted(original.ids, reverse=True)
    for split, expected in (("train", stems[:4]), ("val", stems[4:6]), ("test", stems[6:9]), ("all", stems[::-1])):
        assert [sample.key for sample in dataset.samples(split)] == expected
    assert [name for name, split in dataset.splits().items() if split.default] == ["train", "val", "test"]


def test_user_lists_may_have_any_name_and_hold_plain_stems(root: Path, original: Any, tmp_path: Path) -> None:
    stems = sorted(original.ids)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "day.txt").write_text(f"{stems[3]}\n\n{stems[1]}.png\n")
    (tmp_path / "own" / "label_colors.txt").write_text("not a list")
    dataset = CamVid(root, lists=tmp_path / "own")
    assert dataset.version == "original-960x720-day2"
    assert [sample.key for sample in dataset.samples("day")] == [stems[3], stems[1]]


def test_lists_that_do_not_fit_are_refused(root: Path, original: Any, tmp_path: Path) -> None:
    stems = sorted(original.ids)
    lists = tmp_path / "lists"
    with pytest.raises(DataError, match="lists does not exist"):
        CamVid(root, lists=lists)
    lists.mkdir()
    with pytest.raises(DataError, match=r"lists holds no lists; expected files such as train\.txt"):
        CamVid(root, lists=lists)
    (lists / "train.txt").write_text(f"{stems[0]}\nnowhere\n")
    with pytest.raises(
        DataError, match=r"1 of 2 images or their labels are missing \(nowhere\).*remove their lines from"
    ):
        CamVid(root, lists=lists).samples("train")
    (lists / "val.txt").write_text(f"{stems[1]}\n{stems[0]}\n")
    with pytest.raises(DataError, match=rf"train\.txt and val\.txt both list {stems[0]}"):
        CamVid(root, lists=lists)
    (lists / "val.txt").rename(lists / "all.txt")
    with pytest.raises(DataError, match="'all' is the split of all images"):
        CamVid(root, lists=lists)


def test_an_unknown_colour_names_file_pixel_and_colour(root: Path, original: Any, tmp_path: Path) -> None:
    stem = sorted(original.ids)[2]
    path = root / "LabeledApproved_full" / f"{stem}_L.png"
    pixels = np.array(Image.open(path))
    pixels[7, 11:13] = (129, 64, 127)
    Image.fromarray(pixels).save(path)
    with pytest.raises(DataError) as raised:
        shard(CamVid(root), "all", tmp_path / "shards")
    message = str(raised.value)
    assert f"{path}: pixel x=11, y=7 has the colour 129 64 127" in message
    assert "nearest: 128 64 128, Road" in message and "2 pixels of the file" in message
    assert f"sample '{stem}'" in message
    expected = original.ids[stem].copy()
    expected[7, 11:13] = 30
    (sample,) = (s for s in CamVid(root, unknown_as_void=True).samples("all") if s.key == stem)
    assert np.array_equal(_ids(sample), expected)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("jpeg", "the label is not a PNG but a JPEG"),
        ("empty", "the label is empty"),
        ("cut off", "truncated or broken"),
        ("bomb", "the image has more than [0-9,]+ pixels"),
        ("ids", "the label is a grey PNG; expected the colours of label_colors.txt"),
    ],
)
def test_a_damaged_label_is_named(root: Path, original: Any, tmp_path: Path, damage: str, message: str) -> None:
    path = root / "LabeledApproved_full" / f"{max(original.ids)}_L.png"
    stream = io.BytesIO()
    if damage == "jpeg":
        Image.open(path).save(stream, "JPEG")
    elif damage == "ids":
        Image.open(path).convert("L").save(stream, "PNG")
    elif damage == "cut off":
        stream.write(path.read_bytes()[:-100])
    elif damage == "bomb":  # a header that promises 100 megapixels
        data = path.read_bytes()
        header = b"IHDR" + (10_000).to_bytes(4, "big") * 2 + data[24:29]
        stream.write(data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:])
    path.write_bytes(stream.getvalue())
    with pytest.raises(DataError, match=message) as raised:
        shard(CamVid(root), "all", tmp_path / "shards")
    assert str(path) in str(raised.value)


def test_palette_labels_are_read_by_their_colours(root: Path, original: Any) -> None:
    stem = max(original.ids)
    path = root / "LabeledApproved_full" / f"{stem}_L.png"
    Image.open(path).quantize(64).save(path)
    (sample,) = (s for s in CamVid(root).samples("all") if s.key == stem)
    assert np.array_equal(_ids(sample), original.ids[stem])


def test_files_without_a_partner_are_left_out_counted_and_named(root: Path, original: Any) -> None:
    stems = sorted(original.ids)
    (root / "LabeledApproved_full" / f"{stems[0]}_L.png").unlink()
    (root / "701_StillsRaw_full" / f"{stems[5]}.png").unlink()
    dataset = CamVid(root)
    assert [sample.key for sample in dataset.samples("all")] == [s for s in stems if s not in (stems[0], stems[5])]
    assert dataset.notes() == [
        f"1 images without a label left out ({stems[0]})",
        f"1 labels without an image left out ({stems[5]})",
    ]


def test_broken_links_are_reported_once_and_hide_nothing_else(root: Path) -> None:
    before = [sample.key for sample in CamVid(root).samples("all")]
    folder = next(path for path in root.iterdir() if path.is_dir())
    (folder / "lost.png").symlink_to(root / "gone.png")
    found = CamVid(root)
    (skipped,) = (note for note in found.notes() if "lost.png" in note)
    assert "1 members of" in skipped and f"skipped ({folder.name}/lost.png)" in skipped
    assert [sample.key for sample in found.samples("all")] == before


def test_if_one_part_is_missing_the_error_says_what_to_download(root: Path) -> None:
    for path in (root / "LabeledApproved_full").iterdir():
        path.unlink()
    with pytest.raises(
        DataError, match=r"no LabeledApproved_full in .*; download them from http://mi\.eng\.cam\.ac\.uk"
    ):
        CamVid(root).samples("all")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 128 65\tBridge", r"label_colors\.txt:4: Bridge is 0 128 65, but the published colour is 0 128 64"),
        ("0 128 64\tBrigde", r"label_colors\.txt:4: unknown class 'Brigde'; did you mean 'Bridge'"),
        ("0 128\tBridge", r"label_colors\.txt:4: found '0 128 Bridge', expected a line such as"),
    ],
)
def test_another_table_of_colours_is_refused(root: Path, line: str, message: str) -> None:
    path = root / "label_colors.txt"
    path.write_text(path.read_text().replace("0 128 64\tBridge", line))
    with pytest.raises(DataError, match=message):
        CamVid(root).samples("all")


def test_both_layouts_in_one_folder(root: Path) -> None:
    for name in ("train", "trainannot"):
        (root / name).mkdir()
        Image.new("L" if "annot" in name else "RGB", (4, 3)).save(root / name / "x.png")
    dataset = CamVid(root)
    assert dataset.version == "segnet-480x360" and "layout=original" in dataset.notes()[0]
    assert CamVid(root, layout="original").version == "original-960x720"
    with pytest.raises(DataError, match="unknown layout 'orignal'; did you mean 'original'"):
        CamVid(root, layout="orignal")
    with pytest.raises(DataError, match="apply to the original layout only"):
        CamVid(root, layout="segnet", lists=root)


def test_shards_of_the_original_show_the_eleven_classes_first(root: Path, tmp_path: Path) -> None:
    from semiseg.data.commands.summary import choose_taxonomy

    shard(CamVid(root), "all", tmp_path / "shards")
    stored = ShardSet(tmp_path / "shards/camvid/all")
    assert stored.manifest.version == "original-960x720"
    chosen = choose_taxonomy(stored, None)
    assert chosen is not None and chosen.name == "camvid-original-11"
    with pytest.raises(DataError, match="camvid-32"):
        stored.check(Taxonomy.get("camvid-11"))


def _ids(sample: Any) -> np.ndarray:
    ids = sample.label()
    assert isinstance(ids, np.ndarray)
    return ids
