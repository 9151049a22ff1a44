"""EXIF orientation: the `datasets` library rotates images by it when decoding, but shards hold pixels as stored.

Therefore imported images are rotated once, and exported images are marked as upright.
"""

import io
import re
import struct
from typing import Any

from PIL import Image, ImageOps

from semiseg.data import image_formats

ORIENTATION = 0x0112  # the EXIF tag
_PNG = b"\x89PNG\r\n\x1a\n"
_MARKERS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # where a PNG may hold an orientation
_XMP = re.compile(rb'(tiff:Orientation(?:="|>))[2-8]')


def orientation(data: bytes) -> int:
    """2..8 for an image that the library would rotate; otherwise 1, also for damaged files."""
    if data.startswith(_PNG) and not any(sign in data for sign in _MARKERS):
        return 1  # Pillow would decode all pixels to find EXIF data after them
    try:
        with Image.open(io.BytesIO(data), formats=image_formats()) as picture:
            found = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # many kinds of errors; decoding the image later reports them
        return 1
    return found if found in range(2, 9) else 1


def upright(data: bytes) -> bytes:
    """The file of an image; if EXIF rotates it, a new file with upright pixels: JPEG for a JPEG, otherwise PNG.

    The kind is kept because a set holds one kind. A rotated JPEG is written with quality 95, without subsampling.
    """
    if orientation(data) == 1:
        return data
    try:
        with Image.open(io.BytesIO(data), formats=image_formats()) as picture:
            if picture.format == "TIFF":
                return data  # Pillow rotates it when decoding
            return _saved(ImageOps.exif_transpose(picture), picture.format)
    except Exception:  # as above
        return data


def as_stored(data: bytes) -> bytes:
    """A JPEG or PNG that is shown as stored: the same bytes except for the orientation, if possible."""
    if orientation(data) == 1:
        return data
    for patched in (_exif_patched(data), _XMP.sub(rb"\g<1>1", data)) if not data.startswith(_PNG) else ():
        if orientation(patched) == 1:
            return patched
    with Image.open(io.BytesIO(data), formats=image_formats()) as picture:
        return _saved(picture, picture.format)


def _exif_patched(data: bytes) -> bytes:
    """A JPEG with its EXIF orientation set to 1, if it is found in the usual place."""
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
