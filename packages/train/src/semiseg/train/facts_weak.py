"""Whether a weak source has its pseudo-labels: an overlay of the split as it is now, in the classes of the domain."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from semiseg.data.errors import DataError
from semiseg.train.lines import Path
from semiseg.train.problems import Problem
from semiseg.train.recipe import Data, Weak

if TYPE_CHECKING:
    from semiseg.data import Pool, ShardSet, Taxonomy


def weak_sets(at: Path, source: Weak, data: Data) -> "ShardSet | Pool | Problem":
    """The overlays of splits whose shards are there, or why there are none."""
    from semiseg.data import OverlaySet, Pool
    from semiseg.data.manifest import MANIFEST
    from semiseg.data.storage import Storage

    places = [f"{data.shards.rstrip('/')}/{source.dataset}/{split}" for split in source.splits]
    missing = [place for place in places if not Storage(f"{place}@{source.overlay}").exists(MANIFEST)]
    if missing:
        name = "" if source.overlay == "cam" else f" --name {source.overlay}"
        what = f"no pseudo-labels '{source.overlay}' for {', '.join(missing)}"
        fit = f"semiseg weak fit {missing[0]} --to runs/tags"
        labels = f"semiseg weak labels {missing[0]} --classifier runs/tags{name}"
        return Problem((*at, "overlay"), f"{what}; make them, or finish them, with: {fit} && {labels}")
    try:
        sets = [OverlaySet(f"{place}@{source.overlay}") for place in places]
    except DataError as error:
        return Problem((*at, "overlay"), str(error).replace("\n", "; "))
    return sets[0] if len(sets) == 1 else Pool(sets)


def weak_classes(at: Path, pool: "ShardSet | Pool", taxonomy: "Taxonomy | None") -> Iterator[Problem]:
    """Pseudo-labels are ids of classes: those of the domain, in the same order."""
    for each in getattr(pool, "sets", [pool]):
        own = each.taxonomies[0]
        if taxonomy is None or (own.name, own.names) == (taxonomy.name, taxonomy.names):
            continue
        what = f"{each.url} holds classes of taxonomy '{own.name}', the domain has '{taxonomy.name}'"
        if own.name == taxonomy.name:
            what = f"{each.url} was made with other classes in taxonomy '{own.name}'"
        remedy = f"fit and label with --taxonomy {taxonomy.name}, under another --name"
        yield Problem(at, f"{what}; {remedy}")
