"""Folders as people and programs leave them, written to disk and sharded: each image gets the right mask, or a refusal.

Every layout lists which mask belongs to which image. What the shards hold is compared with that and with the pixels that
were drawn. A refusal must contain an option, and sharding with this option must give the listed pairs.
"""

import io
import itertools
import json
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semiseg.data import DataError, ShardSet, open_dataset, shard
from semiseg.datasets.folder import Folder

PALETTE = np.array([(0, 0, 0), (200, 30, 30), (30, 200, 30), (30, 30, 200)], np.uint8)
HEIGHT, WIDTH = 32, 40


def photo(seed: int) -> np.ndarray:
    """Smooth colours and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    bands = [128 + 60 * np.sin(x / 6 + seed), 128 + 50 * np.cos(y / 6 + seed), (x * 3 + y * 2 + seed * 9) % 256]
    return np.clip(np.stack(bands, -1) + rng.normal(0, 12, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)


def areas(seed: int, count: int = 3) -> np.ndarray:
    """Class numbers in rectangles."""
    rng = np.random.default_rng(1000 + seed)
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number in range(1, count):
        top, left = rng.integers(0, HEIGHT - 12), rng.integers(0, WIDTH - 12)
        drawn[top : top + 12, left : left + 12] = number
    return drawn


@dataclass
class Layout:
    """What is written, and what must come of it.

    pairs    image -> (mask, the class numbers that were drawn)
    alone    images without a mask
    options  with which it is opened; refused: what the error must say without them
    splits   image -> split, where it is not drawn by lot
    notes    what the notes must say
    """

    files: dict[str, Any] = field(default_factory=dict)
    pairs: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)
    alone: set[str] = field(default_factory=set)
    splits: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refused: str = ""
    option: str = ""

    def pair(self, image: str, mask: str, seed: int, *, form: str = "ids", split: str = "", number: int = 0) -> None:
        """Add an image and its mask: ids, palette, colours, or black and white."""
        drawn = areas(seed, 2 if form == "black" else 3)
        self.files[image] = photo(seed + number)
        self.files[mask] = (form, drawn)
        self.pairs[image] = mask, drawn
        if split:
            self.splits[image] = split

    def image(self, name: str, seed: int) -> None:
        self.files[name] = photo(seed)
        self.alone.add(name)

    def write(self, root: Path) -> Path:
        for name, content in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(content, path.suffix.lower()))
        return root


def encoded(content: Any, suffix: str) -> bytes:
    if isinstance(content, str | bytes):
        return content.encode() if isinstance(content, str) else content
    form, pixels = content if isinstance(content, tuple) else ("photo", content)
    if form in ("black", "one bit"):
        picture = Image.fromarray((pixels > 0).astype(np.uint8) * 255)
        picture = picture.convert("1") if form == "one bit" else picture
    elif form == "colours":
        picture = Image.fromarray(PALETTE[pixels])
    elif form == "deep":
        picture = Image.fromarray(pixels.astype(np.uint16) * 1000)
    else:
        picture = Image.fromarray(pixels)
        if form == "palette":
            picture.putpalette(PALETTE.ravel().tolist())
    stream = io.BytesIO()
    kinds = {".jpg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
    picture.save(stream, kinds.get(suffix, suffix[1:].upper()))
    return stream.getvalue()


LAYOUTS: dict[str, Callable[[Layout], None]] = {}


def layout(build: Callable[[Layout], None]) -> Callable[[Layout], None]:
    LAYOUTS[build.__name__] = build
    return build


@layout
def carvana(a: Layout) -> None:
    for i in range(6):
        a.pair(f"train/car{i}_01.jpg", f"train_masks/car{i}_01_mask.gif", i, form="black")
    a.image("test/car7_01.jpg", 90)


@layout
def camvid_as_published(a: Layout) -> None:
    for i in range(5):
        a.pair(f"train/000{i}TP.png", f"train_labels/000{i}TP_L.png", i, form="colours")


@layout
def camvid_of_segnet(a: Layout) -> None:
    for split, i in itertools.product(("train", "val", "test"), range(2)):
        a.pair(f"{split}/{split}{i}.png", f"{split}annot/{split}{i}.png", i, split=split, number=len(split))
    for split in ("train", "val", "test"):
        lines = (f"/SegNet/CamVid/{split}/{split}{i}.png /SegNet/CamVid/{split}annot/{split}{i}.png" for i in range(2))
        a.files[f"{split}.txt"] = "\r\n".join(lines)
    a.notes += ["splits: by list files"]


@layout
def folders_with_splits_and_objects(a: Layout) -> None:
    for i in range(5):
        a.pair(f"train_img/{i}.jpg", f"train_label/{i}.png", i)
        a.files[f"train_inst/{i}.png"] = ("ids", areas(i + 40))
    a.notes += ["left out: masks of objects, not of classes (train_inst): 5"]


@layout
def cityscapes(a: Layout) -> None:
    for split, i in itertools.product(("train", "val"), range(3)):
        base = f"{split}/aachen/aachen_{split}{i}_000019"
        image, mask = f"leftImg8bit/{base}_leftImg8bit.png", f"gtFine/{base}_gtFine"
        a.pair(image, f"{mask}_labelIds.png", i, split=split, number=len(split))
        a.files |= {f"{mask}_color.png": ("colours", areas(i)), f"{mask}_instanceIds.png": ("deep", areas(i)),
                    f"{mask}_polygons.json": json.dumps({"imgHeight": HEIGHT, "objects": []})}  # fmt: skip
    a.notes += ["drawings of masks for people (gtFine/*_gtFine_color): 6", "(gtFine/*_gtFine_instanceIds): 6",
                "Cityscapes polygons (only masks are read"]  # fmt: skip


@layout
def masks_and_drawings_beside_images(a: Layout) -> None:
    for i in range(5):
        a.pair(f"p{i}.jpg", f"p{i}_mask.png", i)
        a.files[f"p{i}_mask_color.png"] = ("colours", areas(i))
    a.notes += ["left out: drawings of masks for people (*_mask_color): 5"]


@layout
def overlays_beside_images(a: Layout) -> None:
    for i in range(5):
        a.pair(f"p{i}.jpg", f"p{i}_mask.png", i)
        a.files[f"p{i}_overlay.jpg"] = photo(i + 50)
    a.notes += ["left out: drawings of masks for people (*_overlay): 5"]


@layout
def drive(a: Layout) -> None:
    for part, i in itertools.product(("training", "test"), range(1, 4)):
        number = i + 20 * (part == "training")
        where = f"DRIVE/{part}"
        a.pair(f"{where}/images/{number:02}_{part}.tif", f"{where}/1st_manual/{number:02}_manual1.gif", i,
               form="black", number=number)  # fmt: skip
        a.files[f"{where}/mask/{number:02}_{part}_mask.gif"] = ("black", areas(7, 2))
    for i in range(1, 4):
        a.files[f"DRIVE/test/2nd_manual/{i:02}_manual2.gif"] = ("black", areas(i + 60, 2))
    a.pairs = {
        name.removeprefix("DRIVE/"): (mask.removeprefix("DRIVE/"), drawn) for name, (mask, drawn) in a.pairs.items()
    }
    a.refused, a.option = r"6 images have masks of several kinds", "masks=1st_manual"
    a.notes += ["masks other than those that the option masks names: 9"]


@layout
def labelme2voc(a: Layout) -> None:
    for i in range(5):
        a.pair(f"JPEGImages/{i}.jpg", f"SegmentationClassPNG/{i}.png", i, form="palette")
        a.files |= {f"SegmentationClass/{i}.npy": b"\x93NUMPY", f"SegmentationClassVisualization/{i}.jpg": photo(i + 9)}
    a.files["class_names.txt"] = "_background_\nroof\nroad\n"
    a.notes += ["left out: .npy arrays (save masks as PNG): 5", "(SegmentationClassVisualization): 5"]


@layout
def isic(a: Layout) -> None:
    for part, split, count in (("Training", "train", 3), ("Validation", "val", 2), ("Test_v2", "test", 2)):
        for i in range(count):
            name = f"ISIC_{len(part):03}{i:04}"
            a.pair(f"ISIC-2017_{part}_Data/{name}.jpg", f"ISIC-2017_{part}_Part1_GroundTruth/{name}_segmentation.png", i,
                   form="black", split=split, number=len(part))  # fmt: skip
    a.files["ISIC-2017_Training_Data/ISIC-2017_Training_Data_metadata.csv"] = "image_id,age\n"
    a.notes += [".csv tables"]


@layout
def isic_with_superpixels(a: Layout) -> None:
    for i in range(4):
        a.pair(f"ISIC_{i:07}.jpg", f"ISIC_{i:07}_segmentation.png", i, form="black")
        a.files[f"ISIC_{i:07}_superpixels.png"] = photo(i + 70)
    a.refused, a.option = r"image derived from another", "leave_out=*_superpixels.png"
    a.notes += ["left out: pictures that the option leave_out names: 4"]


@layout
def kvasir(a: Layout) -> None:
    for i in range(5):
        a.pair(f"Kvasir-SEG/images/cju{i}.jpg", f"Kvasir-SEG/masks/cju{i}.png", i, form="black")
    a.files["Kvasir-SEG/kavsir_bboxes.json"] = "{}"
    a.pairs = {name.removeprefix("Kvasir-SEG/"): (mask.removeprefix("Kvasir-SEG/"), drawn)
               for name, (mask, drawn) in a.pairs.items()}  # fmt: skip
    a.notes += ["left out: .json files (only masks are read): 1"]


@layout
def loveda(a: Layout) -> None:
    for place, split in (("Train", "train"), ("Val", "val")):
        for area, i in itertools.product(("Urban", "Rural"), range(2)):
            number = i + 2 * (place == "Val")
            a.pair(f"{place}/{area}/images_png/{number}.png", f"{place}/{area}/masks_png/{number}.png", i, split=split,
                   number=len(area) * len(place))  # fmt: skip


@layout
def deepglobe(a: Layout) -> None:
    for i in range(5):
        a.pair(f"train/{i * 31}_sat.jpg", f"train/{i * 31}_mask.png", i, form="colours")
    a.image("valid/700_sat.jpg", 50)


@layout
def ade(a: Layout) -> None:
    for name, split, i in (("training", "train", 0), ("training", "train", 1), ("validation", "val", 2)):
        a.pair(f"images/{name}/ADE_{name}_{i}.jpg", f"annotations/{name}/ADE_{name}_{i}.png", i, split=split)


@layout
def cvat(a: Layout) -> None:
    for i in range(5):
        a.pair(f"JPEGImages/f{i}.jpg", f"SegmentationClass/f{i}.png", i, form="palette")
        a.files[f"SegmentationObject/f{i}.png"] = ("palette", areas(i, 4))
    a.files["ImageSets/Segmentation/default.txt"] = "".join(f"f{i}\n" for i in range(5))
    a.notes += ["left out: masks of objects, not of classes (SegmentationObject): 5", "left out: text files"]


@layout
def supervisely(a: Layout) -> None:
    for i in range(5):
        a.pair(f"ds/img/a{i}.jpg", f"ds/masks_machine/a{i}.png", i)
        a.files |= {f"ds/masks_human/a{i}.png": ("colours", areas(i)),
                    f"ds/ann/a{i}.jpg.json": json.dumps({"size": {}, "objects": []})}  # fmt: skip
    a.refused, a.option = r"5 images have masks of several kinds", "masks=masks_machine"
    a.pairs = {k.removeprefix("ds/"): (m.removeprefix("ds/"), d) for k, (m, d) in a.pairs.items()}
    a.notes += ["Supervisely annotations (only masks are read"]


@layout
def roboflow(a: Layout) -> None:
    for folder, split, i in (("train", "train", 0), ("train", "train", 1), ("valid", "val", 2)):
        a.pair(f"{folder}/x{i}_jpg.rf.{i}ab3.jpg", f"{folder}/x{i}_jpg.rf.{i}ab3_mask.png", i, split=split)


@layout
def oxford_pets(a: Layout) -> None:
    for i in range(5):
        a.pair(f"images/Cat_{i}.jpg", f"annotations/trimaps/Cat_{i}.png", i)
        a.files |= {f"annotations/trimaps/._Cat_{i}.png": b"mac", f"annotations/xmls/Cat_{i}.xml": "<annotation/>"}
    a.files |= {"annotations/list.txt": "#Image CLASS-ID\n", "annotations/trainval.txt": "Cat_0 1 1 1\n"}
    a.notes += ["left out: boxes in XML, as in PASCAL VOC (only masks are read): 5", "left out: text files"]


@layout
def massachusetts_roads(a: Layout) -> None:
    for split, i in itertools.product(("train", "val", "test"), range(2)):
        name = f"{len(split)}{i}_15"
        a.pair(f"tiff/{split}/{name}.tiff", f"tiff/{split}_labels/{name}.tif", i, form="black", split=split,
               number=len(split) * 7)  # fmt: skip
    a.files["metadata.csv"] = "image_id,split\n"


@layout
def inria(a: Layout) -> None:
    for i in range(5):
        a.pair(f"train/images/austin{i}.tif", f"train/gt/austin{i}.tif", i, form="black")
    a.image("test/images/bloomington1.tif", 77)


@layout
def hrf(a: Layout) -> None:
    for i in range(1, 6):
        a.pair(f"images/{i:02}_dr.jpg", f"manual1/{i:02}_dr.tif", i, form="black")
        a.files[f"mask/{i:02}_dr_mask.tif"] = ("black", areas(3, 2))
    a.refused, a.option = r"manual1/01_dr.tif \(one of 5\), mask/01_dr_mask.tif", "masks=manual1"


@layout
def chase(a: Layout) -> None:
    for i, eye in itertools.product(range(1, 4), "LR"):
        a.pair(f"Image_{i:02}{eye}.jpg", f"Image_{i:02}{eye}_1stHO.png", i + 9 * (eye == "L"), form="black")
        a.files[f"Image_{i:02}{eye}_2ndHO.png"] = ("black", areas(i + 30, 2))
    a.refused, a.option = r"6 images have masks of several kinds", "mask_suffix=_1stHO"
    a.notes += ["left out: masks whose names do not end with _1stHO: 6"]


@layout
def a_file_for_each_class(a: Layout) -> None:
    for i in range(4):
        a.pair(f"images/a{i}.jpg", f"masks/a{i}_roof.png", i, form="black")
        a.files[f"masks/a{i}_road.png"] = ("black", areas(i + 30, 2))
    a.refused, a.option = r"classes or objects in separate files: combine them first", "mask_suffix=_roof"


@layout
def a_folder_for_each_class(a: Layout) -> None:
    for i in range(4):
        a.pair(f"images/a{i}.jpg", f"masks/roof/a{i}.png", i, form="black")
        a.files[f"masks/road/a{i}.png"] = ("black", areas(i + 30, 2))
    a.refused, a.option = r"several masks for an image \(8\)", "masks=masks/roof"


@layout
def whole_names_of_images(a: Layout) -> None:
    for i in range(5):
        a.pair(f"images/a{i}.jpg", f"masks/a{i}.jpg.png", i)


@layout
def whole_names_beside_images(a: Layout) -> None:
    for i in range(5):
        a.pair(f"a{i}.jpg", f"a{i}.jpg.png", i)


@layout
def other_case(a: Layout) -> None:
    for i in range(5):
        a.pair(f"IMAGES/Roof{i}.JPG", f"Masks/roof{i}.PNG", i)
    a.files = {name: content if isinstance(content, tuple) else ("photo", content) for name, content in a.files.items()}


@layout
def folders_in_another_language(a: Layout) -> None:
    for i in range(5):
        a.pair(f"bilder/a{i}.jpg", f"wahrheit/a{i}.png", i)
    a.notes += ["wahrheit/: 5 pictures of few values with the names of images are taken for masks"]


@layout
def endings_in_another_language(a: Layout) -> None:
    for i in range(5):
        a.pair(f"images/a{i}.jpg", f"images/a{i}_flaeche.png", i)
    a.notes += ["5 pictures of few values in the folder of images are taken for masks"]


@layout
def beginnings_in_another_language(a: Layout) -> None:
    for i in range(5):
        a.pair(f"data/foto{i:03}.jpg", f"data/maske{i:03}.png", i)
    a.notes += ["5 pictures of few values in the folder of images are taken for masks"]


@layout
def one_bit_masks_beside_images(a: Layout) -> None:
    for i in range(5):
        a.pair(f"a{i}.jpg", f"a{i}-x.png", i, form="one bit")
        a.pairs[f"a{i}.jpg"] = (f"a{i}-x.png", (areas(i) > 0).astype(np.uint8))


@layout
def mapillary(a: Layout) -> None:
    for name, split, i in (("training", "train", 0), ("training", "train", 1), ("validation", "val", 2)):
        a.pair(f"{name}/images/m{i}.jpg", f"{name}/v1.2/labels/m{i}.png", i, form="palette", split=split)
        a.files |= {
            f"{name}/v1.2/instances/m{i}.png": ("deep", areas(i)),
            f"{name}/v1.2/panoptic/m{i}.png": ("colours", areas(i)),
        }
    a.notes += ["left out: masks of objects, not of classes (instances): 3",
                "left out: pictures outside the folders of images and masks: 3"]  # fmt: skip


@layout
def two_times(a: Layout) -> None:
    for i in range(4):
        a.pair(f"A/t{i}.png", f"label/t{i}.png", i, form="black")
        a.files[f"B/t{i}.png"] = photo(i + 30)
    a.refused, a.option = r"A/t0.png, B/t0.png; give the mask the name of one of them", "images=A"
    a.notes += ["left out: pictures outside the folders of images and masks: 4"]


@layout
def masks_alone(a: Layout) -> None:
    for i in range(4):
        a.files[f"a{i}.png"] = ("ids", areas(i))
        a.alone.add(f"a{i}.png")
    a.refused, a.option = (
        r"3 values, as 4 of 4 images in \./ that have no mask: if they are masks, add",
        "by_look=false",
    )


@layout
def masks_of_other_names_among_images(a: Layout) -> None:
    for i in range(4):
        a.image(f"images/a{i}.jpg", i)
        a.files[f"images/zz{'abcd'[i]}.png"] = ("ids", areas(i))
    a.refused, a.option = r"if they are masks, give them the names of their images", "leave_out=images/*.png"


@layout
def augmented_copies(a: Layout) -> None:
    for i in range(4):
        a.pair(f"images/a{i}.jpg", f"masks/a{i}.png", i)
        a.files[f"images/a{i}_flip.jpg"] = photo(i)[:, ::-1]
    a.refused, a.option = r"has the name of images/a0.jpg and something more, as 4 of 8", "leave_out=images/*_flip.jpg"


@layout
def both_eyes(a: Layout) -> None:
    for i, eye in itertools.product(range(3), ("left", "right")):
        a.image(f"s{i}_{eye}.jpg", i)
    a.notes += ["no masks: all images are unlabeled"]


@layout
def coco(a: Layout) -> None:
    for i in range(4):
        a.image(f"images/{i:012}.jpg", i)
    a.files["annotations/instances.json"] = json.dumps({"images": [], "annotations": [], "categories": []})
    a.notes += [
        "left out: COCO annotations (only masks are read; draw them with pycocotools: coco.annToMask(annotation)): 1"
    ]


@layout
def labelme(a: Layout) -> None:
    for i in range(4):
        a.image(f"a{i}.jpg", i)
        a.files[f"a{i}.json"] = json.dumps({"shapes": [], "imagePath": f"a{i}.jpg"})
    a.notes += ["left out: Labelme polygons (only masks are read; draw them with labelme's"]


@layout
def yolo(a: Layout) -> None:
    for i in range(4):
        a.image(f"images/a{i}.jpg", i)
        a.files[f"labels/a{i}.txt"] = "0 0.1 0.1 0.2 0.1 0.2 0.2\n"
    a.notes += ["left out: YOLO labels (only masks are read; draw polygons with cv2.fillPoly, boxes are not masks): 4"]


@layout
def an_archive_inside(a: Layout) -> None:
    for i in range(4):
        a.image(f"images/a{i}.jpg", i)
    a.files["masks.zip"] = b"PK\x05\x06" + bytes(18)
    a.notes += ["left out: .zip archives inside (unpack them, or pass one as the data set): 1"]


@layout
def kitti(a: Layout) -> None:
    for i in range(4):
        name = f"{i:06}_10.png"
        a.pair(f"training/image_2/{name}", f"training/semantic/{name}", i)
        a.files |= {
            f"training/semantic_rgb/{name}": ("colours", areas(i)),
            f"training/instance/{name}": ("deep", areas(i)),
        }
    a.image("testing/image_2/000009_10.png", 44)
    a.notes += ["drawings of masks for people (semantic_rgb): 4", "masks of objects, not of classes (instance): 4"]


@layout
def kitti_road(a: Layout) -> None:
    for i in range(4):
        a.pair(f"training/image_2/um_00000{i}.png", f"training/gt_image_2/um_road_00000{i}.png", i, form="colours")
        a.files[f"training/gt_image_2/um_lane_00000{i}.png"] = ("colours", areas(i + 4))
    a.refused, a.option = r"4 images have masks of several kinds", "leave_out=training/gt_image_2/um_lane_00000*.png"


@layout
def bdd100k(a: Layout) -> None:
    for split, i in itertools.product(("train", "val"), range(2)):
        name = f"{split[0]}{i}"
        a.pair(
            f"images/10k/{split}/{name}.jpg",
            f"labels/sem_seg/masks/{split}/{name}.png",
            i,
            split=split,
            number=len(split),
        )
        a.files[f"labels/sem_seg/colormaps/{split}/{name}.png"] = ("colours", areas(i))
    a.notes += ["left out: drawings of masks for people (labels/sem_seg/colormaps): 4"]


@layout
def nnunet(a: Layout) -> None:
    for i in range(4):
        a.pair(f"imagesTr/case_{i:03}_0000.png", f"labelsTr/case_{i:03}.png", i)
    a.image("imagesTs/case_050_0000.png", 9)


@layout
def floodnet(a: Layout) -> None:
    for split, i in itertools.product(("train", "val"), range(2)):
        number = i + 10 * (split == "val")
        a.pair(
            f"{split}/{split}-org-img/{number}.jpg",
            f"{split}/{split}-label-img/{number}_lab.png",
            i,
            split=split,
            number=number,
        )


@layout
def objects_alone(a: Layout) -> None:
    for i in range(4):
        a.pair(f"{i}.jpg", f"{i}_instance_id_RGB.png", i, form="colours")
        a.files[f"{i}_instance_color_RGB.png"] = ("colours", areas(i))
    a.refused = r"is named as a mask of objects, not of classes, and there are no others"
    a.option = "mask_suffix=_instance_id_RGB"


@layout
def depth_beside_images(a: Layout) -> None:
    for i in range(4):
        a.pair(f"images/{i}.jpg", f"masks/{i}.png", i)
        a.files[f"images/{i}_depth.png"] = photo(i)[..., 0]
    a.refused, a.option = r"image derived from another", "leave_out=images/*_depth.png"


@layout
def outputs(a: Layout) -> None:
    for i in range(4):
        a.pair(f"input/{i}.png", f"output/{i}.png", i)
    a.notes += ["output/: 4 pictures of few values with the names of images are taken for masks"]


@layout
def a_legend(a: Layout) -> None:
    for i in range(4):
        a.pair(f"images/{i}.png", f"masks/{i}.png", i)
    a.files |= {"masks/legend.png": ("ids", areas(9)), "images/thumbs/0.png": photo(0)}
    a.refused, a.option = r"mask without image +masks/legend.png", "leave_out=masks/legend.png"
    a.notes += ["left out: pictures in folders of thumbnails: 1"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name: str, tmp_path: Path) -> None:
    wanted = Layout()
    LAYOUTS[name](wanted)
    root = wanted.write(tmp_path / "source")
    options = {}
    if wanted.refused:
        with pytest.raises(DataError, match=wanted.refused) as raised:
            Folder(root, name="own")
        offered = [
            shlex.split(found)[0] for found in re.findall(r"--option ('[^']*'|\S+?)(?=[;:)\s]|$)", str(raised.value))
        ]
        assert wanted.option.lower() in [option.lower() for option in offered]
        option, value = next(option for option in offered if option.lower() == wanted.option.lower()).split("=")
        options = {option: value if value != "false" else False}
    adapter = open_dataset("folder", root, name="own", **options)
    for split in adapter.splits():
        shard(adapter, split, tmp_path / "shards")
    found = dict(stored(tmp_path / "shards" / "own"))
    assert {source for source, sample in found.items() if sample[1] is not None} == wanted.pairs.keys()
    assert {source for source, sample in found.items() if sample[1] is None} == wanted.alone
    home = next((path for path in (root, *root.iterdir()) if all((path / source).exists() for source in found)), root)
    for source, (image, label, mask, split) in found.items():
        assert np.array_equal(image, np.asarray(Image.open(home / source).convert("RGB"))), source
        if label is not None:
            assert mask == wanted.pairs[source][0]
            same_areas(label, wanted.pairs[source][1])
        if source in wanted.splits:
            assert split == wanted.splits[source]
    notes = "\n".join(adapter.notes())  # type: ignore[attr-defined]
    for note in wanted.notes:
        assert note in notes


def stored(shards: Path) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray | None, str, str]]]:
    """What shards hold: source -> (image, classes or None, name of the mask, split)."""
    for place in shards.iterdir():
        found = ShardSet(place)
        for number in range(len(found)):
            sample = found[number]
            label = None if sample.label is None else found.taxonomy("own").map(sample.label)
            yield (
                str(sample.meta["source"]),
                (np.asarray(sample.image), label, str(sample.meta.get("mask")), place.name),
            )


def same_areas(label: np.ndarray, drawn: np.ndarray) -> None:
    """Each class of one is exactly one class of the other."""
    both = np.unique(np.stack([label.ravel(), drawn.ravel()]), axis=1)
    assert both.shape[1] == len(np.unique(label)) == len(np.unique(drawn))


@pytest.mark.parametrize("name", ["cityscapes", "deepglobe", "drive", "a_file_for_each_class", "camvid_as_published"])
def test_one_image_is_enough(name: str, tmp_path: Path) -> None:
    """Words that tell images from masks are known, so that nothing has to be learnt from other files."""
    wanted = Layout()
    LAYOUTS[name](wanted)
    image, (mask, _) = next(iter(wanted.pairs.items()))
    shown = {f"{prefix}{part}" for prefix in ("", "DRIVE/") for part in (image, mask)}
    wanted.files = {place: content for place, content in wanted.files.items() if place in shown}
    root = wanted.write(tmp_path / "source")
    options = {"mask_suffix": "_roof"} if name == "a_file_for_each_class" else {}
    if options:
        with pytest.raises(DataError, match=r"if it is the mask of images/a0.jpg: --option mask_suffix=_roof"):
            other = Path(root / "masks/a0_roof.png")
            other.with_name("a0_road.png").write_bytes(other.read_bytes())
            Folder(root)
    (sample,) = open_dataset("folder", root, **options).samples("train")
    assert Path(str(sample.meta["source"])).name == Path(image).name
    assert Path(str(sample.meta["mask"])).name == Path(mask).name


@pytest.mark.parametrize("ending", ["_parts_1", "_parts_1.png"])
def test_any_ending_can_be_given(tmp_path: Path, ending: str) -> None:
    wanted = Layout()
    for i in range(3):
        wanted.pair(f"images/ADE_{i}.jpg", f"images/ADE_{i}_seg.png", i, form="colours")
        wanted.files[f"images/ADE_{i}_parts_1.png"] = ("colours", areas(i + 9))
    root = wanted.write(tmp_path / "source")
    with pytest.raises(
        DataError, match=r"3 values, as 3 of 6 images .*if they are masks, --option mask_suffix=_parts_1;"
    ):
        Folder(root)
    folder = Folder(root, mask_suffix=ending, val=0)
    masks = sorted(str(sample.meta["mask"]) for sample in folder.samples("train"))
    assert masks == [f"images/ADE_{i}_parts_1.png" for i in range(3)]
    assert f"left out: masks whose names do not end with {ending}: 3" in folder.notes()


def test_at_least_these_layouts_are_tried() -> None:
    assert len(LAYOUTS) >= 50


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mask_suffix": "_gt"}, "mask_suffix=_gt +no picture has a name with this ending; nearest: _L"),
        ({"leave_out": "x*"}, r"leave_out=x\* +fits no picture; patterns are compared with whole paths, such as"),
        ({"masks": "train_labels,nowhere"}, "masks=nowhere +no image in a folder of this name"),
    ],
)
def test_options_that_fit_nothing_are_refused(tmp_path: Path, options: dict[str, str], text: str) -> None:
    wanted = Layout()
    LAYOUTS["camvid_as_published"](wanted)
    with pytest.raises(DataError, match=text):
        open_dataset("folder", wanted.write(tmp_path / "source"), **options)


def test_files_for_each_object_in_folders_of_images_are_refused(tmp_path: Path) -> None:
    wanted = Layout()
    for i, k in itertools.product(range(3), range(3)):
        wanted.files[f"images/{i}.png"] = photo(i)
        wanted.files[f"masks/{i}/{k}.png"] = ("black", areas(k, 2))
    with pytest.raises(
        DataError, match=r"masks/0/0.png +is one of several files in a folder named as an image; combine"
    ):
        Folder(wanted.write(tmp_path / "source"))


def test_windows_archives_and_archives_of_archives(tmp_path: Path) -> None:
    wanted = Layout()
    LAYOUTS["whole_names_of_images"](wanted)
    with zipfile.ZipFile(tmp_path / "roofs.zip", "w") as archive:
        for name, content in wanted.files.items():
            archive.writestr("roofs\\" + name.replace("/", "\\"), encoded(content, Path(name).suffix))
    folder = Folder(tmp_path / "roofs.zip", val=0)
    assert {(str(s.meta["source"]), str(s.meta["mask"])) for s in folder.samples("train")} == {
        (image, mask) for image, (mask, _) in wanted.pairs.items()
    }
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "roofs.zip", "roofs.zip")
    with pytest.raises(DataError, match=r"no images found[\s\S]*left out: .zip archives inside \(unpack them.*: 1"):
        Folder(tmp_path / "outer.zip")


def test_the_command_that_is_refused_names_the_one_that_works(tmp_path: Path) -> None:
    wanted = Layout()
    LAYOUTS["drive"](wanted)
    root = wanted.write(tmp_path / "source")
    command = [sys.executable, "-m", "semiseg.cli", "data", "shard", "folder", str(root), "--option", "name=drive"]
    command += ["--workers", "1"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr and not (tmp_path / "shards").exists()
    option = re.search(r"--option masks=1st_manual", " ".join(refused.stderr.split()))
    assert option is not None
    ran = subprocess.run([*command, *shlex.split(option[0])], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "masks other than those that the option masks names: 9" in ran.stdout


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("leftImg8bit/train/b/b0_leftImg8bit.png gtFine/train/b/b0_gtFine_labelTrainIds.png", "mask in a list"),
        ("leftImg8bit/train/b/b0_leftImg8bit.png gtFine/train/b/b0_gtFine_labelIds.png", ""),
        ("leftImg8bit/train/b/b0_leftImg8bit.png,gtFine/train/b/b0_gtFine_labelIds.png", ""),
        ("# only a comment", ""),
        ("leftImg8bit/train/b/b0_leftImg8bit.png gtFine/train/b/b2_gtFine_labelIds.png", "mask in a list"),
        ("leftImg8bit/train/b/b9_leftImg8bit.png", "unknown image"),
    ],
)
def test_a_list_that_names_another_mask_is_refused(tmp_path: Path, line: str, problem: str) -> None:
    wanted = Layout()
    for i in range(3):
        base = f"b{i}_gtFine"
        wanted.pair(f"leftImg8bit/train/b/b{i}_leftImg8bit.png", f"gtFine/train/b/{base}_labelIds.png", i)
        wanted.files[f"gtFine/train/b/{base}_labelTrainIds.png"] = ("ids", areas(i + 5))
    wanted.files["train.txt"] = f"{line}\r\nb1_leftImg8bit\r\n"
    root = wanted.write(tmp_path / "source")
    if problem:
        with pytest.raises(DataError, match=rf"{problem} +train.txt:1"):
            Folder(root)
    else:
        assert "left out: masks of training ids" in "\n".join(Folder(root).notes())


def test_photographs_are_not_taken_for_masks(tmp_path: Path, camvid_root: Path) -> None:
    """Real frames, real masks of other names, and frames as GIF and palette PNG."""
    from semiseg.data import Tree
    from semiseg.datasets.folder.looks import Looks

    for i, path in enumerate(sorted((camvid_root / "train").glob("*.png"))[:6]):
        frame = Image.open(path).convert("RGB")
        frame.save(tmp_path / f"photo{i}.jpg", quality=(40, 75, 95)[i % 3])
        frame.save(tmp_path / f"photo{i}.gif")
        frame.quantize(64).save(tmp_path / f"photo{i}p.png")
        frame.convert("L").save(tmp_path / f"photo{i}g.png")
    for i, path in enumerate(sorted((camvid_root / "trainannot").glob("*.png"))[:6]):
        mask = Image.open(path)
        mask.save(tmp_path / f"mask{i}.png")
        Image.fromarray(PALETTE[np.asarray(mask) % 4]).save(tmp_path / f"mask{i}c.bmp")
        Image.fromarray(np.where(np.asarray(mask) == 3, 255, 0).astype(np.uint8)).convert("1").save(
            tmp_path / f"mask{i}b.tif"
        )
        Image.fromarray(np.asarray(mask).astype(np.uint16) * 257).save(tmp_path / f"mask{i}d.png")
        Image.fromarray(np.where(np.asarray(mask) == 3, 255, 0).astype(np.uint8)).save(tmp_path / f"mask{i}j.jpg")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    looks = Looks(Tree.open(tmp_path))
    related = {path.name: bool(looks.mask(path.name, related=True)) for path in tmp_path.iterdir()}
    assert related == {path.name: path.name.startswith("mask") for path in tmp_path.iterdir()}
    assert not any(looks.mask(path.name) for path in tmp_path.glob("*.jpg")), "a JPEG alone is a photograph"
