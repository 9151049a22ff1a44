"""Trees: folders, zips and tars are listed and read the same; hostile and damaged archives are refused by name."""

import gzip
import io
import multiprocessing
import os
import pickle
import random
import stat
import subprocess
import sys
import tarfile
import threading
import tracemalloc
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from semiseg.data import DataError, Tree
from semiseg.data.source import archive

FILES = {
    "readme.txt": b"hello",
    "images/a b.jpg": random.Random(0).randbytes(70_001),
    "images/deep/x.jpg": b"",
    "images/z.png": bytes(512),
    "images0/other.png": b"a sibling that sorts beside images/",
    "labels/z.png": random.Random(1).randbytes(1024),
    "labels/" + "long" * 40 + ".png": b"a name that a plain tar header does not hold",
}
KINDS = ("folder", "zip", "tar", "tar.gz", "tar.bz2", "tar.xz")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same files as a folder and, below `top/`, in each kind of archive; members are in no particular order."""
    here = tmp_path_factory.mktemp("packed")
    for name, data in FILES.items():
        path = here / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    order = random.Random(2).sample(sorted(FILES), len(FILES))
    with zipfile.ZipFile(here / "zip", "w", zipfile.ZIP_DEFLATED) as packing:
        packing.mkdir("top")
        for name in order:
            packing.write(here / "folder" / name, f"top/{name}")
    for kind in KINDS[2:]:
        with tarfile.open(here / kind, _mode(kind)) as packing:
            packing.add(here, "top", recursive=False)
            for name in order:
                packing.add(here / "folder" / name, f"./top/{name}")
    return {kind: here / kind for kind in KINDS}


@pytest.fixture(params=KINDS)
def tree(request: pytest.FixtureRequest, packed: dict[str, Path]) -> Tree:
    opened = Tree.open(packed[request.param])
    return opened if request.param == "folder" else opened.sub("top")


def test_every_container_gives_the_same_names_sizes_and_bytes(tree: Tree) -> None:
    assert tree.names() == sorted(FILES)
    assert len(tree) == len(FILES)
    assert {name: tree.read(name) for name in tree.names()} == FILES
    assert {name: tree.size(name) for name in tree.names()} == {name: len(data) for name, data in FILES.items()}
    assert all(name in tree for name in FILES)
    assert not {"nothing", "images", "images/", "../folder/readme.txt", "/etc/passwd", ""} & {
        name for name in ("nothing", "images", "images/", "../folder/readme.txt", "/etc/passwd", "") if name in tree
    }
    assert tree.sequential == (tree.kind in ("gz", "bz2", "xz"))
    assert tree.refused == {}


def test_parts_of_a_tree(tree: Tree) -> None:
    assert tree.under("images") == tree.under("images/") == ["images/a b.jpg", "images/deep/x.jpg", "images/z.png"]
    assert tree.folders() == ["images", "images0", "labels"]
    assert tree.folders("images") == ["deep"]
    images = tree.sub("images")
    assert images.names() == ["a b.jpg", "deep/x.jpg", "z.png"]
    assert images.read("z.png") == FILES["images/z.png"]
    assert images.sub("deep").names() == ["x.jpg"]
    assert "z.png" in images and "a b.jpg" not in images.sub("deep")
    assert tree.sub("nowhere").names() == []
    assert tree.sub("nowhere").folders() == []


def test_glob_agrees_with_fnmatch_on_flat_names_and_knows_folders(tree: Tree) -> None:
    flat = [name for name in tree.names() if name.count("/") == 1]
    for pattern in ("images/*.jpg", "images/[az]*.???", "labels/*", "labels/[!z]*.png", "labels/z.png"):
        assert [name for name in tree.glob(pattern) if name.count("/") == 1] == [n for n in flat if fnmatch(n, pattern)]
    assert tree.glob("images/*.jpg") == ["images/a b.jpg"]
    assert tree.glob("images/**/*.jpg") == ["images/a b.jpg", "images/deep/x.jpg"]
    assert tree.glob("**/z.png") == ["images/z.png", "labels/z.png"]
    assert tree.glob("*.txt") == tree.glob("readme?txt") == ["readme.txt"]
    assert tree.glob("**") == tree.names()


def test_members_travel_and_are_read_later(tree: Tree) -> None:
    names = random.Random(3).choices(tree.names(), k=30)
    members = pickle.loads(pickle.dumps([tree.member(name) for name in names]))
    assert [member() for member in members] == [FILES[name] for name in names]
    assert pickle.loads(pickle.dumps(tree)).names() == tree.names()


def test_a_missing_name_suggests_the_nearest(tree: Tree) -> None:
    with pytest.raises(DataError, match=r"labels/zz.png does not exist; did you mean 'labels/z.png'\?"):
        tree.read("labels/zz.png")
    with pytest.raises(DataError, match=r"does not exist$"):
        tree.member("../folder/readme.txt")


def test_threads_and_forked_processes_read_at_once(tree: Tree) -> None:
    """An archive that was opened before a fork must not share its position with the children."""
    assert tree.read("readme.txt") == b"hello"
    faults: list[str] = []

    def read(seed: int) -> None:
        names = random.Random(seed).choices(tree.names(), k=40)
        faults.extend(name for name in names if tree.read(name) != FILES[name])

    def child(seed: int) -> None:
        read(seed)
        os._exit(len(faults))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=child, args=(seed,)) for seed in range(3)]
    for process in children:
        process.start()
    for process in children:
        process.join()
    assert faults == []
    assert [process.exitcode for process in children] == [0, 0, 0]


def test_links_of_a_folder_are_followed_and_circles_end(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(b"a")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "self").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "elsewhere" / "b.png").symlink_to("lost.png")
    os.mkfifo(tmp_path / "root" / "pipe")
    tree = Tree.open(tmp_path / "root")
    assert tree.names() == ["images/a.png"]
    assert tree.refused == {
        "images/b.png": "a symbolic link to lost.png, where there is no file",
        "nowhere": f"a symbolic link to {tmp_path / 'gone'}, where there is no file",
    }
    assert list(tree.sub("images").refused) == ["b.png"]
    with pytest.raises(DataError, match=r"images/b\.png is a symbolic link to lost\.png, .*: put the file there"):
        tree.read("images/b.png")


def test_files_that_macos_adds_are_left_out(tmp_path: Path) -> None:
    names = ("a/b.png", "a/._b.png", "__MACOSX/a/b.png", ".DS_Store", "a/.DS_Store", "._a")
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as packing:
        for name in names:
            packing.writestr(name, b"x")
    for name in names:
        (tmp_path / "mac" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mac" / name).write_bytes(b"x")
    assert Tree.open(tmp_path / "mac.zip").names() == Tree.open(tmp_path / "mac").names() == ["a/b.png"]


HOSTILE = {
    "../evil.txt": "a name that climbs out of the archive",
    "a/../../evil.txt": "a name that climbs out of the archive",
    "..\\evil.txt": "a name that climbs out of the archive",
    "/tmp/evil.txt": "an absolute name",
    "\\\\server\\evil.txt": "an absolute name",
    "C:\\evil.txt": "a name with a drive letter",
    "c:evil.txt": "a name with a drive letter",
    "new\nline": "a name with unprintable characters",
}


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_hostile_members_of_a_tar_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "secret").write_text("secret")
    odd = {
        "soft": (tarfile.SYMTYPE, str(tmp_path / "secret"), f"a symbolic link to {tmp_path / 'secret'}"),
        "hard": (tarfile.LNKTYPE, "../secret", "a hard link to ../secret"),
        "null": (tarfile.CHRTYPE, "", "a device"),
        "pipe": (tarfile.FIFOTYPE, "", "a device"),
        "good": (tarfile.SYMTYPE, "/etc/passwd", "a symbolic link to /etc/passwd"),
    }
    path = tmp_path / "hostile"
    with tarfile.open(path, _mode(kind)) as packing:
        for name in ("good", *HOSTILE, "fine"):
            info = tarfile.TarInfo(name)
            info.size = 4
            packing.addfile(info, io.BytesIO(b"evil"))
        for name, (what, target, _) in odd.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = what, target
            packing.addfile(info)
    before = sorted(tmp_path.rglob("*"))
    tree = Tree.open(path)
    assert tree.names() == ["fine"], "a link in the place of an earlier file takes that away as well"
    assert tree.refused == HOSTILE | {name: why for name, (_, _, why) in odd.items()}
    assert tree.read("fine") == b"evil"
    for name in tree.refused:
        with pytest.raises(DataError, match="such members are never read"):
            tree.read(name)
    assert sorted(tmp_path.rglob("*")) == before


def test_hostile_members_of_a_zip_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "hostile.zip"
    with zipfile.ZipFile(path, "w") as packing:
        for name in HOSTILE:
            packing.writestr(name, b"evil")
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packing.writestr(link, "/etc/passwd")
        locked = zipfile.ZipInfo("locked")
        packing.writestr(locked, b"locked")
        packing.writestr("fine", b"fine")
        locked.flag_bits |= 1  # in the directory, which is written last
    tree = Tree.open(path)
    assert tree.names() == ["fine"]
    assert tree.refused == HOSTILE | {"link": "a symbolic link", "locked": "encrypted"}
    with pytest.raises(DataError, match="locked is encrypted"):
        tree.read("locked")


def test_the_last_of_a_name_counts_as_it_does_for_tar(tmp_path: Path) -> None:
    for mode in ("w", "w:gz"):
        path = tmp_path / mode.replace(":", "")
        with tarfile.open(path, mode) as packing:
            for text in (b"old", b"newer"):
                info = tarfile.TarInfo("a.txt")
                info.size = len(text)
                packing.addfile(info, io.BytesIO(text))
        assert Tree.open(path).read("a.txt") == b"newer"


@pytest.mark.parametrize("kind", KINDS[1:])
def test_an_archive_cut_off_anywhere_is_an_error(packed: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """Every multiple of 512 bytes for a plain tar, where members start and end, and random offsets for all."""
    whole = packed[kind].read_bytes()
    end = len(whole) - (tarfile.RECORDSIZE + 512 if kind == "tar" else 1)
    blocks = range(512, end, 512 * 16) if kind == "tar" else ()
    for cut in (*blocks, *random.Random(4).sample(range(6, end), 20)):
        path = tmp_path / f"{cut}"
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"cut off or damaged|it is not a folder, zip or tar"):
            Tree.open(path).names()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_flipped_byte_of_compressed_data_is_found(packed: dict[str, Path], tmp_path: Path, kind: str) -> None:
    data = bytearray(packed[kind].read_bytes())
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "flipped"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"flipped.* can't be read \(.*get it again"):
        tree = Tree.open(path)
        for name in tree.names():
            tree.read(name)


def test_a_broken_header_in_the_middle_does_not_pass_for_the_end(packed: dict[str, Path], tmp_path: Path) -> None:
    with tarfile.open(packed["tar"]) as whole:
        offset = whole.getmembers()[4].offset
    data = bytearray(packed["tar"].read_bytes())
    data[offset + 100] ^= 0xFF
    (tmp_path / "broken.tar").write_bytes(data)
    with pytest.raises(DataError, match="ends without an end-of-archive block"):
        Tree.open(tmp_path / "broken.tar").names()


@pytest.mark.parametrize("data", [b"", b"text " * 200, b"\x89PNG\r\n\x1a\n" + bytes(600), b"\x1f\x8bno gzip"])
def test_other_files_are_not_trees(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(DataError, match=r"it is not a folder, zip or tar|can't be read"):
        Tree.open(tmp_path / "file").names()
    with pytest.raises(DataError, match="does not exist"):
        Tree.open(tmp_path / "nothing")


def test_a_changed_archive_is_listed_again(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    for name in ("one", "another"):
        with zipfile.ZipFile(path, "w") as packing:
            packing.writestr(name, name)
        tree = Tree.open(path)
        assert tree.names() == [name]
        assert tree.read(name) == name.encode()


def test_a_member_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("bomb.png")
    info.size = 1 << 40
    (tmp_path / "bomb.tar").write_bytes(info.tobuf() + bytes(1024))
    with pytest.raises(DataError, match="cut off or damaged"):
        Tree.open(tmp_path / "bomb.tar").names()
    path = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as packing,
        packing.open("bomb", "w") as file,
    ):
        file.write(bytes(1 << 20))
        entry_size = archive.LARGEST + 1
    with pytest.raises(DataError, match=r"bomb has 1,073,741,825 bytes; members have at most 1,073,741,824"):
        archive.read(str(path), "zip", archive.Entry("bomb", entry_size, 0))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """25,000 members in two folders, as tar, tgz and zip; the second folder is in a different order."""
    here = tmp_path_factory.mktemp("many")
    images = [f"img/{i:05}.jpg" for i in range(12_500)]
    labels = [f"cls/{i:05}.mat" for i in random.Random(5).sample(range(12_500), 12_500)]
    blocks = []
    for member in (*images, *labels):
        data = member.encode() * 20
        info = tarfile.TarInfo(member)
        info.size = len(data)
        blocks += [info.tobuf(), data.ljust(512, b"\0")]
    whole = b"".join([*blocks, bytes(1024)])
    (here / "tar").write_bytes(whole)
    (here / "tgz").write_bytes(gzip.compress(whole, compresslevel=1))
    with zipfile.ZipFile(here / "zip", "w") as packing:
        for member in (*images, *labels):
            packing.writestr(member, member.encode() * 20)
    return {name: here / name for name in ("tar", "tgz", "zip")}


@pytest.mark.parametrize("kind", ["tar", "tgz", "zip"])
def test_25_000_members_are_listed(many: dict[str, Path], kind: str) -> None:
    tree = Tree.open(many[kind])
    assert len(tree) == 25_000
    assert tree.under("cls") == [f"cls/{i:05}.mat" for i in range(12_500)]
    assert tree.size("img/12499.jpg") == 13 * 20


def test_25_000_members_take_little_memory(many: dict[str, Path]) -> None:
    """About 700 bytes per member for names and offsets; tarfile's list would take twice that."""
    archive._listing.cache_clear()
    tracemalloc.start()
    tree = Tree.open(many["tar"])
    assert len(tree.names()) == 25_000
    used, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 15e6
    assert peak < 45e6


def test_images_and_labels_of_a_compressed_tar_are_read_in_few_passes(
    many: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In turn from two folders, with labels in another order than the archive's: the first pass keeps them."""
    path = many["tgz"]
    tree = Tree.open(path)
    names = [name for i in range(12_500) for name in (f"img/{i:05}.jpg", f"cls/{i:05}.mat")]
    started: list[object] = []
    original = archive._Cursor.__init__
    monkeypatch.setattr(archive._Cursor, "__init__", lambda *a: (started.append(a[0]), original(*a))[1])
    archive._passes.cache_clear()
    assert all(tree.read(name) == name.encode() * 20 for name in names)
    assert len(started) == 2


def test_memory_for_a_compressed_tar_is_bounded(many: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound holds in any order, and the bytes are right whatever was dropped."""
    monkeypatch.setattr(archive, "KEPT", 100_000)
    archive._passes.cache_clear()
    tree = Tree.open(many["tgz"])
    names = [*random.Random(6).sample(tree.names(), 12), *tree.under("img")[:2000]]
    for name in names:
        assert tree.read(name) == name.encode() * 20
    state = many["tgz"].stat()
    passes = archive._passes(str(many["tgz"]), "gz", state.st_mtime_ns, state.st_size, os.getpid())
    assert 0 < passes.bytes <= 100_000
    assert passes.bytes == sum(map(len, passes.kept.values()))
    assert len(passes.cursors) <= archive.CURSORS
    archive._passes.cache_clear()


def test_nothing_is_left_open(packed: dict[str, Path]) -> None:
    """Unclosed files are warnings at exit, which are errors here."""
    code = "import sys; from semiseg.data import Tree; trees = map(Tree.open, sys.argv[1:])"
    code += "; [tree.read(name) for tree in trees for name in tree.names()]"
    archives = [str(packed[kind]) for kind in KINDS[1:]]
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code, *archives], capture_output=True, text=True, check=True
    )
    assert "ResourceWarning" not in done.stderr


def _mode(kind: str) -> Any:
    """tarfile's mode to write a .tar, .tar.gz, ..."""
    return f"w:{kind[4:]}"
