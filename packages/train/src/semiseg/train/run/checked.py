"""Types of the results of runs, which a stranger may have written."""

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Le

from semiseg.train.recipe.typed import Counted, Name, Words

Percent = Annotated[float, Ge(-0.001), Le(100.001)]
Hours = Annotated[float, Ge(0), Le(1e9)]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Of one domain; None for classes that are in no label."""

    miou: Percent | None
    iou: dict[Words, Percent | None]
    images: Counted = 0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of one step. teacher: those of the moving average, where both were scored."""

    domains: dict[Name, Scores]
    miou: Percent | None = None
    evaluation: dict[str, Any] | None = None
    teacher: "Evaluation | None" = None


@dataclass(frozen=True, kw_only=True)
class Results:
    """results.json, as far as tables and reports read it. Runs that are never evaluated have empty scores."""

    recipe: Words
    hours: Hours
    last: Evaluation | dict[str, None]
    best: Evaluation | dict[str, None]
    seed: int | None = None
    data: dict[str, Words | None] | None = None
    subsets: dict[str, Words | None] | None = None
