"""From a TOML file and `key=value` arguments to a `Recipe`, or to every mistake in them at once."""

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path as File
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from semiseg.data.errors import unknown
from semiseg.train.lines import Path, lines
from semiseg.train.problems import Origin, Problem, RecipeError, dotted, nearest
from semiseg.train.recipe import Recipe
from semiseg.train.rules import broken_rules


def load(path: str | File, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and change it by `key=value` arguments.

    A key is dotted and counts list items from 0 (`objectives.1.weight.value=10`); tables on its way are made where they
    are missing. A value is read as TOML, or else is a string; an empty one takes the key away, so its default holds.
    Raises RecipeError with every mistake in types, keys and rules, one a line: `file:line: key: what is wrong`. Whether
    the data is there is another question, for `semiseg.train.facts.check_facts`.
    """
    raw, origin = read(path, overrides)
    recipe, problems = _validate(raw)
    if recipe is not None:
        problems = list(broken_rules(recipe))
    if problems or recipe is None:
        raise RecipeError(origin.tell(problems))
    return recipe


def read(path: str | File, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], Origin]:
    """The bare TOML values with the arguments laid over them, and where each came from. Raises RecipeError."""
    text = ""
    try:
        text = File(path).read_text(encoding="utf-8")
        raw = tomllib.loads(text)
    except OSError as error:
        raise RecipeError(
            [f"{path}: cannot read this recipe ({error.strerror}); `semiseg recipe ls` lists some"]
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError([f"{path}: not a text in UTF-8 ({error.reason} at byte {error.start})"]) from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError([_syntax(path, text, error)]) from error
    found, arguments, faults = lines(text), dict[Path, str](), list[str]()
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


def schema() -> dict[str, Any]:
    """The JSON Schema of recipes, for editors; `recipes/recipe.schema.json` holds it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_adapter().json_schema()}


# ---- reading ---------------------------------------------------------------------------------------------------------


def _syntax(path: str | File, text: str, error: tomllib.TOMLDecodeError) -> str:
    reason, _, place = str(error).partition(" (at ")
    numbers = re.findall(r"\d+", place)
    line, column = (numbers[0], f" (column {numbers[1]})") if numbers else (text.rstrip().count("\n") + 1, "")
    return f"{path}:{line}: not TOML: {reason[:1].lower()}{reason[1:]}{column}"


def _parse(argument: str) -> tuple[list[str], Any]:
    """Key and value of `key=value`; the value MISSING where it is empty."""
    typed, equals, value = argument.partition("=")
    if not equals or not typed.strip():
        raise ValueError("expected key=value, such as steps=100 or data.domains.street.labeled.subset.count=50")
    try:
        table: Any = tomllib.loads(f"{typed} = 0")
    except tomllib.TOMLDecodeError:
        raise ValueError(f"'{typed}' is not a dotted key; quote its odd parts: a.\"b c\".d") from None
    key: list[str] = []
    while isinstance(table, dict):
        part, table = next(iter(table.items()))
        key.append(part)
    return key, _read_value(value) if value.strip() else MISSING


def _read_value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text


def _override(raw: dict[str, Any], key: Sequence[str], value: Any) -> Path:
    """Set one value in place and say where; ValueError where the way there is blocked."""
    at: Any = raw
    path: Path = ()
    for position, part in enumerate(key, start=1):
        if isinstance(at, list):
            if not (part.isdigit() and int(part) < len(at)):
                raise ValueError(f"'{dotted(path)}' has {len(at)} items, counted from 0; '{part}' is none of them")
            step: Any = int(part)
        elif isinstance(at, dict):
            step = part
        else:
            raise ValueError(f"'{dotted(path)}' is {_show(at)}, which has no '{part}'")
        path = (*path, step)
        if position < len(key):
            at = at.setdefault(step, {}) if isinstance(at, dict) else at[step]
        elif value is not MISSING:
            at[step] = value
        elif isinstance(at, dict) and step in at:
            del at[step]
        else:
            raise ValueError("there is nothing to take away: that key is not set, or is an item of a list")
    return path


# ---- judging ---------------------------------------------------------------------------------------------------------


@cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Recipe)


def _validate(raw: dict[str, Any]) -> tuple[Recipe | None, list[Problem]]:
    from pydantic import ValidationError

    try:
        # By way of JSON, pydantic's strict mode takes lists for tuples and tables for dataclasses, and nothing else.
        return _adapter().validate_json(json.dumps(raw, default=str), strict=True), []
    except ValidationError as error:
        found = (_translate(fault["type"], fault["loc"], raw) for fault in error.errors(include_url=False))
        return None, [problem for problem in found if problem]


def _translate(fault: str, location: Path, raw: dict[str, Any]) -> Problem | None:
    """One of pydantic's errors in plain words, or None for one that only follows from others."""
    path, hint, owner = _walk(location)
    value = _at(raw, path)
    if hint is None:
        known = _keys(owner)
        meant = nearest(str(path[-1]), known)
        return Problem(path, "unknown key" + ("" if meant else f"; known: {', '.join(known)}"), meant)
    kinds = _kinds(hint)
    if kinds and isinstance(value, dict) and fault.startswith("union_tag"):
        if "kind" not in value:
            return Problem((*path, "kind"), f"missing; known: {', '.join(sorted(kinds))}")
        kind = value["kind"]
        return Problem((*path, "kind"), unknown("kind", kind if isinstance(kind, str) else _show(kind), kinds))
    if value is MISSING:
        return Problem(path, f"missing; expected {_expected(hint)}")
    if fault == "too_short" and value:  # pydantic counts valid items alone
        return None
    if value in ("", [], {}):
        return Problem(path, f"empty; expected {_expected(hint)}")
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    meant = nearest(value, map(str, choices)) if isinstance(value, str) else None
    return Problem(
        path, f"expected {_expected(hint)}, found {_show(value)}" + (f"; did you mean '{meant}'?" if meant else "")
    )


def _walk(location: Path) -> tuple[Path, Any, Any]:
    """Follow pydantic's location through the types of the schema.

    Gives the key it is about, without pydantic's own marks (union tags, places within a value such as a size), its type
    (None for a key that does not exist) and the dataclass that owns it.
    """
    path: Path = ()
    hint, owner = Recipe, None
    for part in location:
        bare = _bare(hint)
        if kinds := _kinds(hint):
            hint = kinds[str(part)]
        elif is_dataclass(bare):
            path, owner = (*path, part), bare
            hint = get_type_hints(bare, include_extras=True).get(str(part)) if part in _keys(bare) else None
        elif get_origin(bare) is dict:
            path, hint = (*path, part), get_args(bare)[1]
        elif get_origin(bare) is tuple and isinstance(part, int) and _kinds(get_args(bare)[0]):
            path, hint = (*path, part), get_args(bare)[0]
        else:
            break
    return path, hint if hint is None else _optional(hint), owner


def _keys(owner: Any) -> list[str]:
    return [field.name for field in fields(owner)]


def _bare(hint: Any) -> Any:
    """A type without None and without bounds."""
    hint = _optional(hint)
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _optional(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        kept = [member for member in get_args(hint) if member is not NoneType]
        return kept[0] if len(kept) == 1 else hint
    return hint


def _kinds(hint: Any) -> dict[str, Any]:
    """kind -> dataclass of a union that is told apart by kind; empty for every other type."""
    bare = _bare(hint)
    members = get_args(bare) if get_origin(bare) in (Union, UnionType) else ()
    if not members or not all(is_dataclass(member) for member in members):
        return {}
    return {get_args(get_type_hints(member)["kind"])[0]: member for member in members}


def _at(raw: Any, path: Path) -> Any:
    for part in path:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return MISSING
    return raw


# ---- words -----------------------------------------------------------------------------------------------------------

_BOUNDS = {Ge: ">=", Gt: ">", Le: "<=", Lt: "<"}
_WORDS = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


def _expected(hint: Any) -> str:
    """A type in words: "an integer >= 1", "two numbers > 0"."""
    bare, arguments = _bare(hint), get_args(_bare(hint))
    if get_origin(bare) is Literal:
        return " or ".join(_show(choice) for choice in arguments)
    if get_origin(bare) in (Union, UnionType):
        return "a table" if _kinds(hint) else " or ".join(_expected(member) for member in arguments)
    if get_origin(bare) is tuple:
        one = _expected(arguments[0])
        return f"a list of {len(arguments)}, each {one}" if ... not in arguments else f"a list, each item {one}"
    return _WORDS.get(bare, "a table") + "".join(_bounds(hint))


def _bounds(hint: Any) -> Iterator[str]:
    marks = getattr(_optional(hint), "__metadata__", ())
    sides = [
        f"{sign} {getattr(mark, type(mark).__name__.lower())}" for mark in marks if (sign := _BOUNDS.get(type(mark)))
    ]
    if sides:
        yield " " + " and ".join(sides)


def _show(value: Any) -> str:
    """A value as TOML would have it, cut where it is long."""
    if isinstance(value, dict):
        return "a table"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
