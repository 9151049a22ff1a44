"""The bare values of a recipe: a TOML file, `key=value` arguments laid over it, and where each value came from."""

import re
import tomllib
from collections.abc import Sequence
from datetime import date, time
from pathlib import Path
from typing import Any

from semiseg.train.recipe.lines import KeyPath, lines
from semiseg.train.recipe.problems import Origin, RecipeError, dotted, show

_NOTHING = object()  # the value of `key=`


def read(path: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], Origin]:
    """The bare TOML values with the arguments laid over them, and where each came from. Raises RecipeError."""
    text = ""
    try:
        text = Path(path).read_text(encoding="utf-8")
        raw = tomllib.loads(text)
    except OSError as error:
        raise RecipeError(
            [f"{path}: cannot read this recipe ({error.strerror}); `semiseg recipe ls` lists some"]
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError([f"{path}: not a text in UTF-8 ({error.reason} at byte {error.start})"]) from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError([_syntax(path, text, error)]) from error
    found, arguments, faults = lines(text), dict[KeyPath, str](), list[str]()
    for argument in overrides:
        try:
            key = _override(raw, *_parse(argument))
        except ValueError as error:
            faults.append(f"argument '{argument}': {error}")
            continue
        for known in (found, arguments):
            for replaced in [path for path in known if path[: len(key)] == key]:
                del known[replaced]
        made = [key[:end] for end in range(1, len(key) + 1) if key[:end] not in found]
        arguments.update({path: argument for path in made if path not in arguments})
    if faults:
        raise RecipeError(faults)
    return raw, Origin(str(path), found, arguments)


def _syntax(path: str | Path, text: str, error: tomllib.TOMLDecodeError) -> str:
    reason, _, place = str(error).partition(" (at ")
    numbers = re.findall(r"\d+", place)
    line, column = (numbers[0], f" (column {numbers[1]})") if numbers else (text.rstrip().count("\n") + 1, "")
    return f"{path}:{line}: not TOML: {reason[:1].lower()}{reason[1:]}{column}"


def _parse(argument: str) -> tuple[list[str], Any]:
    """Key and value of `key=value`; the value _NOTHING where it is empty."""
    typed, equals, value = argument.partition("=")
    if not equals or not typed.strip():
        raise ValueError("expected key=value, such as steps=100, or key= to take a key away")
    try:
        table: Any = tomllib.loads(f"{typed} = 0")
    except tomllib.TOMLDecodeError:
        raise ValueError(f"'{typed}' is not a dotted key; quote its odd parts: a.\"b c\".d") from None
    key: list[str] = []
    while isinstance(table, dict):
        part, table = next(iter(table.items()))
        key.append(part)
    return key, _read_value(value) if value.strip() else _NOTHING


def _read_value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # no key holds a date, and written out again it would look different
    return text if len(table) > 1 or isinstance(table["value"], date | time) else table["value"]


def _override(raw: dict[str, Any], key: Sequence[str], value: Any) -> KeyPath:
    """Set one value in place and say where; ValueError where the way there is blocked."""
    at: Any = raw
    path: KeyPath = ()
    for position, part in enumerate(key, start=1):
        if isinstance(at, list):
            if not (part.isdigit() and int(part) < len(at)):
                raise ValueError(f"'{dotted(path)}' has {len(at)} items, counted from 0; '{part}' is none of them")
            step: Any = int(part)
        elif isinstance(at, dict):
            step = part
        else:
            raise ValueError(f"'{dotted(path)}' is {show(at)}, which has no '{part}'")
        path = (*path, step)
        if position < len(key):
            at = at.setdefault(step, {}) if isinstance(at, dict) else at[step]
        elif value is not _NOTHING:
            at[step] = value
        elif isinstance(at, dict) and step in at:
            del at[step]
        else:
            raise ValueError("there is nothing to take away: that key is not set, or is an item of a list")
    return path
