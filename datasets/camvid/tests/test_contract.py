"""What every adapter promises, on the real files."""

from pathlib import Path

import pytest

from semiseg.data.testing import AdapterContract
from semiseg.datasets.camvid import CamVid


class TestCamVid(AdapterContract):
    @pytest.fixture
    def adapter(self, camvid_root: Path) -> CamVid:
        return CamVid(camvid_root)
