"""Which commit a run was started from, in real small checkouts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import semiseg.train.run.revision
from semiseg.train.run.revision import revision

NONE = {"commit": None, "dirty": None}
WHO = {f"GIT_{role}_{what}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(folder: Path, *arguments: str) -> str:
    if shutil.which("git") is None:
        pytest.skip("there is no git here")
    own = {**os.environ, **WHO, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=own, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of one commit that tracks src/code.py and ignores venv/."""
    folder = tmp_path / "check out"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "code.py").write_text("one = 1\n")
    (folder / ".gitignore").write_text("venv/\n")
    git(tmp_path, "init", "--quiet", str(folder))
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "one")
    return folder


def test_a_commit_and_whether_tracked_files_differ(checkout: Path):
    file = checkout / "src" / "code.py"
    commit = git(checkout, "rev-parse", "HEAD")
    assert len(commit) == 40 and revision(file) == {"commit": commit, "dirty": False}
    (checkout / "src" / "notes.txt").write_text("untracked")
    os.utime(file, (0, 0))  # looks changed until its content is read
    assert revision(file) == {"commit": commit, "dirty": False}
    file.write_text("one = 2\n")
    assert revision(file) == {"commit": commit, "dirty": True}
    git(checkout, "add", ".")
    assert revision(file) == {"commit": commit, "dirty": True}
    git(checkout, "commit", "--quiet", "--message", "two")
    two = git(checkout, "rev-parse", "HEAD")
    assert two != commit and revision(file) == {"commit": two, "dirty": False}


def test_only_a_checkout_that_tracks_the_code_tells(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not one that an installed copy happens to lie in, nor that of a hook which starts a run."""
    installed = checkout / "venv" / "code.py"
    for each in (installed, tmp_path / "alone" / "code.py"):
        each.parent.mkdir()
        each.write_text("")
        assert revision(each) == NONE
    monkeypatch.setenv("GIT_DIR", str(checkout / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(checkout))
    assert revision(tmp_path / "alone" / "code.py") == NONE
    assert revision(checkout / "src" / "code.py")["dirty"] is False
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "code.py").write_text("")
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_WORK_TREE")
    git(fresh, "init", "--quiet")
    git(fresh, "add", ".")
    assert revision(fresh / "code.py") == NONE  # tracked, and no commit yet
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision(checkout / "src" / "code.py") == NONE  # no git


def test_the_package_finds_itself(checkout: Path):
    """By its own file, imported from the checkout (PYTHONPATH), from another folder."""
    home = checkout / "src" / "semiseg" / "train"
    shutil.copytree(
        Path(semiseg.train.run.revision.__file__).parents[1], home, ignore=shutil.ignore_patterns("__pycache__")
    )
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message", "all")
    code = "from semiseg.train.run.revision import revision; print(revision())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout.parent,
        env={**os.environ, "PYTHONPATH": str(checkout / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str({"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False})
