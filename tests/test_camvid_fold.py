"""The split of CamVid's training images that the protocol's settings were chosen on."""

import subprocess
import sys
from pathlib import Path

from semiseg.data import ShardSet, Taxonomy, open_dataset, shard

TOOL = Path(__file__).parents[1] / "tools" / "camvid_fold.py"


def test_the_fold_has_only_training_images_is_disjoint_nested_and_has_every_class(camvid_root: Path, tmp_path: Path):
    shard(open_dataset("camvid", camvid_root), "train", tmp_path)
    place = tmp_path / "camvid" / "train"
    subprocess.run([sys.executable, str(TOOL), str(place), str(tmp_path / "fold")], check=True)
    fold = {path.stem: path.read_text().split() for path in (tmp_path / "fold").iterdir()}
    train, val, pool = ShardSet(place), set(fold["val"]), set(fold["pool"])
    assert len(val) == 68 and not val & pool and val | pool == set(train.keys())
    assert all(key.startswith("0016E5") for key in val)
    twenty, fifty, hundred = (set(fold[f"labeled_{count}"]) for count in (20, 50, 100))
    assert twenty < fifty < hundred < pool and (len(twenty), len(fifty), len(hundred)) == (20, 50, 100)
    pixels = train.class_pixels(Taxonomy.get("camvid-11"))
    held = [i for i, key in enumerate(train.keys()) if key in twenty]
    assert (pixels[held].sum(0) > 0).all()
