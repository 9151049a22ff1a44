"""Matching masks to images, keys from names, and splits."""

import io
import itertools
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from semiseg.data import DataError, open_dataset
from semiseg.datasets.folder import Folder

Put = Callable[..., Path]


def sources(folder: Folder) -> dict[str, set[str]]:
    return {split: {str(sample.meta["source"]) for sample in folder.samples(split)} for split in folder.splits()}


def masks_of(folder: Folder) -> dict[str, str]:
    labeled = [split.name for split in folder.splits().values() if split.labeled]
    return {str(s.meta["source"]): str(s.meta["mask"]) for split in labeled for s in folder.samples(split)}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/x.jpg", "masks/x.png"),
        ("Images/X.JPG", "MASKS/x.PNG"),
        ("img/x.jpg", "labels/x_mask.png"),
        ("photos/x.jpg", "annotations/x_label.png"),
        ("images/x.jpg", "gt/x-gt.png"),
        ("images/x_rgb.png", "masks/x_seg.png"),
        ("images/img_001.jpg", "masks/mask_001.png"),
        ("images/0001TP.png", "LabeledApproved/labels/0001TP_L.png"),
        ("images/Süd 1/Dach.jpg", "masks/Su\u0308d 1/Dach.png"),  # a mac's umlaut
        ("images/a b/c.jpg", "masks/c.png"),  # folders differ, the name decides
        ("train/images/x.jpg", "train/masks/x.png"),
        ("images/train/x.jpg", "masks/x.png"),
        ("x.jpg", "x_mask.png"),
        ("x.jpg", "x.png"),
        ("x.jpg", "masks/x.png"),
        ("images/x.jpg", "images/x_mask.png"),
        ("images/x.jpg", "images/masks/x.png"),
        ("images/train/x.jpg", "images/train/masks/x.png"),
        ("images/site 1/x.jpg", "images/site 1/masks/x.png"),
    ],
)
def test_usual_names_of_masks_are_matched(put: Put, ids: Callable, image: str, mask: str) -> None:
    put(image)
    root = put(mask, ids(0))
    assert {re.sub("u\u0308", "ü", k): v.replace("u\u0308", "ü") for k, v in masks_of(Folder(root, val=0)).items()} == {
        image: mask.replace("u\u0308", "ü")
    }


def test_folders_with_any_name_can_be_given_as_options(put: Put, ids: Callable) -> None:
    put("Fotos/x.jpg")
    root = put("Etiketten/alt/x.png", ids(0))
    folder = open_dataset("folder", root, images="Fotos", masks="Etiketten/alt", val=0)
    assert [sample.meta["mask"] for sample in folder.samples("train")] == ["Etiketten/alt/x.png"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"images": "Fotos", "masks": "Etiketen"},
            "masks=Etiketen +no image in a folder of this name; nearest: Etiketten",
        ),
        ({"images": "fotos"}, "images=fotos +no image in a folder of this name; nearest: Fotos"),
        ({"unlabeled": "/mnt/z"}, "unlabeled=/mnt/z +no image in a folder of this name; folders: Etiketten, Fotos$"),
    ],
)
def test_a_given_folder_that_does_not_exist_is_an_error(put: Put, ids: Callable, options: dict, text: str) -> None:
    put("Fotos/x.jpg")
    root = put("Etiketten/x.png", ids(0))
    with pytest.raises(DataError, match=rf"(?m)1 problem: option[\s\S]*{text}"):
        Folder(root, **options)


def test_given_masks_below_the_images_are_not_images(put: Put, ids: Callable) -> None:
    for number in "12":
        put(f"Fotos/{number}.png")
        put(f"Fotos/Etiketten/{number}.png", ids(0))
    root = put("notes.txt", "")
    found = masks_of(Folder(root, images="Fotos", masks="Fotos/Etiketten", val=0))
    assert found == {f"Fotos/{number}.png": f"Fotos/Etiketten/{number}.png" for number in "12"}
    (root / "Fotos/Etiketten").rename(root / "Fotos/masks")
    folder = Folder(root, images="Fotos", val=0)
    assert masks_of(folder) == {f"Fotos/{number}.png": f"Fotos/masks/{number}.png" for number in "12"}
    assert not any("by the file's name alone" in note for note in folder.notes())
    assert masks_of(Folder(root, images=".", masks="Fotos/masks", val=0)) == masks_of(folder)


def test_junk_is_ignored_and_other_images_are_reported(pairs: Callable[..., Path], put: Put) -> None:
    pairs(2)
    for junk in ("images/._a0.png", "images/Thumbs.db", "images/.DS_Store", "__MACOSX/images/a9.png", "notes.docx"):
        put(junk, b"junk")
    put("images/IMG_1.HEIC", b"ftypheic")
    folder = Folder(put("sheet.png"), val=0)
    assert sources(folder) == {"train": {"images/a0.png", "images/a1.png"}}
    text = "\n".join(folder.notes())
    assert (
        "left out: .heic files, which Pillow does not read (convert them to JPEG or PNG, or: pip install pillow-heif): 1"
        in text
    )
    assert "left out: pictures outside the folders of images and masks: 1" in text


def test_everything_that_does_not_fit_is_reported_at_once(pairs: Callable[..., Path], put: Put, ids: Callable) -> None:
    pairs(2)
    put("images/roof 12.png")
    put("masks/roof 13.png", ids(0))
    put("images/sub/twice.png")
    put("images/other/twice.png")
    put("masks/twice.png", ids(0))
    put("masks/a0.bmp", ids(0))
    put("images/wide.png")
    put("masks/wide.png", ids(0, 9, 13))
    root = put("train.txt", "a0\nnobody\n")
    with pytest.raises(DataError) as raised:
        Folder(root)
    text = str(raised.value)
    assert text.startswith(f"roofs at {root}: 6 problems: several masks for an image (2)")  # neither of two wins
    for row in (
        r"mask without image +masks/roof 13.png +no image of this name; nearest: images/roof 12.png",
        r"several images for a mask +masks/twice.png +images/(sub|other)/twice.png, images/(sub|other)/twice.png",
        r"several masks for an image +masks/a0.png +images/a0.png also has masks/a0.bmp; keep one",
        r"size of a mask +masks/wide.png +13x9 pixels, but its image images/wide.png has 12x9",
        r"unknown image +train.txt:2 +nobody",
    ):
        assert re.search(row, text), row


def test_the_table_is_capped_with_counts(pairs: Callable[..., Path], put: Put, ids: Callable) -> None:
    pairs(1)
    for number in range(60):
        put(f"masks/lost{number}.png", ids(0))
    root = put("masks/lost.png", ids(0))
    with pytest.raises(DataError) as raised:
        Folder(root)
    lines = str(raised.value).splitlines()
    assert "61 problems: mask without image (61)" in lines[0]
    assert len(lines) == 2 + 25 + 1 and lines[-1] == "  and 36 more"


def test_keys_are_plain_unique_and_do_not_depend_on_other_files(put: Put, ids: Callable) -> None:
    names = ["Übersicht (1)", "屋根", "屋根2", "a.b", "a b", "x" * 150, "__p__", "sub/dir ä/y"]
    for name in names:
        put(f"images/{name}.png")
    root = put("masks/a b.png", ids(0))
    folder = Folder(root, val=0)
    keys = {str(s.meta["source"]): s.key for split in folder.splits() for s in folder.samples(split)}
    assert len(set(keys.values())) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*", key) and len(key) < 80 for key in keys.values())
    assert keys["images/Übersicht (1).png"] == "Ubersicht_1"
    assert keys["images/sub/dir ä/y.png"] == "sub/dir_a/y"
    assert keys["images/a b.png"].startswith("a_b-") and keys["images/a.b.png"].startswith("a_b-")
    put("images/0.png")
    after = {str(s.meta["source"]): s.key for split in Folder(root, val=0).splits() for s in folder.samples(split)}
    assert after == keys


def test_a_share_is_held_out_and_new_images_do_not_move_existing_ones(pairs: Callable[..., Path]) -> None:
    root = pairs(40)
    before = sources(Folder(root))
    assert before == sources(Folder(root))
    assert 2 <= len(before["val"]) <= 16 and len(before["val"]) + len(before["train"]) == 40
    pairs(60)
    after = sources(Folder(root))
    assert before["val"] <= after["val"] and before["train"] <= after["train"]
    assert sources(Folder(root, seed=1))["val"] != after["val"]
    assert set(sources(Folder(root, val=0))) == {"train"}
    assert len(sources(Folder(root, val=0.5))["val"]) in range(20, 41)


def test_even_two_masks_give_one_to_each_side(pairs: Callable[..., Path]) -> None:
    for seed in range(8):
        assert {name: len(found) for name, found in sources(Folder(pairs(2), seed=seed)).items()} == {
            "train": 1,
            "val": 1,
        }


def test_with_few_masks_the_choice_may_change_and_a_list_keeps_it(pairs: Callable[..., Path], put: Put) -> None:
    root = pairs(5)
    choices: dict[bool, list[int]] = {True: [], False: []}
    for seed in range(24):
        (note,) = [note for note in Folder(root, seed=seed).notes() if note.startswith("splits: ")]
        choices["val.txt" in note].append(seed)
        (val,) = sources(Folder(root, seed=seed))["val"] if "val.txt" in note else [""]
        assert f"what is in val now ({val})" in note or not val
    before = {seed: sources(Folder(root, seed=seed)) for seed in range(24)}
    pairs(30)
    moved = {seed for seed in range(24) if not before[seed]["val"] <= sources(Folder(root, seed=seed))["val"]}
    assert moved and moved <= set(choices[True]), "a choice that is not reported as uncertain stays"
    seed = min(moved)
    put("val.txt", "\n".join(before[seed]["val"]))
    assert sources(Folder(root, seed=seed))["val"] == before[seed]["val"]


def test_the_note_on_a_choice_that_may_change_names_the_split_and_a_remedy(put: Put, ids: Callable) -> None:
    for name in ("train/1", "train/2", "test/3"):
        put(f"images/{name}.png")
        put(f"masks/{name}.png", ids(0))
    root = put("notes.txt", "")
    found = {}
    for seed in range(12):
        (note,) = [note for note in Folder(root, seed=seed, val=0.5).notes() if note.startswith("splits: ")]
        (held,) = sources(Folder(root, seed=seed, val=0.5))["val"]
        side = re.search(r"left none for (\w+)", note)
        found[side[1] if side else None] = (note, held)
    assert set(found) == {None, "train", "val"}
    for side in ("train", "val"):  # a val.txt would put the test images into train
        assert found[side][0].endswith(f"add a folder val/ for what is in val now ({found[side][1]})")


def test_frames_of_one_film_stay_together(put: Put, ids: Callable) -> None:
    root = put("notes.txt", "")
    for film, frame in itertools.product(range(6), range(6)):
        put(f"images/film{film}_{frame:03}.png")
        if frame % 2:
            put(f"masks/film{film}_{frame:03}.png", ids(frame))
    found = sources(Folder(root, val=0.4, group=r"(film\d+)_"))
    films = {split: {re.findall(r"film\d", name)[0] for name in listed} for split, listed in found.items()}
    assert films["train"] | films["val"] == {f"film{i}" for i in range(6)} and not films["train"] & films["val"]
    assert films["unlabeled"] == films["train"], "unlabeled frames of films that are held out stay out of training"
    assert films["unlabeled_val"] == films["val"]
    splits = Folder(root, val=0.4, group=r"(film\d+)_").splits()
    assert [name for name, split in splits.items() if split.default] == ["train", "val", "unlabeled"]
    put("val.txt", "film0_001\n")
    with pytest.raises(DataError, match=r"group in two splits \(2\)[\s\S]*film0_003"):
        Folder(root, group=r"(film\d+)_")


def test_subfolders_define_splits(put: Put, ids: Callable) -> None:
    for place in ("train", "Validation", "test/city 1"):
        put(f"images/{place}/1.png")
        put(f"masks/{place}/1.png", ids(0))
    root = put("images/train/2.png")
    put("images/test/3.png")
    put("unlabeled/4.png")
    folder = Folder(root)
    assert sources(folder) == {
        "train": {"images/train/1.png"},
        "val": {"images/Validation/1.png"},
        "test": {"images/test/city 1/1.png"},
        "unlabeled": {"images/train/2.png", "unlabeled/4.png"},
        "unlabeled_test": {"images/test/3.png"},
    }
    assert masks_of(folder)["images/Validation/1.png"] == "masks/Validation/1.png"
    with pytest.raises(DataError, match=r"option +val=0\.3 +applies to folders without a val split"):
        Folder(root, val=0.3)


def test_lists_may_hold_names_in_any_form(pairs: Callable[..., Path], put: Put) -> None:
    pairs(6)
    put("train.txt", "a0\nimages/a1.png masks/a1.png\n/home/x/roofs/images/a2.png\n\n")
    root = put("splits/val.txt", "\ufeffA3.PNG\r\n..\\images\\a4\r\n")
    assert sources(Folder(root)) == {
        "train": {f"images/a{i}.png" for i in (0, 1, 2)},
        "val": {f"images/a{i}.png" for i in (3, 4)},
        "unlisted": {"images/a5.png"},
    }
    assert not Folder(root).splits()["unlisted"].default
    put("test.txt", "a0\n")
    with pytest.raises(DataError, match=r"in two splits +train.txt:1|in two splits +test.txt:1"):
        Folder(root)


def test_a_line_for_one_folder_is_not_taken_for_a_file_of_another(put: Put, ids: Callable) -> None:
    for name in ("cam1/1", "cam1/2", "cam3/1", "3"):
        put(f"images/{name}.jpg")
        put(f"masks/{name}.png", ids(0))
    root = put("val.txt", "cam2/2.jpg\n")
    with pytest.raises(
        DataError, match=r"unknown image +val.txt:1 +cam2/2.jpg.*; images of this name: images/cam1/2.jpg"
    ):
        Folder(root)
    put("val.txt", "/home/x/Roofs/CAM1/frames/1.jpg /home/x/masks/cam1/1.png\nd:\\roofs\\3.jpg\n2\n")
    assert sources(Folder(root))["val"] == {"images/cam1/1.jpg", "images/cam1/2.jpg", "images/3.jpg"}


def test_tags(pairs: Callable[..., Path], put: Put) -> None:
    pairs(2)
    put("unlabeled/u 1.png")
    root = put("tags.csv", "file;tag;tag\na0.png;class_1;class_2\nu 1;class_1;\na0;class_1\n")
    folder = Folder(root, val=0)
    assert {s.key: s.tags for s in folder.samples("train")} == {"a0": ("class_1", "class_2"), "a1": ()}
    assert next(folder.samples("unlabeled")).tags == ("class_1",)
    put("tags.csv", "a0,class_1\nzz,class_1\n")
    with pytest.raises(DataError, match=r"unknown image +tags.csv:2 +zz"):
        Folder(root)


def test_names_of_data_sets(pairs: Callable[..., Path], tmp_path: Path) -> None:
    root = pairs(2)
    assert Folder(root).name == "roofs" == Folder(root).taxonomies[0].name
    assert Folder(root.rename(tmp_path / "Dächer & Höfe 2")).name == "dacher-hofe-2"
    root = pairs(2)
    assert Folder(root, name="tiles_1").raw_space.name == "tiles_1"
    assert Folder(root, name=2024).name == "2024"  # type: ignore[arg-type] (as the command line reads it)
    assert Folder(root, name=2024).name == "2024"  # type: ignore[arg-type] (as the command line reads it)
    with pytest.raises(DataError, match=r"option name=My Tiles: .* as in name=my-tiles"):
        Folder(root, name="My Tiles")
    with pytest.raises(DataError, match="'camvid' is the name of an installed data set"):
        Folder(root, name="camvid")


def test_roots(pairs: Callable[..., Path], put: Put, tmp_path: Path) -> None:
    root = pairs(2)
    assert Folder(root / "images").root == root
    with pytest.raises(DataError, match=r"nowhere does not exist; expected[\s\S]*classes.toml"):
        Folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images found; expected"):
        Folder(tmp_path / "empty")
    with zipfile.ZipFile(tmp_path / "my roofs.zip", "w") as archive:
        for path in root.rglob("*.png"):
            archive.write(path, f"export/roofs/{path.relative_to(root)}")
        archive.writestr("export/roofs/../../evil.png", b"x")
    packed = Folder(tmp_path / "my roofs.zip", val=0)
    assert packed.name == "my-roofs"
    assert [s.key for s in packed.samples("train")] == ["a0", "a1"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"val": 1.5}, "option val=1.5: expected the share of masks"),
        ({"group": "("}, r"option group=\(: not a regular expression"),
    ],
)
def test_options(pairs: Callable[..., Path], options: dict, text: str) -> None:
    with pytest.raises(DataError, match=text):
        Folder(pairs(2), **options)
    with pytest.raises(DataError, match="unknown option 'vall'; did you mean 'val'"):
        open_dataset("folder", pairs(2), vall=0.2)


def test_images_alone(put: Put) -> None:
    folder = Folder(put("2019/a.png"))
    assert [(s.key, s.meta["source"]) for s in folder.samples("unlabeled")] == [("2019/a", "2019/a.png")]
    assert "no masks" in folder.notes()[-1]
    assert folder.next_steps(["unlabeled"], "shards/") == []


def test_links_that_are_not_read_are_reported(pairs: Callable[..., Path], tmp_path: Path) -> None:
    root = pairs(5)
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        for path in sorted(root.rglob("*.png")):
            link = path.parent.name == "masks" and path.stem in ("a1", "a2", "a3")
            member = tarfile.TarInfo(f"roofs/{path.relative_to(root)}")
            member.type, member.linkname = (tarfile.SYMTYPE, "../all/x.png") if link else (tarfile.REGTYPE, "")
            member.size = 0 if link else path.stat().st_size
            archive.addfile(member, None if link else io.BytesIO(path.read_bytes()))
    (note,) = [note for note in Folder(tmp_path / "links.tar").notes() if "skipped" in note]
    assert "skipped: 3 (roofs/masks/a1.png (a symbolic link to ../all/x.png), roofs/masks/a2.png" in note
    for number in range(1, 5):
        (root / f"masks/a{number}.png").unlink()
        (root / f"masks/a{number}.png").symlink_to(tmp_path / "gone.png")
    (root / "loop").symlink_to(root)
    (root / ".cache").mkdir()
    (root / ".cache/x.png").symlink_to(tmp_path / "gone.png")
    (note,) = [note for note in Folder(root).notes() if "broken links" in note]
    assert "broken links: 4 (masks/a1.png, masks/a2.png, masks/a3.png, ...)" in note
    assert not [note for note in Folder(root).notes() if "skipped" in note]  # reported only once


def test_a_folder_without_images_is_an_error_that_lists_its_contents(put: Put, tmp_path: Path) -> None:
    root = put("images/IMG_1.HEIC", b"ftypheic")
    (root / "images/x.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="no images found") as raised:
        Folder(root)
    text = str(raised.value).splitlines()
    assert (
        "left out: .heic files, which Pillow does not read (convert them to JPEG or PNG, or: pip install pillow-heif): 1"
        in text
    )
    assert text[-1].startswith("left out: broken links: 1 (images/x.jpg)")
