"""One error message for a name that is not among the known ones."""

from collections.abc import Iterable
from difflib import get_close_matches


def check_choice(what: str, name: str, known: Iterable[str]) -> None:
    """Raise ValueError with the nearest known name unless `name` is one of `known`; `what` says whose name it is."""
    names = list(known)
    if name in names:
        return
    near = get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    raise ValueError(f"{what}: unknown name {name!r}{hint} known: {', '.join(names)}")
