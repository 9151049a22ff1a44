"""The adapter contract, on an untidy folder of real images and on a folder with every kind of file."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data.testing import AdapterContract
from semiseg.datasets.folder import Folder


class TestUntidy(AdapterContract):
    @pytest.fixture
    def adapter(self, untidy: Path) -> Folder:
        return Folder(untidy)


class TestMixed(AdapterContract):
    """TIFF, BMP, grey, 16 bits, EXIF, masks in colours and in grey, an archive."""

    @pytest.fixture
    def adapter(self, put: Callable[..., Path], photo: Callable, ids: Callable, tmp_path: Path) -> Folder:
        turned = Image.Exif()
        turned[0x0112] = 6
        colours = np.array([(0, 0, 0), (200, 0, 0), (0, 0, 200)], np.uint8)
        for number, suffix in enumerate((".tif", ".bmp", ".png", ".jpg", ".webp", ".gif")):
            put(f"images/a{number}{suffix}", photo(number))
            put(f"masks/a{number}.png", colours[ids(number)])
        put("images/deep.png", (ids(1).astype(np.uint16) * 1000))
        put("images/grey.jpg", photo(2)[..., 0])
        put("images/turned.jpg", Image.fromarray(photo(3)), exif=turned)
        put("masks/turned.png", colours[ids(3, 12, 9)])
        root = put("classes.toml", 'classes = [{name="a", colour=[0,0,0]}, {name="b", colour="#c80000"}, '
                   '{name="c", colour=[0,0,200]}]')  # fmt: skip
        return Folder(Path(shutil.make_archive(str(tmp_path / "roofs"), "zip", root.parent, root.name)), val=0.4)


def test_real_pixels_arrive(untidy: Path, camvid_root: Path) -> None:
    """Masks are CamVid's, identified by their pixels; images are the unchanged bytes of the JPEGs."""
    sources = sorted((camvid_root / "train").glob("*.png"))[::12][:30]
    known = {(camvid_root / "trainannot" / source.name).read_bytes() for source in sources[::3]}
    folder = Folder(untidy)
    labeled = [sample for split in ("train", "val") for sample in folder.samples(split)]
    assert {bytes(sample.label()) for sample in labeled if callable(sample.label)} == known
    for split in folder.splits():
        for sample in folder.samples(split):
            assert callable(sample.image)
            assert sample.image() == (untidy / str(sample.meta["source"])).read_bytes()
            assert Image.open(io.BytesIO(sample.image())).size == (480, 360)
