"""Check names such as preset="paper" against the known ones; the error suggests the nearest."""

from collections.abc import Iterable
from difflib import get_close_matches


def check_choice(what: str, name: str, known: Iterable[str]) -> None:
    """Raise ValueError unless `name` is one of `known`. what: what the name is for, as the error shows it."""
    names = list(known)
    if name in names:
        return
    near = get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    raise ValueError(f"{what}: unknown name {name!r}{hint} known: {', '.join(names)}")
