"""The columns of an index that are computed from pixels: flags, content hash, label statistics."""

import hashlib

import numpy as np
from PIL import Image

TILE = 1024  # label statistics are kept for tiles of this many pixels a side
_ORIENTATION = 0x0112  # the EXIF tag


def flags(picture: Image.Image, label: np.ndarray | None) -> list[str]:
    """What a person should check: images and labels of one value (a lost frame), and images that EXIF rotates."""
    found = []
    if all(low == high for low, high in (band.getextrema() for band in picture.split())):
        found.append("constant-image")
    if label is not None and label.min() == label.max():
        found.append("constant-label")
    if picture.getexif().get(_ORIENTATION, 1) != 1:
        found.append("exif-orientation")  # stored pixels and label match; readers that rotate by EXIF break the pair
    return found


def content(key: str, image: bytes, label: np.ndarray | None, meta: bytes) -> str:
    """sha256 (hex) of a sample's contents: label pixels rather than PNG bytes, which depend on the compressor."""
    parts = [key.encode(), image]
    if label is not None:
        little = label.astype(label.dtype.newbyteorder("<"), copy=False)
        parts += [f"{label.dtype.name} {label.shape[0]} {label.shape[1]}".encode(), little.tobytes()]
    parts.append(meta)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def statistics(label: np.ndarray) -> list[dict[str, int]]:
    """Per tile (row-major) and raw id: pixels, and sums of their x and y in the image. All are exact integers."""
    height, width = label.shape
    found = []
    for tile, (top, left) in enumerate((y, x) for y in range(0, height, TILE) for x in range(0, width, TILE)):
        part = label[top : top + TILE, left : left + TILE]
        rows, columns = part.shape
        y = np.repeat(np.arange(top, top + rows, dtype=np.float64), columns)
        x = np.tile(np.arange(left, left + columns, dtype=np.float64), rows)
        flat = part.ravel()
        pixels = np.bincount(flat)
        # Sums stay below 2**20 pixels x 2**20: exact in the float64 that bincount adds in.
        sum_x, sum_y = np.bincount(flat, x), np.bincount(flat, y)
        found += [
            {"tile": tile, "id": int(i), "pixels": int(pixels[i]), "sum_x": int(sum_x[i]), "sum_y": int(sum_y[i])}
            for i in np.flatnonzero(pixels)
        ]
    return found
