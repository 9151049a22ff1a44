"""Check a sample and encode it for a tar: its members as bytes, and its row of the index.

Images stay as published; labels become one-band PNGs of raw ids. Broken files are found here, where they can be named, and
not during training.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semiseg.data.errors import DataError
from semiseg.data.format.manifest import canonical, members
from semiseg.data.format.row import content, flags, statistics
from semiseg.data.image.convert import Conversion
from semiseg.data.image.decode import (
    TAGS,
    Bomb,
    check_kind,
    decode_image,
    image_kind,
    png_header,
    png_pixels,
    unknown_id,
)
from semiseg.data.source.adapter import RawSample
from semiseg.data.source.archive import Entry
from semiseg.data.taxonomy import ranges


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What all samples of a set have in common."""

    dataset: str
    split: str
    labeled: bool
    image: str
    conversion: Conversion
    first: str  # the sample that determined the kind of image, for messages
    raw_space: str
    raw_ids: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Members in the order of the tar, and the columns of the index that do not depend on their offsets."""

    key: str
    members: dict[str, bytes]
    row: dict[str, Any]


def encode(sample: RawSample, contents: Contents) -> Encoded:
    """Check one sample and encode its members; DataError says which sample, what is wrong and what to do."""
    where = f"{contents.dataset}/{contents.split}: {describe(sample)}"
    image = fetch(where, "image", sample.image)
    if contents.conversion.kind is None:
        check_kind(where, image_kind(where, image), contents.first, contents.image)
    try:
        if not image:
            raise DataError("the image is empty")
        picture = decode_image(image, verify=True)
    except DataError as error:
        raise DataError(f"{where}: {error}; {_remedy(error)}") from error
    meta = canonical({**sample.meta, "key": sample.key, "tags": TAGS.join(sample.tags)})
    original = picture.size
    image, picture = contents.conversion.image(image, picture, contents.image)
    payloads = [image, meta]
    label = None
    if sample.label is not None:
        where = f"{contents.dataset}/{contents.split}: {describe(sample, label=True)}"
        stored, label = _label(where, fetch(where, "label", sample.label), max(contents.raw_ids))
        if label.shape[::-1] != original:
            label_size, image_size = (f"{width}x{height}" for width, height in (label.shape[::-1], original))
            raise DataError(
                f"{where}: the label is {label_size} pixels, the image {image_size}; "
                "they must have the same size: is it the label of this image?"
            )
        strange = unknown_id(label, contents.raw_ids)
        if strange is not None:
            raise DataError(
                f"{where}: the label {strange}; ids of raw space '{contents.raw_space}': {ranges(contents.raw_ids)}; "
                "correct the label, or add the id to the adapter's raw space if it belongs there"
            )
        resized = contents.conversion.label(label)
        if resized is not label or contents.conversion.kind is not None:
            stored, label = _png(resized), resized
        payloads.insert(1, stored)
    row = {
        "key": sample.key,
        "height": picture.height,
        "width": picture.width,
        "tags": list(sample.tags),
        "flags": flags(picture, label),
        "content": content(sample.key, image, label, meta),
        "stats": [] if label is None else statistics(label),
    }
    return Encoded(sample.key, dict(zip(members(contents.image, label is not None), payloads, strict=True)), row)


def describe(sample: RawSample, *, label: bool = False) -> str:
    """A sample's key and publisher's name, for messages; with the file of its label if that is known."""
    source, mask = sample.meta.get("source"), sample.meta.get("mask")
    if label and mask is None:
        mask = _file(sample.label)
    named = [f"source {source}"] * (source is not None) + [f"label {mask}"] * (label and mask is not None)
    return f"sample '{sample.key}'" + (f" ({', '.join(named)})" if named else "")


def _file(read: Any) -> str | None:
    """The file that a member is read from, if it is a partial with a file, or with such a partial, as an argument."""
    arguments: tuple[Any, ...] = read.args if isinstance(read, partial) else ()
    for value in arguments:
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, Entry):
            return f"{arguments[0]}: {value.name}"
        if isinstance(value, partial) and (found := _file(value)) is not None:
            return found
    return None


def fetch(where: str, member: str, value: Any) -> Any:
    """A member's bytes, or a label's array; errors in an adapter's function name the sample."""
    if not callable(value):
        return value
    try:
        return value()
    except DataError as error:
        raise DataError(f"{where}: {member}: {error}") from error
    except Exception as error:  # adapters are third-party code: a worker's traceback would not name the sample
        what = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
        file = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
        raise DataError(
            f"{where}: the {member} could not be read{file} ({what}); restore it, or leave it out"
        ) from error


def crc32(data: bytes) -> int:
    return zlib.crc32(data)


def _label(where: str, value: Any, largest: int) -> tuple[bytes, np.ndarray]:
    """The stored bytes and raw ids of a label given as a PNG or as an array; `largest` id of the raw space."""
    if isinstance(value, np.ndarray):
        return _from_array(where, value, largest)
    remedy = "give the ids as an 8 or 16 bit greyscale or palette PNG"
    if isinstance(value, bytes) and not value:
        remedy = "replace the file with an intact copy, or leave it out"
    try:
        depth, colour = png_header(value)
        grey, palette = colour == 0, colour == 3
        if not grey and not palette:
            raise DataError("the label is a PNG with colours or transparency, not with ids")
        if grey and depth < 8:
            raise DataError(f"the label is a greyscale PNG of {depth} bits, which readers scale in different ways")
        ids = png_pixels(value, verify=True)
    except DataError as error:
        raise DataError(f"{where}: {error}; {_remedy(error) if isinstance(error, Bomb) else remedy}") from error
    return (bytes(value), ids) if grey else (_png(ids), ids)


def _from_array(where: str, ids: np.ndarray, largest: int) -> tuple[bytes, np.ndarray]:
    if ids.ndim != 2 or ids.dtype.kind not in "biu":
        what = f"an array of {ids.dtype} {list(ids.shape)}; expected integer ids [height, width]"
        raise DataError(f"{where}: the label is {what}; correct the adapter")
    low, high = (int(ids.min()), int(ids.max())) if ids.size else (0, 0)
    if low < 0 or high > 0xFFFF:
        what = f"the label holds ids {low} to {high}; a stored label holds 0 to 65535"
        raise DataError(f"{where}: {what}; correct the adapter")
    # The raw space determines the type, not the sample: all labels of a set have one type.
    ids = np.ascontiguousarray(ids, np.uint16 if max(largest, high) > 0xFF else np.uint8)
    return _png(ids), ids


def _remedy(error: DataError) -> str:
    """What to do about a refused image."""
    if isinstance(error, Bomb):
        return "a small file with that many may be made to exhaust memory: leave it out; cut a genuine one into tiles"
    return "replace the file with an intact copy, or leave it out"


def _png(ids: np.ndarray) -> bytes:
    """A greyscale PNG without row filters, which is smaller for ids, and decodes in half the time."""
    height, width = ids.shape
    rows = np.zeros((height, 1 + width * ids.itemsize), np.uint8)  # each row starts with its filter: 0, none
    rows[:, 1:] = ids.astype(ids.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    start = struct.pack(">IIBBBBB", width, height, 8 * ids.itemsize, 0, 0, 0, 0)
    chunks = [(b"IHDR", start), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
