"""Recipe -> data: the sources of every domain, opened, chosen and put in order."""

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np

from semiseg.data import ClassUniformPlan, Plan, Pool, ShardSet, Taxonomy, class_space, digest_of, key64
from semiseg.train import recipe as r
from semiseg.train.recipe.overlap import check_overlap
from semiseg.train.recipe.shards import choose, open_source
from semiseg.train.score.saved import build_views
from semiseg.train.score.views import Views
from semiseg.train.step.augment import Augmentation
from semiseg.train.step.batches import Stream
from semiseg.train.step.distortion import Distortion


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
    """All data of a run.

    selected: source -> keys taken, where a recipe takes less than all; digests: of shard sets; class_pixels: domain ->
    labeled pixels of each class, where a loss weights classes; overlap: which validation images are trained on, if the
    recipe allows that.
    """

    streams: dict[str, dict[str, Stream]]
    validation: dict[str, Validation]
    taxonomies: dict[str, Taxonomy]
    digests: dict[str, str]
    selected: dict[str, list[str]]
    class_pixels: dict[str, list[int]]
    overlap: tuple[str, ...] = ()

    def digest_of_subsets(self) -> dict[str, str]:
        """Source -> hash of the keys taken."""
        return {name: digest_of(keys) for name, keys in self.selected.items()}

    def identity(self) -> dict[str, str]:
        """What must be the same for a run to continue: every shard set, every selection, what raw ids mean."""
        chosen = {f"{name} (selection)": digest for name, digest in self.digest_of_subsets().items()}
        meaning = {f"{name}{CLASSES}": _meaning(taxonomy) for name, taxonomy in self.taxonomies.items()}
        return self.digests | chosen | meaning


def _meaning(taxonomy: Taxonomy) -> str:
    """A digest of which raw ids make which class, and which classes are objects; classes may be called something else."""
    meaning = [sorted(taxonomy.ids.items()), len(taxonomy.names), sorted(taxonomy.foreground)]
    return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()


def build_sources(recipe: r.Recipe, *, fill: tuple[int, int, int]) -> Sources:
    """Open every shard set of the recipe and choose its samples. `fill`: colour of padding."""
    streams: dict[str, dict[str, Stream]] = {}
    validation: dict[str, Validation] = {}
    taxonomies: dict[str, Taxonomy] = {}
    digests: dict[str, str] = {}
    selected: dict[str, list[str]] = {}
    class_pixels: dict[str, list[int]] = {}
    everything = {name: choose(recipe.data, name) for name in recipe.data.domains}
    overlap = check_overlap(recipe, everything)
    for name, domain in recipe.data.domains.items():
        chosen = everything[name]
        labeled = chosen["labeled"].shards
        taxonomy = taxonomies[name] = labeled.taxonomy(domain.taxonomy)
        if any(getattr(getattr(own, "loss", own), "class_weights", None) for own in recipe.objectives_of(name)):
            taken = slice(None) if chosen["labeled"].indices is None else chosen["labeled"].indices
            class_pixels[name] = labeled.class_pixels(taxonomy)[taken].sum(0).tolist()
        streams[name] = {}
        for role in [role for role in ("labeled", "unlabeled", "weak") if role in chosen]:
            shards, indices = chosen[role].shards, chosen[role].indices
            stream = f"{name}/{role}"
            plan = Plan(shards, key64(recipe.seed, "order", stream), window=recipe.data.window, subset=indices)
            if role == "labeled" and domain.labeled.class_uniform is not None:
                shards, plan = class_uniform(recipe, domain.labeled, shards, indices, plan, taxonomy)
            streams[name][role] = Stream(
                name=stream,
                shards=shards,
                plan=plan,
                batch_size=getattr(domain, role).batch_size,
                pairs=role == "unlabeled" and recipe.mixes(name),
                augmentation=build_augmentation(domain.augment, fill),
                distortion=build_distortion(domain.unlabeled) if role == "unlabeled" else None,
                taxonomy={"labeled": taxonomy, "weak": class_space(taxonomy)}.get(role),
                seed=recipe.seed,
            )
            digests[stream] = shards.digest
            if indices is not None:
                keys = chosen[role].shards.keys()
                selected[stream] = [keys[i] for i in indices]
        if "val" in chosen:
            shards, subset = chosen["val"].shards, chosen["val"].indices
            resize, views = domain.augment.resize, build_views(recipe.evaluate)
            validation[name] = Validation(shards=shards, taxonomy=taxonomy, subset=subset, resize=resize, views=views)
            digests[f"{name}/val"] = shards.digest
            if subset is not None:
                keys = shards.keys()
                selected[f"{name}/val"] = [keys[i] for i in subset]
    return Sources(
        streams=streams,
        validation=validation,
        taxonomies=taxonomies,
        digests=digests,
        selected=selected,
        class_pixels=class_pixels,
        overlap=overlap,
    )


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
    sets = [part for pool in (shards, more) for part in (pool.sets if isinstance(pool, Pool) else (pool,))]
    turns = len(recipe.data.domains) if recipe.data.domains_per_step == "one" else 1
    until = round(settings.extra.until * recipe.steps / turns) * source.batch_size
    return Pool(sets), ClassUniformPlan(plan, own + anchors, share=settings.share, until=until, later=own)


def build_augmentation(augment: r.Augment, fill: tuple[int, int, int]) -> Augmentation:
    return Augmentation(
        resize=augment.resize,
        scale=augment.scale,
        crop=augment.crop,
        flip=augment.flip,
        vflip=augment.vflip,
        rotate=augment.rotate,
        jitter=augment.jitter,
        blur=augment.blur,
        fill=fill,
    )


def build_distortion(source: r.Unlabeled | None) -> Distortion | None:
    """The strong views of a source, if it asks for any."""
    return None if source is None or source.strong is None else Distortion(**asdict(source.strong))


CLASSES = " (classes)"  # ends the name of what says which raw ids make which class of a domain
