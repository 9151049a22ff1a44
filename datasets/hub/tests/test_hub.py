"""Columns, classes, splits and keys of realistic data sets; an ambiguity is one error that lists the choices."""

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from datasets import Array2D, ClassLabel, Dataset, DatasetDict, Features, IterableDataset, List, Sequence, Value
from datasets import Image as ImageFeature
from semiseg.data import DataError, RawSample, ShardSet, open_dataset, shard, verify
from semiseg.data.commands import app
from semiseg.datasets.hub import Hub


def label(sample: RawSample) -> np.ndarray:
    import io

    from PIL import Image

    assert callable(sample.label)
    found = sample.label()
    return np.asarray(Image.open(io.BytesIO(found))) if isinstance(found, bytes) else found


def test_columns_are_found_by_type_and_name(make, tmp_path):
    table = make(3).add_column("other", [1, 2, 3])
    for names in (
        {"label": "annotation"},
        {"image": "pixel_values", "label": "segmentation_mask"},
        {"label": "whatever"},
    ):
        hub = Hub(dataset=table.rename_columns(names))
        assert hub.version == f"{names.get('image', 'image')}+{names['label']}"
    swapped = table.rename_columns({"image": "mask", "label": "image"})
    (tmp_path / "names.txt").write_text("a\nb\n")
    assert Hub(dataset=swapped, names=tmp_path / "names.txt").version == "image+mask", "by names, whatever they hold"
    assert Hub(dataset=swapped, image="mask", mask="image").version == "mask+image"


def test_ambiguous_columns_are_listed_with_their_types(make):
    two = make(3).rename_columns({"image": "left", "label": "right"}).add_column("count", [1, 2, 3])
    with pytest.raises(DataError) as caught:
        Hub(dataset=two)
    message = str(caught.value)
    assert "2 columns may hold the images; name one with --option image=COLUMN" in message
    assert "  left: Image(" in message and "  count: Value('int64')" in message
    with pytest.raises(DataError, match=r"no column holds masks; .*--option mask=none"):
        Hub(dataset=make(3).remove_columns("label"))
    with pytest.raises(DataError, match=r"mask=masks: there is no such column"):
        Hub(dataset=make(3), mask="masks")
    with pytest.raises(DataError, match=r"mask=count: this column has an unsuitable type"):
        Hub(dataset=two, image="left", mask="count")
    with pytest.raises(DataError, match="its splits have different columns"):
        Hub(dataset=DatasetDict({"a": make(2), "b": make(2).remove_columns("label")}))


def test_names_come_from_a_file_beside_the_data_or_given(make, tmp_path):
    make(3).save_to_disk(tmp_path / "set")
    unnamed = Hub(tmp_path / "set")
    assert unnamed.raw_space.names == {0: "class 0", 1: "class 1", 2: "class 2", 255: "void"}
    assert "the classes have no names" in unnamed.notes()[1]
    (tmp_path / "set" / "id2label.json").write_text(json.dumps({"0": "unlabeled", "1": "road", "2": "car", "7": "car"}))
    beside = Hub(tmp_path / "set")
    assert beside.raw_space.names == {0: "unlabeled", 1: "road", 2: "car", 7: "car", 255: "void"}
    (taxonomy,) = beside.taxonomies
    assert taxonomy.name == "set-3" and taxonomy.names == ("road", "car (2)", "car (7)")
    assert taxonomy.ids == {1: 0, 2: 1, 7: 2}, "what is called unlabeled is no class"
    (tmp_path / "names.txt").write_text("ground\nbackground\ncar\n")
    (taxonomy,) = Hub(tmp_path / "set", names=tmp_path / "names.txt", name="My Set").taxonomies
    assert (taxonomy.name, taxonomy.names) == ("my-set-3", ("ground", "background", "car"))
    assert taxonomy.foreground == {0, 2}
    (taxonomy,) = Hub(
        tmp_path / "set", names=str(tmp_path / "names.txt"), void="ground,2", foreground=["background"]
    ).taxonomies
    assert (taxonomy.names, taxonomy.foreground) == (("background",), {0})
    with pytest.raises(DataError, match="void: unknown class 'grond'; did you mean 'ground'"):
        Hub(tmp_path / "set", names=tmp_path / "names.txt", void="grond")
    with pytest.raises(DataError, match=r"names=nmes.txt is neither a file nor a column"):
        Hub(tmp_path / "set", names="nmes.txt")
    (tmp_path / "broken.json").write_text("{'0': 1}")
    with pytest.raises(DataError, match=r"broken.json can't be read as class names .*expected JSON"):
        Hub(tmp_path / "set", names=tmp_path / "broken.json")


def test_names_come_from_the_types_of_columns(make):
    kinds = {"things": Sequence(ClassLabel(names=["sky", "sea", "land"]))}
    table = make(3, things=[[0], [1, 2], []], features=kinds)
    hub = Hub(dataset=table, names="things", tags="things")
    assert hub.taxonomies[0].names == ("sky", "sea", "land")
    assert [sample.tags for sample in hub.samples("train")] == [("sky",), ("sea", "land"), ()]
    nested = Features({"image": ImageFeature(), "label": List(List(ClassLabel(names=["no", "yes"])))})
    masks = np.arange(2 * 8 * 12).reshape(2, 8, 12) % 2
    listed = Dataset.from_dict(
        {"image": make(2).with_format("arrow")["image"].to_pylist(), "label": masks.tolist()}, nested
    )
    hub = Hub(dataset=listed)
    assert hub.taxonomies[0].names == ("no", "yes")
    for number, sample in enumerate(hub.samples("train")):
        assert np.array_equal(label(sample), masks[number])


def test_masks_may_be_arrays(make, tmp_path):
    masks = np.random.default_rng(0).integers(0, 5, (3, 8, 12), np.uint8)
    kinds = Features({"image": ImageFeature(), "mask": Array2D((8, 12), "uint8")})
    table = Dataset.from_dict({"image": make(3).with_format("arrow")["image"].to_pylist(), "mask": list(masks)}, kinds)
    shard(Hub(dataset=table), "train", tmp_path)
    for sample, mask in zip(ShardSet(tmp_path / "hub" / "train"), masks, strict=True):
        assert sample.label is not None and np.array_equal(sample.label, mask)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", [Array2D((8, 12), "uint8"), List(List(Value("int32")))])
def test_corrected_masks_of_numbers_are_another_source(make, tmp_path, kind, streaming):
    masks = np.random.default_rng(0).integers(0, 5, (3, 8, 12), np.uint8)
    files = make(3).with_format("arrow")["image"].to_pylist()
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")

    def write(masks: np.ndarray) -> None:
        kinds = Features({"image": ImageFeature(), "mask": kind})
        table = Dataset.from_dict({"image": files, "mask": [mask.tolist() for mask in masks]}, kinds)
        rows = table.to_iterable_dataset() if streaming else table
        shard(Hub(dataset=rows, names=tmp_path / "names.txt"), "train", tmp_path)

    write(masks)
    write(masks.copy())  # complete already, since nothing differs
    for sample, mask in zip(ShardSet(tmp_path / "hub" / "train"), masks, strict=True):
        assert sample.label is not None and np.array_equal(sample.label, mask)
    masks[2, 7, 11] = (masks[2, 7, 11] + 1) % 5
    with pytest.raises(DataError, match="shards of another configuration"):
        write(masks)


def test_masks_of_0_and_255_are_ambiguous(make, tmp_path):
    table = make(2, masks=lambda i: np.eye(8, 12, dtype=np.uint8) * 255)
    with pytest.raises(DataError, match=r"contain only 0 and 255, .* to ignore it, use --option void=255"):
        Hub(dataset=table)
    assert Hub(dataset=table, void=255).taxonomies[0].ids == {0: 0}
    (tmp_path / "names.json").write_text('{"0": "background", "255": "object"}')
    (taxonomy,) = Hub(dataset=table, names=tmp_path / "names.json").taxonomies
    assert taxonomy.ids == {0: 0, 255: 1} and taxonomy.foreground == {1}


def test_masks_in_colours_need_their_table(make, tmp_path):
    ids = np.arange(96).reshape(8, 12) % 3
    table = np.array([[128, 64, 128], [0, 0, 142], [0, 0, 0]], np.uint8)
    data = make(2, masks=lambda i: table[(ids + i) % 3])
    with pytest.raises(
        DataError,
        match=r"row 0, column 'label': .*pixels of type RGB.* with lines 'R G B name' and use --option names=FILE",
    ):
        Hub(dataset=data)
    (tmp_path / "colours.txt").write_text("128 64 128\troad\n0 0 142\tred car\n0 0 0\tvoid\n")
    hub = Hub(dataset=data, names=tmp_path / "colours.txt")
    (taxonomy,) = hub.taxonomies
    assert taxonomy.names == ("road", "red car") and taxonomy.colours == ((128, 64, 128), (0, 0, 142))
    for i, sample in enumerate(hub.samples("train")):
        assert np.array_equal(label(sample), (ids + i) % 3)
    (tmp_path / "few.txt").write_text("128 64 128 road\n0 0 0 void\n")
    with pytest.raises(
        DataError, match=r"'00000000' \(source row 0\): label: colour 0 0 142 in 32 pixels, first at x=1, y=0"
    ):
        shard(Hub(dataset=data, names=tmp_path / "few.txt"), "train", tmp_path)


def test_masks_without_ids_are_errors_that_name_the_row(make, encoded, tmp_path):
    plain = np.zeros((8, 12), np.uint8)
    intact = encoded(np.random.default_rng(0).integers(0, 9, (8, 12), np.uint8))
    (tmp_path / "n.txt").write_text("a\nb\n")
    for data, fault in (
        (encoded(plain, "JPEG"), "is a JPEG, whose"),
        (intact[:50], "is truncated or damaged"),
        (b"", "is truncated or"),
    ):
        table = make(2, masks=lambda i, data=data: data if i else plain)
        with pytest.raises(DataError, match=f"row 1, column 'label': the mask {fault}"):
            Hub(dataset=table)
        with pytest.raises(DataError, match=r"'00000001' \(source row 1\): .*(truncated|is a JPEG)"):
            shard(Hub(dataset=table, names=tmp_path / "n.txt"), "train", tmp_path / str(len(data)))
    binary = Hub(dataset=make(2, masks=lambda i: encoded(plain.astype(bool))))
    assert [label(sample).max() for sample in binary.samples("train")] == [0, 0]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_masks_of_few_bits_hold_their_own_ids(make, tmp_path, bits):
    ids = np.random.default_rng(bits).integers(0, min(2**bits, 200), (8, 12))
    ids[0, 0] = min(2**bits, 200) - 1
    hub = Hub(dataset=make(1, masks=lambda i: grey_png(ids, bits)))
    assert set(hub.raw_space.names) == set(np.unique(ids).tolist()) | {255}
    shard(hub, "train", tmp_path)
    (sample,) = ShardSet(tmp_path / "hub" / "train")
    assert sample.label is not None and np.array_equal(sample.label, ids)


def grey_png(ids: np.ndarray, bits: int) -> bytes:
    """A grey PNG packed by hand: Pillow writes none of 2 or 4 bits."""
    text = ["".join(f"{int(number):0{bits}b}" for number in row) for row in ids]
    rows = b"".join(
        b"\0" + int(row, 2).to_bytes(len(row) // 8, "big") for row in (line + "0" * (-len(line) % 8) for line in text)
    )
    start = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", start), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def test_rows_without_masks_become_a_separate_split(make, tmp_path):
    some = make(5, masks=lambda i: np.full((8, 12), i, np.uint8) if i % 2 else None)
    none = make(2, masks=lambda i: None)
    hub = Hub(dataset=DatasetDict({"train": some, "test": none}))
    found = {name: (split.samples, split.labeled) for name, split in hub.splits().items()}
    assert found == {"train": (2, True), "train-unlabeled": (3, False), "test": (2, False)}
    assert [sample.meta["row"] for sample in hub.samples("train")] == [1, 3]
    assert [sample.meta["row"] for sample in hub.samples("train-unlabeled")] == [0, 2, 4]
    for name in found:
        shard(hub, name, tmp_path)
        assert verify(tmp_path / "hub" / name).problems == []
    alone = Hub(dataset=make(3).remove_columns("label"), mask="none")
    assert alone.taxonomies == () and not alone.splits()["train"].labeled
    shard(alone, "train", tmp_path / "alone")
    with pytest.raises(DataError, match="unknown split 'trian'; did you mean 'train'"):
        hub.samples("trian")
    assert list(Hub(dataset=DatasetDict({"train": some, "test": none}), splits="test").splits()) == ["test"]
    with pytest.raises(DataError, match="unknown split 'tset'; did you mean 'test'"):
        Hub(dataset=DatasetDict({"train": some, "test": none}), splits=["tset"])


def test_keys_are_unique(make):
    def keys(**words):
        table = make(
            3,
            features={name: Value("string") for name in words if name != "key"},
            **{name: values for name, values in words.items() if name != "key"},
        )
        return [sample.key for sample in Hub(dataset=table, key=words.get("key")).samples("train")]

    assert keys() == ["00000000", "00000001", "00000002"]
    assert keys(image_id=["b.x", "a", "c d"]) == ["b_x", "a", "c_d"]
    assert keys(image_id=["a b", "a.b", "c"]) == ["00000000", "00000001", "00000002"], "two would meet"
    assert keys(scene=["x", "y", "z"], key="scene") == ["x", "y", "z"]
    with pytest.raises(DataError, match="the values of column 'scene' are not unique"):
        keys(scene=["x", "y", "x"], key="scene")


def test_a_stream_is_read_once_for_planning_and_once_for_writing(make, tmp_path):
    table = make(7)
    files = table.with_format("arrow")[:].to_pylist()
    reads: list[int] = []

    def rows():
        for row in files:
            reads.append(1)
            yield row

    hub = Hub(dataset=IterableDataset.from_generator(rows, features=table.features))
    planned = len(reads)
    shard(hub, "train", tmp_path, size=1500)
    assert len(ShardSet(tmp_path / "hub" / "train").shard_sizes) > 2
    assert planned <= 2 * 7 and len(reads) <= planned + 2 * 7, "the first image's kind, then all of them"
    again = Hub(dataset=table)
    shard(again, "train", tmp_path / "table", size=1500)
    one, two = ShardSet(tmp_path / "hub" / "train"), ShardSet(tmp_path / "table" / "hub" / "train")
    assert one.digest == two.digest


def test_what_cannot_be_opened_is_one_error(make, tmp_path):
    with pytest.raises(DataError, match=r"no path or id given; expected a hub id \(owner/name\), a folder"):
        open_dataset("hub")
    with pytest.raises(
        DataError, match=r"someone/nothing could not be opened .*unset HF_HUB_OFFLINE, or copy the data here"
    ):
        open_dataset("hub", "someone/nothing")
    with pytest.raises(DataError, match="no such file or folder, and not a hub id"):
        open_dataset("hub", tmp_path / "nowhere" / "at" / "all")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is an empty folder"):
        open_dataset("hub", tmp_path / "empty")
    (tmp_path / "file.csv").write_text("a,b")
    with pytest.raises(DataError, match="is a file, but not a parquet file"):
        open_dataset("hub", tmp_path / "file.csv")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"x\.parquet could not be opened"):
        open_dataset("hub", tmp_path / "x.parquet")
    make(2).save_to_disk(tmp_path / "disk")
    with pytest.raises(DataError, match="leave out streaming"):
        open_dataset("hub", tmp_path / "disk", streaming=True)


def test_a_parquet_file_named_like_a_split_is_that_split(make, tmp_path):
    for name, expected in (
        ("val.parquet", ("yards", "val")),
        ("test-00000-of-00001.parquet", ("yards", "test")),
        ("trains.parquet", ("trains", "train")),
    ):
        make(2).to_parquet(tmp_path / "yards" / name)
        hub = Hub(tmp_path / "yards" / name)
        assert (hub.name, *hub.splits()) == expected


def test_the_command_line_from_a_parquet_file_to_statistics(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(4).rename_columns({"image": "photo", "label": "ids"}).to_parquet("yards.parquet")
    words = [
        "shard",
        "hub",
        "yards.parquet",
        "--option",
        "image=photo",
        "--option",
        "mask=ids",
        "--option",
        "name=lawns",
    ]
    printed = CliRunner().invoke(app, [*words, "--workers", "1"], catch_exceptions=False).stdout
    assert "note: images from column 'photo', masks from column 'ids'" in printed
    assert "shards/lawns/train: 4 samples in 1 shard" in printed
    facts = json.loads(CliRunner().invoke(app, ["stats", "lawns", "--json"], catch_exceptions=False).stdout)[0]
    assert facts["taxonomy"] == "lawns-3" and [described["images"] for described in facts["classes"]] == [2, 1, 1]


def test_neither_importing_nor_listing_imports_torch(make, tmp_path):
    make(3).save_to_disk(tmp_path / "set")
    code = (
        "import sys; from semiseg.datasets.hub import Hub; assert 'datasets' not in sys.modules; "
        "samples = list(Hub(sys.argv[1]).samples('train')); samples[0].image(); "
        "assert len(samples) == 3 and 'torch' not in sys.modules"
    )
    code = code.replace("Hub(sys.argv[1])", "Hub(__import__('pathlib').Path(sys.argv[1]))")
    subprocess.run([sys.executable, "-c", code, tmp_path / "set"], check=True, cwd=Path(tmp_path))
