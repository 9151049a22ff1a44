"""Checks before training: whether the shards, taxonomies, masks, weights and processes that a recipe needs are there."""

from collections.abc import Iterator
from pathlib import Path

from semiseg.data import (
    MANIFEST,
    DataError,
    Pool,
    ShardSet,
    Storage,
    Taxonomy,
    broken,
    by_list,
    installed,
    unknown,
)
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
from semiseg.train.recipe.forecast import beyond_memory
from semiseg.train.recipe.lines import KeyPath
from semiseg.train.recipe.overlap import check_overlap
from semiseg.train.recipe.problems import Origin, Problem, RecipeError, dotted, nearest
from semiseg.train.recipe.shards import label_conflict, open_source

Source = Labeled | Unlabeled | Weak | Val
ROLES = ("labeled", "unlabeled", "weak", "val")
OBJECTS = ("context_mask", "object_mask", "guided_cutout")  # perturbations that need to know the foreground classes


def preflight(recipe: Recipe, *, world: int = 1) -> None:
    """Raise RecipeError with everything that prevents training this recipe here with `world` processes.

    Looks for data sets, shards, taxonomies, masks, key files and weights; opens no image and builds no model.
    """
    found = [problem for name in recipe.data.domains for problem in _domain(name, recipe, world)]
    missing = [one for one in found if one.path[-1] == "dataset" and one.what.startswith("no shards for")]
    absent = {problem.what: problem for problem in reversed(missing)}
    problems = [problem for problem in found if absent.get(problem.what, problem) is problem]  # a missing data set once
    readable = not problems
    problems += [*_model(recipe), *_ranked_pixels(recipe, world), *beyond_memory(recipe, world=world)]
    overlapping: tuple[str, ...] = ()
    if readable:
        try:
            check_overlap(recipe)
        except RecipeError as error:
            overlapping = error.faults
    if problems or overlapping:
        raise RecipeError([*Origin.of(recipe).report(problems), *overlapping])


def _domain(name: str, recipe: Recipe, world: int) -> Iterator[Problem]:
    domain, at = recipe.data.domains[name], ("data", "domains", name)
    sources: dict[str, Source] = {role: source for role in ROLES if (source := getattr(domain, role)) is not None}
    opened = {role: _open((*at, role), source, recipe.data) for role, source in sources.items()}
    pools = {role: pool for role, pool in opened.items() if not isinstance(pool, Problem)}
    taxonomy = None
    try:
        # Shards contain their classes; those of a data set that is neither sharded nor installed are unknown.
        if "labeled" in pools:
            taxonomy = pools["labeled"].taxonomy(domain.taxonomy)
        elif domain.labeled.dataset in installed():
            taxonomy = Taxonomy.get(domain.taxonomy)
    except DataError as error:
        yield Problem((*at, "taxonomy"), _one_line(error))
    for role, source in sources.items():
        if not isinstance(source, Val):
            yield from _batch((*at, role, "batch_size"), source, recipe, world)
        pool = opened[role]
        if isinstance(pool, Problem):
            yield pool
            continue
        if isinstance(source, Weak):
            yield from _overlay((*at, role, "overlay"), pool, taxonomy)
        else:
            yield from _contents((*at, role), source, pool, taxonomy)
        if not isinstance(source, Val):
            images = 2 if role == "unlabeled" and recipe.mixes(name) else 1
            yield from _sizes((*at, role), domain, pool, images * -(-source.batch_size // (world * recipe.accumulate)))
    yield from _extra((*at, "labeled", "class_uniform", "extra"), domain, recipe.data, taxonomy)
    for role in ("unlabeled", "weak"):
        yield from _remainder((*at, role, "minus"), domain, role, pools)
    if taxonomy and not taxonomy.foreground:
        yield from _foreground(recipe, name, taxonomy.name)
    yield from _strict(recipe, name, taxonomy)


# ---- sources ---------------------------------------------------------------------------------------------------------


def _open(at: KeyPath, source: Source, data: Data) -> ShardSet | Pool | Problem:
    """The shards of a source, or why they cannot be opened."""
    places = {split: f"{data.shards.rstrip('/')}/{source.dataset}/{split}" for split in source.splits}
    overlay = source.overlay if isinstance(source, Weak) else ""
    if pseudo := next((split for split in source.splits if "@" in split), None):
        return Problem((*at, "split"), _pseudo_labels(at, source, pseudo))
    try:
        missing = [split for split, place in places.items() if not Storage(place).exists(MANIFEST)]
        if missing:
            return _no_shards(at, source, data, missing)
        if overlay:
            missing = [place for place in places.values() if not Storage(f"{place}@{overlay}").exists(MANIFEST)]
    except (OSError, DataError) as error:  # no permission, no network, a protocol whose package is not installed
        return Problem(("data", "shards"), _one_line(error))
    if missing:
        name = "" if overlay == "cam" else f" --name {overlay}"
        fit = f"semiseg weak fit {missing[0]} --to runs/tags"
        labels = f"semiseg weak labels {missing[0]} --classifier runs/tags{name}"
        what = f"no pseudo-labels '{overlay}' for {', '.join(missing)}"
        return Problem((*at, "overlay"), f"{what}; write or complete them with: {fit} && {labels}")
    try:
        return open_source(data.shards, source)
    except DataError as error:
        return Problem((*at, "overlay" if overlay else "split"), _one_line(error))


def _pseudo_labels(at: KeyPath, source: Source, split: str) -> str:
    """What to write instead of the name of an overlay as a split."""
    base, _, name = split.partition("@")
    what = f"'{split}' holds pseudo-labels of '{base}'"
    if isinstance(source, Unlabeled | Val):
        return f"{what}; name the split: {dotted((*at, 'split'))}={base}"
    weak = f"{{dataset='{source.dataset}',split='{base}',overlay='{name}',batch_size={source.batch_size}}}"
    return f'{what}; to train on them, add {dotted((*at[:-1], "weak"))}="{weak}" and an objective on = "weak"'


def _no_shards(at: KeyPath, source: Source, data: Data, missing: list[str]) -> Problem:
    what = f"no shards for {', '.join(f'{source.dataset}/{split}' for split in missing)} under {data.shards}"
    known = installed()
    if source.dataset not in known:
        why = broken().get(source.dataset) or unknown("data set", source.dataset, known)
        folder = f"semiseg data shard folder ROOT --option name={source.dataset} --to {data.shards}"
        everywhere = [one for domain in data.domains.values() for role in ROLES if (one := getattr(domain, role))]
        splits = dict.fromkeys(split for one in everywhere if one.dataset == source.dataset for split in one.splits)
        home = f"{data.shards.rstrip('/')}/{source.dataset}"
        absent = [f"{source.dataset}/{split}" for split in splits if not Storage(f"{home}/{split}").exists(MANIFEST)]
        what = f"no shards for {', '.join(absent)} under {data.shards}"
        what = f"{what}, and data set '{source.dataset}' is not installed: {why}; for your own images: {folder}, which then "
        what += "prints the command that trains on them"
        return Problem((*at, "dataset"), what)
    meant = nearest(missing[0], _written(f"{data.shards.rstrip('/')}/{source.dataset}"))
    wanted = " ".join(f"--split {split}" for split in missing)
    guess = f"; did you mean '{meant}'?" if meant else ";"
    command = f"semiseg data shard {source.dataset} {wanted} --to {data.shards}"
    return Problem((*at, "split"), f"{what}{guess} write them with: {command}")


def _written(folder: str) -> list[str]:
    """Names of the splits that have been sharded into a data set's folder."""
    try:
        return Storage(folder).names()
    except OSError:
        return []


def _contents(
    at: KeyPath, source: Labeled | Unlabeled | Val, pool: ShardSet | Pool, taxonomy: Taxonomy | None
) -> Iterator[Problem]:
    """Masks where they are needed, with ids that the taxonomy maps; enough samples; key files that match."""
    if source.subset is not None or not isinstance(source, Unlabeled):
        for shards in _sets(pool):
            place = f"{shards.manifest.dataset}/{shards.manifest.split}"
            if not shards.manifest.labeled:
                what = "a subset is chosen by its masks" if isinstance(source, Unlabeled) else "masks are needed here"
                yield Problem((*at, "split"), f"{place} holds no masks, and {what}; name a split that has them")
            elif taxonomy and (conflict := label_conflict(taxonomy, shards)):
                if taxonomy.raw_space != shards.manifest.raw_space:
                    yield Problem((*at, "dataset"), conflict)
                else:
                    remedy = "than the labeled source; run `semiseg data shard` again for both"
                    yield Problem((*at, "split"), f"{conflict} {remedy}")
    if source.subset and source.subset.count > len(pool):
        what = f"asks for {source.subset.count} of {len(pool)} samples"
        yield Problem((*at, "subset", "count"), f"{what}; ask for {len(pool)} at most")
    if source.ids:
        try:
            by_list(pool, source.ids)
        except DataError as error:
            yield Problem((*at, "ids"), f"'{source.ids}': {_one_line(error)}")


def _overlay(at: KeyPath, pool: ShardSet | Pool, taxonomy: Taxonomy | None) -> Iterator[Problem]:
    """Pseudo-labels hold ids of the domain's classes, in the same order."""
    for overlay in _sets(pool):
        own = overlay.taxonomies[0]
        if taxonomy is None or (own.name, own.names) == (taxonomy.name, taxonomy.names):
            continue
        what = f"{overlay.url} holds classes of taxonomy '{own.name}', the domain has '{taxonomy.name}'"
        if own.name == taxonomy.name:
            what = f"{overlay.url} was made with other classes in taxonomy '{own.name}'"
        yield Problem(at, f"{what}; fit and label with --taxonomy {taxonomy.name}, under another --name")


def _extra(at: KeyPath, domain: Domain, data: Data, taxonomy: Taxonomy | None) -> Iterator[Problem]:
    """The additional source of class-uniform crops, and its classes."""
    extra = domain.labeled.class_uniform.extra if domain.labeled.class_uniform else None
    if extra is None:
        return
    source = Val(dataset=extra.dataset, split=extra.split)
    pool = _open(at, source, data)
    yield from [pool] if isinstance(pool, Problem) else _contents(at, source, pool, taxonomy)
    for place, name in enumerate(extra.classes or ()):
        if taxonomy and name not in taxonomy.names:
            yield Problem((*at, "classes", place), unknown("class", name, taxonomy.names))


def _remainder(at: KeyPath, domain: Domain, role: str, pools: dict[str, ShardSet | Pool]) -> Iterator[Problem]:
    """Unlabeled, or weakly labeled, images are left after the labeled ones have been removed."""
    labeled, source = domain.labeled, domain.unlabeled if role == "unlabeled" else domain.weak
    if source is None or not source.minus or len(pools.keys() & {"labeled", role}) < 2:
        return
    taken = len(pools["labeled"])
    if labeled.ids or (labeled.subset and labeled.subset.count != taken):
        return  # only some images are labeled
    drawn = isinstance(source, Unlabeled) and source.subset is not None
    if not drawn and not set(pools[role].keys()) <= set(pools["labeled"].keys()):
        return
    what = f"nothing is left: all {taken} images are labeled"
    fewer = f"label fewer (labeled.subset.count = {max(1, taken // 10)})"
    yield Problem(at, f"{what}; {fewer}, name other splits or remove minus")


# ---- batches ---------------------------------------------------------------------------------------------------------


def _batch(at: KeyPath, source: Labeled | Unlabeled | Weak, recipe: Recipe, world: int) -> Iterator[Problem]:
    """One image for every process and micro-step, and two where batch norm sees pooled 1x1 maps."""
    parts = world * recipe.accumulate
    micro = f" and accumulate = {recipe.accumulate} micro-steps" * (recipe.accumulate > 1)
    fewest = source.batch_size // world // recipe.accumulate
    if not fewest:
        what = f"{source.batch_size} images for {world} processes{micro}"
        yield Problem(at, f"{what}; raise it to at least {parts}, or use fewer processes")
        return
    alone = recipe.model.norm == "batch" or (recipe.model.norm == "sync" and world == 1)
    context = recipe.model.context
    if fewest == 1 and alone and isinstance(context, PSP | ASPP):
        pooled = f"batch norm over the 1x1 map of {context.kind} needs two"
        what = f"one image at a time for each of {world} processes{micro}, and {pooled}"
        remedy = f'raise it to {2 * parts}, or set model.norm = "frozen"' + (' or "sync"' if world > 1 else "")
        yield Problem(at, f"{what}; {remedy}")


def _sizes(at: KeyPath, domain: Domain, pool: ShardSet | Pool, together: int) -> Iterator[Problem]:
    """Images that are stacked into a batch have one size."""
    if domain.augment.resize or domain.augment.crop or together < 2:
        return
    sizes = sorted({(int(height), int(width)) for height, width in pool.sizes()})
    if len(sizes) > 1:
        some = ", ".join(f"{height}x{width}" for height, width in sizes[:3]) + ", ..." * (len(sizes) > 3)
        what = f"images of {len(sizes)} sizes ({some}) do not stack into batches"
        yield Problem((*at, "batch_size"), f"{what}; add augment.crop or augment.resize = [height, width]")


# ---- model and objectives --------------------------------------------------------------------------------------------


def _model(recipe: Recipe) -> Iterator[Problem]:
    """The files that weights are loaded from."""
    weights, start = recipe.model.encoder.weights, recipe.model.start
    if start is None and weights not in ("timm", "none") and not Path(weights).exists():
        remedy = 'expected "timm", "none", or the path of a file, a run or a saved model'
        what = f"'{weights}' does not exist; {remedy}; the recipe's comments may say how to get it"
        yield Problem(("model", "encoder", "weights"), what)
    if start is not None and not Path(start).exists():
        yield Problem(("model", "start"), f"'{start}' does not exist; expected the folder of a run or of a saved model")


def _ranked_pixels(recipe: Recipe, world: int) -> Iterator[Problem]:
    """A loss that ranks the pixels of a batch needs the batch in one part."""
    parts = world * recipe.accumulate
    for index, objective in enumerate(recipe.objectives):
        loss = objective.loss if isinstance(objective, Supervised) else None
        if isinstance(loss, Bootstrapped) and loss.pool == "batch" and parts > 1:
            what = f'"batch" ranks the pixels of one micro-step of one process, and a batch has {parts} such parts'
            remedy = 'use pool = "image", or one process without accumulate'
            yield Problem(("objectives", index, "loss", "pool"), f"{what}; {remedy}")


def _foreground(recipe: Recipe, domain: str, taxonomy: str) -> Iterator[Problem]:
    """Perturbations that mask objects need a taxonomy with foreground classes."""
    for index, objective in enumerate(recipe.objectives):
        if isinstance(objective, CrossConsistency) and domain in (objective.domains or {domain}):
            for number, perturbation in enumerate(objective.perturbations):
                if perturbation.kind in OBJECTS:
                    what = f"taxonomy '{taxonomy}' marks no class as foreground, and '{perturbation.kind}' needs one"
                    yield Problem(("objectives", index, "perturbations", number), f"{what}; remove this perturbation")


def _strict(recipe: Recipe, domain: str, taxonomy: Taxonomy | None) -> Iterator[Problem]:
    """Classes that are never relaxed are classes of every domain that the objective trains."""
    for index, objective in enumerate(recipe.objectives):
        if taxonomy and isinstance(objective, Supervised) and domain in (objective.domains or {domain}):
            for place, name in enumerate(getattr(objective.loss, "strict", ())):
                if name not in taxonomy.names:
                    what = unknown("class", name, taxonomy.names)
                    yield Problem(("objectives", index, "loss", "strict", place), f"{what} (domain {domain})")


def _one_line(error: Exception) -> str:
    return str(error).replace("\n", "; ")


def _sets(pool: ShardSet | Pool) -> list[ShardSet]:
    return list(getattr(pool, "sets", [pool]))
