"""Cityscapes' tree, written by the tests in the publisher's encoding, since its images may not be redistributed.

Pixels are CamVid's at a quarter of their size, if available, with masks in Cityscapes' ids; otherwise noise.
"""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# CamVid's classes in Cityscapes' ids: sky, building, pole, road, sidewalk, vegetation, traffic sign, fence, car, person,
# bicycle, unlabeled.
IDS = np.array([23, 11, 17, 7, 8, 21, 20, 13, 26, 24, 33, 0], np.uint8)
# Split -> city -> frames.
FRAMES = {
    "train": {"aachen": (19, 20, 21), "zurich": (7,)},
    "val": {"frankfurt": (294, 576), "lindau": (19,)},
    "test": {"berlin": (19, 20)},
    "train_extra": {"troisdorf": (72, 73, 74), "augsburg": (1,)},
}
BLACK = "train_extra/troisdorf/troisdorf_000000_000073"


@dataclass
class Official:
    """Name in the publisher's tree -> bytes, and the ids of each image."""

    files: dict[str, bytes] = field(default_factory=dict)
    ids: dict[str, np.ndarray] = field(default_factory=dict)

    def unpack(self, root: Path, start: str = "") -> Path:
        """Write the files whose names start with `start`."""
        for name, data in self.files.items():
            if name.startswith(start):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(data)
        return root

    def pack(self, path: Path, *starts: str) -> Path:
        """A zip of the files whose names start with one of `starts`, with the two files that each official zip has."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("README", "license.txt"):
                archive.writestr(name, "see the publisher's page")
            for name, data in self.files.items():
                if name.startswith(starts):
                    archive.writestr(name, data)
        return path

    def pack_all(self, root: Path) -> Path:
        """The four archives that the publisher offers."""
        usual = ("train/", "val/", "test/")
        self.pack(root / "leftImg8bit_trainvaltest.zip", *(f"leftImg8bit/{split}" for split in usual))
        self.pack(root / "leftImg8bit_trainextra.zip", "leftImg8bit/train_extra/")
        self.pack(root / "gtFine_trainvaltest.zip", "gtFine/")
        self.pack(root / "gtCoarse.zip", "gtCoarse/")
        return root


@pytest.fixture(scope="session")
def polygons() -> Callable[..., bytes]:
    """A `_polygons.json`: every run of equal ids in a row, as the thin polygon that covers exactly its pixels."""

    def write(ids: np.ndarray, names: Mapping[int, str]) -> bytes:
        height, width = ids.shape
        objects = []
        for y, row in enumerate(ids):
            ends = [*np.flatnonzero(np.diff(row)).tolist(), width - 1]
            for start, stop in zip([0, *(end + 1 for end in ends)], ends, strict=False):
                if row[start]:  # 0, unlabeled, is what polygons are drawn over
                    corners = [[start, y], [stop, y], [stop, y], [start, y]]
                    objects.append({"label": names[int(row[start])], "polygon": corners})
        return json.dumps({"imgHeight": height, "imgWidth": width, "objects": objects}).encode()

    return write


@pytest.fixture(scope="session")
def official(camvid_or_noise: list[tuple[np.ndarray, np.ndarray]], polygons: Callable[..., bytes]) -> Official:
    """All files of all splits, tiny: labels have all forms that the publisher provides."""
    from semiseg.datasets.cityscapes.labels import LABELS

    names = {i: label.name for i, label in enumerate(LABELS)}
    found, pictures = Official(), iter(camvid_or_noise)
    for split, cities in FRAMES.items():
        for key in (f"{split}/{city}/{city}_000000_{frame:06}" for city, frames in cities.items() for frame in frames):
            image, ids = next(pictures)
            if key == BLACK:
                image, ids = np.zeros_like(image), np.full_like(ids, 3)
            if split == "test":
                ids = np.zeros_like(ids)
            found.ids[key] = ids
            found.files[f"leftImg8bit/{key}_leftImg8bit.png"] = png(image)
            kinds = {"test": ["gtFine"], "train_extra": ["gtCoarse"]}.get(split, ["gtFine", "gtCoarse"])
            for kind in kinds:
                start = f"{kind}/{key}_{kind}"
                found.files[f"{start}_labelIds.png"] = png(ids)
                found.files[f"{start}_instanceIds.png"] = png(ids.astype(np.uint16) * 1000)
                found.files[f"{start}_color.png"] = png(np.repeat(ids[..., None], 4, axis=2))
                found.files[f"{start}_polygons.json"] = polygons(ids, names)
    return found


@pytest.fixture(scope="session")
def camvid_or_noise(request: pytest.FixtureRequest) -> list[tuple[np.ndarray, np.ndarray]]:
    """(image, ids) pairs of 120x90."""
    rng = np.random.default_rng(0)
    try:
        root: Path = request.getfixturevalue("camvid_root")
    except pytest.skip.Exception:
        return [
            (
                rng.integers(0, 256, (90, 120, 3), np.uint8),
                IDS[rng.integers(0, 12, (9, 12))].repeat(10, 0).repeat(10, 1),
            )
            for _ in range(20)
        ]
    images = sorted((root / "train").glob("*.png"))[::18][:20]
    masks = [root / "trainannot" / path.name for path in images]
    return [
        (np.asarray(Image.open(i))[::4, ::4], IDS[np.asarray(Image.open(m))][::4, ::4])
        for i, m in zip(images, masks, strict=True)
    ]


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
    return stream.getvalue()
