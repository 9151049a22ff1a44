"""Labels in colours as ids, exactly or not at all."""

import functools
from collections.abc import Callable

import numpy as np

from semiseg.data import DataError, decode_image, png_header
from semiseg.datasets.camvid.labels import TABLE, VOID


def read_label(read: Callable[[], bytes], where: str, unknown_as_void: bool) -> np.ndarray:
    """Raw ids of a coloured label that is read when it is needed; see `ids_of`."""
    return ids_of(read(), where, unknown_as_void=unknown_as_void)


def ids_of(data: bytes, where: str, *, unknown_as_void: bool = False) -> np.ndarray:
    """Raw ids, uint8 [height, width], of a PNG in the 32 published colours; `where` names it in errors.

    Raises DataError for a file that is damaged or no PNG of colours, and for a colour that is not published, with its
    first pixel; `unknown_as_void` makes such pixels Void instead.
    """
    try:
        _, kind = png_header(data)
        if kind not in (2, 3, 6):
            raise DataError("the label is a grey PNG; expected one in the colours of label_colors.txt")
        colours = np.asarray(decode_image(data, verify=True).convert("RGB"))
    except DataError as error:
        raise DataError(f"{where}: {error}; get the file anew") from error
    codes = _code(colours.astype(np.int32))
    published, ids = _lookup()
    places = np.minimum(np.searchsorted(published, codes), len(published) - 1)
    strange = published[places] != codes
    found = ids[places]
    if strange.any():
        if not unknown_as_void:
            _refuse(colours, strange, where)
        found[strange] = VOID
    return found


def _refuse(colours: np.ndarray, strange: np.ndarray, where: str) -> None:
    y, x = (int(i) for i in np.argwhere(strange)[0])
    colour = colours[y, x].astype(int)
    name, (nearest, _) = min(TABLE.items(), key=lambda item: int(((np.array(item[1][0]) - colour) ** 2).sum()))
    raise DataError(
        f"{where}: pixel x={x}, y={y} has the colour {_say(colour)}, which is not in label_colors.txt (nearest: "
        f"{_say(nearest)}, {name}); {int(strange.sum())} pixels of the file are of such colours; get the file anew, or "
        "read them as Void with the option unknown_as_void=true"
    )


@functools.cache
def _lookup() -> tuple[np.ndarray, np.ndarray]:
    """The published colours as sorted numbers, and the id of each."""
    codes = _code(np.array([colour for colour, _ in TABLE.values()], np.int32))
    order = np.argsort(codes)
    return codes[order], order.astype(np.uint8)


def _code(colours: np.ndarray) -> np.ndarray:
    """One number a colour, int32 [...], of [..., 3]."""
    return colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]


def _say(colour: "np.ndarray | tuple[int, int, int]") -> str:
    return " ".join(str(int(channel)) for channel in colour)
