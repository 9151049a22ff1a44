"""Masks as the shard writer accepts them: a PNG of ids unchanged, anything else as an array of ids."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from semiseg.data import DataError, image_formats
from semiseg.datasets.hub.rows import Rows, file_bytes
from semiseg.datasets.hub.upright import orientation

Colours = Mapping[tuple[int, int, int], int]
"""(red, green, blue) -> id"""
_LOSSY = {"JPEG", "MPO", "WEBP", "AVIF", "JPEG2000"}
_ID_MODES = {"1", "L", "P", "I", "I;16", "I;16B"}  # of Pillow: one band of integers


def read_label(rows: Rows, number: int, column: str, colours: Colours | None) -> bytes | np.ndarray:
    """The mask of a row: the unchanged bytes of a one-band PNG, or integer ids [h, w].

    With a table of colours, the mask is read by colour. A mask that EXIF rotates becomes upright, like its image.
    DataError for masks that do not contain ids: several bands, lossy compression.
    """
    value = rows.value(number, column)
    if not isinstance(value, bytes | Mapping):
        return _array(value)
    data = file_bytes(value)
    png = data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 25
    depth, kind = (data[24], data[25]) if png else (8, None)
    if colours is None and (kind == 3 or (kind == 0 and depth in (8, 16))) and orientation(data) == 1:
        return data
    try:
        with Image.open(io.BytesIO(data), formats=image_formats()) as picture:
            picture.load()
            form, picture = picture.format, ImageOps.exif_transpose(picture)
    except Exception as error:  # decoders raise many kinds of errors
        raise DataError(f"the mask is truncated or damaged ({error}); replace it, or remove the row") from error
    if form in _LOSSY:
        raise DataError(f"the mask is a {form}, whose compression changes ids; use PNG")
    if colours is not None:
        return _by_colour(np.asarray(picture.convert("RGB")), colours)
    if picture.mode not in _ID_MODES:
        raise DataError(
            f"the mask has pixels of type {picture.mode}, not ids in one band; if its colours are classes, list them in a "
            "file with lines 'R G B name' and use --option names=FILE"
        )
    ids = np.array(picture)
    if kind == 0 and depth in (2, 4):  # Pillow scales them to 0..255
        ids //= 255 // (2**depth - 1)
    return _array(ids)


def ids_of(label: bytes | np.ndarray) -> set[int]:
    """The ids in a mask."""
    if isinstance(label, bytes):
        try:
            with Image.open(io.BytesIO(label), formats=image_formats()) as picture:
                label = np.array(picture)
        except Exception as error:
            raise DataError(f"the mask is truncated or damaged ({error}); replace it, or remove the row") from error
    return set(np.unique(label).tolist())


def _array(value: Any) -> np.ndarray:
    try:
        ids = np.asarray(value)
    except ValueError:
        ids = np.empty(0)
    if ids.ndim != 2 or ids.dtype.kind not in "biu":
        raise DataError(f"the mask is {ids.dtype} {list(ids.shape)}; expected integer ids [height, width]")
    return ids.astype(np.uint8) if ids.dtype.kind == "b" else ids


def _by_colour(pixels: np.ndarray, colours: Colours) -> np.ndarray:
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    known = np.array(sorted((r << 16 | g << 8 | b, number) for (r, g, b), number in colours.items()), np.uint32)
    place = np.searchsorted(known[:, 0], packed).clip(max=len(known) - 1)
    unlisted = known[place, 0] != packed
    if unlisted.any():
        y, x = np.argwhere(unlisted)[0].tolist()
        red, green, blue = pixels[y, x].tolist()
        raise DataError(
            f"colour {red} {green} {blue} in {int(unlisted.sum())} pixels, first at x={x}, y={y}, is not in the table of "
            "colours; add a line for it"
        )
    return known[place, 1].astype(np.uint16 if known[:, 1].max() > 255 else np.uint8)
