"""Whether a picture looks like a mask: few values in flat areas. Photographs are recognised by their headers and sizes."""

import numpy as np

from semiseg.data import DataError, Tree
from semiseg.datasets.folder.pictures import opened, stream

_LOSSY = {"JPEG", "MPO", "WEBP", "JPEG2000", "AVIF"}
_PHOTO_BYTES = {"PNG": 0.6, "JPEG": 0.12, "MPO": 0.12, "WEBP": 0.08}  # per pixel: masks have far fewer
_SMALL = 1 << 14  # pixels: smaller files consist mostly of headers
_FEW = 16  # values that no photograph is limited to
_MOST = 256  # of smoothed masks
_FLAT = 0.9  # the share of pixels equal to their right neighbour in masks; photographs have 0.1 to 0.5
_FLAT_LOSSY = 0.5  # of JPEGs; product photographs on white have as much
_HEAPED = 0.7  # the share of pixels in the 16 most frequent colours, each rounded to 4 bits
_SIDE = 512  # JPEGs are decoded at about this size


class Looks:
    """What the pictures of a tree look like; each is examined once."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._seen: dict[str, tuple[str, bool]] = {}

    def mask(self, name: str, *, related: bool = False) -> str:
        """What makes a picture look like a mask ("2 values"), or "" for a photograph, a blank or an unreadable file.

        A JPEG may look so and be a photograph on a plain background: it counts only if its name is `related` to an image's.
        """
        if name not in self._seen:
            try:
                self._seen[name] = self._look(name)
            except (DataError, ValueError, OSError):  # unreadable files are reported when they are inspected
                self._seen[name] = "", False
        what, lossy = self._seen[name]
        return what if related or not lossy else ""

    def _look(self, name: str) -> tuple[str, bool]:
        size = self._tree.size(name)
        with stream(self._tree, name) as file, opened(file, bool(size)) as picture:
            pixels = picture.width * picture.height
            lossy = picture.format in _LOSSY
            if pixels > _SMALL and size > _PHOTO_BYTES.get(picture.format, np.inf) * pixels:
                return "", lossy
            if lossy:
                picture.draft(None, (_SIDE, _SIDE))  # for JPEG only: faster
            if picture.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
                picture = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
            values = np.asarray(picture)
        return (_smooth(values) if lossy else _exact(values)), lossy


def _exact(values: np.ndarray) -> str:
    packed = _packed(values, 0)
    count = len(np.unique(packed))
    if count < 2 or count * 4 > packed.size:
        return ""
    flat = packed.shape[1] > 1 and (packed[:, 1:] == packed[:, :-1]).mean() >= _FLAT
    few = count <= _FEW and values.dtype.itemsize == 1  # a dark image of a 16-bit sensor may have as few
    return f"{count} values" if few or (count <= _MOST and flat) else ""


def _smooth(values: np.ndarray) -> str:
    packed = _packed(values, 4)
    exact = _packed(values, 0)
    flat = exact.shape[1] > 1 and (exact[:, 1:] == exact[:, :-1]).mean() >= _FLAT_LOSSY
    counts = np.unique(packed, return_counts=True)[1]
    heaped = np.sort(counts)[-_FEW:].sum() >= _HEAPED * packed.size
    return "flat areas in a few colours" if flat and heaped and len(counts) > 1 else ""


def _packed(values: np.ndarray, dropped: int) -> np.ndarray:
    """One integer for each pixel, without the lowest bits of every band."""
    bands = values[..., None] if values.ndim == 2 else values
    packed = np.zeros(bands.shape[:2], np.int64)
    for band in range(bands.shape[2]):
        packed = packed << 16 | bands[..., band].astype(np.int64) >> dropped
    return packed
