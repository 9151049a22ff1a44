"""Bounds of values, and unions distinguished by `kind`."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, MinLen


class ByKind:
    """Marks a union distinguished by `kind`, for pydantic (which only `semiseg.train.recipe.load` imports)."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import Field

        return handler.generate_schema(Annotated[source, Field(discriminator="kind")])


Count = Annotated[int, Ge(1)]
Whole = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Rate = Annotated[float, Ge(0), Lt(1)]
Side = Annotated[int, Ge(1), Le(65536)]
Size = tuple[Side, Side]
Range = tuple[Annotated[float, Gt(0), Le(32)], Annotated[float, Gt(0), Le(32)]]
Scale = Annotated[float, Ge(0.1), Le(8)]
TileSide = Annotated[int, Ge(16), Le(65536)]
Overlap = Annotated[float, Ge(0), Le(0.95)]
Workers = Annotated[int, Ge(0), Le(1024)]
Channels = Annotated[int, Ge(1), Le(8192)]
Text = Annotated[str, MinLen(1)]
Domains = Annotated[tuple[Text, ...], MinLen(1)] | None
Splits = Text | Annotated[tuple[Text, ...], MinLen(1)]
