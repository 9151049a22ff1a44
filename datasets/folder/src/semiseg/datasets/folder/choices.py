"""What the user decided on the command line about the values of masks: the options of `choices`."""

import re
from dataclasses import dataclass
from typing import Any

from semiseg.data import DataError, unknown
from semiseg.datasets.folder.classes import ClassFile
from semiseg.datasets.folder.pixels import PLAIN, Colour, Lens
from semiseg.datasets.folder.problems import Problems

_PALETTE = ("ids", "colours")
_NUMBER = re.compile(r"-?\d{1,40}(\.\d{1,40})?([eE][-+]?\d{1,3})?")
_TRANSPARENT = ("black", "ignore", "opaque")


@dataclass(frozen=True)
class Choices:
    """ignore_given: whether `ignore` decides about ids or colours; "none" ignores nothing."""

    threshold: float | None = None
    nearest: int | None = None
    transparent: str | None = None
    palette: str | None = None
    ignore_given: bool = False
    ignore_ids: tuple[int, ...] = ()
    ignore_numbers: frozenset[float] = frozenset()
    ignore_colours: tuple[Colour, ...] = ()

    def lens(self, given: ClassFile | None, problems: Problems) -> Lens:
        """How to look at masks; `nearest` needs the colours of the class file."""
        known: list[Colour] = []
        if given is not None:
            known = [entry.colour for entry in given.classes if entry.colour] + list(given.ignore_colours)
        known += self.ignore_colours
        if self.nearest is not None and not known:
            what = "needs the colours of the classes; write them into classes.toml"
            problems.add("option", f"nearest={self.nearest}", what)
            return PLAIN
        listed = given.ignore_ids if given is not None and given.ignore_given and not self.ignore_given else ()
        return Lens(self.threshold, self.nearest, tuple(known), self.transparent, self.ignore_numbers | set(listed))

    @property
    def settings(self) -> str:
        """The choices that change pixels, for the version: shards read differently have another version."""
        parts = [f"threshold{self.threshold:g}"] if self.threshold is not None else []
        parts += [f"nearest{self.nearest}"] if self.nearest is not None else []
        parts += [self.transparent] if self.transparent else []
        return "".join(f"-{part}" for part in parts)


NONE = Choices()


def choices(
    threshold: Any = None, ignore: Any = None, transparent: Any = None, nearest: Any = None, palette: Any = None
) -> Choices:
    """Check the options; DataError for the first that is wrong."""
    if threshold is not None and (
        isinstance(threshold, bool) or not isinstance(threshold, int | float) or not threshold > 0
    ):
        raise DataError(
            f"option threshold={threshold}: expected a number above 0: values of at least this are foreground, as in "
            "threshold=128"
        )
    if nearest is not None and (isinstance(nearest, bool) or not isinstance(nearest, int) or not 0 < nearest < 256):
        raise DataError(
            f"option nearest={nearest}: expected 1 to 255, by how much a colour may differ from that of its class in any "
            "band, as in nearest=16"
        )
    if transparent is not None and transparent not in _TRANSPARENT:
        raise DataError(f"option transparent={transparent}: {unknown('value', str(transparent), _TRANSPARENT)}")
    if palette is not None and palette not in _PALETTE:
        raise DataError(f"option palette={palette}: {unknown('value', str(palette), _PALETTE)}")
    if threshold is not None and nearest is not None:
        raise DataError("options threshold and nearest: threshold is for grey masks, nearest for colours; keep one")
    numbers, colours = _ignored(ignore)
    ids = tuple(int(number) for number in sorted(numbers) if 0 <= number <= 0xFFFF)
    decided = ignore is not None and (bool(ids or colours) or not numbers)  # -1 and NaN do not decide what 255 means
    return Choices(threshold, nearest, transparent, palette, decided, ids, frozenset(numbers), tuple(colours))


def _ignored(ignore: Any) -> tuple[set[float], list[Colour]]:
    numbers: set[float] = set()
    colours: list[Colour] = []
    text = "" if ignore is None else str(ignore).strip("[]() ")
    if text.lower() == "none":
        return numbers, colours
    for word in re.split(r"[,;\s]+", text) if text else ():
        word = word.strip("'\"")
        if re.fullmatch(r"#[0-9a-fA-F]{6}", word):
            colours.append((int(word[1:3], 16), int(word[3:5], 16), int(word[5:7], 16)))
        elif word.lower() in ("nan", "inf", "-inf") or _NUMBER.fullmatch(word):
            numbers.add(float(word))
        else:
            raise DataError(
                f"option ignore={ignore}: {word!r} is neither an id nor a colour; expected ids and colours of pixels without "
                'a label, as in ignore=255, ignore=0,255 or ignore="#ffffff", or ignore=none'
            )
    if ignore is not None and not numbers and not colours:
        raise DataError("option ignore is empty; expected ids or colours, as in ignore=255, or ignore=none")
    return numbers, colours
