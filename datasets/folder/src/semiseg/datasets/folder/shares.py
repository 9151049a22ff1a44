"""What the pixels of all masks add up to: shares of classes, what is ignored or changed, and whether a model can learn."""

from collections import Counter
from collections.abc import Mapping, Sequence

from semiseg.datasets.folder.classes import Class
from semiseg.datasets.folder.masks import Seen
from semiseg.datasets.folder.pixels import OUTSIDE, TRANSPARENT, unpack
from semiseg.datasets.folder.problems import Problems
from semiseg.datasets.folder.reading import Reading, Value

_RARE = 0.002  # of all pixels


def check_learnable(
    seen: Sequence[Seen],
    reading: Reading,
    names: Mapping[int, str],
    class_of: Mapping[Value, int],
    class_file: str,
    problems: Problems,
) -> None:
    """Report masks that contain fewer than two classes in total. `class_of`: value -> id of its class, or of none."""
    found = Counter[Value]()
    for mask in seen:
        found.update(reading.values(mask))
    present = {class_of[value] for value in found if class_of.get(value) in names}
    if len(present) > 1:
        return
    ignored = sorted((value for value in found if class_of.get(value) not in names and value != OUTSIDE), key=str)
    what = f"all labeled pixels are {names[next(iter(present))]}" if present else "no mask has a labeled pixel"
    left_out = sum(found[value] for value in ignored) / found.total()
    if ignored:
        some = ", ".join(_name(value) for value in ignored[:5])
        remedy = f"list it in {class_file} instead of in `ignore`" if class_file else "use --option ignore=none"
        what += f", and {some} is ignored ({left_out:.1%} of all pixels); if that is a class, {remedy}"
    else:
        what += "; a model needs two classes: add masks that contain another one"
    problems.add("fewer than two classes", seen[0].name, what)


def notes_on_pixels(
    seen: Sequence[Seen], reading: Reading, classes: Sequence[Class], class_of: Mapping[Value, int], named: bool
) -> list[str]:
    """What was ignored, changed or left out, with numbers of pixels and masks."""
    names = {entry.id for entry in classes}
    per_mask = [reading.values(mask) for mask in seen]
    found = Counter[Value]()
    for values in per_mask:
        found.update(values)
    notes = []
    ignored = {value: count for value, count in found.items() if class_of.get(value) not in names}
    if ignored:
        holders = sum(any(value in ignored for value in values) for values in per_mask)
        some = ", ".join(_name(value) for value in sorted(ignored, key=lambda value: -ignored[value])[:5])
        notes.append(
            f"ignored: {sum(ignored.values()) / found.total():.1%} of the pixels of all masks ({some}; "
            f"{_pixels(sum(ignored.values()))} in {holders} of {_masks(len(seen))})"
        )
        empty = [mask.name for mask, values in zip(seen, per_mask, strict=True) if all(v in ignored for v in values)]
        if empty:
            notes.append(f"without any labeled pixel: {_masks(len(empty))} (first {empty[0]})")
    clear = [n for mask in seen if (n := mask.ids.get(TRANSPARENT, 0) or mask.colours.get(unpack(TRANSPARENT), 0))]
    if clear:
        notes.append(f"transparent pixels are read as black: {_pixels(sum(clear))} in {_masks(len(clear))}")
    lens = seen[0].lens
    changed = [mask.changed for mask in seen if mask.changed]
    if lens.threshold is not None:
        notes.append(
            f"threshold={lens.threshold:g}: values of at least {lens.threshold:g} are white, others black; "
            f"{_share(sum(changed), found.total())} were neither, in {_masks(len(changed))}"
        )
    if lens.nearest is not None:
        notes.append(
            f"nearest={lens.nearest}: {_share(sum(changed), found.total())} took the nearest colour of a class, in "
            f"{_masks(len(changed))}"
        )
    present = {class_of.get(value) for value in found}
    absent = [entry.name for entry in classes if entry.id not in present]
    if not named:
        for entry in classes:
            count = found.get(entry.id, 0) or found.get(entry.colour or OUTSIDE, 0)
            holders = [m.name for m, v in zip(seen, per_mask, strict=True) if entry.id in v or entry.colour in v]
            if len(holders) == 1 and len(seen) > 1 and count < _RARE * found.total():
                notes.append(f"{entry.name} has only {_pixels(count)}, in {holders[0]}")
    elif absent and min((entry.id for entry in classes), default=1) == 0 and 0 not in found and not reading.by_colour:
        notes.append(f"no mask contains id 0 ({absent[0]}); if ids begin at 1, give every class its id in classes.toml")
    if named and absent:
        notes.append(f"classes without a pixel in any mask: {', '.join(absent[:10])}{', ...' * (len(absent) > 10)}")
    return notes


def _name(value: Value) -> str:
    if value == OUTSIDE:
        return "no data"
    return str(value)


def _share(count: int, total: int) -> str:
    return f"{_pixels(count)} ({f'{count / total:.1%}' if count == 0 or count / total >= 0.0005 else 'under 0.1%'})"


def _pixels(count: int) -> str:
    return f"{count} pixel{'s' * (count != 1)}"


def _masks(count: int) -> str:
    return f"{count} mask{'s' * (count != 1)}"
