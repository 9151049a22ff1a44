"""Archives and MATLAB files of strangers: read right or refused in one line, with bounded memory and time."""

import bz2
import gzip
import io
import lzma
import os
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semiseg.data import DataError, Tree, checked_mat
from semiseg.data.source import unpack

MEBIBYTE = 1 << 20


def line(make: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message and message.isprintable() and len(message) < 600
    return message


def zip_of(
    path: Path, name: str, packed: bytes, *, method: int, size: int, checksum: int, packed_size: int = -1
) -> Path:
    """A zip of one member whose headers say anything."""
    stored = len(packed) if packed_size < 0 else packed_size
    fields = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 0x21, checksum, stored, size, len(name), 0)
    head = b"PK\x03\x04" + fields + name.encode() + packed
    entry = b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(head), 0)
    path.write_bytes(head + entry + end)
    return path


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def lzma_member(data: bytes, dictionary: int = 1 << 20) -> bytes:
    packer = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20}])
    return struct.pack("<BBHBI", 9, 4, 5, 93, dictionary) + packer.compress(data) + packer.flush()


PACKERS = {0: bytes, 8: deflated, 12: bz2.compress, 14: lzma_member}


@pytest.mark.parametrize("method", PACKERS)
@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_members_of_zips_are_read_as_packed(tmp_path, method, size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    path = zip_of(
        tmp_path / "a.zip", "a.png", PACKERS[method](data), method=method, size=size, checksum=zlib.crc32(data)
    )
    assert zipfile.ZipFile(path).read("a.png") == data  # the oracle
    assert Tree.open(path).read("a.png") == data


@pytest.mark.parametrize("method", PACKERS)
@pytest.mark.parametrize("said", [10, 99_999, 100_001, 1 << 29])
def test_a_member_of_another_size_than_it_says_is_refused(tmp_path, method, said):
    data = bytes(100_000)
    packed = PACKERS[method](data)
    path = zip_of(tmp_path / "a.zip", "a.png", packed, method=method, size=said, checksum=zlib.crc32(data[:said]))
    assert str(path) in line(lambda: Tree.open(path).read("a.png"))


def test_a_zip_that_packs_too_much_is_refused_by_name(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packing, packing.open("bomb.png", "w") as to:
        for _ in range(unpack.BOMB // MEBIBYTE + 1):
            to.write(bytes(MEBIBYTE))
    tree = Tree.open(path)
    assert "bomb.png" not in tree
    assert "-fold, to 269,484,032 bytes" in tree.refused["bomb.png"]
    line(lambda: tree.read("bomb.png"))


@pytest.mark.parametrize(
    "said", [{"size": (1 << 32) - 1}, {"packed_size": 1 << 31}, {"method": 99}, {"method": 1}], ids=str
)
def test_false_headers_of_zips(tmp_path, said):
    packed = deflated(b"x" * 100)
    fields = {"method": 8, "size": 100, "checksum": zlib.crc32(b"x" * 100)} | said
    path = zip_of(tmp_path / "a.zip", "a.png", packed, **fields)
    line(lambda: Tree.open(path).read("a.png"))


def test_encrypted_duplicate_and_nested_members(tmp_path):
    inner, path = io.BytesIO(), tmp_path / "a.zip"
    with zipfile.ZipFile(inner, "w") as packing:
        packing.writestr("x.png", b"inner")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as packing:
        for name, data in [
            ("a.png", b"1"),
            ("A.png", b"2"),
            ("a.png", b"3"),
            ("in.zip", inner.getvalue()),
            ("s.png", b"4"),
        ]:
            packing.writestr(name, data)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"s.png") - 38] |= 1  # the flags in the central directory
    path.write_bytes(data)
    tree = Tree.open(path)
    assert tree.names() == ["A.png", "a.png", "in.zip"]  # an archive inside is a file like any other
    assert (tree.read("a.png"), tree.read("A.png")) == (b"3", b"2")
    assert tree.refused == {"s.png": "encrypted"}
    assert "encrypted" in line(lambda: tree.read("s.png"))


def header(name: str, size: int, kind: bytes = b"0", **fields: Any) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


TARS = {
    "a long name of 2 GB": header("././@LongLink", 2 << 30, b"L") + bytes(2048),
    "attributes of 2 GB": header("x", 2 << 30, b"x") + bytes(2048),
    "a member of 2**60 bytes": header("x", 1 << 60) + bytes(2048),
    "a member of -512 bytes": header("x", -512) + bytes(2048),
    "a long name of -512 bytes": header("x", -512, b"L") + bytes(2048),
    "attributes of -1024 bytes": header("x", -1024, b"x") + bytes(2048),
    "long names of long names": header("x", 512, b"L").ljust(1024, b"a") * 3000 + bytes(1024),
    "a size of 400 digits": header("x", 512, b"x") + b"408 size=".ljust(407, b"9") + b"\n".ljust(105, b"\0")
    + header("y", 0) + bytes(1024),
    "no end": header("x", 5) + b"abcde".ljust(512, b"\0"),
}  # fmt: skip


@pytest.mark.parametrize("packer", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["tar", "gz", "bz2", "xz"])
@pytest.mark.parametrize("name", TARS)
def test_false_headers_of_tars(tmp_path, name, packer):
    path = tmp_path / "a.tar"
    path.write_bytes(packer(TARS[name]))
    line(lambda: [Tree.open(path).read(name) for name in Tree.open(path).names()])


@pytest.mark.parametrize(
    "kind", [b"1", b"2", b"3", b"4", b"6"], ids=["hard link", "link", "character", "block", "pipe"]
)
def test_links_and_devices_of_tars_are_never_read(tmp_path, kind):
    path = tmp_path / "a.tar"
    member = header("a.png", 0, kind, linkname="/etc/passwd")
    path.write_bytes(member + header("b.png", 1) + b"b".ljust(512, b"\0") + bytes(1024))
    tree = Tree.open(path)
    assert tree.names() == ["b.png"] and list(tree.refused) == ["a.png"]
    line(lambda: tree.read("a.png"))


@pytest.mark.parametrize("packer", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
@pytest.mark.parametrize("where", ["member", "end"])
def test_a_compressed_tar_that_packs_too_much_is_refused(tmp_path, monkeypatch, packer, where):
    monkeypatch.setattr(unpack, "BOMB", 1 << 22)  # as many bytes as the test can pack in no time
    size = 1 << 23
    tar = header("a.png", size) + bytes(size) + bytes(1024) if where == "member" else bytes(1024) + bytes(size)
    path = tmp_path / "a.tar"
    path.write_bytes(packer(header("b.png", 1) + b"b".ljust(512, b"\0") + tar))
    assert "if you trust it, unpack it and name the folder" in line(lambda: Tree.open(path).names())


BOMBS = """
import sys, zipfile
from semiseg.data import DataError, Tree, checked_mat
for path in sys.argv[1:]:
    try:
        if path.endswith("mat"):
            checked_mat(open(path, "rb").read(), "GTcls", 64 << 20)
        else:
            tree = Tree.open(path)
            [tree.read(name) for name in [*tree.names(), *tree.refused]]
    except (DataError, ValueError) as error:
        print(path.rpartition("/")[2], "refused", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process")
def test_bombs_are_refused_in_little_memory(tmp_path):
    """In a process with 512 MB: what inflates to 256 MB and more, whatever size the archive says."""
    stream = bz2.BZ2Compressor()
    packed = b"".join(stream.compress(bytes(64 * MEBIBYTE)) for _ in range(4)) + stream.flush()
    zip_of(tmp_path / "bz2.zip", "a.png", packed, method=12, size=100, checksum=zlib.crc32(bytes(100)))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(packer.compress(bytes(64 * MEBIBYTE)) for _ in range(4)) + packer.flush()
    zip_of(tmp_path / "small.zip", "a.png", packed, method=8, size=100, checksum=zlib.crc32(bytes(100)))
    zip_of(tmp_path / "honest.zip", "a.png", packed, method=8, size=1 << 30, checksum=0)
    wide = zlib.compressobj(9)
    body = (
        struct.pack("<II", 14, (4 << 26) + 56) + el(6, struct.pack("<II", 9, 0)) + el(5, struct.pack("<2i", 1, 4 << 26))
    )
    body += el(1, b"GTcls") + struct.pack("<II", 2, 4 << 26)
    body = wide.compress(body) + b"".join(wide.compress(bytes(64 * MEBIBYTE)) for _ in range(4)) + wide.flush()
    (tmp_path / "inflates.mat").write_bytes(HEAD + struct.pack("<II", 15, len(body)) + body)
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    limit = lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 29, 1 << 29))  # noqa: E731
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, *paths],
        preexec_fn=limit,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    refused = [text.split()[0] for text in done.stdout.splitlines()]
    assert refused == [path.rpartition("/")[2] for path in paths]


# MATLAB files


HEAD = b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x100) + b"IM"


def el(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def array(group: int, sizes: tuple[int, ...], rest: bytes, name: bytes = b"", size: int | None = None) -> bytes:
    flags, dimensions = el(6, struct.pack("<II", group, 0)), el(5, struct.pack(f"<{len(sizes)}i", *sizes))
    body = flags + dimensions + el(1, name) + rest
    return struct.pack("<II", 14, len(body) if size is None else size) + body


def test_published_mat_files_are_read_as_scipy_reads_them():
    """The files that MATLAB wrote for scipy's tests: cells, structs, objects, functions, sparse, text, both byte orders."""
    matlab = pytest.importorskip("scipy.io.matlab")
    folder = Path(matlab.__file__).parent / "tests" / "data"
    compared = 0
    for path in sorted(folder.glob("test[cdmosu]*_[67]*.mat")):
        data = path.read_bytes()
        for name, *_ in matlab.whosmat(io.BytesIO(data)):
            ours = matlab.loadmat(io.BytesIO(checked_mat(data, name, MEBIBYTE)), variable_names=[name])[name]
            assert str(ours) == str(matlab.loadmat(io.BytesIO(data), variable_names=[name])[name]), path.name
            compared += 1
    if folder.is_dir():
        assert compared > 20


def test_written_mat_files_are_read_as_scipy_reads_them():
    io_ = pytest.importorskip("scipy.io")
    inner = np.empty((3, 1), object)
    inner[:] = [[np.eye(2)]] * 3
    for compress in (False, True):
        stream = io.BytesIO()
        io_.savemat(stream, {"other": np.eye(3), "GTcls": {"Segmentation": np.eye(4, dtype=np.uint8), "Boundaries": inner}},
                    do_compression=compress)  # fmt: skip
        checked = checked_mat(stream.getvalue(), "GTcls", MEBIBYTE)
        found = io_.loadmat(io.BytesIO(checked))
        assert "other" not in found and np.array_equal(found["GTcls"]["Segmentation"][0, 0], np.eye(4))


def nested(depth: int) -> bytes:
    """Cells in cells; scipy's reader ends the process at 100,000."""
    inner = array(6, (1, 1), el(9, bytes(8)))
    heads, size = [], len(inner)
    for level in range(depth):
        head = array(1, (1, 1), b"", b"GTcls" if level == depth - 1 else b"")[8:]
        heads.append(struct.pack("<II", 14, size + len(head)) + head)
        size += len(head) + 8
    return b"".join(reversed(heads)) + inner


MATS = {
    "deep": nested(100_000),
    "deep by false sizes": array(1, (1, 1), b"", b"GTcls", size=48) + array(1, (1, 1), b"", size=40) * 50_000,
    "many cells": array(1, (1 << 30, 1), b"", b"GTcls"),
    "negative": array(1, (-1, 1), b"", b"GTcls"),
    "text of spaces": array(4, (1 << 30, 1), el(4, b""), b"GTcls"),
    "numbers": array(6, (1 << 15, 1 << 15), el(9, b""), b"GTcls"),
    "cut": array(6, (1, 1), b"", b"GTcls", size=1 << 20),
    "fields": array(2, (1, 1), el(5, struct.pack("<i", 0)) + el(1, b""), b"GTcls"),
    "many fields": array(2, (1, 1), el(5, struct.pack("<i", 1)) + el(1, b"a" * 100_000), b"GTcls"),
    "twice": array(6, (1, 1), el(9, bytes(8)), b"GTcls") * 2,
    "other": array(6, (1, 1), el(9, bytes(8)), b"other"),
    "nothing": b"",
    "noise": np.random.default_rng(0).integers(0, 256, 10_000, np.uint8).tobytes(),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", MATS)
def test_false_mat_files_are_refused(name, packed):
    pytest.importorskip("scipy.io")
    from semiseg.datasets.voc.sbd import read_mask

    body = MATS[name]
    if packed:
        body = zlib.compress(body)
        body = struct.pack("<II", 15, len(body)) + body
    message = line(lambda: read_mask(lambda: HEAD + body, "cls/a.mat"))
    assert message.startswith("cls/a.mat is not a mask of SBD")


@pytest.mark.parametrize("how", ["soft link", "outside", "external data", "huge", "virtual"])
def test_labels_of_sun_rgbd_are_read_from_their_own_file_only(tmp_path, how):
    h5py = pytest.importorskip("h5py")
    from semiseg.datasets.sunrgbd.toolbox import LabelFile, read_label

    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(range(64)))
    path = tmp_path / "labels.mat"
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.ones((8, 8), np.uint8)
    with h5py.File(path, "w") as file:
        if how == "soft link":
            file["x"] = h5py.SoftLink("/y")
        elif how == "outside":
            file["x"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
        elif how == "external data":
            file.create_dataset("x", (8, 8), np.uint8, external=[(str(secret), 0, 64)])
        elif how == "huge":
            file.create_dataset("x", (1 << 20, 1 << 20), np.uint8, chunks=(64, 64))
        else:
            layout = h5py.VirtualLayout((8, 8), np.uint8)
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (8, 8))
            file.create_virtual_dataset("x", layout)
        group = file.create_group("SUNRGBD2Dseg")
        if "link" in how or how == "outside":
            group["seglabel"] = h5py.SoftLink("/x")
        else:
            group["seglabel"] = np.array([file["x"].ref], h5py.ref_dtype)
    line(lambda: read_label(LabelFile(str(path)), 0))
