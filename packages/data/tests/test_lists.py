"""Lists of samples as other programs write them."""

from pathlib import Path

import pytest

from semiseg.data import DataError, by_list

KEYS = ["2007_000032", "2007_000039", "Urban/12", "aachen/aachen_000000_000019_leftImg8bit", "Photo_1", "0001TP_006690"]


class Keyed:
    def keys(self) -> list[str]:
        return KEYS


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("2007_000032", "2007_000032"),
        ("JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png", "2007_000032"),
        ("/JPEGImages/2007_000032.jpg\t/SegmentationClass/2007_000032.png", "2007_000032"),
        ("JPEGImages/2007_000039.jpg,SegmentationClass/2007_000039.png", "2007_000039"),
        ("2007_000039.jpg;1", "2007_000039"),
        ("2007_000039 -1", "2007_000039"),
        ("/SegNet/CamVid/train/0001TP_006690.png /SegNet/CamVid/trainannot/0001TP_006690.png", "0001TP_006690"),
        ("leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png gtFine/train/aachen/x.png",
         "aachen/aachen_000000_000019_leftImg8bit"),
        ("..\\images\\2007_000032.JPG", "2007_000032"),
        ("D:\\data\\Urban\\12.png", "Urban/12"),
        ('"images/Photo 1.jpg","masks/Photo 1.png"', "Photo_1"),
        ("images/Photo 1.jpg masks/Photo 1.png", "Photo_1"),
        ("photo 1.jpg", "Photo_1"),
        ("photo 1", "Photo_1"),
        ("D:\\my data\\images\\2007_000032.jpg", "2007_000032"),
        ("my data/images/2007_000032", "2007_000032"),
        ("images/2007_000032.jpg masks/2007_000039.png", "2007_000032"),  # the first name is meant, whatever follows
        ("images/2007_000032 masks/2007_000039", "2007_000032"),
        ("2007_000032 2007_000039", "2007_000032"),
        ("2007_000032.jpg,2007_000039.png", "2007_000032"),
    ],
)  # fmt: skip
def test_a_line_is_read_as_its_author_meant(tmp_path: Path, line: str, key: str) -> None:
    (tmp_path / "list.txt").write_text(f"{line}\n", encoding="utf-8")
    assert [KEYS[i] for i in by_list(Keyed(), tmp_path / "list.txt")] == [key]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings_comments_and_empty_lines(tmp_path: Path, encoding: str, end: str) -> None:
    lines = ["# the first fold", "", "2007_000039.jpg  ", "  Urban/12", ""]
    (tmp_path / "list.txt").write_bytes(end.join(lines).encode(encoding))
    assert by_list(Keyed(), tmp_path / "list.txt").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"2007_000032\nJPEGImages/2007_000033.jpg a.png\nzz\n",
         r"list.txt:2: 2 of 3 lines name no sample, first 'JPEGImages/2007_000033.jpg a.png'; nearest .* is '2007_00003[29]'"),
        (b"2007_000032\n\n./2007_000032.jpg\n", "list.txt:3: sample '2007_000032' is also on line 1; remove one of them"),
        (b"# nothing\n\n", "list.txt' is empty; write one key a line"),
        (b"caf\xe9\n", "not a text file .*at byte 3.*save it as UTF-8"),
    ],
)  # fmt: skip
def test_wrong_lists_are_refused_by_line(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(DataError, match=text):
        by_list(Keyed(), tmp_path / "list.txt")


def test_a_missing_list(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*none.txt' \(No such file or directory\)"):
        by_list(Keyed(), tmp_path / "none.txt")
