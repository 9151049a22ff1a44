"""Coloured labels to ids; a colour that is not in the published table is an error."""

import functools
from collections.abc import Callable

import numpy as np

from semiseg.data import DataError, decode_image, png_header
from semiseg.datasets.camvid.labels import TABLE, VOID


def read_label(read: Callable[[], bytes], where: str, unknown_as_void: bool) -> np.ndarray:
    """Raw ids of a coloured label, read when called; see `ids_of`."""
    return ids_of(read(), where, unknown_as_void=unknown_as_void)


def ids_of(data: bytes, where: str, *, unknown_as_void: bool = False) -> np.ndarray:
    """Raw ids, uint8 [height, width], of a PNG in the 32 published colours; `where` names it in errors.

    Raises DataError for a file that is damaged or not a PNG in colours, and for a colour that is not published, with its
    first pixel; with `unknown_as_void` such pixels become Void instead.
    """
    try:
        _, kind = png_header(data)
        if kind not in (2, 3, 6):
            raise DataError("the label is a grey PNG; expected the colours of label_colors.txt")
        colours = np.asarray(decode_image(data, verify=True).convert("RGB"))
    except DataError as error:
        raise DataError(f"{where}: {error}; download the file again") from error
    codes = _code(colours.astype(np.int32))
    published, ids = _lookup()
    positions = np.minimum(np.searchsorted(published, codes), len(published) - 1)
    unpublished = published[positions] != codes
    found = ids[positions]
    if unpublished.any():
        if not unknown_as_void:
            _reject_unpublished(colours, unpublished, where)
        found[unpublished] = VOID
    return found


def _reject_unpublished(colours: np.ndarray, unpublished: np.ndarray, where: str) -> None:
    y, x = (int(i) for i in np.argwhere(unpublished)[0])
    colour = colours[y, x].astype(int)
    name, (nearest, _) = min(TABLE.items(), key=lambda item: int(((np.array(item[1][0]) - colour) ** 2).sum()))
    raise DataError(
        f"{where}: pixel x={x}, y={y} has the colour {_text(colour)}, which is not in label_colors.txt (nearest: "
        f"{_text(nearest)}, {name}); {int(unpublished.sum())} pixels of the file have such colours; download the file again, "
        "or treat them as Void with the option unknown_as_void=true"
    )


@functools.cache
def _lookup() -> tuple[np.ndarray, np.ndarray]:
    """The published colours as sorted codes, and their ids."""
    codes = _code(np.array([colour for colour, _ in TABLE.values()], np.int32))
    order = np.argsort(codes)
    return codes[order], order.astype(np.uint8)


def _code(colours: np.ndarray) -> np.ndarray:
    """Colours [..., 3] as one number each, int32 [...]."""
    return colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]


def _text(colour: "np.ndarray | tuple[int, int, int]") -> str:
    return " ".join(str(int(channel)) for channel in colour)
