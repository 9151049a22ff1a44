"""Rules between the values of a recipe, each with a remedy; a single value is checked by its type."""

import re
from collections.abc import Iterator
from itertools import pairwise

from semiseg.train.recipe import (
    ASPP,
    FPN,
    SGD,
    CrossConsistency,
    DeepLabV3Plus,
    Domain,
    FeatureDrop,
    FixMatch,
    Objective,
    Ramp,
    Recipe,
    Relaxed,
    StructuredConsistency,
    Supervised,
    TaughtConsistency,
    UniMatch,
    Weak,
)
from semiseg.train.recipe.lines import KeyPath
from semiseg.train.recipe.problems import Problem, nearest, show


def broken_rules(recipe: Recipe) -> Iterator[Problem]:
    """Every violation of a rule between values."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", recipe.name):
        yield Problem(("name",), f"'{recipe.name}' cannot name a folder; use letters, digits, '.', '_' and '-'")
    for name, domain in recipe.data.domains.items():
        yield from _domain(("data", "domains", name), name, domain, recipe)
    if recipe.model.freeze == "encoder" and recipe.model.norm != "frozen":
        what = f'"encoder" needs frozen statistics, and norm = "{recipe.model.norm}" updates them'
        yield Problem(("model", "freeze"), f'{what}; set model.norm = "frozen"')
    if recipe.model.freeze == "encoder" and recipe.model.start is None:
        what = '"encoder" without a model to start from would keep its initial weights'
        yield Problem(("model", "freeze"), f"{what}; set model.start to a run or a saved model")
    yield from _encoder(recipe)
    yield from _expectations(recipe)
    yield from _objectives(recipe)
    yield from _optimisation(recipe)


def _domain(at: KeyPath, name: str, domain: Domain, recipe: Recipe) -> Iterator[Problem]:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        yield Problem(at, f"'{name}' cannot name a domain; use letters, digits, '_' and '-'")
    scale = domain.augment.scale
    if scale and scale[0] > scale[1]:
        yield Problem((*at, "augment", "scale"), _ordered(scale))
    for role in ("labeled", "unlabeled", "weak", "val"):
        source = getattr(domain, role)
        if source is None:
            continue
        if not isinstance(source, Weak) and source.subset and source.ids:
            yield Problem((*at, role, "ids"), "given together with 'subset'; keep one of the two")
        if len(set(source.splits)) < len(source.splits):
            yield Problem((*at, role, "split"), f"names a split twice: {', '.join(source.splits)}; name each once")
    for role in ("labeled", "unlabeled", "weak"):
        source = getattr(domain, role)
        if source is None:
            continue
        if source.batch_size < recipe.accumulate:
            what = f"{source.batch_size} images cannot be split into accumulate = {recipe.accumulate} micro-steps"
            yield Problem((*at, role, "batch_size"), f"{what}; lower accumulate to {source.batch_size} or raise this")
        if scale and not domain.augment.crop and source.batch_size > 1:
            what = f"batch_size = {source.batch_size} needs images of one size, and augment.scale varies it"
            yield Problem((*at, role, "batch_size"), f"{what}; add augment.crop = [height, width]")
    if domain.augment.rotate and (domain.augment.crop is None or domain.augment.crop[0] != domain.augment.crop[1]):
        what = "turned images need the size of the others"
        yield Problem((*at, "augment", "rotate"), f"{what}; set a square augment.crop = [n, n], or remove this")
    if domain.unlabeled and domain.unlabeled.strong:
        strong = domain.unlabeled.strong
        if strong.sigma[0] > strong.sigma[1]:
            yield Problem((*at, "unlabeled", "strong", "sigma"), _ordered(strong.sigma))
        if not any(
            isinstance(objective, FixMatch | UniMatch | TaughtConsistency) for objective in recipe.objectives_of(name)
        ):
            what = "no objective of this domain uses strong views"
            yield Problem((*at, "unlabeled", "strong"), f"{what}; remove this, or add an objective of kind 'fixmatch'")
    if domain.augment.blur and domain.augment.blur[0] > domain.augment.blur[1]:
        yield Problem((*at, "augment", "blur"), _ordered(domain.augment.blur))
    if domain.labeled.class_uniform and not domain.augment.crop:
        what = "class-uniform crops need a size"
        yield Problem((*at, "labeled", "class_uniform"), f"{what}; add augment.crop = [height, width] or remove this")
    one_size = domain.augment.crop or (domain.augment.resize and not scale)
    if recipe.model.batches == "joint" and (domain.unlabeled or domain.weak) and not one_size:
        what = f'"joint" needs labeled and other images of one size, which domain {name} does not ensure'
        yield Problem(("model", "batches"), f'{what}; add augment.crop = [height, width], or set "separate"')
    for role, source in (("unlabeled", domain.unlabeled), ("weak", domain.weak)):
        if source and source.minus and source.dataset != domain.labeled.dataset:
            what = f"nothing to leave out: labeled images come from '{domain.labeled.dataset}'"
            yield Problem((*at, role, "minus"), f"{what}, these from '{source.dataset}'; remove minus")
    if domain.weak and not any(_learns_weakly(objective, name) for objective in recipe.objectives):
        what = "no objective learns from these pseudo-labels"
        remedy = (
            "add an objective { kind = 'supervised', on = 'weak' }, or weak = { value = 0.4, over = 0.1 } to one of kind "
            "'cross_consistency', or remove this source"
        )
        yield Problem((*at, "weak"), f"{what}; {remedy}")


def _learns_weakly(objective: Objective, domain: str) -> bool:
    learns = objective.needs == "weak" and isinstance(objective, CrossConsistency | Supervised)
    return learns and domain in (objective.domains or {domain})


def _encoder(recipe: Recipe) -> Iterator[Problem]:
    encoder = recipe.model.encoder
    if encoder.checkpointing and recipe.compile:
        what = "a compiled encoder does not recompute activations"
        yield Problem(("model", "encoder", "checkpointing"), f"{what}; remove this, or set compile = false")
    if isinstance(recipe.model.context, FPN):
        levels = recipe.model.context.levels
        if levels[-1] != encoder.output_stride or any(b <= a or b % levels[0] for a, b in pairwise(levels)):
            what = f"{list(levels)} are not strides from fine to coarse that end in output_stride = {encoder.output_stride}"
            fitting = [stride for stride in (8, 16, 32) if stride <= encoder.output_stride]
            yield Problem(("model", "context", "levels"), f"{what}; set {fitting}, or start with 4 for thin things")
    if encoder.name != "wide_resnet38":
        return
    if encoder.weights == "timm" and recipe.model.start is None:
        what = f"timm publishes no weights of {encoder.name}"
        remedy = 'set "none", or the path of a file, a run or a saved model'
        yield Problem(("model", "encoder", "weights"), f"{what}; {remedy}")
    if encoder.output_stride != 8:
        what = f"{encoder.name} has no output stride {encoder.output_stride}"
        yield Problem(("model", "encoder", "output_stride"), f"{what}; set 8")


def _expectations(recipe: Recipe) -> Iterator[Problem]:
    known = [f"{name}/miou" for name, domain in recipe.data.domains.items() if domain.val]
    for key, value in recipe.expect.items():
        if key not in known:
            yield Problem(
                ("expect", key),
                f"unknown result; known: {', '.join(known) or 'none, as no domain has a val source'}",
                nearest(key, known),
            )
        if not 0 <= value <= 100:
            yield Problem(("expect", key), f"{value:g} is not a mean IoU; expected percent, 0 to 100")


def _objectives(recipe: Recipe) -> Iterator[Problem]:
    if recipe.control and all(objective.needs == "labeled" for objective in recipe.objectives):
        yield Problem(
            ("control",), "every objective needs labeled images only, so there is nothing to control; remove this"
        )
    known, trained = list(recipe.data.domains), set[tuple[str, str]]()
    for index, objective in enumerate(recipe.objectives):
        for place, name in enumerate(objective.domains or ()):
            if name not in known:
                yield Problem(("objectives", index, "domains", place), f"no domain '{name}'; known: {', '.join(known)}")
        kind = f"{objective.kind} on weak" if getattr(objective, "on", "") == "weak" else objective.kind
        pairs = {(kind, name) for name in objective.domains or known}
        if twice := sorted(name for kind, name in pairs & trained):
            what = f"a second '{objective.kind}' for domain {', '.join(twice)}"
            yield Problem(
                ("objectives", index, "kind"), f"{what}; keep one, or set domains = [...] so that they differ"
            )
        trained |= pairs
    for name in known:
        if ("supervised", name) not in trained:
            what = f"nothing trains the main decoder of domain {name}; add an objective of kind 'supervised'"
            yield Problem(("objectives",), what)
    for index, objective in enumerate(recipe.objectives):
        at = ("objectives", index)
        for name, value in vars(objective).items():
            if isinstance(value, Ramp):
                yield from _ramp((*at, name), value)
        match objective:
            case CrossConsistency():
                yield from _auxiliary(at, objective, recipe)
            case FixMatch() | UniMatch() | TaughtConsistency():
                yield from _strong_views(at, objective, recipe)
                if isinstance(objective, TaughtConsistency):
                    yield from _auxiliary(at, objective, recipe)
            case StructuredConsistency():
                yield from _structured_consistency(at, objective)
            case Supervised(loss=Relaxed(window=window)) if window % 2 == 0:
                what = f"a window of {window} pixels has no central pixel"
                yield Problem((*at, "loss", "window"), f"{what}; set an odd number, such as {window + 1}")
        if objective.needs != "labeled":
            yield from _needs(at, objective, recipe)
    yield from _teacher(recipe)


def _ramp(at: KeyPath, ramp: Ramp) -> Iterator[Problem]:
    if ramp.shape != "constant" and ramp.start + ramp.over > 1:
        what = f"the ramp ends after training: start + over = {ramp.start + ramp.over:g}"
        yield Problem(at, f"{what}; lower them so that they add up to at most 1")


def _strong_views(at: KeyPath, objective: FixMatch | UniMatch | TaughtConsistency, recipe: Recipe) -> Iterator[Problem]:
    for name, domain in recipe.data.domains.items():
        source = domain.unlabeled
        if source is None or name not in (objective.domains or {name}):
            continue
        key = ("data", "domains", name, "unlabeled", "strong")
        if source.strong is None:
            yield Problem(key, f"{'.'.join(map(str, at))} ({objective.kind}) needs strong views; add strong = {{}}")
        elif source.strong.views < objective.views:
            what = f"{'.'.join(map(str, at))} ({objective.kind}) needs two strong views"
            yield Problem((*key, "views"), f"{what}; set views = 2")
    if objective.area[0] > objective.area[1] or objective.area[1] > 1:
        yield Problem((*at, "area"), f"{list(objective.area)} is not a range of shares of an image; write [0.02, 0.4]")


def _structured_consistency(at: KeyPath, objective: StructuredConsistency) -> Iterator[Problem]:
    count, compared = objective.boxes.count, objective.boxes.compared
    if compared > count:
        what = f"compares the last {compared} of only {count} boxes"
        yield Problem((*at, "boxes", "compared"), f"{what}; lower it to {count}, or raise boxes.count")


def _teacher(recipe: Recipe) -> Iterator[Problem]:
    """All domains share one teacher, and it can be evaluated only if there is one."""
    taught = [
        (index, objective)
        for index, objective in enumerate(recipe.objectives)
        if isinstance(objective, StructuredConsistency)
    ]
    keys = ("teacher_decay", "teacher_warmup", "teacher_mode", "teacher_buffers")
    unimatched = any(getattr(objective, "taught", False) for objective in recipe.objectives)
    for index, objective in taught if recipe.teacher or unimatched else ():
        for key in keys:
            if getattr(objective, key) != getattr(StructuredConsistency(), key):
                what = f"{show(getattr(objective, key))}, but all objectives share the teacher of [teacher]"
                yield Problem(("objectives", index, key), f"{what}; remove this, and set it there")
    for index, objective in taught[1:]:
        for key in keys:
            value, first = getattr(objective, key), getattr(taught[0][1], key)
            if value != first:
                what = f"{show(value)}, but objectives.{taught[0][0]} has {show(first)}, and all share one teacher"
                yield Problem(("objectives", index, key), f"{what}; set both to the same value")
    if recipe.evaluate.weights != "student" and not taught and not unimatched and recipe.teacher is None:
        what = f'"{recipe.evaluate.weights}", but there is no teacher'
        remedy = 'set "student", or add a section [teacher]'
        yield Problem(("evaluate", "weights"), f"{what}; {remedy}")


def _auxiliary(at: KeyPath, objective: CrossConsistency | TaughtConsistency, recipe: Recipe) -> Iterator[Problem]:
    for index, perturbation in enumerate(objective.perturbations):
        if isinstance(perturbation, FeatureDrop) and (perturbation.low or 0) > (perturbation.high or 1):
            what = f"{perturbation.low:g} is above high = {perturbation.high:g}; swap them"
            yield Problem((*at, "perturbations", index, "low"), what)
        if isinstance(perturbation, FeatureDrop) and isinstance(recipe.model.context, ASPP):
            what = "ranks cells by their sum over channels, which is meaningless for the signed features of aspp"
            remedy = 'remove this perturbation, or set model.context.kind = "psp" or "none"'
            yield Problem((*at, "perturbations", index, "kind"), f"{what}; {remedy}")
    if objective.decoder == "same" and isinstance(recipe.model.decoder, DeepLabV3Plus):
        what = '"same" is impossible with deeplabv3plus: auxiliary decoders do not see low-level features'
        yield Problem((*at, "decoder"), f'{what}; set "subpixel" or "linear"')
    if objective.start == "main" and objective.decoder not in ("same", recipe.model.decoder.kind):
        what = f'"main" is of kind "{recipe.model.decoder.kind}" and cannot be copied to "{objective.decoder}"'
        yield Problem((*at, "start"), f'{what}; set "random", or decoder = "same"')


def _needs(at: KeyPath, objective: Objective, recipe: Recipe) -> Iterator[Problem]:
    """A source for every domain that the objective names, or for at least one if it names none."""
    role = objective.needs
    domains = {name: domain for name, domain in recipe.data.domains.items() if name in (objective.domains or {name})}
    if not objective.domains and any(getattr(domain, role) for domain in domains.values()):
        return  # a domain that is not named and has no such images trains on its labeled images alone
    for name, domain in domains.items():
        if getattr(domain, role):
            continue
        what = f"missing, and objectives.{at[1]} ({objective.kind}) needs it"
        remedy = f'add {role} = {{ dataset = "{domain.labeled.dataset}", split = ..., batch_size = ... }} or remove '
        yield Problem(
            ("data", "domains", name, role),
            f"{what}; {remedy}" + ("the objective's key weak" if role == "weak" else "that objective"),
        )


def _optimisation(recipe: Recipe) -> Iterator[Problem]:
    optimizer, schedule = recipe.optimizer, recipe.schedule
    if isinstance(optimizer, SGD) and optimizer.nesterov and not optimizer.momentum:
        yield Problem(
            ("optimizer", "nesterov"), "needs a momentum above 0; raise optimizer.momentum or remove nesterov"
        )
    if schedule.warmup >= recipe.steps:
        yield Problem(
            ("schedule", "warmup"),
            f"{schedule.warmup} of {recipe.steps} steps: the learning rate would never reach lr; lower it",
        )


def _ordered(pair: tuple[float, float]) -> str:
    return f"expected [lowest, highest], found [{pair[0]:g}, {pair[1]:g}]"
