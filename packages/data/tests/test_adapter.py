"""Adapters: found by name among the installed packages, with their options and files."""

import textwrap
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semiseg.data import DataError, RawSample, Taxonomy, broken, clean_key, find_root, installed, open_dataset, registry
from semiseg.data.source.adapter import KEY

TOWN = """
    from semiseg.data import RawSpace, Taxonomy

    class Town:
        name, summary, home, version, root = "town", "a town", "https://example.org", "1", None
        raw_space = RawSpace(name="town-raw", names={0: "sky", 1: "road"})
        taxonomies = (
            Taxonomy(name="town-2", raw=raw_space, names=("sky", "road"), colours=((0, 0, 0), (1, 1, 1)),
                     ids={0: 0, 1: 1}, foreground=frozenset()),
        )
        def __init__(self, root=None, *, size=(4, 4), labels="fine"):
            self.root, self.size, self.labels = root, size, labels
        def splits(self): return {}
        def samples(self, split): return iter(())

    class Strict(Town):
        name = "strict"
        def __init__(self, root=None, *, masks): ...

    class Free(Town):
        name = "free"
        def __init__(self, root=None, **options): self.options = options
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with data sets: install("name", source, {entry: object})."""

    def forget():
        registry.announced.cache_clear()
        registry.load.cache_clear()

    def install(name: str, source: str, entries: dict[str, str]) -> None:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{entry} = {name}:{target}\n" for entry, target in entries.items())
        (info / "entry_points.txt").write_text(f"[semiseg.datasets]\n{lines}")
        monkeypatch.syspath_prepend(tmp_path)
        forget()

    yield install
    forget()


@pytest.fixture
def town(install):
    install("fake_town", TOWN, {"town": "Town", "strict": "Strict", "free": "Free"})


def test_an_installed_data_set_opens_by_name(town):
    opened = open_dataset("town", "some/where", labels="coarse")
    assert (opened.root, opened.labels) == (Path("some/where"), "coarse")  # pyright: ignore[reportAttributeAccessIssue]
    assert {"town", "strict", "free"} <= set(installed())
    assert installed()["town"] is type(opened)


def test_an_unknown_data_set_names_the_nearest(town):
    with pytest.raises(DataError, match=r"unknown data set 'twon'; did you mean 'town'\? known: .*town"):
        open_dataset("twon")


def test_an_unknown_option_names_the_nearest_and_the_known(town):
    with pytest.raises(
        DataError, match=r"data set 'town': unknown option 'lables'; did you mean 'labels'\? known: labels, size"
    ):
        open_dataset("town", lables="coarse")
    with pytest.raises(DataError, match="data set 'strict' needs the option masks"):
        open_dataset("strict")
    assert open_dataset("free", anything=1).options == {"anything": 1}  # pyright: ignore[reportAttributeAccessIssue]


def test_taxonomies_are_found_by_name(town):
    assert Taxonomy.get("town-2") is installed()["town"].taxonomies[0]
    assert "town-2" in Taxonomy.all()
    with pytest.raises(DataError, match=r"unknown taxonomy 'town-3'; did you mean 'town-2'\?"):
        Taxonomy.get("town-3")


def test_a_broken_package_is_named_only_if_it_may_be_the_cause(town, install):
    install("fake_broken", "import no_such_library", {"wreck": "Wreck"})
    assert "wreck" not in installed()
    assert "No module named 'no_such_library'" in broken()["wreck"]
    assert Taxonomy.get("town-2").name == "town-2"
    with pytest.raises(DataError, match="package 'wreck' could not be loaded: ModuleNotFoundError: No module named"):
        Taxonomy.get("wreck-7")
    with pytest.raises(DataError, match="package 'wreck' could not be loaded: ModuleNotFoundError"):
        open_dataset("wreck")


def test_packages_that_disagree_on_a_taxonomy_are_refused(town, install):
    install("fake_rival", TOWN.replace("(1, 1, 1)", "(2, 2, 2)"), {"rival": "Town"})
    with pytest.raises(DataError, match=r"data sets '\w+' and '\w+' define taxonomy 'town-2' differently"):
        Taxonomy.all()


# Finding files.


def holds_images(candidate: Path) -> Path | None:
    return candidate if (candidate / "images").is_dir() else None


look = partial(
    find_root,
    "town",
    locate=holds_images,
    variables=["TOWN_HOME"],
    expected="town/\n  images/*.png",
    home="https://town.org",
)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with the files, and an environment that does not say where."""
    (tmp_path / "here" / "Town_v1" / "images").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for variable in ("SEMISEG_DATA", "TOWN_HOME"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "here" / "Town_v1"


def test_the_root_its_parent_and_its_child_all_lead_to_the_files(files):
    for root in (files, files.parent, files / "images", str(files)):
        assert look(root) == files


def test_the_root_may_be_an_archive_or_relative_or_at_home(files, monkeypatch):
    (files / "town.zip").touch()
    assert look(files / "town.zip") == files
    monkeypatch.chdir(files / "images")
    assert look(".") == files
    monkeypatch.setenv("HOME", str(files.parent))
    assert look("~/Town_v1") == files


def test_children_are_tried_in_order_and_the_root_first(files):
    other = files.parent / "Another" / "images"
    other.mkdir(parents=True)
    assert look(files.parent) == other.parent
    (files.parent / "images").mkdir()
    assert look(files.parent) == files.parent


def test_without_a_root_the_environment_is_looked_at_in_order(files, monkeypatch):
    local = Path("data/town/images")
    local.mkdir(parents=True)
    assert look(None) == local.parent.absolute()
    monkeypatch.setenv("TOWN_HOME", str(files.parent))
    assert look(None) == files
    shared = files.parent.parent / "all" / "town" / "images"
    shared.mkdir(parents=True)
    monkeypatch.setenv("SEMISEG_DATA", str(shared.parent.parent))
    assert look(None) == shared.parent


def test_an_unset_root_never_wanders_into_a_parent(files, monkeypatch):
    monkeypatch.setenv("TOWN_HOME", str(files / "images"))
    with pytest.raises(DataError):
        look(None)


def test_the_error_lists_every_place_with_its_reason_the_tree_and_the_page(files, monkeypatch):
    (files.parent.parent / "empty" / "sub").mkdir(parents=True)
    monkeypatch.setenv("TOWN_HOME", str(files.parent.parent / "empty"))
    with pytest.raises(DataError) as caught:
        look(None)
    lines = str(caught.value).splitlines()
    assert lines[1] == "  $SEMISEG_DATA/town: not set"
    assert lines[2].startswith("  $TOWN_HOME = ")
    assert lines[2].endswith("the expected files are not in it, its sub-folders (sub)")
    assert lines[3] == f"  ./data/town = {Path('data/town').absolute()}: does not exist"
    assert lines[4:7] == ["expected:", "  town/", "    images/*.png"]
    assert "https://town.org" in lines[7]
    assert "SEMISEG_DATA" in lines[7]


def test_a_folder_that_cannot_be_read_says_so(files):
    def refuse(candidate: Path) -> Path | None:
        raise PermissionError(13, "Permission denied", str(candidate))

    with pytest.raises(DataError, match=r"could not be read \(Permission denied\)"):
        find_root("town", files, locate=refuse, expected="x", home="y")


# Samples.


@pytest.mark.parametrize("key", ["", "a.b", "a b", "/a", "a/", "a//b", "ä", "a\\b", "a\n"])
def test_a_key_that_readers_would_trip_over_is_refused(key):
    with pytest.raises(DataError, match="clean_key gives"):
        RawSample(key=key, image=b"", label=None, size=0)


def test_a_size_is_not_negative():
    with pytest.raises(DataError, match="'a' has a size of -1"):
        RawSample(key="a", image=b"", label=None, size=-1)


@given(st.text())
def test_a_clean_key_is_always_a_key_and_keeps_good_ones(text):
    key = clean_key(text)
    RawSample(key=key, image=b"", label=None, size=0)
    assert clean_key(key) == key
    if KEY.fullmatch(text):
        assert key == text


def test_a_clean_key_shows_where_it_came_from():
    assert clean_key("aachen/aachen_000000_000019.v2 (1)") == "aachen/aachen_000000_000019_v2__1_"
