"""Labels drawn from the publisher's polygons, pixel for pixel as its own script draws them (json2labelImg)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from semiseg.data import DataError, parse_json, unknown
from semiseg.datasets.cityscapes.labels import IDS, NOT_DRAWN

# Images have 2**21 pixels, and points lie at most a little outside. Larger values are damage, and would exhaust memory.
_MAX_PIXELS = 1 << 26
_MAX_COORDINATE = 1 << 20


def draw_file(read: Callable[[], bytes], where: str) -> np.ndarray:
    """Raw ids of a `_polygons.json` file, read when called; see `draw`."""
    return draw(read(), where)


def draw(annotation: bytes, where: str) -> np.ndarray:
    """Raw ids, uint8 [height, width], of a `_polygons.json` file; `where` names it in errors.

    Polygons are drawn in the order of the file, over "unlabeled"; deleted ones and license plates are left out, and a
    group ("cargroup") gets the label of its members ("car"). Raises DataError for a damaged file, and for labels that
    Cityscapes does not have, naming the object.
    """
    try:
        content = parse_json(annotation)
    except ValueError as error:  # includes bytes that are not text
        raise DataError(f"{where} is not JSON ({error}); download the file again") from error
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise DataError(
            f"{where} has no list of objects; expected imgHeight, imgWidth and objects; download the file again"
        )
    picture = Image.new("L", _size(content, where), IDS["unlabeled"])
    drawer = ImageDraw.Draw(picture)
    for number, shape in enumerate(content["objects"]):
        place = f"{where}: object {number}"
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise DataError(f"{place} has no label; download the file again")
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
    """The label of the members of a group; "polegroup" is itself a label."""
    return name if name in IDS else name.removesuffix("group")


def _size(content: dict[str, Any], where: str) -> tuple[int, int]:
    width, height = content.get("imgWidth"), content.get("imgHeight")
    if type(width) is not int or type(height) is not int or not (width > 0 < height and width * height <= _MAX_PIXELS):
        raise DataError(
            f"{where} gives the image size {width} x {height}; expected two numbers such as 2048 x 1024; "
            "download the file again"
        )
    return width, height


def _points(polygon: Any, place: str) -> list[tuple[float, float]]:
    try:
        points = [(x, y) for x, y in polygon]
        values = [value for point in points for value in point]
        # NaN fails this comparison.
        if len(points) >= 2 and all(type(value) in (int, float) and abs(value) <= _MAX_COORDINATE for value in values):
            return points
    except (TypeError, ValueError):
        pass
    raise DataError(f"{place}: its polygon is not a list of two or more points [x, y]; download the file again")
