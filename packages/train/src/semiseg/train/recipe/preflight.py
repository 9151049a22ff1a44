"""Whether the world is as a recipe needs it: shards, taxonomies, masks, counts, processes."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from semiseg.data import DataError, unknown
from semiseg.train.recipe import (
    ASPP,
    PSP,
    Bootstrapped,
    CrossConsistency,
    Data,
    Domain,
    Labeled,
    Recipe,
    Supervised,
    Unlabeled,
    Val,
    Weak,
)
from semiseg.train.recipe.lines import KeyPath
from semiseg.train.recipe.problems import Origin, Problem, RecipeError, nearest
from semiseg.train.recipe.shards import read_keys

if TYPE_CHECKING:
    from semiseg.data import Pool, ShardSet, Taxonomy

Source = Labeled | Unlabeled | Weak | Val
OBJECTS = ("context_mask", "object_mask", "guided_cutout")  # perturbations that need to know what an object is


def preflight(recipe: Recipe, *, world: int = 1) -> None:
    """Raise RecipeError with everything that keeps this recipe from being trained here by `world` processes.

    Looks for data sets, shards, taxonomies, masks, key files, weights; opens no image and builds no model.
    """
    problems = [problem for name in recipe.data.domains for problem in _domain(name, recipe, world)]
    weights = recipe.model.encoder.weights
    if recipe.model.start is None and weights not in ("timm", "none") and not Path(weights).exists():
        what = f'nothing at \'{weights}\'; the head of the recipe may say how to get it, or use "timm" or "none"'
        problems.append(Problem(("model", "encoder", "weights"), what))
    for index, objective in enumerate(recipe.objectives):
        parts = world * recipe.accumulate
        loss = objective.loss if isinstance(objective, Supervised) else None
        if isinstance(loss, Bootstrapped) and loss.pool == "batch" and parts > 1:
            what = f'"batch" ranks the pixels of one process\'s micro-step, and there are {parts} parts of a batch'
            at = ("objectives", index, "loss", "pool")
            problems.append(Problem(at, f'{what}; use pool = "image", or one process without accumulate'))
    start = recipe.model.start
    if start is not None and not Path(start).exists():
        problems.append(
            Problem(("model", "start"), f"nothing at '{start}'; expected the folder of a run or a saved model")
        )
    if problems:
        raise RecipeError(Origin.of(recipe).tell(problems))


def _domain(name: str, recipe: Recipe, world: int) -> Iterator[Problem]:
    from semiseg.data import Taxonomy, installed

    domain, at = recipe.data.domains[name], ("data", "domains", name)
    sources: dict[str, Source | None] = {
        role: getattr(domain, role) for role in ("labeled", "unlabeled", "weak", "val")
    }
    opened = {role: _open((*at, role), each, recipe.data) for role, each in sources.items() if each is not None}
    pools = {role: found for role, found in opened.items() if not isinstance(found, Problem)}
    taxonomy = None
    try:
        # Shards know their own classes; those of a data set that is neither written nor installed nobody can know.
        if "labeled" in pools:
            taxonomy = pools["labeled"].taxonomy(domain.taxonomy)
        elif domain.labeled.dataset in installed():
            taxonomy = Taxonomy.get(domain.taxonomy)
    except DataError as error:
        yield Problem((*at, "taxonomy"), _one_line(error))
    for role, source in sources.items():
        if source is None:
            continue
        if not isinstance(source, Val):
            yield from _batch((*at, role, "batch_size"), source, recipe, world)
        found = opened[role]
        if isinstance(found, Problem):
            yield found
            continue
        if isinstance(source, Weak):
            yield from weak_classes((*at, role, "overlay"), found, taxonomy)
        else:
            yield from _contents((*at, role), source, found, taxonomy)
        if not isinstance(source, Val):
            each = 2 if role == "unlabeled" and recipe.mixes(name) else 1
            yield from _sizes((*at, role), domain, found, each * -(-source.batch_size // (world * recipe.accumulate)))
    yield from _extra((*at, "labeled", "class_uniform", "extra"), domain, recipe.data, taxonomy)
    for role in ("unlabeled", "weak"):
        yield from _remainder((*at, role, "minus"), domain, role, pools)
    if taxonomy and not taxonomy.foreground:
        yield from _foreground(recipe, name, taxonomy.name)
    yield from _strict(recipe, name, taxonomy)


def _extra(at: KeyPath, domain: Domain, data: Data, taxonomy: "Taxonomy | None") -> Iterator[Problem]:
    """The further source of class-uniform crops, and the classes that it is asked for."""
    extra = domain.labeled.class_uniform.extra if domain.labeled.class_uniform else None
    if extra is None:
        return
    source = Val(dataset=extra.dataset, split=extra.split)
    found = _open(at, source, data)
    yield from [found] if isinstance(found, Problem) else _contents(at, source, found, taxonomy)
    for place, name in enumerate(extra.classes or ()):
        if taxonomy and name not in taxonomy.names:
            yield Problem((*at, "classes", place), unknown("class", name, taxonomy.names))


def _open(at: KeyPath, source: Source, data: Data) -> "ShardSet | Pool | Problem":
    """The shards of a source, or why there are none."""
    from semiseg.data import MANIFEST, Pool, ShardSet, Storage, broken, installed

    root = data.shards.rstrip("/")
    try:
        missing = [s for s in source.splits if not Storage(f"{root}/{source.dataset}/{s}").exists(MANIFEST)]
    except (OSError, DataError) as error:  # no rights, no network, a protocol whose package is missing
        return Problem(("data", "shards"), _one_line(error))
    if missing:
        what = f"no shards for {', '.join(f'{source.dataset}/{split}' for split in missing)} under {data.shards}"
        known = installed()
        if source.dataset not in known:
            why = broken().get(source.dataset) or unknown("data set", source.dataset, known)
            own = f"semiseg data shard folder ROOT --option name={source.dataset} --to {data.shards}"
            what = f"{what}, and data set '{source.dataset}' is not installed: {why}; images of your own: {own}"
            return Problem((*at, "dataset"), what)
        meant = nearest(missing[0], _written(f"{root}/{source.dataset}"))
        wanted = " ".join(f"--split {split}" for split in missing)
        command = f"semiseg data shard {source.dataset} {wanted} --to {data.shards}"
        guess = f"; did you mean '{meant}'?" if meant else ";"
        return Problem((*at, "split"), f"{what}{guess} write them with: {command}")
    try:
        if isinstance(source, Weak):
            return weak_sets(at, source, data)
        sets = [ShardSet(f"{root}/{source.dataset}/{split}") for split in source.splits]
        return sets[0] if len(sets) == 1 else Pool(sets)
    except DataError as error:
        return Problem((*at, "split"), _one_line(error))


def _written(folder: str) -> list[str]:
    """Names of the splits that have been sharded into a data set's folder."""
    from semiseg.data import Storage

    try:
        return Storage(folder).names()
    except OSError:
        return []


def _contents(
    at: KeyPath, source: Labeled | Unlabeled | Val, pool: "ShardSet | Pool", taxonomy: "Taxonomy | None"
) -> Iterator[Problem]:
    """Masks where they are needed, in ids that the taxonomy reads; enough samples; key files that fit."""
    from semiseg.data import Taxonomy, by_keys

    by_class = source.subset is not None
    if by_class or not isinstance(source, Unlabeled):
        for each in _sets(pool):
            place = f"{each.manifest.dataset}/{each.manifest.split}"
            if not each.manifest.labeled:
                what = "a subset is chosen by its masks" if isinstance(source, Unlabeled) else "masks are needed here"
                yield Problem((*at, "split"), f"{place} holds no masks, and {what}; name a split that has them")
            elif taxonomy and taxonomy.raw_space != each.manifest.raw_space:
                known = [*each.taxonomies, *Taxonomy.all().values()]
                fit = sorted({other.name for other in known if other.raw_space == each.manifest.raw_space})
                what = f"{place} holds labels of '{each.manifest.raw_space}', taxonomy '{taxonomy.name}' reads"
                remedy = f"taxonomies that fit: {', '.join(fit) or 'none installed'}"
                yield Problem((*at, "dataset"), f"{what} '{taxonomy.raw_space}'; {remedy}")
            elif taxonomy and any(own.name == taxonomy.name and own != taxonomy for own in each.taxonomies):
                what = f"{place} was written with other classes in taxonomy '{taxonomy.name}' than the labeled source"
                yield Problem((*at, "split"), f"{what}; run `semiseg data shard` again for both")
    if source.subset and source.subset.count > len(pool):
        what = f"asks for {source.subset.count} of {len(pool)} samples"
        yield Problem((*at, "subset", "count"), f"{what}; ask for {len(pool)} at most")
    if source.ids:
        try:
            by_keys(pool, read_keys(source.ids))
        except DataError as error:
            yield Problem((*at, "ids"), f"'{source.ids}': {_one_line(error)}")


def _batch(at: KeyPath, source: Labeled | Unlabeled | Weak, recipe: Recipe, world: int) -> Iterator[Problem]:
    """An image for every process and micro-step, and two where batch norm sees pooled 1x1 maps."""
    parts = world * recipe.accumulate
    micro = f" and accumulate = {recipe.accumulate} micro-steps" * (recipe.accumulate > 1)
    fewest = source.batch_size // world // recipe.accumulate
    if not fewest:
        what = f"{source.batch_size} images for {world} processes{micro}"
        yield Problem(at, f"{what}; raise it to {parts} at least, or use fewer processes")
        return
    alone = recipe.model.norm == "batch" or (recipe.model.norm == "sync" and world == 1)
    context = recipe.model.context
    if fewest == 1 and alone and isinstance(context, PSP | ASPP):
        pooled = f"batch norm over {context.kind}'s 1x1 map needs two"
        what = f"one image at a time for each of {world} processes{micro}, and {pooled}"
        remedy = f'raise it to {2 * parts}, or set model.norm = "frozen"' + (' or "sync"' if world > 1 else "")
        yield Problem(at, f"{what}; {remedy}")


def _sizes(at: KeyPath, domain: Domain, pool: "ShardSet | Pool", together: int) -> Iterator[Problem]:
    """Images that are stacked into a batch have one size."""
    if domain.augment.resize or domain.augment.crop or together < 2:
        return
    sizes = sorted({(int(height), int(width)) for height, width in pool.sizes()})
    if len(sizes) > 1:
        some = ", ".join(f"{height}x{width}" for height, width in sizes[:3]) + ", ..." * (len(sizes) > 3)
        what = f"images of {len(sizes)} sizes ({some}) do not stack into batches"
        yield Problem((*at, "batch_size"), f"{what}; add augment.crop or augment.resize = [height, width]")


def _remainder(at: KeyPath, domain: Domain, role: str, pools: "dict[str, ShardSet | Pool]") -> Iterator[Problem]:
    """Something is left of the unlabeled, or weak, images without the labeled ones."""
    labeled, source = domain.labeled, domain.unlabeled if role == "unlabeled" else domain.weak
    if source is None or not source.minus or len(pools.keys() & {"labeled", role}) < 2:
        return
    taken = len(pools["labeled"])
    if labeled.ids or (labeled.subset and labeled.subset.count != taken):
        return  # only a part is labeled
    drawn_anew = isinstance(source, Unlabeled) and source.subset is not None
    if not drawn_anew and not set(pools[role].keys()) <= set(pools["labeled"].keys()):
        return
    what = f"nothing is left: all {taken} images are labeled"
    yield Problem(
        at, f"{what}; label fewer (labeled.subset.count = {max(1, taken // 10)}), name other splits or remove minus"
    )


def _strict(recipe: Recipe, domain: str, taxonomy: "Taxonomy | None") -> Iterator[Problem]:
    """Classes that are never relaxed are classes of each domain that the objective trains."""
    for index, objective in enumerate(recipe.objectives):
        if taxonomy and isinstance(objective, Supervised) and domain in (objective.domains or {domain}):
            for place, name in enumerate(getattr(objective.loss, "strict", ())):
                if name not in taxonomy.names:
                    what = unknown("class", name, taxonomy.names)
                    yield Problem(("objectives", index, "loss", "strict", place), f"{what} (domain {domain})")


def _foreground(recipe: Recipe, domain: str, taxonomy: str) -> Iterator[Problem]:
    for index, objective in enumerate(recipe.objectives):
        if isinstance(objective, CrossConsistency) and domain in (objective.domains or {domain}):
            for number, perturbation in enumerate(objective.perturbations):
                if perturbation.kind in OBJECTS:
                    what = f"taxonomy '{taxonomy}' says of no class that it is foreground, and '{perturbation.kind}'"
                    yield Problem(
                        ("objectives", index, "perturbations", number), f"{what} needs that; remove this perturbation"
                    )


def _one_line(error: Exception) -> str:
    return str(error).replace("\n", "; ")


def _sets(pool: "ShardSet | Pool") -> "list[ShardSet]":
    return list(getattr(pool, "sets", [pool]))


def weak_sets(at: KeyPath, source: Weak, data: Data) -> "ShardSet | Pool | Problem":
    """The overlays of splits whose shards are there, or why there are none."""
    from semiseg.data import MANIFEST, OverlaySet, Pool, Storage

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


def weak_classes(at: KeyPath, pool: "ShardSet | Pool", taxonomy: "Taxonomy | None") -> Iterator[Problem]:
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
