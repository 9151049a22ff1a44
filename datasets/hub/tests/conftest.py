"""Realistic data sets of the `datasets` library, from real CamVid files and generated images."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the library is imported
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

# pytest calls this file datasets.hub.tests.conftest, and so has put our folder in the library's place.
if not hasattr(sys.modules.get("datasets"), "load_dataset"):
    sys.modules.pop("datasets", None)

import numpy as np
import pytest
from PIL import Image

import datasets


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate cache of the library for every test, and no network; the library may already be imported."""
    folder = tmp_path / "cache"
    for constant in ("huggingface_hub.constants.HF_HUB_OFFLINE", "datasets.config.HF_HUB_OFFLINE"):
        monkeypatch.setattr(constant, True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder)
    return folder


@pytest.fixture(scope="session")
def camvid_pairs(camvid_root: Path) -> list[tuple[Path, Path]]:
    """Ten real images and their masks."""
    images = sorted((camvid_root / "val").glob("*.png"))[::10][:10]
    return [(image, camvid_root / "valannot" / image.name) for image in images]


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """encoded(array or image, "PNG", ...) -> the file's bytes."""

    def encoded(picture: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
        stream = io.BytesIO()
        (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(stream, kind, **options)
        return stream.getvalue()

    return encoded


@pytest.fixture(scope="session")
def make(encoded: Callable[..., bytes]) -> Callable[..., Any]:
    """make(count, masks=..., **columns) -> a Dataset of noise; `masks(i)` gives an array, bytes or None."""

    def make(count: int = 4, masks: Callable[[int], Any] | None = None, features: Any = None, **columns: Any) -> Any:
        random = np.random.default_rng(0)
        images = [encoded(random.integers(0, 256, (8, 12, 3), np.uint8), "JPEG") for _ in range(count)]
        drawn = [masks(i) if masks else np.full((8, 12), i % 3, np.uint8) for i in range(count)]
        files = [encoded(mask) if isinstance(mask, np.ndarray) else mask for mask in drawn]
        table = {
            "image": [{"bytes": data, "path": None} for data in images],
            "label": [None if data is None else {"bytes": data, "path": None} for data in files],
            **columns,
        }
        kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Image(), **(features or {})})
        return datasets.Dataset.from_dict(table, features=kinds)

    return make
