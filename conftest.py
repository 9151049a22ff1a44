"""What every test of the repository may ask for."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
TEST_DATA = Path(os.environ.get("SEMISEG_TEST_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real images; a test that needs it is skipped, loudly, where it is missing."""
    if not TEST_DATA.is_dir():
        pytest.skip(f"NO REAL DATA at {TEST_DATA}: set SEMISEG_TEST_DATA to run this test")
    return TEST_DATA


@pytest.fixture(scope="session")
def camvid_root(test_data: Path) -> Path:
    """CamVid in SegNet's layout (train and val)."""
    return test_data / "camvid"
