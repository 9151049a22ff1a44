"""JSON from files: strict, so that two readers can't understand one file differently, and limited, so that none is slow."""

import json
import math
import re
from typing import Any

LARGEST = 256 << 20  # bytes; the manifest of a million shards has as many
DEEPEST = 64  # levels of lists and objects; our files have 5
_DIGITS = 20  # of an integer; counts and offsets have at most 19
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"|([\[{])|([\]}])', re.DOTALL)


def parse_json(data: bytes | str) -> Any:
    """The value; ValueError that says what is wrong.

    Refuses what other readers refuse or read in another way: names given twice, NaN and infinities, text that is not UTF-8,
    half characters, integers of more than 20 digits, numbers that are no 64-bit numbers, and more than 64 levels.
    """
    if len(data) > LARGEST:
        raise ValueError(f"{len(data):,} bytes; expected at most {LARGEST:,}")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text: {error.reason} at byte {error.start}") from None
    _check_depth(text)
    value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse, parse_int=_integer, parse_float=_float)
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it has half of a character (a lone surrogate)") from None
    return value


def _check_depth(text: str) -> None:
    if max(text.count("["), text.count("{")) <= DEEPEST // 2:
        return
    depth = 0
    for match in _BRACKET.finditer(text):
        depth += 1 if match[1] else -1 if match[2] else 0
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} levels of lists and objects")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"'{twice[:80]}' is given twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:20]} is larger than any 64-bit number")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
