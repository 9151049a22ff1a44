"""Prove that a refactor changes no byte and no loss: write shards and train a few steps at two commits, and compare.

    python tools/compare_commits.py main HEAD

Writes the generated data sets (and CamVid and VOC where SEMISEG_TEST_DATA has them) and trains four recipes for a few steps
on one process. Compares the sha256 of every file of the shards and every logged value, bit for bit, except timings.
Exit code 1 if anything differs. Uses the packages of each commit with the libraries of the current environment.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMINGS = {"seconds", "waited"}

SHARDS = """
import sys
from semiseg.data import open_dataset, shard
to, real = sys.argv[1:]
jobs = [("street", None, ("train", "val"), {}), ("room", None, ("train", "val"), {})]
if real:
    jobs += [("camvid", f"{real}/camvid", ("train", "val"), {}), ("voc", f"{real}/VOCdevkit", ("train", "val"), {})]
    jobs += [("camvid", f"{real}/camvid", ("val",), {"resize": 240, "format": "jpeg"})]
for number, (name, root, splits, options) in enumerate(jobs):
    for split in splits:
        folder = to if not options else f"{to}/resized{number}"
        shard(open_dataset(name, root), split, folder, size="4MB", workers=2, **options)
"""

RECIPES = {  # name -> steps, and whether real data is needed
    "quickstart": (20, False),
    "street_room_cct": (5, False),
    "camvid_cct": (20, True),
    "camvid_structured": (5, True),
}


def main() -> int:
    """Run both commits, print what was compared, return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before")
    parser.add_argument("after")
    given = parser.parse_args()
    real = os.environ.get("SEMISEG_TEST_DATA", "")
    real = real if Path(real, "camvid").is_dir() else ""
    if not real:
        print("SEMISEG_TEST_DATA is not set: comparing generated data only", file=sys.stderr)
    with tempfile.TemporaryDirectory() as temp:
        found = [facts_of(commit, Path(temp, str(n)), real) for n, commit in enumerate((given.before, given.after))]
    before, after = found
    differing = sorted(name for name in before | after if before.get(name) != after.get(name))
    for kind in sorted({name.partition(" ")[0] for name in before}):
        names = [name for name in before if name.startswith(f"{kind} ")]
        print(f"{kind}: {len(names)} compared, {sum(name in differing for name in names)} differ")
    for name in differing[:20]:
        print(f"  {name}: {before.get(name)} -> {after.get(name)}")
    return 1 if differing or not before else 0


def facts_of(commit: str, folder: Path, real: str) -> dict[str, str]:
    """ "shards <file>" -> sha256 and "<recipe> <step> <name>" -> value, from one commit."""
    folder.mkdir()
    tree = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x"], cwd=folder, input=tree, check=True)
    sources = [str(path) for pattern in ("packages/*/src", "datasets/*/src") for path in folder.glob(pattern)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sources)}

    def python(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)

    python("-c", SHARDS, "shards", real)
    files = sorted(path for path in (folder / "shards").rglob("*") if path.is_file())
    found = {f"shards {path.relative_to(folder)}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    if real:
        python("tools/efficientnet_lite0_weights.py")
    for name, (steps, needs_real) in RECIPES.items():
        if needs_real and not real:
            continue
        settings = [
            f"steps={steps}",
            "schedule.warmup=2",
            "log.every=1",
            f"evaluate.every={steps}",
            "checkpoint.every=10",
        ]
        python("-m", "semiseg.train", f"recipes/{name}.toml", *settings, "name=compared")
        rows = [json.loads(line) for line in (folder / "runs/compared/metrics.jsonl").read_text().splitlines()]
        (folder / "runs/compared").rename(folder / "runs" / name)
        for number, row in enumerate(rows):
            kept = {key: value for key, value in row.items() if key not in TIMINGS}
            found |= {f"{name} {number} {key}": repr(value) for key, value in kept.items()}
    return found


if __name__ == "__main__":
    sys.exit(main())
