"""Score the model during training: student, teacher or both, on every domain."""

from collections.abc import Mapping
from typing import Any

from semiseg.models import Segmenter
from semiseg.train.assemble.sources import Validation
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.resolved import evaluation
from semiseg.train.score.evaluate import Scores, evaluate
from semiseg.train.step.learner import Learner
from semiseg.train.step.precision import uncompiled


def judge(
    recipe: Recipe, learner: Learner, validation: Mapping[str, Validation], *, step: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score what the recipe says, student, teacher or both. All ranks call this.

    In float32: what `semiseg eval` finds for these weights, on any machine. Returns what results.json holds of it, and
    domain -> scores, the teacher's as "<domain>/teacher".
    """
    workers = recipe.data.workers
    scores = evaluate_all(judged_of(recipe, learner), validation, workers=workers)
    domains = {name: each.to_json() for name, each in scores.items()}
    last = {"step": step, "miou": mean_miou(domains), "domains": domains, "evaluation": evaluation(recipe)}
    if recipe.evaluate.weights != "both":
        return last, domains
    scores = evaluate_all(learner.average(), validation, workers=workers)
    beside = {name: each.to_json() for name, each in scores.items()}
    last["teacher"] = {"miou": mean_miou(beside), "domains": beside}
    return last, domains | {f"{name}/teacher": each for name, each in beside.items()}


def judged_of(recipe: Recipe, learner: Learner) -> Segmenter:
    """Whose scores a run's are."""
    return learner.average() if recipe.evaluate.weights == "teacher" else learner.model


def evaluate_all(model: Segmenter, validation: Mapping[str, Validation], *, workers: int) -> dict[str, Scores]:
    """Scores of every domain. All ranks call this."""
    with uncompiled(model.encoder):
        return {
            domain: evaluate(
                *(model, each.shards, each.taxonomy),
                domain=domain,
                subset=each.subset,
                resize=each.resize,
                views=each.views,
                workers=workers,
            )
            for domain, each in validation.items()
        }


def mean_miou(domains: dict[str, dict[str, Any]]) -> float | None:
    """What "best" is judged by: the mean over domains, in percent; None where no domain has any labeled pixel."""
    known = [each["miou"] for each in domains.values() if each["miou"] is not None]
    return sum(known) / len(known) if known else None
