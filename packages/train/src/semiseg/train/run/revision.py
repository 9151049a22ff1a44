"""Which commit of this software is running, where it runs out of a git checkout."""

import os
import subprocess
from pathlib import Path
from typing import Any

_LIMIT_S = 5.0  # a checkout on a slow network disk is not worth a longer wait


def revision(file: Path = Path(__file__)) -> dict[str, Any]:
    """{"commit": sha, "dirty": bool} of the checkout that tracks `file`; both None without one, or without git.

    dirty: whether tracked files of the checkout, staged or not, differ from the commit.
    """
    found: dict[str, Any] = {"commit": None, "dirty": None}
    # an installed copy may lie within somebody's checkout, ignored: only a tracked file is of that commit
    if _git(file, "ls-files", "--error-unmatch", "--", file.name) is None:
        return found
    status = _git(file, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    lines = (status or "").splitlines()
    commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    if commits and commits != ["(initial)"]:
        found = {"commit": commits[0], "dirty": any(not line.startswith("#") for line in lines)}
    return found


def _git(file: Path, *arguments: str) -> str | None:
    """What git says beside `file`; None for any failure."""
    # a hook's own variables name another repository; without the lock, git leaves the checkout's index as it is
    strange = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
    environment = {name: value for name, value in os.environ.items() if name not in strange}
    try:
        done = subprocess.run(
            ["git", "-C", str(file.parent), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            timeout=_LIMIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
