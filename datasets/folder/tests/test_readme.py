"""The README's commands, class file and examples run unchanged."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from semiseg.datasets.folder import Folder

README = Path(__file__).parents[1] / "README.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_code_runs_in_twelve_lines(
    untidy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "roofs").symlink_to(untidy)
    for code in blocks("python"):
        assert len([line for line in code.splitlines() if line.strip()]) <= 12
        exec(code, {})
    printed = capsys.readouterr().out
    assert (
        "unlabeled 20 without" in printed
        and "class_3" in printed
        and "torch.Size([3, 360, 480]) torch.uint8" in printed
    )


def test_the_class_file_is_read(put: Callable[..., Path], ids: Callable) -> None:
    put("images/a.jpg")
    put("masks/a.png", ids(0, count=2))
    (taxonomy,) = Folder(put("classes.toml", blocks("toml")[0])).taxonomies
    assert taxonomy.names == ("ground", "roof") and taxonomy.foreground == {1}
    assert taxonomy.colours == ((0, 0, 0), (255, 0, 0))


def test_the_train_command_is_the_one_that_sharding_prints(untidy: Path) -> None:
    folder = Folder(untidy, name="roofs")
    (printed,) = folder.next_steps(["train", "val", "unlabeled"], "shards/")
    (typed,) = [line for line in blocks("")[0].splitlines() if line.startswith("semiseg train")]
    assert [word for word in shlex.split(printed) if word != "data.shards=shards/"] == shlex.split(typed)
