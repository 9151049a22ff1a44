"""The adapter contract, on SegNet's real files and on the original release written from them."""

from pathlib import Path
from typing import Any

import pytest

from semiseg.data.testing import AdapterContract
from semiseg.datasets.camvid import CamVid


class TestCamVid(AdapterContract):
    @pytest.fixture
    def adapter(self, camvid_root: Path) -> CamVid:
        return CamVid(camvid_root)


class TestOriginal(AdapterContract):
    """Unpacked, with SegNet's lists in the same folder."""

    limit = 4

    @pytest.fixture
    def adapter(self, original: Any, tmp_path: Path) -> CamVid:
        return CamVid(original.list_splits(original.unpack(tmp_path / "CamVid")))


class TestOriginalPacked(AdapterContract):
    """The two official zips, without lists."""

    limit = 4

    @pytest.fixture
    def adapter(self, original: Any, tmp_path: Path) -> CamVid:
        return CamVid(original.pack(tmp_path / "CamVid"))
