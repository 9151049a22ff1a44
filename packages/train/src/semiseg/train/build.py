"""Recipe -> objects: sources, learner, optimizer, learning rate. Configuration stops here; no class beyond sees a recipe."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi

import numpy as np
import torch
from torch import nn

from semiseg import methods
from semiseg.data import ClassUniformPlan, OverlaySet, Plan, Pool, SemisegError, ShardSet, Taxonomy
from semiseg.data.keyed import key64
from semiseg.data.overlays import class_space
from semiseg.data.subset import by_keys, digest_of, stratified
from semiseg.models import Segmenter, create_segmenter, from_pretrained
from semiseg.train import recipe as r
from semiseg.train.augment import Augmentation
from semiseg.train.batches import Stream
from semiseg.train.build_objectives import build_objective, build_teacher, copy_main, objectives_of
from semiseg.train.facts import mixes, read_keys
from semiseg.train.learner import Learner
from semiseg.train.views import Views


class ModelError(SemisegError):
    """The network that a recipe describes cannot be built."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What one domain is evaluated on."""

    shards: ShardSet | Pool
    taxonomy: Taxonomy
    subset: np.ndarray | None
    resize: tuple[int, int] | None
    views: Views


@dataclass(frozen=True, kw_only=True)
class Sources:
    """All data of a run. selected: source -> keys taken, where a recipe takes less than all; digests: of shard sets."""

    streams: dict[str, dict[str, Stream]]
    validation: dict[str, Validation]
    taxonomies: dict[str, Taxonomy]
    digests: dict[str, str]
    selected: dict[str, list[str]]

    def digest_of_subsets(self) -> dict[str, str]:
        """Source -> hash of the keys taken."""
        return {name: digest_of(keys) for name, keys in self.selected.items()}

    def identity(self) -> dict[str, str]:
        """What must be the same for a run to continue: every shard set, every selection."""
        chosen = {f"{name} (selection)": digest for name, digest in self.digest_of_subsets().items()}
        return self.digests | chosen


def build_sources(recipe: r.Recipe, *, fill: tuple[int, int, int]) -> Sources:
    """Open every shard set of the recipe and choose its samples. `fill`: colour of padding."""
    streams: dict[str, dict[str, Stream]] = {}
    validation: dict[str, Validation] = {}
    taxonomies: dict[str, Taxonomy] = {}
    digests: dict[str, str] = {}
    selected: dict[str, list[str]] = {}
    for name, domain in recipe.data.domains.items():
        labeled = open_source(recipe.data.shards, domain.labeled)
        taxonomy = taxonomies[name] = labeled.taxonomy(domain.taxonomy)
        chosen = {"labeled": (labeled, select(labeled, domain.labeled, taxonomy))}
        if domain.unlabeled is not None:
            pool = open_source(recipe.data.shards, domain.unlabeled)
            indices = select(pool, domain.unlabeled, taxonomy)
            if domain.unlabeled.minus == "labeled":
                indices = without(pool, indices, *chosen["labeled"])
            chosen["unlabeled"] = (pool, indices)
        if domain.weak is not None:
            pool = open_source(recipe.data.shards, domain.weak)
            indices = without(pool, None, *chosen["labeled"]) if domain.weak.minus == "labeled" else None
            chosen["weak"] = (pool, indices)
        streams[name] = {}
        for role, (shards, indices) in chosen.items():
            stream = f"{name}/{role}"
            plan = Plan(shards, key64(recipe.seed, "order", stream), window=recipe.data.window, subset=indices)
            if role == "labeled" and domain.labeled.class_uniform is not None:
                shards, plan = class_uniform(recipe, domain.labeled, shards, indices, plan, taxonomy)
            streams[name][role] = Stream(
                name=stream,
                shards=shards,
                plan=plan,
                batch_size=getattr(domain, role).batch_size,
                pairs=role == "unlabeled" and mixes(recipe, name),
                augmentation=build_augmentation(domain.augment, fill),
                taxonomy={"labeled": taxonomy, "weak": class_space(taxonomy)}.get(role),
                seed=recipe.seed,
            )
            digests[stream] = shards.digest
            if indices is not None:
                keys = chosen[role][0].keys()
                selected[stream] = [keys[i] for i in indices]
        if domain.val is not None:
            shards = open_source(recipe.data.shards, domain.val)
            subset = select(shards, domain.val, taxonomy)
            resize, views = domain.augment.resize, build_views(recipe.evaluate)
            validation[name] = Validation(shards=shards, taxonomy=taxonomy, subset=subset, resize=resize, views=views)
            digests[f"{name}/val"] = shards.digest
            if subset is not None:
                keys = shards.keys()
                selected[f"{name}/val"] = [keys[i] for i in subset]
    return Sources(streams=streams, validation=validation, taxonomies=taxonomies, digests=digests, selected=selected)


def open_source(root: str, source: r.Labeled | r.Unlabeled | r.Weak | r.Val | r.Extra) -> ShardSet | Pool:
    """The shard set of a source, or the pool of several splits."""
    places = [f"{root.rstrip('/')}/{source.dataset}/{split}" for split in source.splits]
    if isinstance(source, r.Weak):
        sets = [OverlaySet(f"{each}@{source.overlay}") for each in places]
    else:
        sets = [ShardSet(each) for each in places]
    return sets[0] if len(sets) == 1 else Pool(sets)


def select(shards: ShardSet | Pool, source: r.Labeled | r.Unlabeled | r.Val, taxonomy: Taxonomy) -> np.ndarray | None:
    """Sorted indices of the samples that a source asks for; None for all."""
    if source.ids is not None:
        return by_keys(shards, read_keys(source.ids))
    if source.subset is not None:
        return stratified(shards, taxonomy, source.subset.count, source.subset.seed)
    return None


def class_uniform(
    recipe: r.Recipe,
    source: r.Labeled,
    shards: ShardSet | Pool,
    indices: np.ndarray | None,
    plan: Plan,
    taxonomy: Taxonomy,
) -> tuple[ShardSet | Pool, ClassUniformPlan]:
    """The labeled source with crops drawn class by class, and what it draws from: with `extra`, a pool of both."""
    settings = source.class_uniform
    assert settings is not None
    own = shards.anchors(taxonomy)
    if indices is not None:
        own = own.of_samples(indices)
    if settings.extra is None:
        return shards, ClassUniformPlan(plan, own, share=settings.share)
    more = open_source(recipe.data.shards, settings.extra)
    anchors = more.anchors(taxonomy).of_next_set(len(shards))
    if settings.extra.classes is not None:
        anchors = anchors.of_classes([taxonomy.names.index(name) for name in settings.extra.classes])
    sets = [part for each in (shards, more) for part in (each.sets if isinstance(each, Pool) else (each,))]
    turns = len(recipe.data.domains) if recipe.data.domains_per_step == "one" else 1
    until = round(settings.extra.until * recipe.steps / turns) * source.batch_size
    return Pool(sets), ClassUniformPlan(plan, own + anchors, share=settings.share, until=until, later=own)


def without(
    pool: ShardSet | Pool, indices: np.ndarray | None, labeled: ShardSet | Pool, taken: np.ndarray | None
) -> np.ndarray:
    """Indices of `pool` (or of a selection of it) whose keys the labeled selection does not hold."""
    keys, labeled_keys = pool.keys(), labeled.keys()
    held = set(labeled_keys) if taken is None else {labeled_keys[i] for i in taken}
    every = range(len(keys)) if indices is None else indices.tolist()
    return np.array([i for i in every if keys[i] not in held], dtype=np.int64)


def build_augmentation(augment: r.Augment, fill: tuple[int, int, int]) -> Augmentation:
    return Augmentation(
        resize=augment.resize,
        scale=augment.scale,
        crop=augment.crop,
        flip=augment.flip,
        jitter=augment.jitter,
        blur=augment.blur,
        fill=fill,
    )


def build_model(model: r.Model, classes: Mapping[str, int], *, download: bool = True) -> Segmenter:
    """The network of a recipe, in training mode; without `download`, published encoder weights stay random.

    Raises SemisegError where the encoder, its weights or the model to start from are not what the recipe says.
    """
    try:
        if model.start is not None:
            return _started(model, classes)
        weights = model.encoder.weights if download or model.encoder.weights != "timm" else "none"
        return create_segmenter(
            encoder=model.encoder.name,
            classes=dict(classes),
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


def _started(model: r.Model, classes: Mapping[str, int]) -> Segmenter:
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
    for domain, count in classes.items():
        if domain not in segmenter.classes:
            segmenter.add_domain(domain, count)
        elif segmenter.classes[domain] != count:
            raise ValueError(
                f"{model.start} has {segmenter.classes[domain]} classes in domain {domain}, the recipe's taxonomy {count}; "
                "give the domain another name to add it"
            )
    return segmenter


def build_views(evaluate: r.Evaluate) -> Views:
    """How images are looked at in evaluation and prediction."""
    tile = evaluate.tile
    if tile is None:
        return Views(scales=evaluate.scales, flip=evaluate.flip)
    return Views(scales=evaluate.scales, flip=evaluate.flip, tile=tile.size, overlap=tile.overlap)


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
    model.encoder.checkpointing = recipe.model.encoder.checkpointing  # here, since saved models do not know it
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
