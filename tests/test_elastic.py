"""Runs killed on one number of processes and resumed on another."""

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


def test_a_run_killed_on_two_processes_resumes_on_one_two_and_four(recipe_file: Callable[..., Path], tmp_path: Path):
    """The same samples in the same order; losses are bit-identical on two, equal up to the order of sums on one and four."""
    chain = Chain(recipe_file(), tmp_path)
    chain.uninterrupted()
    kept = chain.kill(random.Random(0))
    assert 0 < kept < STEPS
    for world in (1, 2, 4):
        found = chain.resumed(world)
        assert found.steps == chain.expected
        assert found.same_until >= kept, "up to the checkpoint everything is bit-identical"
        assert found.launches == [2, world]
        if world == 2:
            assert found.difference == 0.0
        else:
            assert found.difference <= 1e-4


@dataclass(frozen=True, kw_only=True)
class Found:
    """steps: the keys of each step's global batch, by stream; difference: the largest relative difference of any loss;
    same_until: number of first steps with bit-identical losses; launches: processes of every recorded start."""

    steps: list[dict[str, list[str]]]
    difference: float
    same_until: int
    launches: list[int]


class Chain:
    """One recipe trained in several ways, in folders with a common parent."""

    def __init__(self, recipe: Path, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        batches = [f"data.domains.street.{role}.batch_size={BATCH}" for role in ("labeled", "unlabeled")]
        self.options = ["model.norm=frozen", f"steps={STEPS}", "checkpoint.every=2", "evaluate.every=100", *batches]
        self.expected = self._planned()

    def uninterrupted(self) -> None:
        """Two processes, not killed."""
        torchrun(2, *self._command("straight"))
        assert self._taken("straight") == self.expected

    def kill(self, chance: random.Random) -> int:
        """Two processes, killed (-9) with their launcher at a random step; returns the step of the last checkpoint."""
        metrics = self.folder / "runs" / "killed" / "metrics.jsonl"
        wanted = chance.randint(3, STEPS - 3)
        launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        command = [str(part) for part in (*launcher, *self._command("killed"))]
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
        while process.poll() is None and (not metrics.exists() or len(metrics.read_text().splitlines()) < wanted):
            time.sleep(0.002)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            member.kill()
        process.wait()
        psutil.wait_procs(family)
        return max(int(path.name.removeprefix("step-")) for path in metrics.parent.glob("step-*"))

    def resumed(self, world: int) -> Found:
        """A copy of the killed run, resumed on `world` processes to its end."""
        name = f"resumed-{world}"
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
        """The global batches, from only the plans."""
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
        """The keys of the run's steps, rank after rank; if a step was repeated, it must have taken the same keys."""
        record = (self.folder / "records" / name).glob("*.jsonl")
        lines = [json.loads(line) for path in record for line in path.read_text().splitlines() if line.endswith("}")]
        steps: dict[int, dict[str, list[str]]] = {}
        for start, step in sorted({(line["start"], line["step"]) for line in lines}):
            ranks = sorted(
                (x for x in lines if (x["start"], x["step"]) == (start, step)), key=lambda line: line["rank"]
            )
            if len(ranks) < ranks[0]["world"]:
                continue  # killed before the other rank asked
            streams = list(ranks[0]["taken"])
            drawn = {stream: [pair for rank in ranks for pair in rank["taken"][stream]] for stream in streams}
            assert all(
                [p for p, _ in pairs] == list(range(step * BATCH, (step + 1) * BATCH)) for pairs in drawn.values()
            )
            keys = {stream: [key for _, key in pairs] for stream, pairs in drawn.items()}
            assert steps.setdefault(step, keys) == keys
        return [steps[step] for step in sorted(steps)]


def losses(metrics: Path) -> dict[int, dict[str, float]]:
    """Losses and the values logged with them, by step."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return {row["step"]: {name: value for name, value in row.items() if "/" in name} for row in rows if "lr" in row}
