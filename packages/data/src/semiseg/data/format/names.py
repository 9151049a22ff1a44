"""Names of the files in a shard set's folder."""

import re

MANIFEST = "manifest.json"
PLAN = "plan.json"  # the layout, beside the shards while they are written; removed once there is a manifest
PART_PLAN = r"plan\.(\d+)-of-(\d+)\.json"  # the plan file of a part, see `part_plan`
ANY_PLAN = re.compile(rf"plan\.json|{PART_PLAN}")
SHARD_FILE = re.compile(r"\d{6,}\.(tar|index\.parquet)")


def shard_name(number: int) -> str:
    """The stem of a shard's tar and index."""
    return f"{number:06d}"


def part_plan(part: tuple[int, int]) -> str:
    """The name of the plan file of part (i, n)."""
    number, count = part
    return f"{PLAN.removesuffix('.json')}.{number}-of-{count}.json"


def part_of(name: str) -> tuple[int, int] | None:
    """The part whose plan file has this name; None for that of the complete set."""
    match = ANY_PLAN.fullmatch(name)
    return (int(match[1]), int(match[2])) if match and match[1] else None
