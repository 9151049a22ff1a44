"""What a data set package provides, and how it is opened by name.

An adapter reads a publisher's files as published and yields encoded samples; it downloads nothing and decodes as little as
possible. Packages register their adapter class in the entry-point group "semiseg.datasets".
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np

from semiseg.data.errors import DataError, unknown
from semiseg.data.registry import announced, load
from semiseg.data.taxonomy import RawSpace, Taxonomy

KEY = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
Member: TypeAlias = bytes | Callable[[], bytes]
"""An encoded file, or a function that returns it and can be pickled: functools.partial of a module-level function."""


@dataclass(frozen=True, kw_only=True)
class RawSample:
    """One image with its label, still encoded, as an adapter passes it to the writer of shards.

    key    letters, digits, `_`, `-` and single inner `/` (see `clean_key`); unique in its split
    image  a JPEG or PNG file's bytes, stored unchanged
    label  a PNG file's bytes, or raw ids [h, w] of an integer type, or None in an unlabeled split
    size   estimated bytes of all members, used to lay out shards before anything is read
    tags   image-level labels
    meta   any JSON; meta["source"] is the publisher's name of the sample
    stamp  changes with the source's files where the size might not; part of the listing's hash, not of the shards
    """

    key: str
    image: Member
    label: bytes | Callable[[], bytes | np.ndarray] | None
    size: int
    tags: tuple[str, ...] = ()
    meta: Mapping[str, JSON] = field(default_factory=dict)
    stamp: str | None = None

    def __post_init__(self) -> None:
        if not KEY.fullmatch(self.key):
            raise DataError(
                f"sample key '{self.key}' may hold letters, digits, '_', '-' and single inner '/' only "
                f"(a dot merges samples in plain readers); semiseg.data.clean_key gives '{clean_key(self.key)}'"
            )
        if self.size < 0:
            raise DataError(f"sample '{self.key}' has a size of {self.size} bytes; the estimate must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class Split:
    """What an adapter knows about one split, whether or not its files are available.

    samples   number of available samples; expected: number that the publisher has, if known
    missing   why the split can't be read and what to do about it, or None
    default   False for a split that is written only on request
    """

    name: str
    samples: int
    labeled: bool = True
    missing: str | None = None
    default: bool = True
    expected: int | None = None


class Adapter(Protocol):
    """One publisher's data set on this machine; missing splits are reported, and are not an error."""

    name: ClassVar[str]
    summary: ClassVar[str]  # one line for `semiseg data list`
    home: ClassVar[str]  # the publisher's page
    taxonomies: ClassVar[tuple[Taxonomy, ...]]

    # For type checkers, `*_` and `**options` together allow any further keyword-only options.
    def __init__(self, root: Path | None = None, *_: Any, **options: Any) -> None: ...

    @property
    def version(self) -> str:
        """Which version of the files this is, such as "segnet-480x360"."""
        ...

    @property
    def raw_space(self) -> RawSpace:
        """The meaning of the ids in the labels."""
        ...

    @property
    def root(self) -> Path | None:
        """Where the files were found; None for generated data."""
        ...

    def splits(self) -> dict[str, Split]:
        """All splits of the publisher, including missing ones."""
        ...

    def samples(self, split: str) -> Iterator[RawSample]:
        """The samples of a split, in an order that never changes."""
        ...


@runtime_checkable
class Guide(Protocol):
    """An adapter with notes and next steps, which `semiseg data shard` prints; optional."""

    def notes(self) -> list[str]:
        """What was inferred from the files, and what a person should check."""
        ...

    def next_steps(self, splits: Sequence[str], to: str) -> list[str]:
        """Commands to run once these splits are written to `to`, the most useful one last."""
        ...


def open_dataset(name: str, /, root: str | Path | None = None, **options: Any) -> Adapter:
    """Open an installed data set by name, and find the publisher's files (see `find_root`).

    Raises DataError for an unknown name or option, with the nearest one, and if no usable files are found.
    """
    adapter = _adapter(name)
    _check_options(name, adapter, options)
    return adapter(None if root is None else Path(root), **options)


def clean_key(text: str) -> str:
    """A sample key from a publisher's file stem: forbidden characters become `_`, empty parts are dropped.

    Two stems can give one key ("a b" and "a.b"). An adapter whose publisher has such names must make their keys differ; the
    writer of shards refuses duplicates.
    """
    parts = [re.sub(r"[^A-Za-z0-9_-]", "_", part) for part in text.split("/") if part]
    return "/".join(parts) or "_"


def _adapter(name: str) -> type[Adapter]:
    if name not in announced():
        raise DataError(
            f"{unknown('data set', name, announced())}; install others with: pip install semiseg-<name>; "
            "to use your own images: semiseg data shard folder ROOT --option name=<name>"
        )
    loaded = load(name)
    if isinstance(loaded, str):
        raise DataError(f"data set package '{name}' could not be loaded: {loaded}")
    return loaded


def _check_options(name: str, adapter: type[Adapter], options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(adapter).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = {parameter.name: parameter for parameter in parameters if parameter.name != "root"}
    for option in options:
        if option not in known:
            raise DataError(f"data set '{name}': {unknown('option', option, known)}")
    needed = [name for name, value in known.items() if value.default is value.empty and name not in options]
    if needed:
        raise DataError(f"data set '{name}' needs the option{'s' * (len(needed) > 1)} {', '.join(needed)}")
