"""Load a `Recipe` from a TOML file and `key=value` arguments, or report every mistake in them at once."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from semiseg.data import unknown
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.advice import key_advice
from semiseg.train.recipe.document import read
from semiseg.train.recipe.lines import KeyPath
from semiseg.train.recipe.problems import Problem, RecipeError, dotted, nearest, show
from semiseg.train.recipe.resolved import changes, digest, to_toml
from semiseg.train.recipe.rules import broken_rules

__all__ = ["RecipeError", "changes", "digest", "load", "schema", "to_toml", "validate"]

Document = TypeVar("Document")


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and override it with `key=value` arguments.

    A key is dotted and counts list items from 0 (`objectives.1.weight.value=10`); missing tables are created. A value is
    read as TOML, or else as a string, as are all values of keys that take a string (`name=1`). An empty value removes the
    key (`data.domains.street.labeled.subset=`), so that its default applies.
    Raises RecipeError with every mistake in types, keys and rules, one a line: `file:line: key: what is wrong`.
    `preflight` then checks whether the data exists.
    """
    raw, origin = read(path, overrides)
    recipe, problems = validate(Recipe, raw, origin.arguments)
    if recipe is not None:
        problems = list(broken_rules(recipe))
    if problems or recipe is None:
        raise RecipeError(origin.report(problems))
    origin.attach(recipe)
    return recipe


def schema() -> dict[str, Any]:
    """The JSON Schema of recipes, for editors, as in `recipes/recipe.schema.json`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_adapter(Recipe).json_schema()}


# ---- validation ------------------------------------------------------------------------------------------------------


@cache
def _adapter(document: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(document)


def validate(
    document: type[Document], raw: dict[str, Any], arguments: Mapping[KeyPath, str]
) -> tuple[Document | None, list[Problem]]:
    """Bare values as this dataclass, or every mistake in their keys and types."""
    from pydantic import ValidationError

    try:
        # From JSON, pydantic's strict mode accepts lists as tuples and tables as dataclasses, and nothing else.
        return _adapter(document).validate_json(json.dumps(raw, default=str), strict=True), []
    except ValidationError as error:
        found = error.errors(include_url=False)
    typed = {_walk(document, fault["loc"])[0] for fault in found if fault["type"] == "string_type"} & arguments.keys()
    numbers = [path for path in typed if isinstance(_at(raw, path), int | float)]
    for path in numbers:  # the shell removes the quotes of name="1"
        _at(raw, path[:-1])[path[-1]] = arguments[path].partition("=")[2].strip()
    if numbers:
        return validate(document, raw, arguments)
    return None, [problem for fault in found if (problem := _translate(document, fault["type"], fault["loc"], raw))]


def _translate(document: type, fault: str, location: KeyPath, raw: dict[str, Any]) -> Problem | None:
    """One of pydantic's errors in plain English, or None for one that only follows from others."""
    path, hint, owner = _walk(document, location)
    value = _at(raw, path)
    if hint is None:
        known = _keys(owner)
        meant = nearest(str(path[-1]), known)
        if len(path) == 1 and (advice := key_advice(str(path[0]), value, raw)):
            return Problem(path, f"unknown key; {advice}")
        return Problem(path, "unknown key" + ("" if meant else f"; known: {', '.join(known)}"), meant)
    kinds = _kinds(hint)
    if kinds and isinstance(value, dict) and fault.startswith("union_tag"):
        if "kind" not in value:
            return Problem((*path, "kind"), f"missing; known: {', '.join(sorted(kinds))}")
        kind = value["kind"]
        return Problem((*path, "kind"), unknown("kind", kind if isinstance(kind, str) else show(kind), kinds))
    if value is MISSING:
        return Problem(path, f"missing; expected {_expected(hint)}")
    if fault == "too_short" and value:  # pydantic counts only valid items
        return None
    if value in ("", [], {}):
        return Problem(path, f"empty; expected {_expected(hint)}")
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    meant = nearest(value, map(str, choices)) if isinstance(value, str) else None
    advice = f"; did you mean '{meant}'?" if meant else ""
    if str(value).lower() in ("null", "none", "nil"):
        advice = f"; to unset it, leave the key out, or write '{dotted(path)}=' as an argument"
    elif len(path) == 1 and _expected(hint) == "a table" and (instead := key_advice(str(path[0]), value, raw)):
        advice = f"; {instead}"
    return Problem(path, f"expected {_expected(hint)}, found {show(value)}{advice}")


def _walk(document: type, location: KeyPath) -> tuple[KeyPath, Any, Any]:
    """Follow pydantic's location through the types of the schema.

    Returns the key without pydantic's additions (union tags, positions within a value such as a size), its type (None for
    a key that does not exist) and the dataclass that it belongs to.
    """
    path: KeyPath = ()
    hint: Any = document
    owner = None
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
    """kind -> dataclass, for a union distinguished by kind; empty for every other type."""
    bare = _bare(hint)
    members = get_args(bare) if get_origin(bare) in (Union, UnionType) else ()
    if not members or not all(is_dataclass(member) for member in members):
        return {}
    return {get_args(get_type_hints(member)["kind"])[0]: member for member in members}


def _at(raw: Any, path: KeyPath) -> Any:
    for part in path:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return MISSING
    return raw


# ---- types in words --------------------------------------------------------------------------------------------------

_BOUNDS = {Ge: ">=", Gt: ">", Le: "<=", Lt: "<"}
_WORDS = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


def _expected(hint: Any) -> str:
    """A type in words: "an integer >= 1", "two numbers > 0"."""
    bare, arguments = _bare(hint), get_args(_bare(hint))
    if get_origin(bare) is Literal:
        return " or ".join(show(choice) for choice in arguments)
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
