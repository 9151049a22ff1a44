"""Polygons: real masks come back pixel for pixel, the publisher's rules hold, and damage is named."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from semiseg.data import DataError
from semiseg.datasets.cityscapes.labels import LABELS
from semiseg.datasets.cityscapes.polygons import draw

NAMES = {i: label.name for i, label in enumerate(LABELS)}
SQUARE = [[2, 1], [5, 1], [5, 4], [2, 4]]


def test_masks_written_as_polygons_come_back_pixel_for_pixel(
    camvid_or_noise: list[tuple[np.ndarray, np.ndarray]], polygons: Callable[..., bytes]
) -> None:
    for _, ids in camvid_or_noise:
        assert np.array_equal(draw(polygons(ids, NAMES), "x"), ids)


@pytest.mark.parametrize("seed", range(5))
def test_pixels_off_the_edges_are_inside_by_the_even_odd_rule(seed: int) -> None:
    """An independent definition of inside; on the edges themselves the publisher's script decides by Pillow's rounding."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 40, (7, 2))
    drawn = draw(_file([{"label": "car", "polygon": corners.tolist()}], width=40, height=40), "x")
    compared = 0
    for y in range(40):
        for x in range(40):
            inside, nearest = False, np.inf
            for a, b in zip(corners, np.roll(corners, 1, axis=0), strict=True):
                if (a[1] > y) != (b[1] > y) and x < (b[0] - a[0]) * (y - a[1]) / (b[1] - a[1]) + a[0]:
                    inside = not inside
                along = np.clip(np.dot((x, y) - a, b - a) / max(1, np.dot(b - a, b - a)), 0, 1)
                nearest = min(nearest, float(np.hypot(*(a + along * (b - a) - (x, y)))))
            if nearest > 1:
                compared += 1
                assert (drawn[y, x] == 26) == inside, (x, y)
    assert compared > 600


def test_later_polygons_cover_earlier_ones_over_unlabeled() -> None:
    drawn = draw(
        _file([{"label": "road", "polygon": SQUARE}, {"label": "car", "polygon": [[4, 3], [6, 3], [6, 5], [4, 5]]}]),
        "x",
    )
    expected = np.zeros((6, 8), np.uint8)
    expected[1:5, 2:6] = 7
    expected[3:6, 4:7] = 26
    assert drawn.dtype == np.uint8 and np.array_equal(drawn, expected)


@pytest.mark.parametrize(
    ("shape", "number"),
    [
        ({"label": "cargroup"}, 26),
        ({"label": "polegroup"}, 18),
        ({"label": "persongroup", "deleted": 0}, 24),
        ({"label": "car", "deleted": 1}, 0),
        ({"label": "license plate"}, 0),
        ({"label": "license plategroup"}, 0),
        ({"label": "no such thing", "deleted": True}, 0),
    ],
)
def test_groups_deleted_polygons_and_license_plates(shape: dict[str, Any], number: int) -> None:
    assert draw(_file([{**shape, "polygon": SQUARE}]), "x")[2, 3] == number


def test_an_unknown_label_names_file_object_and_nearest() -> None:
    shapes = [{"label": "road", "polygon": SQUARE}, {"label": "buildng", "polygon": SQUARE}]
    with pytest.raises(DataError, match=r"a_polygons.json: object 1: unknown label 'buildng'; did you mean 'building'"):
        draw(_file(shapes), "a_polygons.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x is not JSON"),
        (b"\xff\xfe\x00", "x is not JSON"),
        (b"[" * 100_000, "x is not JSON .more than 64 levels"),
        (b'{"imgHeight": ' + b"9" * 5000 + b"}", "x is not JSON .a number of 5000 digits"),
        (b'{"objects": [{"label": "sky", "polygon": [[1, NaN], [2, 3]]}]}', "x is not JSON .NaN is not JSON"),
        (b'{"imgHeight": 1e999}', "x is not JSON .1e999 is larger than any 64-bit number"),
        (b'{"imgHeight": 2, "imgHeight": 3}', "x is not JSON .'imgHeight' is given twice"),
        (b'{"imgHeight": 2, "imgWidth": 2}', "x has no list of objects"),
        (b"[]", "x has no list of objects"),
        (b'{"imgHeight": 0, "imgWidth": 2, "objects": []}', "the image size 2 x 0"),
        (b'{"imgHeight": 100000, "imgWidth": 100000, "objects": []}', "the image size 100000 x 100000"),
        (b'{"imgHeight": "9", "imgWidth": 2, "objects": []}', "the image size 2 x 9"),
        (b'{"imgHeight": 9, "imgWidth": 2, "objects": [3]}', "object 0 has no label"),
    ],
)
def test_a_damaged_file_is_named(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw(content, "x")


@pytest.mark.parametrize("polygon", [None, [], [[1, 2]], [[1, 2], [3]], [[1, 2], [3, "4"]], [[1, 2], [3, 1e300]]])
def test_a_damaged_polygon_is_named(polygon: Any) -> None:
    with pytest.raises(
        DataError, match=r"x: object 0 \(sky\): its polygon is not a list of two or more points \[x, y\]"
    ):
        draw(_file([{"label": "sky", "polygon": polygon}]), "x")


def _file(shapes: list[dict[str, Any]], width: int = 8, height: int = 6) -> bytes:
    return json.dumps({"imgHeight": height, "imgWidth": width, "objects": shapes}).encode()
