"""Check what a saved model says about itself: the classes of its domains, the size and the views that it was scored with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Le, MinLen

from semiseg.data import SemisegError
from semiseg.train.recipe.bounds import Overlap, Scale, Size, Text, TileSide
from semiseg.train.recipe.load import validate
from semiseg.train.recipe.problems import dotted, shortened
from semiseg.train.recipe.typed import Words

Byte = Annotated[int, Ge(0), Le(255)]


@dataclass(frozen=True, kw_only=True)
class _Classes:
    """As `assemble.model.describe_model` writes them; other keys are not read here."""

    name: Annotated[Words, MinLen(1)]
    names: Annotated[tuple[Annotated[Words, MinLen(1)], ...], MinLen(2)]
    colours: tuple[tuple[Byte, Byte, Byte], ...]
    raw_space: Text | None = None


@dataclass(frozen=True, kw_only=True)
class _Views:
    """`semiseg.train.score.views.Views`, which imports torch."""

    scales: Annotated[tuple[Scale, ...], MinLen(1)] = (1.0,)
    flip: bool = False
    tile: tuple[TileSide, TileSide] | None = None
    overlap: Overlap = 1 / 3


@dataclass(frozen=True, kw_only=True)
class _Description:
    """The metadata of a saved model."""

    taxonomies: dict[str, _Classes] = field(default_factory=dict)
    resize: dict[str, Size | None] = field(default_factory=dict)
    views: _Views | None = None


def check_description(metadata: Mapping[str, Any], classes: Mapping[str, int], place: object) -> None:
    """Raise SemisegError unless `metadata` describes a model with these numbers of classes, in what it says at all."""
    own = {key: metadata[key] for key in ("taxonomies", "resize", "views") if key in metadata}
    description, problems = validate(_Description, own, {})
    where = f"{place}: config.json: metadata"
    remedy = "was the file edited? Save the model again"
    if description is None:
        what = f"{dotted(problems[0].path)}: {shortened(problems[0].what)}" if problems else "not a description"
        raise SemisegError(f"{where}.{what}; {remedy}")
    strange = (own.get("views") or {}).keys() - _Views.__dataclass_fields__.keys()
    if strange:
        raise SemisegError(f"{where}.views: unknown key {shortened(repr(min(strange)))}; {remedy}")
    for domain, count in classes.items():
        described = description.taxonomies.get(domain)
        if described is None:
            continue
        at = f"{where}.taxonomies.{shortened(domain)}"
        if not count == len(described.names) == len(described.colours):
            raise SemisegError(
                f"{at}: {len(described.names)} names and {len(described.colours)} colours of {count} classes; {remedy}"
            )
        if len(set(described.names)) < count:
            twice = next(name for name in described.names if described.names.count(name) > 1)
            raise SemisegError(f"{at}: {shortened(twice)!r} names two classes; {remedy}")
        if count > 255:
            raise SemisegError(f"{at}: {count} classes, but masks hold 255 at most; use a model with fewer classes")
