"""The adapter contract, on the real pairs and on official archives made of them."""

from pathlib import Path

import pytest

from semiseg.data.testing import AdapterContract
from semiseg.datasets.voc import VOC


class TestUnpacked(AdapterContract):
    limit = 4

    @pytest.fixture
    def adapter(self, voc_root: Path) -> VOC:
        return VOC(voc_root)


class TestArchives(AdapterContract):
    """VOC in a plain tar, SBD's .mat files in a compressed one."""

    limit = 4

    @pytest.fixture
    def adapter(self, archives: Path) -> VOC:
        return VOC(archives)
