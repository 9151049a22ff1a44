"""Files beside the pictures that are not read, and how to make masks of them."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from semiseg.data import DataError, Tree, hidden
from semiseg.datasets.folder.file import CAMERA, SUFFIXES

_READ = 1 << 20  # bytes of an annotation file that are enough to recognise it
_LARGEST = 64 << 20
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
_ARRAYS = (".npy", ".npz", ".mat", ".h5", ".hdf5", ".nii")
_YOLO = re.compile(r"\d+(\s+-?\d*\.?\d+(e-?\d+)?){4,}\s*", re.IGNORECASE)
_TEXT = "text files (neither the list of a split nor the class file)"
_MASKS_ONLY = "only masks are read"
COCO = f"COCO annotations ({_MASKS_ONLY}; draw them with pycocotools: coco.annToMask(annotation))"
LABELME = f"Labelme polygons ({_MASKS_ONLY}; draw them with labelme's examples/semantic_segmentation/labelme2voc.py)"
YOLO = f"YOLO labels ({_MASKS_ONLY}; draw polygons with cv2.fillPoly, boxes are not masks)"
_JSON = (
    ({"annotations", "categories"}, COCO),
    ({"shapes", "imagePath"}, LABELME),
    ({"imgHeight", "objects"}, f"Cityscapes polygons ({_MASKS_ONLY}; draw them with csCreateTrainIdLabelImgs)"),
    ({"size", "objects"}, f"Supervisely annotations ({_MASKS_ONLY}; export again as masks)"),
    ({"classes", "projectType"}, "Supervisely's project file"),
    ({"type", "features"}, f"GeoJSON shapes ({_MASKS_ONLY}; draw them with rasterio.features.rasterize)"),
    ({"_via_img_metadata"}, f"VIA annotations ({_MASKS_ONLY}; draw their polygons first)"),
)  # fmt: skip


def unused(tree: Tree, used: Iterable[str]) -> Counter[str]:
    """Files that are neither pictures nor `used`, counted by what they are; hidden files and those of systems are not."""
    taken = set(used)
    counts: Counter[str] = Counter()
    kinds: dict[tuple[str, str], str] = {}  # one file of each suffix in a folder is examined
    for name in tree.names():
        path = PurePosixPath(name)
        suffix = path.suffix.lower()
        if name in taken or suffix in SUFFIXES | CAMERA or hidden(name):
            continue
        place = str(path.parent), suffix
        if place not in kinds or kinds[place] == _TEXT:
            kinds[place] = _kind(tree, name, suffix)
        counts[kinds[place]] += 1
    return counts


def _kind(tree: Tree, name: str, suffix: str) -> str:
    if suffix in _ARCHIVES:
        return f"{suffix} archives inside (unpack them, or pass one as the data set)"
    if suffix in _ARRAYS:
        return f"{suffix} arrays (save masks as PNG)"
    if suffix in (".json", ".geojson"):
        return _json(tree, name)
    if suffix == ".xml":
        head = _head(tree, name).lower()
        if "<annotations" in head:
            return f"annotations in XML, as of CVAT ({_MASKS_ONLY}; export again as Segmentation mask)"
        if "<annotation" in head:
            return "boxes in XML, as in PASCAL VOC (only masks are read)"
    if suffix == ".txt":
        lines = [line for line in _head(tree, name).splitlines() if line.strip()]
        if lines and all(_YOLO.fullmatch(line) for line in lines[:20]):
            return YOLO
        return _TEXT
    if suffix in (".csv", ".yaml", ".yml", ".xlsx"):
        return f"{suffix} tables (neither the class file nor tags.csv)"
    return f"other files ({suffix or 'without suffix'})"


def _json(tree: Tree, name: str) -> str:
    keys: set[str] = set()
    try:
        if tree.size(name) <= _LARGEST:
            found = json.loads(tree.read(name))
            keys = set(found) if isinstance(found, dict) else set()
    except (DataError, ValueError, RecursionError):
        pass
    return next((what for needed, what in _JSON if needed <= keys), f".json files ({_MASKS_ONLY})")


def _head(tree: Tree, name: str) -> str:
    try:
        return tree.read(name)[:_READ].decode("utf-8", "replace") if tree.size(name) <= _LARGEST else ""
    except DataError:
        return ""
