"""Labels drawn from the publisher's polygons, pixel for pixel as its own script draws them (json2labelImg)."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from semiseg.data import DataError, unknown
from semiseg.datasets.cityscapes.labels import IDS, NOT_DRAWN

# Cityscapes has 2**21 pixels and points a little outside of them. What is far beyond is damage, and would take all memory.
_MOST_PIXELS = 1 << 26
_FARTHEST = 1 << 20


def draw_file(read: Callable[[], bytes], where: str) -> np.ndarray:
    """Raw ids of a `_polygons.json` file that is read when it is needed; see `draw`."""
    return draw(read(), where)


def draw(annotation: bytes, where: str) -> np.ndarray:
    """Raw ids, uint8 [height, width], of a `_polygons.json` file; `where` names it in errors.

    Polygons cover one another in the order of the file, over "unlabeled"; deleted ones and license plates are left out,
    and a group ("cargroup") counts as what it is a group of. Raises DataError for a file that is damaged and for labels
    that Cityscapes does not have, naming the object.
    """
    try:
        content = json.loads(annotation)
    except ValueError as error:  # bytes that are no text are among them
        raise DataError(f"{where} is no JSON ({error}); get the file anew") from error
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise DataError(f"{where} has no list of objects; expected imgHeight, imgWidth and objects; get the file anew")
    picture = Image.new("L", _size(content, where), IDS["unlabeled"])
    drawer = ImageDraw.Draw(picture)
    for number, shape in enumerate(content["objects"]):
        place = f"{where}: object {number}"
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise DataError(f"{place} has no label; get the file anew")
        if shape.get("deleted"):
            continue
        name = _base(shape["label"])
        if name == NOT_DRAWN:
            continue
        if name not in IDS:
            raise DataError(f"{place}: {unknown('label', shape['label'], (*IDS, NOT_DRAWN))}")
        drawer.polygon(_points(shape.get("polygon"), f"{place} ({shape['label']})"), fill=IDS[name])
    return np.array(picture)


def _base(name: str) -> str:
    """What a group is a group of; "polegroup" is a label of its own."""
    return name if name in IDS else name.removesuffix("group")


def _size(content: dict[str, Any], where: str) -> tuple[int, int]:
    width, height = content.get("imgWidth"), content.get("imgHeight")
    if type(width) is not int or type(height) is not int or not (width > 0 < height and width * height <= _MOST_PIXELS):
        raise DataError(
            f"{where} says that its image is {width} x {height}; expected two numbers such as 2048 x 1024; "
            "get the file anew"
        )
    return width, height


def _points(polygon: Any, place: str) -> list[tuple[float, float]]:
    try:
        points = [(x, y) for x, y in polygon]
        values = [value for point in points for value in point]
        # NaN is not below anything.
        if len(points) >= 2 and all(type(value) in (int, float) and abs(value) <= _FARTHEST for value in values):
            return points
    except (TypeError, ValueError):
        pass
    raise DataError(f"{place}: its polygon is not a list of two or more [x, y]; get the file anew")
