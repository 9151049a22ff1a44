"""Recipe -> objects: network, learner, optimizer, learning rate. Configuration stops here; no class beyond sees a recipe."""

from collections.abc import Callable, Mapping, Sequence
from math import cos, pi

import torch
from torch import nn

from semiseg import methods
from semiseg.data import SemisegError, Taxonomy
from semiseg.models import Segmenter, create_segmenter, from_pretrained
from semiseg.train import recipe as r
from semiseg.train.build_objectives import build_objective, build_teacher, copy_main, objectives_of
from semiseg.train.continuation import class_conflict
from semiseg.train.learner import Learner
from semiseg.train.saved import classes_in


class ModelError(SemisegError):
    """The network that a recipe describes cannot be built."""


def build_model(model: r.Model, classes: Mapping[str, Sequence[str]], *, download: bool = True) -> Segmenter:
    """The network of a recipe, in training mode; without `download`, published encoder weights stay random.

    classes: domain -> names.

    Raises SemisegError where the encoder, its weights or the model to start from are not what the recipe says.
    """
    try:
        if model.start is not None:
            return _started(model, classes)
        weights = model.encoder.weights if download or model.encoder.weights != "timm" else "none"
        return create_segmenter(
            encoder=model.encoder.name,
            classes={domain: len(names) for domain, names in classes.items()},
            output_stride=model.encoder.output_stride,
            weights=weights,
            context=model.context.kind,
            context_channels=model.context.channels,
            context_rates=model.context.rates if isinstance(model.context, r.ASPP) else (12, 24, 36),
            decoder=model.decoder.kind,
            low_stride=model.decoder.low_stride if isinstance(model.decoder, r.DeepLabV3Plus) else None,
            last_relu=isinstance(model.decoder, r.SubPixel) and model.decoder.last_relu,
            norm=model.norm,
        )
    except (ValueError, FileNotFoundError, RuntimeError) as error:  # models know no SemisegError
        raise ModelError(f"model: {error}") from error


def _started(model: r.Model, classes: Mapping[str, Sequence[str]]) -> Segmenter:
    """A saved model with the recipe's domains added; what contradicts the recipe is a ValueError."""
    assert model.start is not None
    segmenter = from_pretrained(model.start, norm=model.norm).train()
    saved, context = segmenter.config, model.context
    last_relu = isinstance(model.decoder, r.SubPixel) and model.decoder.last_relu
    asked = (
        model.encoder.name,
        model.encoder.output_stride,
        context.kind,
        context.channels,
        model.decoder.kind,
        last_relu,
    )
    keys = ("encoder", "output_stride", "context", "context_channels", "decoder", "last_relu")
    if asked != tuple(saved[key] for key in keys):
        raise ValueError(
            f"{model.start} has encoder {saved['encoder']} at stride {saved['output_stride']}, context {saved['context']} of "
            f"{saved['context_channels']} channels and {saved['decoder']} decoders (last_relu {saved['last_relu']}); "
            "say the same under [model]"
        )
    if isinstance(context, r.ASPP) and list(context.rates) != saved["context_rates"]:
        raise ValueError(f"{model.start} has rates {saved['context_rates']} in its context; say the same under [model]")
    if isinstance(model.decoder, r.DeepLabV3Plus) and model.decoder.low_stride != saved["low_stride"]:
        raise ValueError(f"{model.start} has decoders of low_stride {saved['low_stride']}; say the same under [model]")
    for domain, names in classes.items():
        if domain not in segmenter.classes:
            segmenter.add_domain(domain, len(names))
        elif segmenter.classes[domain] != len(names):
            raise ValueError(
                f"{model.start} has {segmenter.classes[domain]} classes in domain {domain}, the recipe's taxonomy "
                f"{len(names)}; give the domain another name to add it"
            )
        elif (own := classes_in(segmenter, domain)) and (conflict := class_conflict(own, names)):
            raise ValueError(f"{model.start}, domain {domain}: {conflict}; give the domain another name to add it")
    return segmenter


def build_learner(recipe: r.Recipe, model: Segmenter, taxonomies: Mapping[str, Taxonomy]) -> Learner:
    """Objectives of every domain around the model. A domain takes the objectives whose needs its sources meet."""
    objectives: dict[str, list[methods.Objective]] = {}
    for name, domain in recipe.data.domains.items():
        has = {role for role in ("labeled", "unlabeled", "weak") if getattr(domain, role) is not None}
        built = []
        for each in objectives_of(recipe, name):
            built.append(build_objective(each, recipe.model, model, taxonomies[name], weak="weak" in has))
            if isinstance(each, r.CrossConsistency) and each.start == "main":
                copy_main(built[-1], model.decoders[name])
        objectives[name] = [each for each in built if each.needs <= has]
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
    )


def build_optimizer(recipe: r.Recipe, learner: Learner) -> torch.optim.Optimizer:
    """One optimizer; every group keeps its own base rate in "base_lr", which `learning_rate` scales."""
    settings = recipe.optimizer
    encoder = list(learner.model.encoder.parameters())
    inside = {id(parameter) for parameter in encoder}
    others = [parameter for parameter in learner.model.parameters() if id(parameter) not in inside]
    groups = [(encoder, settings.lr * settings.encoder_lr_scale), (others, settings.lr)]
    for domain, built in learner.objectives.items():
        assert isinstance(built, nn.ModuleList)
        consistency = [each for each in built if isinstance(each, methods.CrossConsistency)]
        configured = [each for each in objectives_of(recipe, domain) if isinstance(each, r.CrossConsistency)]
        groups += [
            (list(each.parameters()), settings.lr * config.lr_scale)
            for each, config in zip(consistency, configured, strict=False)
        ]
    trained = [([parameter for parameter in group if parameter.requires_grad], rate) for group, rate in groups]
    described = [{"params": group, "lr": rate, "base_lr": rate} for group, rate in trained if group]
    match settings:
        case r.SGD():
            return torch.optim.SGD(
                described,
                momentum=settings.momentum,
                weight_decay=settings.weight_decay,
                nesterov=settings.nesterov,
                # torch's fused SGD fails on a group of which only some have momentum yet, as idle domains leave it
                fused=recipe.data.domains_per_step == "all",
            )
        case r.AdamW():
            return torch.optim.AdamW(described, betas=settings.betas, weight_decay=settings.weight_decay, fused=True)


def learning_rate(schedule: r.Schedule, steps: int) -> Callable[[int], float]:
    """Factor of the base rate at a step: a pure function, so that it needs no state in a checkpoint."""

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / (schedule.warmup + 1))
        match schedule:
            case r.Poly():
                return rise * (1 - step / steps) ** schedule.power
            case r.Cosine():
                return rise * (1 + cos(pi * step / steps)) / 2
            case r.Constant():
                return rise

    return factor


def set_learning_rate(groups: Sequence[dict], factor: float) -> None:
    for group in groups:
        group["lr"] = group["base_lr"] * factor
