"""What importing takes along: never torch, and nothing at all before a name is used."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import semiseg.data

FOLDER = Path(semiseg.data.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after the code."""
    code += "\nimport sys; print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_the_package_alone_takes_nothing():
    assert not loaded_by("import semiseg.data") & {"numpy", "pyarrow", "PIL", "fsspec", "webdataset", "torch", "typer"}


def test_no_module_takes_torch():
    # webdataset imports torch where it finds it, so it waits inside the function that writes.
    if find_spec("torch") is None:
        pytest.skip("without torch installed this proves nothing")
    loaded = loaded_by("\n".join(f"import semiseg.data.{module}" for module in MODULES))
    assert not loaded & {"torch", "torchvision", "webdataset"}
    assert "numpy" in loaded


def test_each_name_is_there_and_is_itself():
    names = [*semiseg.data.__all__, "AdapterContract"]
    code = (
        f"import semiseg.data as d\nfor name in {names}: assert getattr(d, name) is not None and name in dir(d), name"
    )
    loaded_by(code)


def test_functions_named_as_their_modules_stay_functions():
    for name in ("shard", "verify"):
        loaded_by(
            f"import semiseg.data.{name}\nfrom semiseg.data.{name} import {name} as one\n"
            f"from semiseg.data import {name} as two\nimport semiseg.data\n"
            f"assert one is two is semiseg.data.{name} and callable(one)"
        )


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'semiseg\.data' has no attribute 'ShardSett'"):
        semiseg.data.ShardSett  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_the_three_lists_of_names_agree():
    tree = ast.parse((FOLDER / "__init__.py").read_text())
    typed = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("semiseg.data.")
        for alias in node.names
    }
    assert typed == {name: f"semiseg.data.{module}" for name, module in semiseg.data._HOME.items()}
    assert sorted(typed) == sorted([*semiseg.data.__all__, "AdapterContract"])
