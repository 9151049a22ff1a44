"""Sizes in bytes: parse and format them."""

import re

from semiseg.data.errors import DataError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_size(size: int | str) -> int:
    """Bytes of "256MB", "64MiB", "1.5G" or a number; DataError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", str(size), re.IGNORECASE)
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or (count := int(float(match[1]) * unit)) < 1:
        raise DataError(f"invalid shard size {size!r}; write it as 256MB, 1GB, 64MiB or a number of bytes")
    return count


def readable(size: float) -> str:
    """Bytes for people: "104 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}" if size < 99.5 and unit != "B" else f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
