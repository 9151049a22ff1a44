"""The meaning of a folder's masks, decided from all of them: raw ids, classes, and the rules for reading a mask."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semiseg.data import RawSpace, Taxonomy, Tree, canonical, sha256
from semiseg.datasets.folder.choices import NONE, Choices
from semiseg.datasets.folder.classes import BACKGROUND, VOID, Class, ClassFile, coloured, generated_colour, propose
from semiseg.datasets.folder.masks import Rules, Seen
from semiseg.datasets.folder.palettes import UNCLEAR
from semiseg.datasets.folder.pixels import OUTSIDE, PLAIN, TRANSPARENT, Colour, Lens, unpack
from semiseg.datasets.folder.problems import Problems
from semiseg.datasets.folder.questions import about_colours, about_ignored, about_numbers
from semiseg.datasets.folder.reading import BLACK, Reading, Value, by_looks, with_classes
from semiseg.datasets.folder.shares import check_learnable, notes_on_pixels
from semiseg.datasets.folder.unknown import SMOOTH, check_transparent, check_values

MOST_IDS = 100  # without a class file, more values indicate a smoothed or grey image, not a mask
MOST_COLOURS = 64
UNUSABLE = "mask that can't be used"  # as the adapter calls it


@dataclass(frozen=True)
class Labels:
    """version: identifies how masks are read, so that shards read differently have another version."""

    raw_space: RawSpace
    taxonomy: Taxonomy
    rules: Rules
    version: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Meaning:
    """The classes, the ids that are ignored, and the colours that stand for them."""

    classes: list[Class]
    ignored: list[int]
    ids: tuple[tuple[Colour, int], ...] = ()


def interpret(
    name: str,
    tree: Tree,
    seen: Sequence[Seen],
    given: ClassFile | None,
    problems: Problems,
    picked: Choices = NONE,
) -> Labels | None:
    """Decide what all masks mean; None if a problem prevents it (see `problems`)."""
    before = len(problems.rows)
    notes: list[str] = []
    if given is not None:
        given = _with_ignore(given, picked, problems)
    if picked.threshold is not None:  # numbers that are ignored were left out before; white is 255 from here on
        picked = replace(picked, ignore_given=False, ignore_ids=())
        if given is not None:
            rest = () if any(entry.id == VOID for entry in given.classes) else (VOID,)
            given = replace(given, ignore_given=False, ignore_ids=rest)
    reading = with_classes(seen, given, picked.palette, problems) if given else by_looks(seen, picked.palette, problems)
    if reading.by_colour:
        meaning, kind = _coloured(seen, reading, given, picked, problems), "colours"
    else:
        meaning, kind = _numbered(seen, reading, given, picked, notes, problems)
    if len(problems.rows) == before:
        check_transparent(seen, reading, picked, problems)
        check_values(tree, seen, reading, dict(meaning.ids), meaning.classes, meaning.ignored, given, problems)
    rules = _rules(seen, reading, meaning, seen[0].lens if seen else PLAIN)
    whole = not any(kind == UNUSABLE for kind, _, _ in problems.rows)  # otherwise some masks are not in `seen`
    if len(problems.rows) == before and seen and whole:
        class_of = {**dict(rules.ids), **{entry.id: entry.id for entry in meaning.classes}}
        if question := _question(seen, reading, meaning, given, picked):
            problems.add(UNCLEAR, *question)
        else:
            names = {entry.id: entry.name for entry in meaning.classes}
            check_learnable(seen, reading, names, class_of, given.name if given else "", problems)
        notes += notes_on_pixels(seen, reading, meaning.classes, class_of, given is not None)
    if len(problems.rows) > before:
        return None
    if "palette" in reading.by_colour:
        notes.append("palette masks are read by their colours, not by their indices")
    if given is None and seen and kind != "binary":
        notes.append(_proposal(tree, seen, reading, meaning))
    return _labels(name, meaning, given, rules, _version(kind, rules, picked), notes)


def _labels(
    name: str, meaning: Meaning, given: ClassFile | None, rules: Rules, version: str, notes: list[str]
) -> Labels:
    classes, ignored = meaning.classes, [number for number in meaning.ignored if 0 <= number <= 0xFFFF]
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


def _with_ignore(given: ClassFile, picked: Choices, problems: Problems) -> ClassFile:
    """The class file with the option ignore, which must not contradict it."""
    if not picked.ignore_given:
        return given
    if given.ignore_given and (set(given.ignore_ids), set(given.ignore_colours)) != (
        set(picked.ignore_ids), set(picked.ignore_colours),
    ):  # fmt: skip
        problems.add(
            "option", "ignore", f"{given.name} says what is ignored; change its `ignore`, or remove the option"
        )
        return given
    for entry in given.classes:
        if entry.id in picked.ignore_ids or entry.colour in picked.ignore_colours:
            what = f"{entry.name} is a class of {given.name} (id {entry.id}); remove it there, or remove the option"
            problems.add("option", "ignore", what)
    return replace(
        given, ignore_ids=picked.ignore_ids, ignore_colours=picked.ignore_colours, ignore_given=True
    )  # fmt: skip


def _coloured(
    seen: Sequence[Seen], reading: Reading, given: ClassFile | None, picked: Choices, problems: Problems
) -> Meaning:
    coloured_masks = [mask for mask in seen if mask.form in reading.by_colour]
    found = Counter[Value]()
    for mask in coloured_masks:
        found.update(reading.values(mask))
    worst = max(coloured_masks, key=lambda mask: mask.values)
    if given is None:
        if len(found) > MOST_COLOURS:
            what = f"{worst.values} colours, {max(len(found), worst.values)} in all masks: {SMOOTH}"
            problems.add("too many values", worst.name, what)
            return Meaning([], [])
        colours = [value for value in found if isinstance(value, tuple) and value not in picked.ignore_colours]
        colours.sort(key=lambda colour: (sum(colour) > 0, colour))
        classes = [Class(f"class_{i}", i, colour) for i, colour in enumerate(colours)]
        return Meaning(classes, [VOID], _pairs(classes, picked.ignore_colours, VOID))
    if given.classes and not any(entry.colour for entry in given.classes):
        some = ", ".join(str(list(colour)) for colour, _ in found.most_common(12) if isinstance(colour, tuple))
        problems.add("class file", given.name, f"masks are coloured ({some}); give every class a colour = [r, g, b]")
    classes, ignored = list(given.classes), list(given.ignore_ids)
    if given.ignore_colours and not ignored:
        ignored.append(next(i for i in range(VOID, -1, -1) if i not in {entry.id for entry in classes}))
    void = VOID if VOID in ignored else (ignored or [VOID])[0]
    return Meaning(classes, ignored, _pairs(classes, given.ignore_colours, void))


def _pairs(classes: list[Class], ignored: Sequence[Colour], void: int) -> tuple[tuple[Colour, int], ...]:
    pairs = [(entry.colour, entry.id) for entry in classes if entry.colour]
    return tuple(sorted(pairs + [(colour, void) for colour in ignored]))


def _numbered(
    seen: Sequence[Seen],
    reading: Reading,
    given: ClassFile | None,
    picked: Choices,
    notes: list[str],
    problems: Problems,
) -> tuple[Meaning, str]:
    """The meaning, and the version: how masks are read."""
    found = Counter[int]()
    for mask in seen:
        found.update({value: n for value, n in reading.values(mask).items() if isinstance(value, int)})
    nodata = {mask.nodata for mask in seen if mask.nodata is not None and mask.nodata in mask.ids}
    if given is not None and not reading.binary:
        ignored = set(given.ignore_ids) | (nodata - {entry.id for entry in given.classes})
        return Meaning(list(given.classes), sorted(ignored)), "ids"
    explicit = set(picked.ignore_ids) if picked.ignore_given else nodata
    kept = set(found) - explicit - {OUTSIDE}
    if kept and kept <= {0, VOID} and VOID in kept:
        listed = sorted(given.classes, key=lambda entry: entry.id) if given else ()
        names = [entry.name for entry in listed] or ["background", "foreground"]
        colours = [entry.colour for entry in listed] or [BLACK, (255, 255, 255)]
        share = found[VOID] / found.total()
        rest = "nothing is ignored" if len(kept) == len(found) else "other values are ignored"
        turned = "; if black is the foreground, list the classes in a classes.toml" if share > 0.5 and not given else ""
        notes.append(
            f"masks are black and white: 0 is {names[0]}, 255 is {names[1]} ({share:.1%} of all pixels); {rest}{turned}"
        )
        return Meaning([Class(names[0], 0, colours[0]), Class(names[1], VOID, colours[1])], sorted(explicit)), "binary"
    ignored = explicit if picked.ignore_given else explicit | {VOID}
    ids = sorted(kept - ignored)
    if len(ids) > (MOST_IDS if not picked.ignore_given else 254):
        worst = max(seen, key=lambda mask: mask.values)
        what = f"{worst.values} ids, {max(len(ids), worst.values)} in all masks: {SMOOTH}"
        each = "" if max(len(ids), worst.values) > 254 else "--option ignore=none if each is a class, or "
        problems.add("too many values", worst.name, f"{what}; use {each}--option threshold=1 if they number objects")
        return Meaning([], []), ""
    palette = {place: colour for mask in seen for place, colour in mask.palette.items()}
    colours = [palette.get(number, generated_colour(number) if number < 255 else None) for number in ids]
    unique = [colour if colours.count(colour) == 1 else None for colour in colours]
    classes = [Class(f"class_{number}", number, colour) for number, colour in zip(ids, unique, strict=True)]
    if not seen:
        notes.append(
            "no masks: all images are unlabeled; put masks into masks/ beside images/, with the names of their images"
        )
    return Meaning(classes or [Class("class_0", 0, BLACK)], sorted(ignored)), "ids"


def _rules(seen: Sequence[Seen], reading: Reading, meaning: Meaning, lens: Lens) -> Rules:
    """How to read each mask, with an id for pixels that are transparent or have no label."""
    present = {number for mask in seen for number in mask.ids} | {
        TRANSPARENT if colour == unpack(TRANSPARENT) else OUTSIDE
        for mask in seen for colour in mask.colours if colour[0] > 255
    }  # fmt: skip
    classes = {entry.id for entry in meaning.classes}
    void = VOID if VOID in meaning.ignored else next(i for i in range(VOID, -1, -1) if i not in classes)
    ids, numbers = dict(meaning.ids), {}
    if OUTSIDE in present:
        numbers[OUTSIDE] = ids[unpack(OUTSIDE)] = void
        meaning.ignored.extend({void} - set(meaning.ignored))
    if TRANSPARENT in present:
        numbers[TRANSPARENT] = 0
        if BLACK in ids:
            ids[unpack(TRANSPARENT)] = ids[BLACK]
    pairs = tuple(sorted(ids.items())) if reading.by_colour else ()
    return Rules(reading.by_colour, pairs, reading.as_shown, tuple(sorted(numbers.items())), lens)


def _version(kind: str, rules: Rules, picked: Choices) -> str:
    if kind == "colours":
        kind = f"colours-{sha256(canonical(rules.ids))[:8]}"
    marks = f"-void{dict(rules.numbers)[OUTSIDE]}" if OUTSIDE in dict(rules.numbers) else ""
    return kind + marks + picked.settings


def _question(
    seen: Sequence[Seen], reading: Reading, meaning: Meaning, given: ClassFile | None, picked: Choices
) -> tuple[str, str] | None:
    """What the user must decide. A class file and the options ignore and threshold are such a decision."""
    if picked.ignore_given or picked.threshold is not None:
        return None
    if given is not None:
        ignored = () if given.ignore_given or reading.by_colour else meaning.ignored
        return about_ignored(seen, reading, ignored)
    if reading.by_colour:
        return about_colours(seen, reading)
    return about_numbers(seen, reading, [] if VOID in {entry.id for entry in meaning.classes} else meaning.ignored)


def _proposal(tree: Tree, seen: Sequence[Seen], reading: Reading, meaning: Meaning) -> str:
    classes, by_colour = meaning.classes, reading.by_colour
    what = "colours" if by_colour else "ids"
    count = f"{len(classes)} {what if len(classes) != 1 else what[:-1]}"
    some = ", ".join(str(entry.colour if by_colour else entry.id) for entry in classes)
    ignored = [f'"#{red:02x}{green:02x}{blue:02x}"' for (red, green, blue), number in meaning.ids
               if red < 256 and number not in {entry.id for entry in classes}]  # fmt: skip
    ignored = [str(number) for number in meaning.ignored if not by_colour or not ignored] + ignored
    text = "\n".join(f"  {line}" for line in propose(classes, ignored).splitlines())
    hint = f"class names are made up, because there is no class file; masks contain {count} ({some})"
    more = f"if one class is named {BACKGROUND[0]!r}, the others are foreground"
    return (
        f"{hint}. Save this with your own names as {tree.where('classes.toml')} and rerun the command ({more}):\n{text}"
    )
