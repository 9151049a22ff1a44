"""The header of a member in a tar: a function of its name and size alone, so that sets are the same bytes everywhere."""

import tarfile
from typing import Literal

BLOCK = tarfile.BLOCKSIZE


def tar_format(names: list[str]) -> Literal[0, 1]:
    """USTAR, one block a header, unless a name is too long for it: then GNU's long names, which all readers know."""
    try:
        for name in names:
            tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT)
    except ValueError:
        return 1  # tarfile.GNU_FORMAT
    return 0  # tarfile.USTAR_FORMAT


def header(name: str, size: int, format: Literal[0, 1]) -> bytes:
    """The bytes before a member's payload: one block, or three and more where the name is long."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(format)


def padded(size: int) -> int:
    """Bytes that a payload takes in whole blocks."""
    return -(-size // BLOCK) * BLOCK
