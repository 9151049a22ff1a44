"""Split CamVid's training images for choosing settings, so that the reported split is never used for it.

    python tools/camvid_fold.py shards/camvid/train fold/

The last third of drive 0016E5 is the validation part, as CamVid's validation split is from the same drive; all other
training images are the pool. Writes val.txt, pool.txt, and the nested subsets labeled_20.txt, labeled_50.txt and
labeled_100.txt, chosen from the pool as the recipe key `subset` would.
"""

from pathlib import Path

import numpy as np
import typer

from semiseg.data import ShardSet, Taxonomy, stratified

DRIVE = "0016E5"
COUNTS = (20, 50, 100)


class Pool:
    """Some samples of a shard set, for `stratified`."""

    def __init__(self, shards: ShardSet, indices: np.ndarray) -> None:
        self.shards, self.indices = shards, indices

    def keys(self) -> list[str]:
        keys = self.shards.keys()
        return [keys[i] for i in self.indices]

    def class_pixels(self, taxonomy: Taxonomy) -> np.ndarray:
        return self.shards.class_pixels(taxonomy)[self.indices]


def main(shards: str, to: Path, seed: int = 0) -> None:
    train = ShardSet(shards)
    keys = train.keys()
    drive = sorted(key for key in keys if key.startswith(DRIVE))
    held_out = set(drive[2 * len(drive) // 3 :])
    pool = Pool(train, np.array([i for i, key in enumerate(keys) if key not in held_out]))
    files = {"val": sorted(held_out), "pool": pool.keys()}
    for count in COUNTS:
        chosen = stratified(pool, Taxonomy.get("camvid-11"), count, seed)
        files[f"labeled_{count}"] = [pool.keys()[i] for i in chosen]
    to.mkdir(parents=True, exist_ok=True)
    for name, names in files.items():
        (to / f"{name}.txt").write_text("\n".join(names) + "\n")
        print(f"{to / name}.txt: {len(names)} images")


if __name__ == "__main__":
    typer.run(main)
