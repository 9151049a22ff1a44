"""All problems of a folder, reported at once."""

import unicodedata
from collections import Counter
from collections.abc import Callable

from semiseg.data import DataError

SHOWN = 25  # rows of the table; the counts above it cover all problems


class Problems:
    """Collects problems, file by file, to report them at once."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str | Callable[[], str]]] = []

    def add(self, kind: str, file: str, what: str | Callable[[], str]) -> None:
        """Add a row: the kind of problem, the file, what was found and what to do.

        `what` may be a function if computing the text is slow: it is called only for rows that are shown.
        """
        self.rows.append((kind, plain(file), what))

    def raise_any(self, where: str) -> None:
        """Raise a DataError if there are problems: the number of problems by kind, then the first rows of every kind."""
        if not self.rows:
            return
        counts = Counter(kind for kind, _, _ in self.rows)
        kinds = ", ".join(f"{kind} ({count})" for kind, count in counts.items())
        rows = [("problem", "file", "what was found, and what to do"), *self._some(len(counts))]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        lines = [f"  {kind:{widths[0]}}  {file:{widths[1]}}  {what}" for kind, file, what in rows]
        left = len(self.rows) - (len(rows) - 1)
        if left:
            lines.append(f"  and {left} more")
        count = f"{len(self.rows)} problem{'s' * (len(self.rows) != 1)}"
        raise DataError(f"{where}: {count}: {kinds}\n" + "\n".join(lines))

    def _some(self, kinds: int) -> list[tuple[str, str, str]]:
        """At most `SHOWN` rows, shared equally between kinds."""
        share = max(1, SHOWN // kinds)
        seen: Counter[str] = Counter()
        chosen = []
        for kind, file, what in self.rows:
            seen[kind] += 1
            if seen[kind] <= share or len(self.rows) <= SHOWN:
                chosen.append((kind, file, what if isinstance(what, str) else what()))
        return sorted(chosen, key=lambda row: list(seen).index(row[0]))


def plain(text: str) -> str:
    """A name in one Unicode form, because file systems store accents differently; undecodable bytes become "?"."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return unicodedata.normalize("NFC", text)
