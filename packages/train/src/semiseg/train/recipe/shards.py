"""The shards that a recipe names: opened, and their samples selected."""

from dataclasses import dataclass

import numpy as np

from semiseg.data import OverlaySet, Pool, ShardSet, Taxonomy, by_list, stratified
from semiseg.train import recipe as r


def open_source(root: str, source: r.Labeled | r.Unlabeled | r.Weak | r.Val | r.Extra) -> ShardSet | Pool:
    """The shard set of a source, or the pool of several splits."""
    places = [f"{root.rstrip('/')}/{source.dataset}/{split}" for split in source.splits]
    if isinstance(source, r.Weak):
        sets = [OverlaySet(f"{place}@{source.overlay}") for place in places]
    else:
        sets = [open_shards(place) for place in places]
    return sets[0] if len(sets) == 1 else Pool(sets)


def open_shards(url: str) -> ShardSet:
    """A shard set; an overlay with the photographs of its split, since its own images show labels in colours."""
    return OverlaySet(url) if "@" in url.rstrip("/").rpartition("/")[2] else ShardSet(url)


def label_conflict(taxonomy: Taxonomy, shards: ShardSet) -> str:
    """Why a taxonomy does not read the labels of a shard set; "" if it does."""
    place = f"{shards.manifest.dataset}/{shards.manifest.split}"
    if taxonomy.raw_space != shards.manifest.raw_space:
        known = [*shards.taxonomies, *Taxonomy.all().values()]
        fit = sorted({other.name for other in known if other.raw_space == shards.manifest.raw_space})
        return (
            f"{place} holds labels of '{shards.manifest.raw_space}', taxonomy '{taxonomy.name}' reads "
            f"'{taxonomy.raw_space}'; taxonomies that fit: {', '.join(fit) or 'none installed'}"
        )
    if any(own.name == taxonomy.name and own != taxonomy for own in shards.taxonomies):
        return f"{place} was written with other classes in taxonomy '{taxonomy.name}'"
    return ""


def classes_of(recipe: r.Recipe) -> dict[str, tuple[str, ...]]:
    """Domain -> names of its classes."""
    return {
        name: open_source(recipe.data.shards, domain.labeled).taxonomy(domain.taxonomy).names
        for name, domain in recipe.data.domains.items()
    }


@dataclass(frozen=True)
class Chosen:
    """A source, opened, and the sorted indices of the samples that it takes; None for all."""

    shards: ShardSet | Pool
    indices: np.ndarray | None


def choose(data: r.Data, name: str) -> dict[str, Chosen]:
    """Role -> what a domain takes: "labeled", "unlabeled", "weak", "val", and "extra" of class-uniform crops."""
    domain = data.domains[name]
    labeled = open_source(data.shards, domain.labeled)
    taxonomy = labeled.taxonomy(domain.taxonomy)
    taken = select(labeled, domain.labeled, taxonomy)
    chosen = {"labeled": Chosen(labeled, taken)}
    if domain.labeled.class_uniform is not None and (extra := domain.labeled.class_uniform.extra) is not None:
        chosen["extra"] = Chosen(open_source(data.shards, extra), None)
    if domain.unlabeled is not None:
        pool = open_source(data.shards, domain.unlabeled)
        indices = select(pool, domain.unlabeled, taxonomy)
        if domain.unlabeled.minus == "labeled":
            indices = without(pool, indices, labeled, taken)
        chosen["unlabeled"] = Chosen(pool, indices)
    if domain.weak is not None:
        pool = open_source(data.shards, domain.weak)
        chosen["weak"] = Chosen(pool, without(pool, None, labeled, taken) if domain.weak.minus == "labeled" else None)
    if domain.val is not None:
        pool = open_source(data.shards, domain.val)
        chosen["val"] = Chosen(pool, select(pool, domain.val, taxonomy))
    return chosen


def select(shards: ShardSet | Pool, source: r.Labeled | r.Unlabeled | r.Val, taxonomy: Taxonomy) -> np.ndarray | None:
    """Sorted indices of the samples that a source asks for; None for all."""
    if source.ids is not None:
        return by_list(shards, source.ids)
    if source.subset is not None:
        return stratified(shards, taxonomy, source.subset.count, source.subset.seed)
    return None


def without(
    pool: ShardSet | Pool, indices: np.ndarray | None, labeled: ShardSet | Pool, taken: np.ndarray | None
) -> np.ndarray:
    """Indices of `pool` (or of a selection of it) whose keys are not in the labeled selection."""
    keys, labeled_keys = pool.keys(), labeled.keys()
    excluded = set(labeled_keys) if taken is None else {labeled_keys[i] for i in taken}
    candidates = range(len(keys)) if indices is None else indices.tolist()
    return np.array([i for i in candidates if keys[i] not in excluded], dtype=np.int64)
