"""The plain values of a recipe: a TOML file, overridden by `key=value` arguments, and where each value came from."""

import re
import tomllib
from collections.abc import Sequence
from datetime import date, time
from pathlib import Path
from typing import Any

from semiseg.train.recipe.limits import ARGUMENTS, LARGEST, beyond_limits
from semiseg.train.recipe.lines import KeyPath, lines
from semiseg.train.recipe.problems import Origin, RecipeError, dotted, shortened, show

LONG_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){64}""")
_NOTHING = object()  # the value of `key=`


def read(path: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], Origin]:
    """The plain TOML values, overridden by the arguments, and where each came from. Raises RecipeError."""
    text = ""
    try:
        text = _text(Path(path))
        raw = tomllib.loads(text)
    except OSError as error:
        raise RecipeError(
            [f"{shortened(str(path))}: cannot be read ({error.strerror}); `semiseg recipe ls` lists the included ones"]
        ) from error
    except UnicodeDecodeError as error:
        what = f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        raise RecipeError([what]) from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError([_syntax(path, text, error)]) from error
    except RecursionError:
        what = f"{path}: tables and lists too deep to read; is this the right file?"
        raise RecipeError([what]) from None
    except ValueError as error:  # a NUL in the path, or an integer of thousands of digits
        what = f"{shortened(str(path))}: cannot be read ({str(error).partition(';')[0]}); correct it"
        raise RecipeError([what]) from error
    if problems := list(beyond_limits(raw)):
        numbered = {} if any(problem.path == () for problem in problems) else lines(text)
        raise RecipeError(Origin(str(path), numbered, {}).report(problems[:20]))
    if len(overrides) > ARGUMENTS:
        raise RecipeError([f"{len(overrides):,} arguments, expected {ARGUMENTS:,} at most; write them into a recipe"])
    found, arguments, faults = lines(text), dict[KeyPath, str](), list[str]()
    for argument in overrides:
        try:
            key = _override(raw, *_parse(argument))
        except ValueError as error:
            faults.append(f"argument '{shortened(argument)}': {error}")
            continue
        removed = argument.partition("=")[2].strip() == "" and isinstance(key[-1], int)
        for known in (found, arguments):
            if removed:  # the items after it move up
                _move_up(known, key)
                continue
            for replaced in [path for path in known if path[: len(key)] == key]:
                del known[replaced]
        if removed:
            continue
        made = [key[:end] for end in range(1, len(key) + 1) if key[:end] not in found]
        arguments.update({path: argument for path in made if path not in arguments})
    if faults:
        raise RecipeError(faults)
    origin = Origin(str(path), found, arguments)
    if arguments and (problems := list(beyond_limits(raw))):
        raise RecipeError(origin.report(problems[:20]))
    return raw, origin


def _move_up(known: dict[KeyPath, Any], removed: KeyPath) -> None:
    """Renumber the items of a list after the removed one."""
    stem, number = removed[:-1], removed[-1]
    moved: dict[KeyPath, Any] = {}
    for path, value in known.items():
        inside = len(path) >= len(removed) and path[: len(stem)] == stem
        place = path[len(stem)] if inside else -1
        if place == number:
            continue
        if isinstance(place, int) and isinstance(number, int) and place > number:
            path = (*stem, place - 1, *path[len(removed) :])
        moved[path] = value
    known.clear()
    known.update(moved)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise RecipeError([f"{path}: more than {LARGEST // 1000} kB; a recipe has a few: is this the right file?"])
    text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    if LONG_KEY.search(text):  # tomllib takes time with the square of its parts
        raise RecipeError([f"{path}: a key of more than 64 parts; is this the right file?"])
    return text


def _syntax(path: str | Path, text: str, error: tomllib.TOMLDecodeError) -> str:
    reason, _, place = str(error).partition(" (at ")
    numbers = re.findall(r"\d+", place)
    line, column = (numbers[0], f" (column {numbers[1]})") if numbers else (text.rstrip().count("\n") + 1, "")
    return f"{path}:{line}: not TOML: {reason[:1].lower()}{reason[1:]}{column}"


def _parse(argument: str) -> tuple[list[str], Any]:
    """Key and value of `key=value`; _NOTHING for an empty value."""
    typed, equals, value = argument.partition("=")
    if not equals or not typed.strip():
        raise ValueError("expected key=value, such as steps=100, or key= to remove a key")
    if len(typed) > 1000:
        raise ValueError(f"a key of {len(typed):,} characters; `semiseg recipe show` lists the keys")
    try:
        table: Any = tomllib.loads(f"{typed} = 0")
    except tomllib.TOMLDecodeError:
        raise ValueError(
            f"'{shortened(typed)}' is not a dotted key; quote parts with special characters: a.\"b c\".d"
        ) from None
    key: list[str] = []
    while isinstance(table, dict):
        part, table = next(iter(table.items()))
        key.append(part)
    return key, _read_value(value) if value.strip() else _NOTHING


def _read_value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # not TOML, thousands of digits, or of brackets
        return text
    # no key takes a date, and writing one out again would change its format
    return text if len(table) > 1 or isinstance(table["value"], date | time) else table["value"]


def _override(raw: dict[str, Any], key: Sequence[str], value: Any) -> KeyPath:
    """Set one value in place and return its path; ValueError if there is no such place."""
    at: Any = raw
    path: KeyPath = ()
    for position, part in enumerate(key, start=1):
        if isinstance(at, list):
            if not (part.isdigit() and int(part) < len(at)):
                raise ValueError(f"'{dotted(path)}' has {len(at)} items, numbered from 0; there is no item '{part}'")
            step: Any = int(part)
        elif isinstance(at, dict):
            step = part
        else:
            raise ValueError(f"'{dotted(path)}' is {show(at)}, which has no key '{part}'")
        path = (*path, step)
        if position < len(key):
            at = at.setdefault(step, {}) if isinstance(at, dict) else at[step]
        elif value is not _NOTHING:
            at[step] = value
        elif isinstance(at, list) or step in at:
            del at[step]
        else:
            raise ValueError("nothing to remove: this key is not set")
    return path
