"""The line of every key and list item of a TOML file, which the standard library's reader does not keep."""

import re
import tomllib

KeyPath = tuple[str | int, ...]  # keys and list indices: ("objectives", 1, "perturbations", 0, "kind")

BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
KEY = re.compile(r"""[ \t]*("(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+)[ \t]*""")
STRING = re.compile(r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\])*"|\'[^\']*\'', re.DOTALL)
SCALAR = re.compile(r"[^,\]}#\r\n]+")


def lines(text: str) -> dict[KeyPath, int]:
    """The line, counted from 1, of every key, table and list item of a document that `tomllib` accepts.

    A table without a header is listed where it is first mentioned.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.found


class _Scanner:
    """Walks through text that is known to be TOML, so that it only has to find where values begin and end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = self.counted = 0
        self.line = 1  # of `counted`
        self.found: dict[KeyPath, int] = {}
        self.items: dict[KeyPath, int] = {}  # lists of tables, [[path]]: items so far

    def document(self) -> None:
        table: KeyPath = ()
        self.skip(BLANK)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip(BLANK)

    def header(self) -> KeyPath:
        listed = self.text.startswith("[[", self.at)
        self.at += 1 + listed
        keys = self.keys()
        path: KeyPath = ()
        for position, key in enumerate(keys, start=1):
            path = (*path, key)
            self.note(path)
            if listed and position == len(keys):
                self.items[path] = self.items.get(path, 0) + 1
            if path in self.items:  # the name of a list of tables refers to the latest of them
                path = (*path, self.items[path] - 1)
                self.note(path)
        self.at += 1 + listed
        return path

    def pair(self, table: KeyPath) -> None:
        path = table
        for key in self.keys():
            path = (*path, key)
            self.note(path)
        self.at += 1  # the equals sign
        self.skip(BLANK)
        self.value(path)

    def value(self, path: KeyPath) -> None:
        opening = self.text[self.at]
        if opening not in "[{":
            self.skip(STRING if opening in "\"'" else SCALAR)
            return
        self.at += 1
        self.skip(BLANK)
        index = 0
        while self.text[self.at] not in "]}":
            if opening == "[":
                self.note((*path, index))
                self.value((*path, index))
                index += 1
            else:
                self.pair(path)
            self.skip(BLANK)
            self.at += self.text[self.at] == ","
            self.skip(BLANK)
        self.at += 1

    def keys(self) -> list[str]:
        """The parts of a dotted key, unquoted."""
        keys: list[str] = []
        while True:
            part = KEY.match(self.text, self.at)
            assert part, f"no key at offset {self.at}"
            keys.append(next(iter(tomllib.loads(f"{part[1]} = 0"))) if part[1][0] in "\"'" else part[1])
            self.at = part.end()
            if self.text[self.at] != ".":
                return keys
            self.at += 1

    def note(self, path: KeyPath) -> None:
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        self.found.setdefault(path, self.line)

    def skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        assert match, f"invalid TOML at offset {self.at}"
        self.at = match.end()
