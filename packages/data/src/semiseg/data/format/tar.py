"""Tar headers as a function of a member's name and size alone, so that sets have the same bytes everywhere."""

import tarfile
from typing import Literal

BLOCK = tarfile.BLOCKSIZE
END = 2 * BLOCK  # a tar ends with two blocks of zeros, then fills a record
RECORD = tarfile.RECORDSIZE

_SHORT = tarfile.LENGTH_NAME  # characters of a name that need no prefix
_SIZE, _SUM = slice(124, 136), slice(148, 155)  # fields of a header: octal digits and a zero byte


def tar_format(names: list[str]) -> Literal[0, 1]:
    """USTAR, one block per header, or GNU's long names, which all readers support, if a name is too long."""
    if all(len(name) <= _SHORT and name.isascii() for name in names):
        return 0  # tarfile.USTAR_FORMAT, found without tarfile's 20 us per name
    try:
        for name in names:
            tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT)
    except ValueError:
        return 1  # tarfile.GNU_FORMAT
    return 0


def header(name: str, size: int, format: Literal[0, 1]) -> bytes:
    """The bytes before a member's payload: one block, or three or more for a long name."""
    if format == 0 and len(name) <= _SHORT and name.isascii() and size < 8**11:
        encoded, digits = name.encode(), b"%011o" % size
        total = _BLANK_SUM + sum(encoded) + sum(digits)
        blank = _BLANK
        return (
            encoded.ljust(_SHORT, b"\0")
            + blank[_SHORT : _SIZE.start]
            + digits
            + blank[_SIZE.stop - 1 : _SUM.start]
            + b"%06o" % total
            + blank[_SUM.stop - 1 :]
        )
    return _by_tarfile(name, size, format)


def _by_tarfile(name: str, size: int, format: Literal[0, 1]) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(format)


_BLANK = _by_tarfile("", 0, 0)
_BLANK_SUM = int(_BLANK[_SUM].rstrip(b"\0"), 8) - sum(b"%011o" % 0)


def padded(size: int) -> int:
    """A payload's size, rounded up to full blocks."""
    return -(-size // BLOCK) * BLOCK
