"""All distributions share one namespace, which none of them may own."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_no_distribution_owns_the_namespace():
    owners = [*ROOT.glob("*/*/src/semiseg/__init__.py"), *ROOT.glob("*/*/src/semiseg/datasets/__init__.py")]
    assert not owners
    assert not (ROOT / "datasets" / "__init__.py").exists()


def test_hugging_face_datasets_is_found_from_the_root():
    from tests.processes import python

    assert python("-c", "import datasets; datasets.load_dataset").returncode == 0


def test_every_distribution_has_one_version():
    import tomllib

    projects = {path: tomllib.loads(path.read_text())["project"] for path in ROOT.glob("*/*/pyproject.toml")}
    versions = {project["version"] for project in projects.values()}
    assert len(versions) == 1
    (version,) = versions
    for path, project in projects.items():
        extras = project.get("optional-dependencies", {}).values()
        wanted = [*project["dependencies"], *(each for group in extras for each in group)]
        for requirement in wanted:
            if requirement.startswith("semiseg"):
                assert requirement.endswith(f"=={version}"), f"{path}: {requirement}"
