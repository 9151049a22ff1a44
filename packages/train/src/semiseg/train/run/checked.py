"""Types of the records of runs, which a stranger may have written, and one error for values of other types."""

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Le, MinLen, Predicate

from semiseg.train.recipe.limits import beyond_limits
from semiseg.train.recipe.load import validate
from semiseg.train.recipe.problems import Problem, dotted, shortened


def is_plain(name: str) -> bool:
    """Whether a name stays inside its folder, and prints as it is."""
    inside = not {"/", "\\", ":"} & set(name) and not name.startswith(".")
    return bool(name) and inside and name.isprintable() and len(name) <= 255


Words = Annotated[str, Predicate(str.isprintable)]
Name = Annotated[str, MinLen(1), Predicate(is_plain)]
Percent = Annotated[float, Ge(-0.001), Le(100.001)]
Counted = Annotated[int, Ge(0), Le(10**12)]
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


def check_types(document: type, raw: Any, prefix: str = "") -> None:
    """Raise ValueError, which names the key, unless `raw` has what the dataclass `document` declares; more is ignored."""
    problems: list[Problem] = [problem for problem in beyond_limits(raw, most=10**7) if problem.path == ()]
    if not problems:
        found, problems = validate(document, raw, {})
        problems = (problems or [Problem((), "not what it should be")]) if found is None else []
    if problems:
        at = dotted(problems[0].path)
        raise ValueError(f"{prefix}{at}{': ' if at else ''}{shortened(problems[0].what)}")
