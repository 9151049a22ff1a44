"""A publisher's files in a folder or an archive, listed and read in the same way, without unpacking."""

import difflib
import functools
import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from semiseg.data.errors import DataError
from semiseg.data.source import archive
from semiseg.data.source.hidden import hidden


class Tree:
    """Relative posix names and bytes of the regular files below a folder, or in a zip or tar, read without unpacking.

    Created by `Tree.open`. Archives are listed once and never extracted. Members with unsafe names ("..", absolute names,
    drive letters), links and devices are never read: they are in `refused`, and reading one raises DataError. Links in a
    folder are the user's and are followed; broken ones are in `refused`, too.
    Hidden files and those that systems add (".x", __MACOSX/, Thumbs.db) are left out.
    """

    def __init__(self, path: Path, kind: str, prefix: str = "") -> None:
        self.path = path  # the folder or archive
        self.kind = kind  # "folder", "zip", "tar", "gz", "bz2", "xz"
        self.prefix = prefix  # where in an archive this tree begins: "" or "a/b/"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Tree":
        """The tree of a folder, .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz, recognised by its first bytes.

        Raises DataError for anything else. An archive is listed when its names are first asked for.
        """
        place = Path(path).absolute()
        if place.is_dir():
            return cls(place, "folder")
        if not place.exists():
            raise DataError(f"{place} does not exist; expected a folder, a zip or a tar")
        return cls(place, archive.kind_of(place))

    @property
    def sequential(self) -> bool:
        """Whether the archive can only be read forward: random access then costs passes (a minute for a few GB)."""
        return self.kind in ("gz", "bz2", "xz")

    @property
    def refused(self) -> dict[str, str]:
        """Names that exist but are never read, and what they are: {"../evil": "a name that climbs out ..."}."""
        return self._walked[1] if self.kind == "folder" else archive.listing(self.path, self.kind).refused

    def names(self) -> list[str]:
        """All regular files, sorted by name."""
        return list(self._names) if not self.prefix else [name[len(self.prefix) :] for name in self._slice("")]

    def under(self, folder: str) -> list[str]:
        """The names below a folder, sorted, relative to this tree (they begin with `folder`)."""
        return [name[len(self.prefix) :] for name in self._slice(_folder(folder))]

    def glob(self, pattern: str) -> list[str]:
        """The names that match, sorted: `*` and `?` within a part of a name, `**/` for any folders, `[ab]` for a choice."""
        literal = re.match(r"[^*?\[]*/", pattern)
        expression = re.compile(_translate(pattern))
        return [name for name in self.under(literal[0] if literal else "") if expression.fullmatch(name)]

    def folders(self, folder: str = "") -> list[str]:
        """The names of the non-empty folders directly below a folder, sorted."""
        start = len(_folder(folder))
        return sorted({name[start:].partition("/")[0] for name in self.under(folder) if "/" in name[start:]})

    def __contains__(self, name: str) -> bool:
        if self.kind == "folder":
            return _plain(name) and (self.path / name).is_file()
        return self.prefix + name in archive.listing(self.path, self.kind).entries

    def __len__(self) -> int:
        return len(self._slice(""))

    def __repr__(self) -> str:
        return f"Tree({self.where()})"

    def where(self, name: str = "") -> str:
        """The name of a file of this tree, or of the tree itself, for messages."""
        if self.kind == "folder":
            return str(self.path / name)
        inside = (self.prefix + name).rstrip("/")
        return f"{self.path}: {inside}" if inside else str(self.path)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._file(name).stat().st_size if self.kind == "folder" else self._entry(name).size

    def read(self, name: str) -> bytes:
        """A file's bytes; DataError if it is missing (with the nearest name), refused or damaged."""
        return self.member(name)()

    def member(self, name: str) -> Callable[[], bytes]:
        """A function that reads a file later, in any process: for `RawSample.image` and `label`.

        A process that reads a compressed tar in the archive's order makes one pass in total. It keeps some hundreds of MB
        of the members that it passes, so masks of a folder can be read in any order (see `semiseg.data.source.archive`).
        """
        if self.kind == "folder":
            return functools.partial(_read, self._file(name))
        return functools.partial(archive.read, str(self.path), self.kind, self._entry(name))

    def sub(self, folder: str) -> "Tree":
        """The tree below a folder of this one; empty if the folder does not exist."""
        if self.kind == "folder":
            return Tree(self.path / folder, "folder")
        return Tree(self.path, self.kind, self.prefix + _folder(folder))

    @cached_property
    def _names(self) -> list[str]:
        """All names in the folder or archive."""
        if self.kind != "folder":
            return archive.listing(self.path, self.kind).names
        return self._walked[0]

    @cached_property
    def _walked(self) -> tuple[list[str], dict[str, str]]:
        """A folder's names, and its broken links."""
        dangling: dict[str, str] = {}
        names = sorted(name for name in _walk(self.path, dangling) if not hidden(name))
        return names, {name: why for name, why in sorted(dangling.items()) if not hidden(name)}

    def _slice(self, folder: str) -> list[str]:
        start = self.prefix + folder
        if not start:
            return self._names
        # Names below "a/" are neighbours when sorted; "0" follows "/".
        return self._names[bisect_left(self._names, start) : bisect_left(self._names, start[:-1] + "0")]

    def _file(self, name: str) -> Path:
        path = self.path / name
        if not _plain(name) or not path.is_file():
            self._fail(name)
        return path

    def _entry(self, name: str) -> archive.Entry:
        found = archive.listing(self.path, self.kind).entries.get(self.prefix + name)
        return found or self._fail(name)

    def _fail(self, name: str) -> "archive.Entry":
        fault = self.refused.get(self.prefix + name)
        if fault:
            remedy = (
                "put the file there" if self.kind == "folder" else "such members are never read; pack the file itself"
            )
            raise DataError(f"{self.where(name)} is {fault}: {remedy}")
        folder = f"{PurePosixPath(name).parent}/" if "/" in name else ""
        close = difflib.get_close_matches(name, self.under(folder)[:5000], n=1)
        raise DataError(f"{self.where(name)} does not exist" + (f"; did you mean '{close[0]}'?" if close else ""))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); restore it, or leave it out") from error


def _walk(folder: Path, dangling: dict[str, str]) -> Iterator[str]:
    """Relative posix names of the regular files below a folder; links are followed, each folder is listed once.

    Broken links, and links to folders that are listed elsewhere, are added to `dangling`, with a description.
    """
    seen: dict[tuple[int, int], str] = {}
    waiting, linked = [(str(folder), "")], []
    while waiting or linked:
        place, prefix = (
            waiting.pop() if waiting else linked.pop()
        )  # a folder is listed under its own name, if it has one
        try:
            state = Path(place).stat()
            first = seen.setdefault((state.st_dev, state.st_ino), prefix)
            if first != prefix:
                if not prefix.startswith(first):  # not a circle
                    dangling[prefix.rstrip("/")] = f"a symbolic link to {first.rstrip('/')}, which is read already"
                continue
            with os.scandir(place) as found:
                for item in sorted(found, key=lambda item: item.name, reverse=True):
                    if hidden(item.name):
                        continue
                    if item.is_dir():
                        (linked if item.is_symlink() else waiting).append((item.path, f"{prefix}{item.name}/"))
                    elif item.is_file():
                        yield prefix + item.name
                    elif item.is_symlink():
                        target = Path(item.path).readlink()
                        dangling[prefix + item.name] = f"a symbolic link to {target}, where there is no file"
        except FileNotFoundError:
            continue  # an empty tree, or a broken link
        except OSError as error:
            raise DataError(f"{place} can't be listed ({error.strerror or error})") from error


def _folder(name: str) -> str:
    """ "a/b" and "a/b/" as "a/b/"; "" as ""."""
    return f"{name.strip('/')}/" if name.strip("/") else ""


def _plain(name: str) -> bool:
    """Whether a name stays below its root."""
    return not name.startswith("/") and ".." not in name.split("/")


@functools.lru_cache(maxsize=256)
def _translate(pattern: str) -> str:
    """A regular expression for a glob pattern."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\])", pattern)
    return "".join(
        words.get(part)
        or (part.replace("[!", "[^", 1) if part.startswith("[") and part[-1] == "]" else re.escape(part))
        for part in parts
    )
