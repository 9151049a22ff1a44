"""Lists of VOC's ids, as other programs write them."""

from pathlib import Path

import pytest

from semiseg.data import DataError, Tree
from semiseg.datasets.voc.files import File, read_list


def ids(folder: Path, data: bytes) -> list[str]:
    (folder / "train.txt").write_bytes(data)
    return read_list(File(Tree.open(folder), "train.txt"))


@pytest.mark.parametrize(
    "data",
    [
        b"2007_000032\n2007_000039\n",
        b"JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png\nJPEGImages/2007_000039.jpg SegmentationClass/x.png",
        b"/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png\r\n/JPEGImages/2007_000039.jpg\tx\r\n",
        b"# UniMatch, 1/16\n\nJPEGImages\\2007_000032.jpg,SegmentationClass\\2007_000032.png\n2007_000039,1\n",
        b"2007_000032 -1\n2007_000039  1\n",
        "2007_000032.jpg\n2007_000039.jpg\n".encode("utf-16"),
        "2007_000032\r\n2007_000039".encode("utf-8-sig"),
    ],
)
def test_usual_lines(tmp_path: Path, data: bytes) -> None:
    assert ids(tmp_path, data) == ["2007_000032", "2007_000039"]


def test_repeated_ids_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train.txt:3: 2007_000032 is also on line 1; remove one of them"):
        ids(tmp_path, b"2007_000032\n2007_000039\nJPEGImages/2007_000032.jpg\n")
    with pytest.raises(DataError, match="is not a text file"):
        ids(tmp_path, b"\x89PNG\xff")
