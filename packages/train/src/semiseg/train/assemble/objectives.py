"""Recipe to objectives: what each domain is trained for, and the teacher that some objectives need."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from semiseg import methods
from semiseg.data import Taxonomy
from semiseg.models import Segmenter
from semiseg.train import recipe as r


def build_objective(
    objective: r.Objective,
    model: r.Model,
    segmenter: Segmenter,
    domain: str,
    taxonomy: Taxonomy,
    *,
    weak: bool = False,
    pixels: Sequence[int] | None = None,
) -> methods.Objective:
    """One objective of one domain, with its own parameters.

    weak: whether the domain has images with pseudo-labels. pixels: labeled pixels of each class, for class weights.
    """
    built = _build(objective, model, segmenter, taxonomy, weak=weak, pixels=pixels)
    built.lr_scale = getattr(objective, "lr_scale", 1.0)
    if isinstance(objective, r.CrossConsistency | r.TaughtConsistency) and objective.start == "main":
        copy_main(built, segmenter.decoders[domain])
    return built


def _build(
    objective: r.Objective,
    model: r.Model,
    segmenter: Segmenter,
    taxonomy: Taxonomy,
    *,
    weak: bool,
    pixels: Sequence[int] | None,
) -> methods.Objective:
    match objective:
        case r.Supervised(loss=loss):
            options: dict[str, Any] = {"part": objective.on}
            if objective.weight != 1:
                options["weight"] = methods.Ramp(objective.weight, shape="constant")
            match loss:
                case r.Bootstrapped():
                    options |= {"until": loss.until, "over": loss.over, "pool": loss.pool}
                case r.Relaxed():
                    strict = tuple(taxonomy.names.index(name) for name in loss.strict if name in taxonomy.names)
                    options |= {"window": loss.window, "until": loss.until, "by_frequency": loss.by_frequency}
                    options |= {"strict": strict}
                case r.Ohem():
                    options |= {"threshold": loss.threshold, "least": loss.least}
                case r.Dice():
                    options |= {"weight_of_dice": loss.weight}
                case r.CrossEntropy():
                    options |= {"pool": loss.pool}
            if isinstance(loss, r.Bootstrapped | r.Dice | r.CrossEntropy):
                options |= {"weights": weights_of(loss.class_weights, pixels)}
            return methods.Supervised(loss.kind, **options)
        case r.CrossConsistency():
            decoder = model.decoder.kind if objective.decoder == "same" else objective.decoder
            return methods.CrossConsistency(
                [build_perturbation(perturbation) for perturbation in objective.perturbations],
                channels=segmenter.channels,
                classes=len(taxonomy.names),
                stride=segmenter.upsampling,
                foreground=sorted(taxonomy.foreground),
                preset=objective.preset,
                distance=objective.distance,
                reduction=objective.reduction,
                weight=build_ramp(objective.weight),
                confidence=objective.confidence,
                over=objective.over,
                pairwise=objective.pairwise,
                pairwise_reduction=objective.pairwise_reduction,
                weak=build_ramp(objective.weak) if objective.weak is not None and weak else None,
                decoder=decoder,
                last_relu=model.decoder.last_relu if isinstance(model.decoder, r.SubPixel) else None,
                kernel=objective.kernel,
            )
        case r.TaughtConsistency():
            return methods.TaughtConsistency(
                [build_perturbation(perturbation) for perturbation in objective.perturbations],
                channels=segmenter.channels,
                classes=len(taxonomy.names),
                stride=segmenter.upsampling,
                foreground=sorted(taxonomy.foreground),
                decoder=model.decoder.kind if objective.decoder == "same" else objective.decoder,
                last_relu=isinstance(model.decoder, r.SubPixel) and model.decoder.last_relu,
                weight=build_ramp(objective.weight),
                weights=weights_of(objective.class_weights, pixels),
                views={"names": objective.names, **views_of(objective)},
            )
        case r.FixMatch() | r.UniMatch():
            if isinstance(objective, r.FixMatch):
                streams = {
                    "names": objective.names,
                    "feature_drop": objective.feature_drop,
                    "feature_share": objective.feature_share,
                }
            elif objective.version == 1:
                streams = {"names": "student", "feature_drop": 0.5, "feature_share": 0.5}
            else:
                streams = {"names": "teacher", "complementary": True}
            return methods.FixMatch(
                weight=build_ramp(objective.weight),
                hard=objective.targets == "hard",
                weights=weights_of(objective.class_weights, pixels),
                **views_of(objective),
                **streams,
            )
        case r.StructuredConsistency(boxes=boxes):
            return methods.StructuredConsistency(
                pixel=build_ramp(objective.pixel),
                structure=build_ramp(objective.structure),
                boxes=boxes.count,
                compared=boxes.compared,
                area=boxes.area,
                area_of=boxes.area_of,
                sizes=boxes.sizes,
                aspect=boxes.aspect,
                pairs=objective.pairs,
                confidence=objective.confidence,
                over=objective.over,
            )


def weights_of(settings: r.ClassWeights | None, pixels: Sequence[int] | None) -> list[float] | None:
    """The weights of classes that a loss asks for; None if it asks for none."""
    if settings is None:
        return None
    assert pixels is not None, "class weights need the labeled pixels of each class"
    return methods.class_weights(pixels, power=settings.power, cap=settings.cap)


def views_of(objective: r.FixMatch | r.UniMatch | r.TaughtConsistency) -> dict[str, Any]:
    """What strong views an objective has, apart from who names them."""
    keys = ("threshold", "quantile", "mix", "probability", "area", "aspect")
    return {key: getattr(objective, key) for key in keys}


def build_ramp(ramp: r.Ramp) -> methods.Ramp:
    return methods.Ramp(ramp.value, ramp.over, ramp.shape, ramp.start)


def copy_main(objective: methods.Objective, decoder: nn.Module) -> None:
    """Start the auxiliary decoders of an objective as copies of the main one, of the same kind."""
    assert isinstance(objective, methods.CrossConsistency | methods.TaughtConsistency)
    layers = [layer for layer in decoder.modules() if isinstance(layer, nn.Conv2d)]
    biases = [layer.bias for layer in layers if layer.bias is not None]
    objective.bank.init_from([layer.weight for layer in layers], biases)


def build_perturbation(perturbation: r.Perturbation) -> tuple[str, int, dict]:
    """(kind, count, options) with the options that the recipe states; the preset fills the others."""
    options = {key: value for key, value in vars(perturbation).items() if key not in ("kind", "count")}
    return perturbation.kind, perturbation.count, {key: value for key, value in options.items() if value is not None}


def build_teacher(recipe: r.Recipe, model: Segmenter) -> methods.Teacher | None:
    """The moving average of the model: that of [teacher], or else of an objective; all objectives agree on its settings."""
    settings = recipe.teacher
    if settings is None and any(getattr(objective, "taught", False) for objective in recipe.objectives):
        settings = r.Teacher()
    if settings is not None:
        return methods.Teacher(model, **asdict(settings))
    for objective in recipe.objectives:
        if isinstance(objective, r.StructuredConsistency):
            return methods.Teacher(
                model,
                decay=objective.teacher_decay,
                rule="warmup" if objective.teacher_warmup else "constant",
                mode=objective.teacher_mode,
                buffers=objective.teacher_buffers,
            )
    return None
