"""EXIF's orientation: the `datasets` library turns pictures by it when it decodes them, shards hold pixels as stored.

So what comes in is turned once and for all, and what goes out says that it is upright.
"""

import io
import re
import struct
from typing import Any

from PIL import Image, ImageOps

ORIENTATION = 0x0112  # the EXIF tag
_PNG = b"\x89PNG\r\n\x1a\n"
_TOLD = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # where a PNG may tell how to turn it
_XMP = re.compile(rb'(tiff:Orientation(?:="|>))[2-8]')


def orientation(data: bytes) -> int:
    """2..8 for a picture that its file says to turn, as the library understands it; else 1, for broken files too."""
    if data.startswith(_PNG) and not any(sign in data for sign in _TOLD):
        return 1  # Pillow would decode it for EXIF that may come after its pixels
    try:
        with Image.open(io.BytesIO(data)) as picture:
            found = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # decoders fail in many ways; whoever decodes the picture says how
        return 1
    return found if found in range(2, 9) else 1


def upright(data: bytes) -> bytes:
    """An image's file, or, where EXIF turns it, another with its pixels upright: of a JPEG a JPEG, else a PNG.

    The kind stays since a set holds one kind. A JPEG that is turned loses as little as quality 95 without subsampling does.
    """
    if orientation(data) == 1:
        return data
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.format == "TIFF":
                return data  # Pillow turns it whenever it decodes it
            return _saved(ImageOps.exif_transpose(picture), picture.format)
    except Exception:  # as above
        return data


def as_stored(data: bytes) -> bytes:
    """A JPEG or PNG that is shown as its pixels are stored: the same bytes but for the orientation, where that is possible."""
    if orientation(data) == 1:
        return data
    for patched in (_exif_patched(data), _XMP.sub(rb"\g<1>1", data)) if not data.startswith(_PNG) else ():
        if orientation(patched) == 1:
            return patched
    with Image.open(io.BytesIO(data)) as picture:
        return _saved(picture, picture.format)


def _exif_patched(data: bytes) -> bytes:
    """A JPEG with the orientation of its EXIF set to 1, as far as it is found in its usual place."""
    patched = bytearray(data)
    start = data.find(b"Exif\0\0") + 6
    order = "<" if data[start : start + 2] == b"II" else ">"
    try:
        first = start + struct.unpack_from(f"{order}I", data, start + 4)[0]
        (count,) = struct.unpack_from(f"{order}H", data, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            if struct.unpack_from(f"{order}H", data, entry)[0] == ORIENTATION:
                struct.pack_into(f"{order}H", patched, entry + 8, 1)
    except struct.error:
        return data
    return bytes(patched)


def _saved(picture: Any, kind: str | None) -> bytes:
    stream = io.BytesIO()
    if kind in ("JPEG", "MPO"):
        picture.save(stream, "JPEG", quality=95, subsampling=0, exif=b"")
    else:
        picture.save(stream, "PNG", exif=b"")
    return stream.getvalue()
