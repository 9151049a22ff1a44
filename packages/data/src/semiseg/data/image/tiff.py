"""Bands of a TIFF, of which Pillow returns the first three if it does not know what the others are."""

import io
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

_BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA, _FORMAT = 258, 262, 277, 338, 339
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3}  # of photometric interpretations
_ALPHA = (1, 2)  # associated and unassociated
_UNASSOCIATED = 2


@dataclass(frozen=True)
class TiffBands:
    """What a TIFF says about its bands: how many there are, how many of them are colours, whether alpha follows these."""

    count: int
    colours: int
    alpha: bool
    bits: tuple[int, ...]
    signed: bool

    @classmethod
    def of(cls, picture: Any) -> "TiffBands":
        """Of an open TIFF."""
        tags = picture.tag_v2
        count = int(tags.get(_SAMPLES, 1))
        colours = min(count, _COLOURS.get(tags.get(_PHOTOMETRIC, 1), 3))
        extra = tags.get(_EXTRA, ())
        extra = extra if isinstance(extra, tuple) else (extra,)
        bits = tags.get(_BITS, (8,))
        signed = 2 in tuple(tags.get(_FORMAT, (1,)))
        return cls(count, colours, bool(extra) and extra[0] in _ALPHA, tuple(bits), signed)


def with_fourth_band(file: BinaryIO) -> BinaryIO:
    """A TIFF whose fourth band is called alpha, so that Pillow returns it unchanged; any other file as it is."""
    data = bytearray(file.read())
    file.seek(0)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(data[:4]))
    if order is None:
        return file
    try:
        (first,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, _, values = struct.unpack_from(f"{order}HHI", data, entry)
            if tag == _EXTRA:
                place = entry + 8 if values <= 2 else struct.unpack_from(f"{order}I", data, entry + 8)[0]
                struct.pack_into(f"{order}H", data, place, _UNASSOCIATED)
    except struct.error:
        return file  # damaged: opening it says so
    return io.BytesIO(bytes(data))
