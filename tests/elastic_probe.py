"""Run under torchrun by test_elastic.py: trains as usual, and records every sample of every step.

elastic_probe.py RECORD RECIPE [KEY=VALUE]...
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semiseg.train import loop
from semiseg.train.__main__ import main
from semiseg.train.step.batches import Batch, StepData, steps_from

RECORD = Path(sys.argv[1])


def recorded(data: StepData, start: int, stop: int, **options: Any) -> Iterator[Batch]:
    """`steps_from`, with a line in RECORD for each batch, written when the loop asks for it: a kill loses none."""
    names = {stream.name: stream.shards.keys() for streams in data.domains.values() for stream in streams.values()}
    with (RECORD / f"{os.getpid()}.jsonl").open("a") as record:
        for step, batch in enumerate(steps_from(data, start, stop, **options), start):
            taken = {}
            for domain, roles in batch.items():
                for role, samples in roles.items():
                    plan, keys = data.domains[domain][role].plan, names[samples.stream]
                    drawn = [plan.draws(position, position + 1)[0] for position in samples.positions]
                    taken[samples.stream] = [[draw.position, keys[draw.sample]] for draw in drawn]
            about = {"start": start, "step": step, "rank": data.rank, "world": data.world, "taken": taken}
            record.write(json.dumps(about) + "\n")
            record.flush()
            yield batch


loop.steps_from = recorded  # pyright: ignore[reportPrivateImportUsage]
sys.exit(main(sys.argv[2:]))
