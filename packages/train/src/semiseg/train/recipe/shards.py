"""The shards that a recipe names: opened, and their samples selected."""

import numpy as np

from semiseg.data import OverlaySet, Pool, ShardSet, Taxonomy, by_list, stratified
from semiseg.train import recipe as r


def open_source(root: str, source: r.Labeled | r.Unlabeled | r.Weak | r.Val | r.Extra) -> ShardSet | Pool:
    """The shard set of a source, or the pool of several splits."""
    places = [f"{root.rstrip('/')}/{source.dataset}/{split}" for split in source.splits]
    if isinstance(source, r.Weak):
        sets = [OverlaySet(f"{place}@{source.overlay}") for place in places]
    else:
        sets = [ShardSet(place) for place in places]
    return sets[0] if len(sets) == 1 else Pool(sets)


def classes_of(recipe: r.Recipe) -> dict[str, tuple[str, ...]]:
    """Domain -> names of its classes."""
    return {
        name: open_source(recipe.data.shards, domain.labeled).taxonomy(domain.taxonomy).names
        for name, domain in recipe.data.domains.items()
    }


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
