"""SUN RGB-D as it is published, written from real masks or generated ones.

No official .mat file is available. The files written here follow the documented encoding: MATLAB 5 files for names and
splits; for the labels HDF5 behind MATLAB's 512 bytes, a (n, 1) array of references, each label transposed. Paths are of
the authors' machines, with the oddities of the published lists: "//", a second prefix, "/" at the end.
"""

import io
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

TEST_FIRST = 3  # of the real pairs: SUNRGBDMeta lists the test images first
FOLDERS = (
    "kv2/kinect2data/000002_2014-05-26_14-23-37_260595134347_rgbf000103-resize",
    "kv2/kinect2data/000003_2014-05-26_14-24-42_260595134347_rgbf000040-resize",
    "realsense/lg/2014_10_29-16_24_14-1311000073",
    "kv1/NYUdata/NYU0775", "kv1/NYUdata/NYU0834", "kv1/NYUdata/NYU0972", "kv1/b3dodata/img_0063",
    "xtion/sun3ddata/brown_bm_1/brown_bm_1/0000103-000003465461",
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    folder: str
    image: str
    jpeg: bytes
    label: np.ndarray
    split: str


@dataclass(frozen=True)
class RealPair:
    name: str
    jpeg: bytes
    mask13: np.ndarray


@pytest.fixture(scope="session")
def real_pairs(test_data: Path) -> list[RealPair]:
    """The 8 real indoor images (as JPEG, which SUN RGB-D has) with their published 13-class masks."""
    pairs = []
    for path in sorted((test_data / "nyuv2_13" / "image").glob("*.png")):
        stream = io.BytesIO()
        with Image.open(path) as image:
            image.save(stream, "JPEG", quality=90)
        with Image.open(test_data / "nyuv2_13" / "label13" / path.name) as mask:
            pairs.append(RealPair(path.stem, stream.getvalue(), np.array(mask)))
    assert len(pairs) == 8
    return pairs


@pytest.fixture(scope="session")
def refine(names_of_super: dict[str, tuple[str, ...]], names37: tuple[str, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """A 37-class label that a 13-class mask could have come from: each of a class's members, in diagonal stripes."""

    def refined(mask13: np.ndarray) -> np.ndarray:
        rows, columns = np.indices(mask13.shape)
        label = np.zeros_like(mask13)
        for number, members in enumerate(names_of_super.values(), start=1):
            ids = np.array([1 + names37.index(member) for member in members], np.uint8)
            label = np.where(mask13 == number, ids[(rows // 7 + columns // 5) % len(ids)], label)
        return label

    return refined


@pytest.fixture(scope="session")
def names37() -> tuple[str, ...]:
    """The publisher's seg37list, typed once more."""
    return (
        "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
        "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor_mat", "clothes", "ceiling", "books",
        "fridge", "tv", "paper", "towel", "shower_curtain", "box", "whiteboard", "person", "night_stand", "toilet", "sink",
        "lamp", "bathtub", "bag",
    )  # fmt: skip


@pytest.fixture(scope="session")
def names_of_super() -> dict[str, tuple[str, ...]]:
    """Which of the 37 classes make each of the 13, by name: an independent statement of the published mapping."""
    return {
        "bed": ("bed",),
        "books": ("books",),
        "ceiling": ("ceiling",),
        "chair": ("chair",),
        "floor": ("floor", "floor_mat"),
        "furniture": ("cabinet", "bookshelf", "counter", "shelves", "dresser", "fridge", "night_stand"),
        "objects": (
            "pillow", "mirror", "clothes", "paper", "towel", "shower_curtain", "box", "whiteboard", "person", "toilet",
            "sink", "lamp", "bathtub", "bag",
        ),
        "picture": ("picture",),
        "sofa": ("sofa",),
        "table": ("table", "desk"),
        "tv": ("tv",),
        "wall": ("wall", "door"),
        "window": ("window", "blinds", "curtain"),
    }  # fmt: skip


@pytest.fixture(scope="session")
def pairs(real_pairs: list[RealPair], refine: Callable[[np.ndarray], np.ndarray]) -> list[Pair]:
    """The real pairs under official names, in the order of SUNRGBDMeta, with 37-class labels."""
    return [
        Pair(folder, f"{n:07d}.jpg", real.jpeg, refine(real.mask13), "test" if n < TEST_FIRST else "train")
        for n, (folder, real) in enumerate(zip(FOLDERS, real_pairs, strict=True))
    ]


@pytest.fixture(scope="session")
def small() -> list[Pair]:
    """Six generated scenes of two collections and sizes that differ: no real data is needed to test paths and errors."""
    return [
        Pair(
            f"{'kv1/NYUdata' if n < 4 else 'xtion/xtion_align_data'}/scene{n}", f"{n}.jpg", jpeg(16 + n, 12, n),
            np.full((12, 16 + n), n, np.uint8) + (np.arange(16 + n) % 30).astype(np.uint8), "train" if n % 2 else "test",
        )
        for n in range(6)
    ]  # fmt: skip


@pytest.fixture(scope="session")
def write_official() -> Callable[..., Path]:
    return official


@pytest.fixture(scope="session")
def write_labels() -> Callable[..., None]:
    return labels


@pytest.fixture
def official_tree(small: list[Pair], tmp_path: Path) -> Path:
    return official(tmp_path / "official", small)


def official(root: Path, pairs: Sequence[Pair], *, zipped: bool = False) -> Path:
    """SUNRGBD/ and SUNRGBDtoolbox/ below root, or SUNRGBD.zip and SUNRGBDtoolbox.zip."""
    for n, pair in enumerate(pairs):
        path = root / "SUNRGBD" / pair.folder / "image" / pair.image
        path.parent.mkdir(parents=True)
        path.write_bytes(pair.jpeg)
        (path.parents[1] / "scene.txt").write_text("office")
        if n == 0:
            (path.parents[1] / "depth").mkdir()
            (path.parents[1] / "depth" / "0000.png").write_bytes(b"no image of ours")
    toolbox = root / "SUNRGBDtoolbox"
    (toolbox / "Metadata").mkdir(parents=True)
    (toolbox / "traintestSUNRGBD").mkdir()
    savemat(toolbox / "Metadata" / "SUNRGBDMeta.mat", {"SUNRGBDMeta": meta(pairs)}, do_compression=True)
    splits = {f"all{split}": cells([listed(n, p) for n, p in enumerate(pairs) if p.split == split]) for split in SPLITS}
    savemat(toolbox / "traintestSUNRGBD" / "allsplit.mat", splits, do_compression=True)
    labels(toolbox / "Metadata" / "SUNRGBD2Dseg.mat", [pair.label for pair in pairs])
    if zipped:
        for name in ("SUNRGBD", "SUNRGBDtoolbox"):
            with zipfile.ZipFile(root / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for file in sorted((root / name).rglob("*")):
                    archive.write(file, file.relative_to(root))
            shutil.rmtree(root / name)
    return root


SPLITS = ("train", "test")


def meta(pairs: Sequence[Pair]) -> np.ndarray:
    """The struct array, with some of its other fields."""
    fields = ("sequenceName", "groundtruth3DBB", "rgbpath", "rgbname", "valid")
    table = np.empty((1, len(pairs)), [(field, object) for field in fields])
    for n, pair in enumerate(pairs):
        slash = "//" if pair.folder.startswith("realsense") else "/"
        path = f"/n/fs/sun3d/data/SUNRGBD/{pair.folder}{slash}image/{pair.image}"
        boxes = np.array([[0.5, 1.0, 2.0]] * (n % 3))
        table[0, n] = (f"SUNRGBD/{pair.folder}", boxes, path, pair.image, 1)
    return table


def listed(n: int, pair: Pair) -> str:
    """A row of allsplit.mat."""
    prefix = "/data1/SUNRGBD/" if n % 3 == 1 else "/n/fs/sun3d/data/SUNRGBD/"
    return f"{prefix}{pair.folder}{'/' if n % 2 else ''}"


def cells(texts: Sequence[str]) -> np.ndarray:
    found = np.empty((1, len(texts)), object)
    found[0] = texts
    return found


def labels(path: Path, arrays: Sequence[np.ndarray], *, dtype: type = np.uint8) -> None:
    """SUNRGBD2Dseg.mat in MATLAB's version 7.3."""
    with h5py.File(path, "w", userblock_size=512) as file:
        stored = file.create_group("#refs#")
        group = file.create_group("SUNRGBD2Dseg")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        references = group.create_dataset("seglabel", (len(arrays), 1), h5py.ref_dtype)
        rows = []
        for n, array in enumerate(arrays):
            label = stored.create_dataset(f"{n:x}", data=array.T.astype(dtype), compression="gzip", compression_opts=3)
            label.attrs["MATLAB_class"] = np.bytes_("uint8")
            rows.append([label.ref])
        references[...] = np.array(rows, h5py.ref_dtype)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")


def jpeg(width: int, height: int, seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()
