"""Check plain values, which a stranger may have written, against the fields of a dataclass."""

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
Counted = Annotated[int, Ge(0), Le(10**12)]


def check_types(document: type, raw: Any, prefix: str = "") -> None:
    """Raise ValueError, which names the key, unless `raw` has what the dataclass `document` declares; more is ignored."""
    problems: list[Problem] = [problem for problem in beyond_limits(raw, most=10**7) if problem.path == ()]
    if not problems:
        found, problems = validate(document, raw, {})
        problems = (problems or [Problem((), "not what it should be")]) if found is None else []
    if problems:
        at = dotted(problems[0].path)
        raise ValueError(f"{prefix}{at}{': ' if at else ''}{shortened(problems[0].what)}")
