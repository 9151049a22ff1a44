"""What the README says to type: files that exist, recipes that load, commands that are there."""

import re
from pathlib import Path

import pytest

from semiseg.train.report.study import read_study
from semiseg.train.report.tables import table_csv, table_markdown
from tests.processes import python

ROOT = Path(__file__).parents[1]


def commands() -> list[str]:
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(("semiseg ", "accelerate ", "python ", "pip "))]


def test_every_command_is_there():
    found = [line.split() for line in commands()]
    assert len(found) >= 9
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
def test_the_tables_are_what_the_results_say(name: str):
    study = read_study(ROOT / "results" / name)
    told = table_markdown(study)
    assert (ROOT / "results" / name / "table.md").read_text() == told
    assert (ROOT / "results" / name / "table.csv").read_text() == table_csv(study)
    assert told in (ROOT / "README.md").read_text()


def test_every_link_and_room_exists():
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
    tree = text.split("## The house")[1].split("```")[1]
    for line in tree.strip().splitlines():
        assert (ROOT / line.split()[0]).is_dir(), line
