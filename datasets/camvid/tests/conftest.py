"""The original release, written from SegNet's real masks in the official encoding: the published files are not available."""

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# label_colors.txt as published, with SegNet's class of each line: an independent copy of the table. 11 is unlabelled.
TABLE = """\
64 128 64\tAnimal 9
192 0 128\tArchway 1
0 128 192\tBicyclist 10
0 128 64\tBridge 1
128 0 0\tBuilding 1
64 0 128\tCar 8
64 0 192\tCartLuggagePram 9
192 128 64\tChild 9
192 192 128\tColumn_Pole 2
64 64 128\tFence 7
128 0 192\tLaneMkgsDriv 3
192 0 64\tLaneMkgsNonDriv 3
128 128 64\tMisc_Text 6
192 0 192\tMotorcycleScooter 10
128 64 64\tOtherMoving 8
64 192 128\tParkingBlock 4
64 64 0\tPedestrian 9
128 64 128\tRoad 3
128 128 192\tRoadShoulder 4
0 0 192\tSidewalk 4
192 128 128\tSignSymbol 6
128 128 128\tSky 0
64 128 192\tSUVPickupTruck 8
0 0 64\tTrafficCone 2
0 64 64\tTrafficLight 6
192 64 128\tTrain 8
128 128 0\tTree 5
192 128 192\tTruck_Bus 8
64 0 64\tTunnel 1
192 192 0\tVegetationMisc 5
0 0 0\tVoid 11
64 192 0\tWall 1
"""
ROWS = [line.replace("\t", " ").split() for line in TABLE.splitlines()]
SPLITS = {"train": slice(0, 4), "val": slice(4, 6), "test": slice(6, 9)}


@dataclass
class Original:
    """Name in the release -> bytes; the ids that its labels mean, and SegNet's masks that they were written from."""

    files: dict[str, bytes] = field(default_factory=dict)
    ids: dict[str, np.ndarray] = field(default_factory=dict)
    segnet: dict[str, np.ndarray] = field(default_factory=dict)

    def unpack(self, root: Path) -> Path:
        for name, data in self.files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        return root

    def pack(self, root: Path) -> Path:
        """The two official zips: images in a folder, labels in none; and the table beside them."""
        root.mkdir(parents=True, exist_ok=True)
        for folder, inside in (("701_StillsRaw_full", "701_StillsRaw_full/"), ("LabeledApproved_full", "")):
            with zipfile.ZipFile(root / f"{folder}.zip", "w") as archive:
                for name, data in self.files.items():
                    if name.startswith(folder):
                        archive.writestr(inside + name.rpartition("/")[2], data)
        (root / "label_colors.txt").write_bytes(self.files["label_colors.txt"])
        return root

    def list_splits(self, folder: Path) -> Path:
        """SegNet's lists, restricted to the images that exist."""
        folder.mkdir(parents=True, exist_ok=True)
        for split, part in SPLITS.items():
            stems = sorted(self.ids, reverse=True)[part]
            lines = [f"/SegNet/CamVid/{split}/{stem}.png /SegNet/CamVid/{split}annot/{stem}.png" for stem in stems]
            (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
        return folder


@pytest.fixture(scope="session")
def original(camvid_root: Path) -> Original:
    """Ten images, a quarter of SegNet's size. Each pixel takes any of the colours that SegNet merged into its class."""
    rng = np.random.default_rng(0)
    colours = np.array([row[:3] for row in ROWS], np.uint8)
    groups = np.array([int(row[4]) for row in ROWS])
    found = Original()
    for path in sorted((camvid_root / "train").glob("*.png"))[::37]:
        mask = np.array(Image.open(camvid_root / "trainannot" / path.name))[::4, ::4]
        ids = np.zeros_like(mask)
        for group in range(12):
            ids[mask == group] = rng.choice(np.flatnonzero(groups == group), int((mask == group).sum()))
        found.ids[path.stem], found.segnet[path.stem] = ids, mask
        found.files[f"701_StillsRaw_full/{path.name}"] = png(np.array(Image.open(path))[::4, ::4])
        found.files[f"LabeledApproved_full/{path.stem}_L.png"] = png(colours[ids])
    table = [f"{' '.join(row[:3])}\t{row[3]}" for row in ROWS]
    found.files["label_colors.txt"] = ("\r\n".join(table) + "\r\n\r\n").encode()
    return found


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
