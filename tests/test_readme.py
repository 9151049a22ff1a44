"""The commands, tables and paths in the README: files that exist, recipes that load, commands that run."""

import re
from pathlib import Path

import pytest

from semiseg.train.report.study import read_study
from semiseg.train.report.tables import table_csv, table_markdown
from tests.processes import python

ROOT = Path(__file__).parents[1]


def blocks() -> list[str]:
    """The blocks of code without a language: commands, and the tree of the project."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [block for language, block in found if not language]


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks() for line in block.splitlines()]
    return [line for line in lines if line.startswith(("semiseg ", "accelerate ", "python ", "pip "))]


def test_every_command_exists():
    found = [line.split() for line in commands()]
    assert len(found) >= 12
    for words in found:
        if words[0] == "semiseg":
            names = [word for word in words[1:3] if re.fullmatch(r"[a-z]+", word)]
            assert python("-m", "semiseg.cli", *names, "--help").returncode == 0
        if words[0] == "python":
            assert (ROOT / words[1]).is_file()
        for word in words:
            if word.startswith("recipes/"):
                assert python("-m", "semiseg.cli", "recipe", "show", ROOT / word).returncode == 0


@pytest.mark.parametrize("name", ["camvid", "camvid-subsets-methods"])
def test_the_tables_are_those_of_the_results(name: str):
    study = read_study(ROOT / "results" / name)
    table = table_markdown(study)
    assert (ROOT / "results" / name / "table.md").read_text() == table
    assert (ROOT / "results" / name / "table.csv").read_text() == table_csv(study)
    assert table in (ROOT / "README.md").read_text()


def test_every_link_and_folder_exists():
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
    (tree,) = (block for block in blocks() if block in text.split("## Project layout")[1])
    for line in tree.strip().splitlines():
        assert (ROOT / line.split()[0]).is_dir(), line
