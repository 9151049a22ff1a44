"""The official number of files, with tiny images: right counts, and memory that does not grow with the labels read."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

COUNT, TESTS = 10335, 5050
SHAPE = (120, 160)  # 198 MB in all when read; the published labels are 64 GB
KINDS = 251  # label n is filled with n modulo this

READ = """
import json, resource, sys, time
from pathlib import Path
from semiseg.datasets.sunrgbd import SUNRGBD

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start = time.perf_counter()
dataset = SUNRGBD(Path(sys.argv[1]))
counts = {name: [split.samples, split.expected, split.missing] for name, split in dataset.splits().items()}
samples = [sample for split in ("test", "train") for sample in dataset.samples(split)]
listed = time.perf_counter() - start
sums, early = [], 0.0
for n, sample in enumerate(samples):
    sums.append(int(sample.label().sum(dtype="int64")))
    if n == 1000:
        early = peak()
read = time.perf_counter() - start - listed
json.dump({"counts": counts, "sums": sums, "early": early, "late": peak(), "listed": listed, "read": read}, sys.stdout)
"""


@pytest.fixture
def release(tmp_path: Path, small: list, write_official: Callable[..., Path]) -> Path:
    """10,335 scenes in SUNRGBD.zip, and SUNRGBD2Dseg.mat with as many references to as many labels."""
    from scipy.io import savemat

    root = write_official(tmp_path, small)
    folders = [f"{'kv2/kinect2data' if n % 2 else 'xtion/sun3ddata/room'}/{n:06d}" for n in range(COUNT)]
    table = np.empty((1, COUNT), [("sequenceName", object), ("rgbpath", object), ("rgbname", object)])
    listed = np.array([f"/n/fs/sun3d/data/SUNRGBD/{folder}" for folder in folders], object)
    with zipfile.ZipFile(root / "SUNRGBD.zip", "w") as archive:
        for n, folder in enumerate(folders):
            table[0, n] = (f"SUNRGBD/{folder}", f"{listed[n]}/image/{n}.jpg", f"{n}.jpg")
            archive.writestr(f"SUNRGBD/{folder}/image/{n}.jpg", small[0].jpeg)
    (root / "SUNRGBD").rename(root / "other")
    toolbox = root / "SUNRGBDtoolbox"
    savemat(toolbox / "Metadata/SUNRGBDMeta.mat", {"SUNRGBDMeta": table})
    splits = {"alltest": listed[None, :TESTS], "alltrain": listed[None, TESTS:]}
    savemat(toolbox / "traintestSUNRGBD/allsplit.mat", splits)
    with h5py.File(toolbox / "Metadata/SUNRGBD2Dseg.mat", "w", userblock_size=512) as file:
        group = file.create_group("#refs#")
        # Filled but not written: distinct labels of full size, in a file of some MB, in a second.
        stored = [
            group.create_dataset(f"{n:x}", SHAPE[::-1], np.uint8, chunks=SHAPE[::-1], fillvalue=n % KINDS).ref
            for n in range(COUNT)
        ]
        references = file.create_dataset("SUNRGBD2Dseg/seglabel", (COUNT, 1), h5py.ref_dtype)
        references[...] = np.array(stored, h5py.ref_dtype)[:, None]
    return root


def test_ten_thousand_labels_are_counted_and_read_in_flat_memory(release: Path) -> None:
    done = subprocess.run([sys.executable, "-c", READ, str(release)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print({name: found[name] for name in ("early", "late", "listed", "read")})
    assert found["counts"] == {"train": [5285, 5285, None], "test": [5050, 5050, None], "val": [5050, 5050, None]}
    assert found["sums"] == [n % KINDS * SHAPE[0] * SHAPE[1] for n in range(COUNT)]
    assert found["late"] - found["early"] < 16, "MB from label 1,000 to label 10,335, which hold 179 MB"
