"""What certainly does not fit into this machine, before anything is read or built: a lower bound, from the recipe alone."""

import os
from collections.abc import Iterator

from semiseg.train.recipe import CrossConsistency, Recipe
from semiseg.train.recipe.problems import Problem

DECODERS = 1000  # auxiliary decoders of all perturbations of an objective; CCT has 30


def beyond_memory(recipe: Recipe, *, world: int = 1, memory: int | None = None) -> Iterator[Problem]:
    """Batches whose bare pixels take more than the memory (bytes; by default this machine's), and endless decoders."""
    memory = memory or physical_memory()
    for name, domain in recipe.data.domains.items():
        size = domain.augment.crop or domain.augment.resize
        for role in ("labeled", "unlabeled", "weak"):
            source = getattr(domain, role)
            if source is None or size is None or memory is None:
                continue
            images = -(-source.batch_size // (world * recipe.accumulate))
            needed = images * 3 * size[0] * size[1] * 4  # 32-bit colours, as the encoder normalises them
            if needed > memory:
                key = "crop" if domain.augment.crop else "resize"
                at = ("data", "domains", name, role, "batch_size")
                what = (
                    f"{images:,} images of {size[0]}x{size[1]} take {needed / 1e9:,.0f} GB as bare pixels, and this machine "
                    f"has {memory / 1e9:,.0f} GB"
                )
                yield Problem(at, f"{what}; lower it, or augment.{key}")
        if domain.augment.resize and memory is not None:
            height, width = domain.augment.resize
            if height * width * 12 > memory:
                what = f"one image of {height}x{width} takes {height * width * 12 / 1e9:,.0f} GB"
                yield Problem(("data", "domains", name, "augment", "resize"), f"{what}; lower it")
    for index, objective in enumerate(recipe.objectives):
        if isinstance(objective, CrossConsistency):
            count = sum(getattr(each, "count", 1) for each in objective.perturbations)
            if count > DECODERS:
                what = f"{count:,} auxiliary decoders, expected {DECODERS:,} at most"
                yield Problem(("objectives", index, "perturbations"), f"{what}; lower their counts (CCT has 30)")


def physical_memory() -> int | None:
    """Bytes of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
