"""Realistic folders made from real CamVid files, and small ones written file by file."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

PLACES = ("Straße früh", "Straße früh/Tag 2", "")
SUFFIXES = (".JPG", ".jpg", ".Jpeg")


@pytest.fixture(scope="session")
def untidy(camvid_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 real images, 10 with their real masks: umlauts, spaces, dots, mixed suffixes, nested folders, a mac's junk.

    Images are JPEGs made from CamVid's PNGs; masks are CamVid's own files, byte for byte.
    """
    root = tmp_path_factory.mktemp("own") / "Bilder Cambridge"
    for i, source in enumerate(sorted((camvid_root / "train").glob("*.png"))[::12][:30]):
        place, stem = PLACES[i % 3], f"Fahrt {i // 10} Bild.{i:02} (Kopie)" if i % 2 else f"Übersicht_{i}"
        image = root / "Images" / place / (stem + SUFFIXES[i % 3])
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.open(source).convert("RGB").save(image, "JPEG", quality=92)
        image.with_name(f"._{image.name}").write_bytes(b"a mac was here")
        if i % 3 == 0:
            mask = root / "Masks" / place / f"{stem}_mask.PNG"
            mask.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(camvid_root / "trainannot" / source.name, mask)
    (root / "Images" / "Thumbs.db").write_bytes(b"windows too")
    return root


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """put("images/a.jpg", pixels or bytes or text, **save options) -> the folder that all of these go to, tmp_path/roofs."""
    root = tmp_path / "roofs"

    def put(name: str, content: Any = None, **options: Any) -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_bytes(encoded(noise(len(name)) if content is None else content, path.suffix, **options))
        return root

    return put


@pytest.fixture
def pairs(put: Callable[..., Path]) -> Callable[..., Path]:
    """pairs(count) -> a folder of images a0.png, a1.png ... with masks of ids 0, 1, 2."""

    def pairs(count: int, names: str = "a{}") -> Path:
        for number in range(count):
            put(f"images/{names.format(number)}.png", noise(number))
            put(f"masks/{names.format(number)}.png", random_ids(number))
        return put("read me.md", "")

    return pairs


@pytest.fixture
def photo() -> Callable[..., np.ndarray]:
    """photo(seed, height=9, width=12) -> RGB noise."""
    return noise


@pytest.fixture
def ids() -> Callable[..., np.ndarray]:
    """ids(seed, height=9, width=12, count=3) -> random ids below count."""
    return random_ids


def noise(seed: int, height: int = 9, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def random_ids(seed: int, height: int = 9, width: int = 12, count: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, (height, width), np.uint8)


def encoded(picture: np.ndarray | Image.Image, suffix: str, **options: Any) -> bytes:
    kinds = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".png": "PNG"}
    kind = kinds.get(suffix.lower(), suffix[1:].upper())
    stream = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(stream, kind, **options)
    return stream.getvalue()
