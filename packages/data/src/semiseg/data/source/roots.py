"""Find a publisher's files on this machine in the usual places."""

import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from semiseg.data.errors import DataError


def find_root(
    name: str,
    root: str | Path | None,
    *,
    locate: Callable[[Path], Path | None],
    variables: Sequence[str] = (),
    expected: str,
    home: str,
) -> Path:
    """Find a publisher's files; an adapter calls this first.

    `locate(candidate)` returns the data set's root if the candidate is (or contains) one, else None. With a `root`, the
    candidates are the root, its sub-folders and its parent; without one, $SEMISEG_DATA/<name>, each of the publisher's
    environment `variables`, ./data/<name>, and their sub-folders. Raises DataError that lists every place with the reason,
    the `expected` tree and the publisher's page.
    """
    looked: list[str] = []
    for label, place in _places(name, root, variables):
        if place is None:
            looked.append(f"{label}: not set")
            continue
        found, reason = _look(place, locate, parent=root is not None)
        if found is not None:
            return found
        looked.append(f"{label}{'' if label == str(place) else f' = {place}'}: {reason}")
    listing = "\n".join(f"  {line}" for line in looked)
    tree = "\n".join(f"  {line}" for line in textwrap.dedent(expected).strip("\n").splitlines())
    raise DataError(
        f"found no files of '{name}'. Looked at:\n{listing}\nexpected:\n{tree}\n"
        f"get the files from {home} and name their folder, or set SEMISEG_DATA to the folder that contains '{name}'"
    )


def _places(name: str, root: str | Path | None, variables: Sequence[str]) -> Iterator[tuple[str, Path | None]]:
    """(name for messages, the folder or None if its variable is not set), in the order to look."""
    if root is not None:
        place = Path(root).expanduser().absolute()
        yield str(place), place
        return
    base = os.environ.get("SEMISEG_DATA")
    yield f"$SEMISEG_DATA/{name}", Path(base).expanduser().absolute() / name if base else None
    for variable in variables:
        value = os.environ.get(variable)
        yield f"${variable}", Path(value).expanduser().absolute() if value else None
    yield f"./data/{name}", Path("data", name).absolute()


def _look(place: Path, locate: Callable[[Path], Path | None], *, parent: bool) -> tuple[Path | None, str]:
    """What `locate` finds at a place, or why it finds nothing."""
    try:
        if not place.exists():
            return None, "does not exist"
        children = sorted(child for child in place.iterdir() if child.is_dir()) if place.is_dir() else []
        parents = [place.resolve().parent] if parent else []
        for candidate in [place, *children, *parents]:
            if (found := locate(candidate)) is not None:
                return found, ""
    except OSError as error:
        return None, f"could not be read ({error.strerror or error})"
    tried = ["it"]
    if children:
        tried.append(
            "its sub-folders (" + ", ".join(child.name for child in children[:5]) + ", ..." * (len(children) > 5) + ")"
        )
    if parents:
        tried.append("its parent")
    return None, f"the expected files are not in {', '.join(tried)}"
