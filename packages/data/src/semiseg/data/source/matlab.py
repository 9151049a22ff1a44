"""Check MATLAB files (version 5) before scipy reads them: its reader trusts sizes and depths, and ends the process.

A file is a header of 128 bytes and elements: a type, a size and data. Arrays (type 14) hold elements: flags with the class,
dimensions, a name, then numbers, or for cells and structs one array for each value. Compressed elements have type 15.
"""

import math
import struct
import zlib

MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, OBJECT, SPARSE, FUNCTION, OPAQUE = 1, 2, 3, 5, 16, 17
DEEPEST = 16  # cells in cells; those of published files have 4
_HEADER = 128


def checked_mat(data: bytes, variable: str, most: int) -> bytes:
    """A file with this variable only, not compressed, for `scipy.io.loadmat`; ValueError for a file that can't be trusted.

    most: bytes of the variable, unpacked. Files of other versions, of which version 7.3 is HDF5, are refused.
    """
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI") or not any(data[:4]):
        raise ValueError("not a MATLAB file of version 5")
    order = "<" if data[126:128] == b"IM" else ">"
    if data[125 if order == "<" else 124] != 1:
        raise ValueError("not a MATLAB file of version 5; version 7.3 is HDF5")
    at, found = _HEADER, []
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if size > len(data) - at - 8:
            raise ValueError("it is cut off")
        element = data[at : at + 8 + size]
        if kind == COMPRESSED:
            head = zlib.decompressobj().decompress(element[8:], 512)
            if _name(head, order) == variable.encode():
                stream = zlib.decompressobj()
                element = stream.decompress(element[8:], most + 1)
                if len(element) > most or not stream.eof:
                    raise ValueError(f"{variable} unpacks to more than {most:,} bytes, or is cut off")
        if _name(element, order) == variable.encode():
            _check(_Array(element, order))
            found.append(element)
        at += 8 + size
    if len(found) != 1:
        raise ValueError(f"it has {variable} {len(found)} times" if found else f"it has no variable {variable}")
    return data[:_HEADER] + found[0]


class _Array:
    """The elements of one variable, read in order."""

    def __init__(self, data: bytes, order: str) -> None:
        self.data, self.at = data, 0
        self.long, self.short = struct.Struct(f"{order}II"), struct.Struct(f"{order}HH")
        self.order = order

    def tag(self) -> tuple[int, int, int]:
        """Type, size and place of an element's data; `at` moves behind it (or to it, for an array)."""
        kind, size = self.long.unpack_from(self.data, self.at)
        place = self.at + 8
        if kind >> 16:  # up to four bytes, in the tag itself
            size, kind = kind >> 16, kind & 0xFFFF
            place -= 4
            if size > 4:
                raise ValueError("an element with a false size")
            self.at += 8
        else:
            self.at = place if kind == MATRIX else place + size + -size % 8
        if place + size > len(self.data):
            raise ValueError("an element that is cut off")
        return kind, size, place


def _check(array: _Array, depth: int = 0) -> None:
    """ValueError unless an array's parts have the sizes that it says; scipy reads them by other rules than their sizes."""
    kind, size, place = array.tag()
    if kind != MATRIX:
        raise ValueError(f"an element of type {kind} in place of an array")
    if not size:
        return
    end = place + size
    if size % 8 or depth > DEEPEST:
        raise ValueError(f"cells or structs of more than {DEEPEST} levels" if depth > DEEPEST else "a false size")
    _, count, flags = array.tag()
    if count != 8:
        raise ValueError("an array with false flags")
    group = struct.unpack_from(f"{array.order}I", array.data, flags)[0] & 0xFF
    inner = 1
    if group == OPAQUE:
        for _ in range(3):
            array.tag()
    else:
        _, count, dimensions = array.tag()
        sizes = struct.unpack_from(f"{array.order}{count // 4}i", array.data, dimensions)
        if not 2 <= len(sizes) <= 32 or min(sizes) < 0:
            raise ValueError(f"an array with dimensions {sizes[:8]}")
        array.tag()
        inner = math.prod(sizes) if group in (CELL, STRUCT, OBJECT) else int(group == FUNCTION)
        if not inner and group != SPARSE and math.prod(sizes) > size:
            raise ValueError(f"an array of {math.prod(sizes):,} values in {size:,} bytes")
        if group == OBJECT:
            array.tag()
        if group in (STRUCT, OBJECT):
            _, _, longest = array.tag()
            _, names, _ = array.tag()
            length = struct.unpack_from(f"{array.order}i", array.data, longest)[0]
            if length <= 0 or names % length:
                raise ValueError("a struct with false names")
            inner *= names // length
    if inner > size // 8:
        raise ValueError(f"an array of {inner:,} values in {size:,} bytes")
    for _ in range(inner):
        _check(array, depth + 1)
    while not inner and array.at < end:
        if array.tag()[0] == MATRIX:
            raise ValueError("an array among numbers")
    if array.at != end:
        raise ValueError("an array whose parts are larger or smaller than it is")


def _name(data: bytes, order: str) -> bytes | None:
    """The name of a variable, from its first bytes."""
    array = _Array(data, order)
    array.data = data.ljust(512, b"\0")
    try:
        if array.long.unpack_from(array.data, 0)[0] != MATRIX:
            return None
        array.at = 8
        array.tag()
        array.tag()
        _, size, place = array.tag()
        return array.data[place : place + size]
    except (ValueError, struct.error):
        return None
