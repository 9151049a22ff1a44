"""Bands of a TIFF, of which Pillow returns the first three if it does not know what the others are."""

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

_BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA, _FORMAT = 258, 262, 277, 338, 339
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3}  # of photometric interpretations
_ALPHA = (1, 2)  # associated and unassociated
_UNASSOCIATED = 2
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_SHORT, _MOST = 3, 1000  # the type of 16-bit values, and the most bands that are looked at


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


def describe_tiff(file: BinaryIO) -> str:
    """The bands of a TIFF that Pillow does not open, and what to do; "" for any other file."""
    file.seek(0)
    data = file.read()
    found = {tag: values for tag, _, values in _short_tags(data)}
    if _SAMPLES not in found and _BITS not in found:
        return ""
    count, bits = found.get(_SAMPLES, (1,))[0], found.get(_BITS, (1,))[0]
    kind = {2: "signed ", 3: "floating point "}.get(found.get(_FORMAT, (1,))[0], "")
    chosen = " ".join(f"-b {band}" for band in range(1, 4 if count > 2 else 2))
    return (
        f"a TIFF of {count} {kind}band{'s' * (count != 1)} of {bits} bits; write 8-bit bands: gdal_translate -ot Byte -scale "
        f"{chosen} IN.tif OUT.tif"
    )


def with_fourth_band(file: BinaryIO) -> BinaryIO:
    """A TIFF whose fourth band is called alpha, so that Pillow returns it unchanged; any other file as it is."""
    data = bytearray(file.read())
    file.seek(0)
    for tag, place, _ in _short_tags(data):
        if tag == _EXTRA:
            struct.pack_into(f"{_ORDERS[bytes(data[:4])]}H", data, place, _UNASSOCIATED)
    return io.BytesIO(bytes(data))


def _short_tags(data: bytes | bytearray) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """(tag, place of its values, values) of the 16-bit tags of the first page; none for other or damaged files."""
    order = _ORDERS.get(bytes(data[:4]))
    if order is None:
        return
    with suppress(struct.error):
        (first,) = struct.unpack_from(f"{order}I", data, 4)
        (entries,) = struct.unpack_from(f"{order}H", data, first)
        for entry in range(first + 2, first + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(f"{order}HHI", data, entry)
            if kind != _SHORT or not 0 < count <= _MOST:
                continue
            place = entry + 8 if count <= 2 else struct.unpack_from(f"{order}I", data, entry + 8)[0]
            yield tag, place, struct.unpack_from(f"{order}{count}H", data, place)
