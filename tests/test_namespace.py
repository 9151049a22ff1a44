"""All packages share one namespace, which none of them may own, and are listed wherever a list can't be derived."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("*/*/pyproject.toml"))
DATA_SETS = [package for package in PACKAGES if package.startswith("datasets/")]


def test_no_distribution_owns_the_namespace():
    owners = [*ROOT.glob("*/*/src/semiseg/__init__.py"), *ROOT.glob("*/*/src/semiseg/datasets/__init__.py")]
    assert not owners
    assert not (ROOT / "datasets" / "__init__.py").exists()


def test_hugging_face_datasets_is_found_from_the_root():
    from tests.processes import python

    assert python("-c", "import datasets; datasets.load_dataset").returncode == 0


def test_every_distribution_has_one_version():
    projects = {package: project(package) for package in PACKAGES}
    versions = {described["version"] for described in projects.values()}
    assert len(versions) == 1
    (version,) = versions
    for package, described in projects.items():
        extras = described.get("optional-dependencies", {}).values()
        for requirement in [*described["dependencies"], *(wanted for extra in extras for wanted in extra)]:
            if requirement.startswith("semiseg"):
                assert requirement.endswith(f"=={version}"), f"{package}: {requirement}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_typed_and_installed_for_development(package: str):
    assert list((ROOT / package).glob("src/semiseg/**/py.typed")), (
        f"add an empty py.typed beside {package}'s __init__.py"
    )
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    editable = [line.partition("[")[0] for line in lines]
    assert editable.count(f"-e {package}") == 1, f"add the line '-e {package}' to requirements-dev.txt"


@pytest.mark.parametrize("package", DATA_SETS)
def test_a_data_set_is_found_listed_and_documented(package: str):
    described = project(package)
    assert described["entry-points"]["semiseg.datasets"], (
        f"add the entry point of the adapter to {package}/pyproject.toml"
    )
    listed = [
        wanted.partition("==")[0].partition("[")[0]
        for wanted in project("packages/cli")["optional-dependencies"]["all"]
    ]
    assert described["name"] in listed, f"add {described['name']} to the extra 'all' in packages/cli/pyproject.toml"
    assert f"(../{package}/README.md)" in (ROOT / "docs/README.md").read_text(), (
        f"link {package}/README.md in docs/README.md"
    )


def project(package: str) -> dict:
    return tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]
