"""The meaning of the numbers in a label: the publisher's raw ids, and the classes that a model learns."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from semiseg.data.errors import DataError, unknown
from semiseg.data.registry import broken, installed

_RAW_IDS = 1 << 16  # stored labels are PNGs of 8 or 16 bits


@dataclass(frozen=True, kw_only=True)
class RawSpace:
    """Every id that a stored label may hold, void ids included, with the publisher's names.

    `names`: raw id (0..65535) -> name. Raises DataError if there are no ids or one does not fit.
    """

    name: str
    names: Mapping[int, str]

    def __post_init__(self) -> None:
        _require(bool(self.names), f"raw space '{self.name}' has no ids; list each id that a label may hold")
        for raw in self.names:
            _require(
                type(raw) is int and 0 <= raw < _RAW_IDS,
                f"raw space '{self.name}': id {raw} does not fit a label; use 0..{_RAW_IDS - 1}",
            )
        object.__setattr__(self, "names", dict(self.names))

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True, kw_only=True)
class Taxonomy:
    """A set of classes, and how raw ids become class ids (0..n-1, or `ignore`).

    names       one per class, in the order of class ids; fewer than 255, all different
    colours     (red, green, blue), 0..255, one per class
    ids         raw id -> class id; raw ids that are not listed are ignored
    foreground  class ids of objects, as opposed to the scene around them
    """

    name: str
    raw: RawSpace
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ids: Mapping[int, int]
    foreground: frozenset[int]
    ignore: ClassVar[int] = 255

    def __post_init__(self) -> None:
        where = f"taxonomy '{self.name}'"
        n = len(self.names)
        _require(0 < n < 255, f"{where} has {n} classes; 1 to 254 fit beside the ignore id {self.ignore}")
        _require(len(self.colours) == n, f"{where} has {n} names and {len(self.colours)} colours; give each class both")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        _require(not twice, f"{where} has two classes named {', '.join(twice)}; class names must differ")
        for name, colour in zip(self.names, self.colours, strict=True):
            good = len(colour) == 3 and all(0 <= channel <= 255 for channel in colour)
            _require(good, f"{where}: colour {colour} of class '{name}' is not three numbers 0..255")
        for raw, number in self.ids.items():
            _require(raw in self.raw.names, f"{where} maps raw id {raw}, which '{self.raw.name}' does not have")
            _require(0 <= number < n, f"{where} maps raw id {raw} to class {number}; its classes are 0..{n - 1}")
        for number in sorted(self.foreground):
            _require(0 <= number < n, f"{where} has {number} in its foreground; its classes are 0..{n - 1}")
        object.__setattr__(self, "ids", dict(self.ids))

    def __hash__(self) -> int:
        return hash((self.name, self.raw))

    @classmethod
    def get(cls, name: str, own: Iterable["Taxonomy"] = ()) -> "Taxonomy":
        """The taxonomy of that name in `own`, else in an installed data set; DataError with the nearest name otherwise."""
        known = {taxonomy.name: taxonomy for taxonomy in own}
        if name not in known:
            known = cls.all() | known
        if name in known:
            return known[name]
        failures = "".join(
            f"\ndata set package '{package}' could not be loaded: {why}" for package, why in broken().items()
        )
        raise DataError(unknown("taxonomy", name, known) + failures)

    @classmethod
    def all(cls) -> dict[str, "Taxonomy"]:
        """Every taxonomy of the installed data set packages, by name; packages that fail to load are left out."""
        found: dict[str, tuple[Taxonomy, str]] = {}
        for package, adapter in installed().items():
            for taxonomy in adapter.taxonomies:
                other, owner = found.setdefault(taxonomy.name, (taxonomy, package))
                _require(
                    other == taxonomy,
                    f"data sets '{owner}' and '{package}' define taxonomy '{taxonomy.name}' differently",
                )
        return {name: taxonomy for name, (taxonomy, _) in sorted(found.items())}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], raw: RawSpace) -> "Taxonomy":
        """The inverse of `fields`, with the raw space that they leave out."""
        name, names = fields["name"], fields["names"]
        numbers = [*fields["ids"].values(), *fields["foreground"], *(c for colour in fields["colours"] for c in colour)]
        if not all(isinstance(text, str) and len(text) <= 1000 for text in (name, *names)):
            raise ValueError("a name of a taxonomy or class is not text, or longer than 1,000 characters")
        if not isinstance(names, list) or not all(type(number) is int for number in numbers):
            raise ValueError(f"taxonomy {ascii(name)[:80]} has ids or colours that are not whole numbers")
        return cls(
            name=name,
            raw=raw,
            names=tuple(names),
            colours=tuple((red, green, blue) for red, green, blue in fields["colours"]),
            ids={int(number): class_id for number, class_id in fields["ids"].items()},
            foreground=frozenset(fields["foreground"]),
        )

    def fields(self) -> dict[str, Any]:
        """Everything except the raw space, as JSON values."""
        return {
            "name": self.name,
            "names": list(self.names),
            "colours": [list(colour) for colour in self.colours],
            "ids": {str(number): class_id for number, class_id in sorted(self.ids.items())},
            "foreground": sorted(self.foreground),
        }

    @property
    def raw_space(self) -> str:
        """The name of the raw space that this taxonomy reads."""
        return self.raw.name

    @cached_property
    def lookup(self) -> np.ndarray:
        """Raw id -> class id, uint8 [65536]; `ignore` for raw ids that are not listed."""
        table = np.full(_RAW_IDS, self.ignore, np.uint8)
        table[list(self.ids)] = list(self.ids.values())
        table.flags.writeable = False
        return table

    def map(self, raw: np.ndarray) -> np.ndarray:
        """Class ids, uint8, of a label of raw ids [h, w] (any integers); DataError for an id outside the raw space."""
        if raw.dtype.kind not in "ui":
            raise DataError(f"taxonomy '{self.name}': a label is an array of integer ids, not {raw.dtype}")
        if raw.dtype not in (np.uint8, np.uint16):
            self._refuse(raw, (raw < 0) | (raw >= _RAW_IDS))
        mapped = self.lookup[raw]
        # Ids outside the raw space are mapped to `ignore`, so only the few ignored pixels need a check.
        if not self._known[raw[mapped == self.ignore]].all():
            self._refuse(raw, ~self._known[raw])
        return mapped

    @cached_property
    def _known(self) -> np.ndarray:
        """Whether the raw space has an id, bool [65536]."""
        table = np.zeros(_RAW_IDS, bool)
        table[list(self.raw.names)] = True
        return table

    def _refuse(self, raw: np.ndarray, strange: np.ndarray) -> None:
        """Raise for the first strange pixel, if any."""
        if not strange.any():
            return
        place = tuple(int(i) for i in np.argwhere(strange)[0])
        found = int(raw[place])
        count = int((raw == found).sum())
        pixel = f"row {place[0]}, column {place[1]}" if len(place) == 2 else f"index {place}"
        raise DataError(
            f"label id {found} ({count} pixel{'s' * (count > 1)}, first at {pixel}) is not in raw space "
            f"'{self.raw.name}', whose ids are {ranges(self.raw.names)}; the label is damaged, or taxonomy '{self.name}' "
            "is for another data set"
        )


def ranges(ids: Mapping[int, str]) -> str:
    """Ids as ranges for messages: "0..11, 255"."""
    runs: list[list[int]] = []
    for number in sorted(ids):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}..{last}" for first, last in runs)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise DataError(message)
