"""The adapter contract, on the publisher's files in every form."""

from pathlib import Path
from typing import Any

import pytest

from semiseg.data.testing import AdapterContract
from semiseg.datasets.cityscapes import Cityscapes


class TestUnpacked(AdapterContract):
    @pytest.fixture
    def adapter(self, official: Any, tmp_path: Path) -> Cityscapes:
        return Cityscapes(official.unpack(tmp_path / "cityscapes"))


class TestPacked(AdapterContract):
    """The publisher's four zips, none of them unpacked."""

    limit = 3

    @pytest.fixture
    def adapter(self, official: Any, tmp_path: Path) -> Cityscapes:
        return Cityscapes(official.pack_all(tmp_path / "cityscapes"))


class TestPolygonsAlone(AdapterContract):
    """Images unpacked, labels in their zip and only as polygons."""

    limit = 3

    @pytest.fixture
    def adapter(self, official: Any, tmp_path: Path) -> Cityscapes:
        root = official.unpack(tmp_path, "leftImg8bit/")
        drawn = type(official)({name: data for name, data in official.files.items() if name.endswith(".json")})
        drawn.pack(root / "gtFine_trainvaltest.zip", "gtFine/")
        return Cityscapes(root)
