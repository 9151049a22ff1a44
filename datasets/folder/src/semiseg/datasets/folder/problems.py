"""Everything that is wrong with a folder, told at once."""

import unicodedata
from collections import Counter
from collections.abc import Callable

from semiseg.data import DataError

SHOWN = 25  # rows of the table; the counts above it are of all


class Problems:
    """Collects what is wrong, file by file, until someone asks."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str | Callable[[], str]]] = []

    def add(self, kind: str, file: str, what: str | Callable[[], str]) -> None:
        """One row: a kind of problem in a few words, the file, what was found and what to do.

        `what` may be a function, where finding the words takes a while: it is called for rows that are shown.
        """
        self.rows.append((kind, plain(file), what))

    def raise_any(self, where: str) -> None:
        """DataError whose text is the table, if there is a row: counts of each kind, then the first rows of every kind."""
        if not self.rows:
            return
        counts = Counter(kind for kind, _, _ in self.rows)
        told = ", ".join(f"{kind} ({count})" for kind, count in counts.items())
        rows = [("problem", "file", "what, and what to do"), *self._some(len(counts))]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        lines = [f"  {kind:{widths[0]}}  {file:{widths[1]}}  {what}" for kind, file, what in rows]
        left = len(self.rows) - (len(rows) - 1)
        if left:
            lines.append(f"  and {left} more")
        count = f"{len(self.rows)} problem{'s' * (len(self.rows) != 1)}"
        raise DataError(f"{where}: {count}: {told}\n" + "\n".join(lines))

    def _some(self, kinds: int) -> list[tuple[str, str, str]]:
        """At most `SHOWN` rows, each kind with its share."""
        share = max(1, SHOWN // kinds)
        seen: Counter[str] = Counter()
        chosen = []
        for kind, file, what in self.rows:
            seen[kind] += 1
            if seen[kind] <= share or len(self.rows) <= SHOWN:
                chosen.append((kind, file, what if isinstance(what, str) else what()))
        return sorted(chosen, key=lambda row: list(seen).index(row[0]))


def plain(text: str) -> str:
    """A name in one spelling, whatever the file system made of its accents; bytes that are no text become "?" marks."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return unicodedata.normalize("NFC", text)
