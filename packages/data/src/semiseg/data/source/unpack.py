"""Unpack what a stranger has packed: memory is bounded by the size that is expected, not by what is in the data."""

import bz2
import lzma
import struct
import zipfile
import zlib

BOMB, FOLD = 256 << 20, 200  # more bytes than this are not unpacked where they are packed by more than this factor


def is_bomb(size: int, packed: int) -> bool:
    """Whether so much is packed into so little that it is a zip bomb, or no image. Photographs are packed 100-fold at most."""
    return size > BOMB and size > FOLD * packed


def too_large(size: int, packed: int) -> ValueError:
    return ValueError(
        f"its {packed:,} bytes unpack to {size:,} or more; if you trust it, unpack it and name the folder"
    )


def unpacked(packed: bytes, method: int, size: int) -> bytes:
    """The bytes of a zip's member; ValueError or EOFError if they are not `size`. Memory is bounded by `size`."""
    if method == zipfile.ZIP_STORED:
        data, ended = packed, True
    elif method == zipfile.ZIP_DEFLATED:
        deflate = zlib.decompressobj(-zlib.MAX_WBITS)
        data = deflate.decompress(packed, size + 1)
        ended = deflate.eof or not size
    elif method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        other = bz2.BZ2Decompressor() if method == zipfile.ZIP_BZIP2 else _lzma(packed, size)
        start = 0 if method == zipfile.ZIP_BZIP2 else 4 + int.from_bytes(packed[2:4], "little")
        data = other.decompress(packed[start:], size + 1)
        ended = other.eof or method == zipfile.ZIP_LZMA  # whose end is not always marked
    else:
        raise ValueError(f"packed by method {method}; supported are deflate, bzip2 and LZMA: unpack the archive")
    if len(data) > size or not ended:
        raise ValueError(f"it unpacks to other than the {size:,} bytes that the archive says")
    return data


def _lzma(packed: bytes, size: int) -> lzma.LZMADecompressor:
    """The decoder of a member, from the properties before its data; its memory is bounded by `size`."""
    properties, dictionary = struct.unpack_from("<BI", packed, 4)
    if properties >= 9 * 5 * 5:
        raise ValueError("unknown LZMA properties")
    settings = {"lc": properties % 9, "lp": properties // 9 % 5, "pb": properties // 45}
    chain = [{"id": lzma.FILTER_LZMA1, "dict_size": max(min(dictionary, size), 4096)} | settings]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=chain)
