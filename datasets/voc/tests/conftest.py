"""The 42 real pairs as the publishers ship them: VOC's own masks in VOC's tree, the others in SBD's encoding."""

import io
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

LISTS = Path("ImageSets", "Segmentation")
ANNOTATION = """<annotation>
	<folder>VOC2012</folder>
	<filename>{id}.jpg</filename>
	<source><database>The VOC2007 Database</database><annotation>PASCAL VOC2007</annotation><image>flickr</image></source>
	<size><width>500</width><height>375</height><depth>3</depth></size>
	<segmented>1</segmented>
{objects}</annotation>
"""
OBJECT = """	<object>
		<name>{name}</name>
		<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>
		<bndbox><xmin>9</xmin><ymin>107</ymin><xmax>499</xmax><ymax>263</ymax></bndbox>
		<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>
	</object>
"""


@dataclass(frozen=True)
class Official:
    """Where all files are, and the ids of the lists of the real files."""

    home: Path
    real: Path
    train: tuple[str, ...]
    val: tuple[str, ...]
    further: tuple[str, ...]  # only SBD has masks of these

    @property
    def voc(self) -> Path:
        return self.home / "VOCdevkit" / "VOC2012"

    @property
    def sbd(self) -> Path:
        return self.home / "benchmark_RELEASE" / "dataset"

    def mask(self, id: str) -> np.ndarray:
        """The real mask, read by Pillow alone."""
        with Image.open(self.real / "SegmentationClass" / f"{id}.png") as mask:
            return np.array(mask)


@pytest.fixture(scope="session")
def voc_root(test_data: Path) -> Path:
    """42 real pairs; the masks of trainaug lie in SegmentationClass, beside VOC's own."""
    return test_data / "VOCdevkit" / "VOC2012"


@pytest.fixture(scope="session")
def write_official(voc_root: Path, write_mat: Callable[[np.ndarray], bytes]) -> Callable[[Path], Official]:
    """Write the official trees of both publishers below a folder, from the real pairs; there is no trainaug.txt."""

    def write(home: Path) -> Official:
        ids = {
            name: tuple((voc_root / LISTS / f"{name}.txt").read_text().split()) for name in ("train", "val", "trainaug")
        }
        further = tuple(id for id in ids["trainaug"] if id not in ids["train"])
        official = Official(home, voc_root, ids["train"], ids["val"], further)
        for folder in (LISTS, "SegmentationClass", "Annotations"):
            (official.voc / folder).mkdir(parents=True)
        shutil.copytree(voc_root / "JPEGImages", official.voc / "JPEGImages")
        for name in ("train", "val"):
            (official.voc / LISTS / f"{name}.txt").write_text("\n".join(ids[name]) + "\n")
        for id in (*official.train, *official.val):
            shutil.copy(voc_root / "SegmentationClass" / f"{id}.png", official.voc / "SegmentationClass")
        for id, names in {official.train[0]: ["person", "bottle", "person"], official.train[1]: []}.items():
            objects = "".join(OBJECT.format(name=name) for name in names)
            (official.voc / "Annotations" / f"{id}.xml").write_text(ANNOTATION.format(id=id, objects=objects))
        for folder in ("cls", "img"):
            (official.sbd / folder).mkdir(parents=True)
        # SBD covers images of VOC as well: one of train, two of val. It knows no 255; the mask of train is made to differ.
        for id in (*official.further, official.train[0], *official.val[:2]):
            mask = official.mask(id)
            mask = np.zeros_like(mask) if id in official.train else np.where(mask == 255, 0, mask).astype(np.uint8)
            (official.sbd / "cls" / f"{id}.mat").write_bytes(write_mat(mask))
            shutil.copy(voc_root / "JPEGImages" / f"{id}.jpg", official.sbd / "img")
        (official.sbd / "train.txt").write_text("\n".join(official.further))
        return official

    return write


@pytest.fixture(scope="session")
def official(write_official: Callable[[Path], Official], tmp_path_factory: pytest.TempPathFactory) -> Official:
    """Both trees, to read only."""
    return write_official(tmp_path_factory.mktemp("official"))


@pytest.fixture(scope="session")
def archives(official: Official, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both archives under their official names, members in no particular order."""
    folder = tmp_path_factory.mktemp("archives")
    for name, mode, top in (
        ("VOCtrainval_11-May-2012.tar", "w:", "VOCdevkit"),
        ("benchmark.tgz", "w:gz", "benchmark_RELEASE"),
    ):
        paths = sorted((official.home / top).rglob("*"), key=lambda path: path.name[::-1])
        pack(folder / name, mode, [(path.relative_to(official.home).as_posix(), path) for path in paths])
    return folder


def pack(archive: Path, mode: str, members: Sequence[tuple[str, Path]]) -> None:
    with tarfile.open(archive, mode) as packing:  # type: ignore[call-overload]
        for name, path in members:
            packing.add(path, name, recursive=False)


@pytest.fixture(scope="session")
def write_mat() -> Callable[[np.ndarray], bytes]:
    """A mask in SBD's encoding: a struct GTcls of Boundaries, Segmentation and CategoriesPresent."""

    def write(mask: np.ndarray) -> bytes:
        boundaries = np.empty((20, 1), object)
        boundaries[:, 0] = [np.zeros((1, 1), np.uint8)] * 20
        present = np.array([[value] for value in np.unique(mask) if 0 < value < 255], np.uint8)
        stream = io.BytesIO()
        fields = {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": present}
        savemat(stream, {"GTcls": fields}, do_compression=True)
        return stream.getvalue()

    return write
