"""The meaning of a folder's masks, decided from all of them: raw ids, classes, and the rules for reading a mask."""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from semiseg.data import RawSpace, Taxonomy, Tree, canonical, sha256
from semiseg.datasets.folder.classes import (
    BACKGROUND,
    VOID,
    Class,
    ClassFile,
    coloured,
    generated_colour,
    propose,
)
from semiseg.datasets.folder.masks import Colour, Rules, Seen, first_pixel
from semiseg.datasets.folder.problems import Problems

MOST_IDS = 100  # without a class file, more values indicate a smoothed or grey image, not a mask
MOST_COLOURS = 64
_UNKNOWN = "unknown value in a mask"
_SMOOTH = "save masks without smoothing, as PNG, or list the classes in classes.toml"


@dataclass(frozen=True)
class Labels:
    """version: identifies how masks are read, so that shards read differently have another version."""

    raw_space: RawSpace
    taxonomy: Taxonomy
    rules: Rules
    version: str
    notes: tuple[str, ...]


def interpret(
    name: str, tree: Tree, seen: Sequence[Seen], given: ClassFile | None, problems: Problems
) -> Labels | None:
    """Decide what all masks mean; None if a problem prevents it (see `problems`)."""
    before = len(problems.rows)
    by_colour = _by_colour(seen, given)
    notes: list[str] = []
    if by_colour:
        classes, ignored = _coloured_classes(seen, by_colour, given, problems)
        rules = _rules(by_colour, classes, ignored, given)
        version = f"colours-{sha256(canonical(rules.ids))[:8]}"
        _check_colours(tree, seen, rules, classes, problems)
    else:
        classes, ignored, version = _numbered_classes(seen, given, notes, problems)
        rules = Rules()
    if len(problems.rows) == before:
        _check_ids(tree, seen, by_colour, {entry.id for entry in classes} | set(ignored), given, problems)
    if len(problems.rows) > before:
        return None
    if given is None and seen and version != "binary":
        notes.append(_proposal(tree, classes, ignored, by_colour))
    described = given or ClassFile("", tuple(classes))
    foreground = ClassFile("", tuple(classes), foreground=described.foreground).default_foreground()
    raw = RawSpace(
        name=name, names={**{entry.id: f"id {entry.id}" for entry in classes}, **dict.fromkeys(ignored, "void")}
    )
    taxonomy = Taxonomy(
        name=name,
        raw=raw,
        names=tuple(entry.name for entry in classes),
        colours=coloured(classes),
        ids={entry.id: place for place, entry in enumerate(classes)},
        foreground=foreground,
    )
    return Labels(raw, taxonomy, rules, version, tuple(notes))


def _by_colour(seen: Sequence[Seen], given: ClassFile | None) -> frozenset[str]:
    """The forms of masks that are read by colour."""
    known = {entry.colour for entry in given.classes if entry.colour} | set(given.ignore_colours) if given else set()
    forms = {mask.form for mask in seen}
    chosen = {"colours"} & forms
    greys = [mask for mask in seen if mask.form == "grey"]
    if greys and (chosen or (known and all(known.issuperset(mask.colours) for mask in greys))):
        chosen.add("grey")
    palettes = [mask for mask in seen if mask.form == "palette"]
    if palettes and (chosen or _palettes_are_colours(palettes, given, known)):
        chosen.add("palette")
    return frozenset(chosen)


def _palettes_are_colours(palettes: list[Seen], given: ClassFile | None, known: set[Colour]) -> bool:
    """Whether to read palettes by colour: they contradict the ids of the class file or, without one, each other."""
    pairs = {pair for mask in palettes for pair in mask.palette.items()}
    if known and given:
        listed = {entry.id: entry.colour for entry in given.classes} | dict.fromkeys(given.ignore_ids)
        contradicts = any(place not in listed or listed[place] not in (None, colour) for place, colour in pairs)
        return contradicts and all(colour in known for _, colour in pairs)
    return len(pairs) > len({place for place, _ in pairs})


def _coloured_classes(
    seen: Sequence[Seen], forms: frozenset[str], given: ClassFile | None, problems: Problems
) -> tuple[list[Class], list[int]]:
    """The classes, with colours, and the ids that are ignored."""
    coloured_masks = [mask for mask in seen if mask.form in forms]
    found = Counter[Colour]()
    for mask in coloured_masks:
        found.update(mask.colours)
    worst = max(coloured_masks, key=lambda mask: mask.values)
    if given is None:
        if len(found) > MOST_COLOURS:
            what = f"{worst.values} colours, {max(len(found), worst.values)} in all masks: {_SMOOTH}"
            problems.add("too many values", worst.name, what)
            return [], []
        colours = sorted(found, key=lambda colour: (sum(colour) > 0, colour))
        return [Class(f"class_{i}", i, colour) for i, colour in enumerate(colours)], [VOID]
    if given.classes and not any(entry.colour for entry in given.classes):
        some = ", ".join(str(list(colour)) for colour, _ in found.most_common(12))
        problems.add("class file", given.name, f"masks are coloured ({some}); give every class a colour = [r, g, b]")
    return list(given.classes), list(given.ignore_ids)


def _rules(forms: frozenset[str], classes: list[Class], ignored: list[int], given: ClassFile | None) -> Rules:
    pairs = [(entry.colour, entry.id) for entry in classes if entry.colour]
    voids = given.ignore_colours if given else ()
    if voids and not ignored:
        ignored.append(next(i for i in range(VOID, -1, -1) if i not in {entry.id for entry in classes}))
    pairs += [(colour, VOID if VOID in ignored else ignored[0]) for colour in voids]
    return Rules(forms, tuple(sorted(pairs)))


def _numbered_classes(
    seen: Sequence[Seen], given: ClassFile | None, notes: list[str], problems: Problems
) -> tuple[list[Class], list[int], str]:
    """The classes, the ids that are ignored, and the version: how masks are read."""
    found = Counter[int]()
    for mask in seen:
        found.update(mask.ids)
    binary = bool(found) and set(found) <= {0, 255} and 255 in found
    if binary and (given is None or (len(given.classes) == 2 and {entry.id for entry in given.classes} == {0, 1})):
        listed = sorted(given.classes, key=lambda entry: entry.id) if given else ()
        names = [entry.name for entry in listed] or ["background", "foreground"]
        colours = [entry.colour for entry in listed] or [(0, 0, 0), (255, 255, 255)]
        share = found[255] / found.total()
        notes.append(
            f"masks are black and white: 0 is {names[0]}, 255 is {names[1]} ({share:.1%} of all pixels); nothing is ignored"
        )
        return [Class(names[0], 0, colours[0]), Class(names[1], 255, colours[1])], [], "binary"
    if given is not None:
        if binary and not given.ignore_given and all(entry.id != VOID for entry in given.classes):
            what = (
                "masks are black and white, but no class has the id 255: in a classes.toml, give the white class id = 255, "
                "or write ignore = [255] to ignore white pixels"
            )
            problems.add("class file", given.name, what)
        return list(given.classes), list(given.ignore_ids), "ids"
    ids = sorted(set(found) - {VOID})
    if len(ids) > MOST_IDS:
        worst = max(seen, key=lambda mask: mask.values)
        what = f"{worst.values} ids, {max(len(ids), worst.values)} in all masks: {_SMOOTH}"
        problems.add("too many values", worst.name, what)
        return [], [], ""
    palette = {place: colour for mask in seen for place, colour in mask.palette.items()}
    colours = [palette.get(number, generated_colour(number) if number < 255 else None) for number in ids]
    unique = [colour if colours.count(colour) == 1 else None for colour in colours]
    classes = [Class(f"class_{number}", number, colour) for number, colour in zip(ids, unique, strict=True)]
    if not seen:
        notes.append(
            "no masks: all images are unlabeled; put masks into masks/ beside images/, with the names of their images"
        )
    return classes or [Class("class_0", 0, (0, 0, 0))], [VOID], "ids"


def _check_colours(tree: Tree, seen: Sequence[Seen], rules: Rules, classes: list[Class], problems: Problems) -> None:
    known = dict(rules.ids)
    if not known:
        return
    for mask in seen:
        for colour in (c for c in mask.colours if mask.form in rules.by_colour and c not in known):
            near = min(known, key=lambda other: sum((a - b) ** 2 for a, b in zip(colour, other, strict=True)))
            nearest = next((c.name for c in classes if c.colour == near), "ignore")
            what = functools.partial(_where, tree, mask, f"colour {colour}", colour, f"; nearest: {nearest} {near}")
            problems.add(_UNKNOWN, mask.name, what)
            if mask.values > MOST_COLOURS:
                problems.add("too many values", mask.name, f"{mask.values} colours: {_SMOOTH}")
                break


def _check_ids(
    tree: Tree,
    seen: Sequence[Seen],
    forms: frozenset[str],
    known: set[int],
    given: ClassFile | None,
    problems: Problems,
) -> None:
    for mask in seen:
        if mask.form in forms:
            continue
        if forms and given is None and set(mask.ids) - {0}:
            problems.add(
                "ids and colours mixed",
                mask.name,
                "contains ids, but other masks contain colours; write a classes.toml with both",
            )
            continue
        for number in (i for i in mask.ids if i not in known):
            remedy = f"; add it to {given.name if given else 'classes.toml'}"
            problems.add(_UNKNOWN, mask.name, functools.partial(_where, tree, mask, f"id {number}", number, remedy))
            if mask.values > MOST_IDS:
                problems.add("too many values", mask.name, f"{mask.values} ids: {_SMOOTH}")
                break


def _where(tree: Tree, seen: Seen, what: str, value: int | Colour, remedy: str) -> str:
    """Describe an unknown value; decodes the mask again to locate it."""
    x, y = first_pixel(tree, seen, value)
    count = seen.colours[value] if isinstance(value, tuple) else seen.ids[value]
    return f"{what} in {count} pixel{'s' * (count != 1)}, first at x={x}, y={y}{remedy}"


def _proposal(tree: Tree, classes: list[Class], ignored: list[int], by_colour: frozenset[str]) -> str:
    what = "colours" if by_colour else "ids"
    count = f"{len(classes)} {what if len(classes) != 1 else what[:-1]}"
    some = ", ".join(str(entry.colour if by_colour else entry.id) for entry in classes)
    text = "\n".join(f"  {line}" for line in propose(classes, ignored).splitlines())
    hint = f"class names are made up, because there is no class file; masks contain {count} ({some})"
    more = f"if one class is named {BACKGROUND[0]!r}, the others are foreground"
    return (
        f"{hint}. Save this with your own names as {tree.where('classes.toml')} and rerun the command ({more}):\n{text}"
    )
