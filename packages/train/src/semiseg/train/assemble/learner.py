"""Recipe to learner: the objectives of every domain around the model."""

from collections.abc import Mapping, Sequence

from semiseg import methods
from semiseg.data import Taxonomy
from semiseg.models import Segmenter
from semiseg.train import recipe as r
from semiseg.train.assemble.model import ModelError
from semiseg.train.assemble.objectives import build_objective, build_teacher
from semiseg.train.step.learner import Learner


def build_learner(
    recipe: r.Recipe,
    model: Segmenter,
    taxonomies: Mapping[str, Taxonomy],
    class_pixels: Mapping[str, Sequence[int]] | None = None,
) -> Learner:
    """Objectives of every domain around the model. A domain takes the objectives whose needs its sources meet.

    class_pixels: domain -> labeled pixels of each class, if losses weight classes.
    """
    objectives: dict[str, list[methods.Objective]] = {}
    for name, domain in recipe.data.domains.items():
        has = {role for role in ("labeled", "unlabeled", "weak") if getattr(domain, role) is not None}
        built = [
            build_objective(
                config,
                recipe.model,
                model,
                name,
                taxonomies[name],
                weak="weak" in has,
                pixels=(class_pixels or {}).get(name),
            )
            for config in recipe.objectives_of(name)
        ]
        objectives[name] = [objective for objective in built if objective.needs <= has]
    weights = {name: domain.weight for name, domain in recipe.data.domains.items()}
    kept = [model.decoders[domain] for domain in model.classes if domain not in recipe.data.domains]
    frozen = [model.encoder, model.context] if recipe.model.freeze == "encoder" else []
    try:
        model.encoder.checkpointing = recipe.model.encoder.checkpointing  # here, since saved models do not know it
    except ValueError as error:  # an encoder without blocks
        raise ModelError(f"model.encoder.checkpointing: {error}") from error
    for part in (*kept, *frozen):
        part.requires_grad_(False)
    return Learner(
        model,
        objectives,
        weights=weights,
        teacher=build_teacher(recipe, model),
        joint=recipe.model.batches == "joint",
        seed=recipe.seed,
        control=recipe.control,
    )
