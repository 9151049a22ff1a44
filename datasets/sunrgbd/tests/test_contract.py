"""The adapter contract, in both layouts, on real masks."""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from semiseg.data.testing import AdapterContract
from semiseg.datasets.sunrgbd import SUNRGBD


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the labels of a zipped toolbox are unpacked."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


class TestOfficialFolders(AdapterContract):
    @pytest.fixture
    def adapter(self, pairs: list, write_official: Callable[..., Path], tmp_path: Path) -> SUNRGBD:
        return SUNRGBD(write_official(tmp_path / "sun", pairs))


class TestOfficialZips(AdapterContract):
    limit = 2

    @pytest.fixture
    def adapter(self, pairs: list, write_official: Callable[..., Path], tmp_path: Path) -> SUNRGBD:
        return SUNRGBD(write_official(tmp_path / "sun", pairs, zipped=True))


class TestExportOf13Classes(AdapterContract):
    limit = 3

    @pytest.fixture
    def adapter(self, real_pairs: list, tmp_path: Path) -> SUNRGBD:
        root = tmp_path / "export"
        for n, real in enumerate(real_pairs):
            split, number = ("test", n + 1) if n < 3 else ("train", n - 2)
            stream = io.BytesIO()
            Image.fromarray(real.mask13).save(stream, "PNG")
            for name, data in (
                (f"SUNRGBD-{split}_images/img-{number:06d}.jpg", real.jpeg),
                (f"{split}13labels/img13labels-{number:06d}.png", stream.getvalue()),
            ):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(data)
        return SUNRGBD(root)
