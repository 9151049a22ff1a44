"""Runs that are killed on one number of processes and continued on another; what else may change, and what is refused."""

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.processes import environment, python, torchrun

PROBE = Path(__file__).with_name("elastic_probe.py")
STEPS, BATCH = 12, 5


def test_killed_on_two_processes_it_continues_on_one_two_and_four(recipe_file: Callable[..., Path], tmp_path: Path):
    """The same samples in the same order; on two again losses to the bit, on one and four up to the order of sums."""
    chain = Chain(recipe_file(), tmp_path)
    chain.straight()
    kept = chain.kill(random.Random(0))
    assert 0 < kept < STEPS
    for world in (1, 2, 4):
        found = chain.continued(world)
        assert found.steps == chain.expected
        assert found.same_until >= kept, "up to the checkpoint all is the same to the bit"
        assert found.launches == [2, world]
        if world == 2:
            assert found.difference == 0.0
        else:
            assert found.difference <= 1e-4


@dataclass(frozen=True, kw_only=True)
class Found:
    """steps: the keys of each step's global batch, by stream; difference: the largest relative one of any loss of any step;
    same_until: steps whose losses are equal to the bit; launches: processes of every start that is on record."""

    steps: list[dict[str, list[str]]]
    difference: float
    same_until: int
    launches: list[int]


class Chain:
    """One recipe trained in several ways, in folders of one parent."""

    def __init__(self, recipe: Path, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        batches = [f"data.domains.street.{role}.batch_size={BATCH}" for role in ("labeled", "unlabeled")]
        self.options = ["model.norm=frozen", f"steps={STEPS}", "checkpoint.every=2", "evaluate.every=100", *batches]
        self.expected = self._planned()

    def straight(self) -> None:
        """Two processes, undisturbed."""
        torchrun(2, *self._command("straight"))
        assert self._taken("straight") == self.expected

    def kill(self, chance: random.Random) -> int:
        """Two processes, killed with -9 together with their launcher at a random step; the step of the checkpoint left."""
        metrics = self.folder / "runs" / "killed" / "metrics.jsonl"
        wanted = chance.randint(3, STEPS - 3)
        launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        command = [str(part) for part in (*launcher, *self._command("killed"))]
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
        while process.poll() is None and (not metrics.exists() or len(metrics.read_text().splitlines()) < wanted):
            time.sleep(0.002)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for each in family:
            each.kill()
        process.wait()
        psutil.wait_procs(family)
        return max(int(path.name.removeprefix("step-")) for path in metrics.parent.glob("step-*"))

    def continued(self, world: int) -> Found:
        """The killed run, as it lies there, continued on some processes to its end."""
        name = f"continued-{world}"
        for part in ("runs", "records"):
            shutil.copytree(self.folder / part / "killed", self.folder / part / name)
        if world == 1:
            python(*self._command(name))
        else:
            torchrun(world, *self._command(name))
        runs = self.folder / "runs"
        one, other = losses(runs / "straight" / "metrics.jsonl"), losses(runs / name / "metrics.jsonl")
        assert one.keys() == other.keys() == set(range(1, STEPS + 1))
        differences = [
            max(abs(other[step][term] - value) / max(abs(value), 1e-9) for term, value in one[step].items())
            for step in sorted(one)
        ]
        launches = json.loads((runs / name / "env.json").read_text())["launches"]
        return Found(
            steps=self._taken(name),
            difference=max(differences),
            same_until=next((step for step, value in enumerate(differences) if value), STEPS),
            launches=[launch["processes"] for launch in launches],
        )

    def _command(self, name: str) -> tuple[Path | str, ...]:
        record = self.folder / "records" / name
        record.mkdir(parents=True, exist_ok=True)
        return PROBE, record, self.recipe, f"name={name}", *self.options

    def _planned(self) -> list[dict[str, list[str]]]:
        """The global batches, from the plans alone."""
        from semiseg.train.assemble.sources import build_sources
        from semiseg.train.recipe.load import load

        streams = build_sources(load(self.recipe, self.options), fill=(0, 0, 0)).streams["street"].values()
        return [
            {
                stream.name: [
                    stream.shards.keys()[draw.sample] for draw in stream.plan.draws(step * BATCH, (step + 1) * BATCH)
                ]
                for stream in streams
            }
            for step in range(STEPS)
        ]

    def _taken(self, name: str) -> list[dict[str, list[str]]]:
        """The keys that the run's steps took, rank after rank; of a step that was made again, both times were alike."""
        record = (self.folder / "records" / name).glob("*.jsonl")
        lines = [json.loads(line) for path in record for line in path.read_text().splitlines() if line.endswith("}")]
        steps: dict[int, dict[str, list[str]]] = {}
        for start, step in sorted({(line["start"], line["step"]) for line in lines}):
            ranks = sorted(
                (x for x in lines if (x["start"], x["step"]) == (start, step)), key=lambda line: line["rank"]
            )
            if len(ranks) < ranks[0]["world"]:
                continue  # the kill came before the other rank asked
            streams = list(ranks[0]["taken"])
            drawn = {stream: [pair for rank in ranks for pair in rank["taken"][stream]] for stream in streams}
            assert all(
                [p for p, _ in pairs] == list(range(step * BATCH, (step + 1) * BATCH)) for pairs in drawn.values()
            )
            keys = {stream: [key for _, key in pairs] for stream, pairs in drawn.items()}
            assert steps.setdefault(step, keys) == keys
        return [steps[step] for step in sorted(steps)]


def losses(metrics: Path) -> dict[int, dict[str, float]]:
    """Losses and what is logged beside them, of each step."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return {row["step"]: {name: value for name, value in row.items() if "/" in name} for row in rows if "lr" in row}
