"""What imports load: never torch, and nothing before a name is used."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import semiseg.data

FOLDER = Path(semiseg.data.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(FOLDER).with_suffix("").parts) for path in FOLDER.rglob("*.py") if path.stem != "__init__"
)


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after the code."""
    code += "\nimport sys; print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_the_package_alone_takes_nothing():
    assert not loaded_by("import semiseg.data") & {"numpy", "pyarrow", "PIL", "fsspec", "webdataset", "torch", "typer"}


def test_no_module_takes_torch():
    # webdataset imports torch if it is installed, so it is imported in the function that writes.
    if find_spec("torch") is None:
        pytest.skip("without torch installed this proves nothing")
    loaded = loaded_by("\n".join(f"import semiseg.data.{module}" for module in MODULES))
    assert not loaded & {"torch", "torchvision", "webdataset"}
    assert "numpy" in loaded


def test_every_public_name_exists_and_is_the_right_object():
    loaded_by(
        "import semiseg.data as d\n"
        "assert len(d.__all__) > 40 and 'AdapterContract' not in d.__all__\n"
        "for name in [*d.__all__, 'AdapterContract']: assert getattr(d, name) is not None and name in dir(d), name"
    )


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="ShardSett"):
        semiseg.data.ShardSett  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
