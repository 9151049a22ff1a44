"""A recipe with all defaults: as TOML that can be trained, as a digest, or as a list of differences."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from semiseg.train.recipe import Data, Recipe

WIDTH = 120  # columns; a longer list is written one item a line

# Keys that the result of a run does not depend on: names, places, speed, and how often it is evaluated and saved.
INCIDENTAL = (
    *("name", "paper", "expect", "runs", "data.shards", "data.workers", "data.allow_overlap"),
    *("log", "evaluate", "checkpoint", "timeout", "model.encoder.checkpointing"),
)


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML with every default, which `load` reads back as an equal one. None is left out."""
    lines = ["# A resolved recipe: every value that the run uses, defaults included."]
    sections: list[tuple[str, list[tuple[str, Any]]]] = []
    for name, value in _items(recipe):
        match value:
            case Data():
                sections.append((f"[{name}]", [item for item in _items(value) if item[0] != "domains"]))
                sections += [(f"[{name}.domains.{_key(key)}]", _items(domain)) for key, domain in value.domains.items()]
            case tuple():
                sections += [(f"[[{name}]]", _items(item)) for item in value]
            case _ if is_dataclass(value):
                sections.append((f"[{name}]", _items(value)))
            case _:
                lines.append(_assignment(name, value))
    for header, items in sections:
        lines += ["", header, *(_assignment(name, value) for name, value in items)]
    return "\n".join(lines) + "\n"


def digest(recipe: Recipe) -> str:
    """sha256 (hex) of everything that affects the result; equal for recipes that differ only in INCIDENTAL keys."""
    kept = [(key, _same(value)) for key, value in _leaves(asdict(recipe)) if not _incidental(key)]
    return hashlib.sha256(json.dumps(kept, separators=(",", ":")).encode()).hexdigest()


def evaluation(recipe: Recipe) -> dict[str, Any]:
    """`[evaluate]` without its interval, as JSON: scores are comparable if it is equal."""
    settings = json.loads(json.dumps(asdict(recipe.evaluate)))
    return {name: value for name, value in settings.items() if name != "every" and value is not None}


def changes(before: Recipe, after: Recipe, *, incidental: bool = False) -> list[str]:
    """Differences such as `optimizer.lr: 0.01 -> 0.1`, in the schema's order: of what `digest` covers, or of all keys."""
    old, new = leaves(before), leaves(after)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key) and (incidental or not _incidental(key))]
    return [f"{key}: {_or_nothing(old.get(key))} -> {_or_nothing(new.get(key))}" for key in keys]


def leaves(recipe: Recipe) -> dict[str, Any]:
    """Every key with a plain value, dotted as in `changes`: `optimizer.lr`, `objectives.0.kind`."""
    return dict(_leaves(asdict(recipe)))


def _incidental(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in INCIDENTAL)


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; a list of plain values is one value."""
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, tuple) and any(isinstance(item, Mapping) for item in value):
        items = enumerate(value)
    else:
        yield key, value
    for name, inner in items:
        yield from _leaves(inner, f"{key}.{name}" if key else str(name))


def _same(value: Any) -> Any:
    """The same spelling for 30 and 30.0: a recipe made in Python may hold 30 where a file gives 30.0."""
    if isinstance(value, tuple):
        return [_same(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _or_nothing(value: Any) -> str:
    return "(not set)" if value is None else _inline(value)


# ---- TOML ------------------------------------------------------------------------------------------------------------


def _assignment(name: str, value: Any) -> str:
    line = f"{_key(name)} = {_inline(value)}"
    if len(line) <= WIDTH or not isinstance(value, tuple):
        return line
    return "\n".join([f"{_key(name)} = [", *(f"  {_inline(item)}," for item in value), "]"])


def _inline(value: Any) -> str:
    if is_dataclass(value) or isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_inline(item)}" for name, item in _items(value))
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def _items(value: Any) -> list[tuple[str, Any]]:
    pairs = (
        value.items()
        if isinstance(value, Mapping)
        else [(field.name, getattr(value, field.name)) for field in fields(value)]
    )
    return [(name, inner) for name, inner in pairs if inner is not None]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _inline(name)
