"""Score the model during training: student, teacher or both, on every domain."""

from collections.abc import Callable, Mapping
from typing import Any

import torch.distributed as dist

from semiseg.models import Segmenter
from semiseg.train.assemble.sources import Validation
from semiseg.train.score.evaluate import Scores, evaluate
from semiseg.train.step.learner import Learner
from semiseg.train.step.precision import uncompiled
from semiseg.train.step.stop import Stop


class Interrupted(Exception):
    """All ranks left an evaluation, since a signal reached one of them."""


def validate(
    learner: Learner,
    validation: Mapping[str, Validation],
    *,
    step: int,
    weights: str,
    workers: int,
    evaluation: dict[str, Any],
    stop: Stop | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score the weights that a run is scored by: "student", "teacher", or "both" side by side. All ranks call this.

    In float32: what `semiseg eval` finds for these weights, on any machine. `evaluation` says how, as results.json keeps it.
    Raises Interrupted, on all ranks, once they agree to `stop`.
    Returns what results.json holds of it, and domain -> scores, the teacher's as "<domain>/teacher".
    """
    scores = evaluate_all(scored_model(learner, weights), validation, workers=workers, stop=stop)
    domains = {name: found.to_json() for name, found in scores.items()}
    last = {"step": step, "miou": mean_miou(domains), "domains": domains, "evaluation": evaluation}
    if weights != "both":
        return last, domains
    scores = evaluate_all(learner.average(), validation, workers=workers, stop=stop)
    teacher = {name: found.to_json() for name, found in scores.items()}
    last["teacher"] = {"miou": mean_miou(teacher), "domains": teacher}
    return last, domains | {f"{name}/teacher": found for name, found in teacher.items()}


def scored_model(learner: Learner, weights: str) -> Segmenter:
    """The model whose scores are a run's: the student's unless the teacher's alone are asked for."""
    return learner.average() if weights == "teacher" else learner.model


def is_better(last: dict[str, Any], best: dict[str, Any]) -> bool:
    """Whether an evaluation beats the best one so far. Scores taken in another way, before a resume, do not compare."""
    comparable = best.get("evaluation") == last["evaluation"]
    return last["miou"] is not None and (not comparable or last["miou"] > best["miou"])


def evaluate_all(
    model: Segmenter, validation: Mapping[str, Validation], *, workers: int, stop: Stop | None = None
) -> dict[str, Scores]:
    """Scores of every domain; Interrupted once ranks agree to `stop`. All ranks call this."""
    with uncompiled(model.encoder):
        return {
            domain: evaluate(
                *(model, source.shards, source.taxonomy),
                domain=domain,
                subset=source.subset,
                resize=source.resize,
                views=source.views,
                workers=workers,
                progress=None if stop is None else _asking(stop, source),
            )
            for domain, source in validation.items()
        }


def _asking(stop: Stop, source: Validation) -> Callable[[int, int], None]:
    """What to call after each image: it raises Interrupted on all ranks after the same number of images."""
    images = len(source.shards) if source.subset is None else len(source.subset)
    shared = images // (dist.get_world_size() if dist.is_initialized() else 1)  # some ranks have one more

    def ask(done: int, total: int) -> None:
        if done <= shared:
            if stop.agreed():
                raise Interrupted
            stop.start()

    return ask


def mean_miou(domains: dict[str, dict[str, Any]]) -> float | None:
    """What "best" goes by: the mean over domains, in percent; None where no domain has any labeled pixel."""
    known = [scores["miou"] for scores in domains.values() if scores["miou"] is not None]
    return sum(known) / len(known) if known else None
