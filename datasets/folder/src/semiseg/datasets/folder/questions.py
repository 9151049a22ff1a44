"""Values of masks whose meaning is not clear without a class file: refused, with the options that answer the question.

No rule here knows a program or a data set; each looks at how often values occur, and how they are spread.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from semiseg.datasets.folder.classes import VOID
from semiseg.datasets.folder.masks import Seen
from semiseg.datasets.folder.pixels import OUTSIDE, Colour
from semiseg.datasets.folder.reading import Reading, Value

MOST_IGNORED = 0.1  # of all pixels, without a question
_FAR = 64  # ids of classes are closer to each other than black and white
_NEAR = 16  # smoothing and compression change black and white by less
_RARE = 0.002  # of all pixels
_COMMON = 0.02
_MANY = 16
PerMask = Sequence[tuple[Seen, Mapping[Value, int]]]


def about_ignored(seen: Sequence[Seen], reading: Reading, ignored: Collection[int]) -> tuple[str, str] | None:
    """(file, question) about numbers that are ignored by default, but in many pixels."""
    per_mask = [(mask, reading.values(mask)) for mask in seen]
    found = _pooled(values for _, values in per_mask)
    if VOID in ignored and VOID in found and (question := _two_programs(per_mask) or _smoothed(found, per_mask)):
        return question
    return _much_ignored(found, per_mask, ignored)


def about_numbers(seen: Sequence[Seen], reading: Reading, ignored: Collection[int]) -> tuple[str, str] | None:
    """(file, question) about masks that are read by number."""
    per_mask = [(mask, reading.values(mask)) for mask in seen]
    greys = [(mask, _as_grey(mask, values)) for mask, values in per_mask]
    found, grey = _pooled(values for _, values in per_mask), _pooled(values for _, values in greys)
    for values, masks in ((found, per_mask), (grey, greys)):
        if question := _two_programs(masks) or _smoothed(values, masks) or _spread(values, masks):
            return question
    return _instances(per_mask) or _composed(per_mask) or _much_ignored(found, per_mask, ignored)


def about_colours(seen: Sequence[Seen], reading: Reading) -> tuple[str, str] | None:
    """(file, question) about colours that are rare, and in one mask only or almost that of another class."""
    per_mask = [(mask, reading.values(mask)) for mask in seen if mask.form in reading.by_colour]
    found = _pooled(values for _, values in per_mask)
    common = [colour for colour, count in found.items() if count >= _RARE * found.total()]
    once = [colour for colour in found if sum(colour in values for _, values in per_mask) == 1]
    if len(per_mask) >= 3 and len(once) >= 6 and len(once) > len(found) / 2:
        text = (
            f"{len(once)} of {len(found)} colours are in one mask each, as if they numbered objects: use masks of classes, "
            "--option ignore=none if each colour is a class, or list the classes in classes.toml"
        )
        return max(per_mask, key=lambda pair: len(pair[1]))[0].name, text
    if blended := _blended(found):
        some = ", ".join(map(str, blended[:3]))
        text = (
            f"{len(blended)} rare colours between common ones (such as {some}): smoothed edges; save without smoothing, or "
            "use --option nearest=128 with the colours of the classes in classes.toml, or --option ignore=none if each is a "
            "class"
        )
        return next(mask for mask, values in per_mask if blended[0] in values).name, text
    for colour, count in sorted(found.items(), key=lambda item: item[1]):
        holders = [mask for mask, values in per_mask if colour in values]
        if colour in common or not isinstance(colour, tuple):
            continue
        near = [other for other in common if isinstance(other, tuple) and _apart(colour, other) <= 2 * _NEAR]
        if near or (len(holders) == 1 and len(per_mask) > 1):
            hexed = "#{:02x}{:02x}{:02x}".format(*colour)
            like = f", almost {near[0]}" if near else ""
            nearest = (
                f"--option nearest={max(_apart(colour, other) for other in near)} with the colours of the classes in "
                "classes.toml if it is a flaw, " if near else f'--option ignore="{hexed}" if it is a flaw, '
            )  # fmt: skip
            text = (
                f"colour {colour} in {_pixels(count)} of all masks{like}: use {nearest}--option ignore=none if every colour "
                "is a class, or list the classes in classes.toml"
            )
            return holders[0].name, text
    return None


def _blended(found: Counter[Value]) -> list[Colour]:
    """Rare colours, at least four, on the line between two common ones."""
    shares = {value: count / found.total() for value, count in found.items() if isinstance(value, tuple)}
    common = np.array([value for value, share in shares.items() if share >= _COMMON], np.float64)
    rare = [value for value, share in shares.items() if share < _COMMON]
    for place, start in enumerate(common):
        for end in common[:place]:
            along = (np.array(rare, np.float64).reshape(-1, 3) - start) @ (end - start) / ((end - start) ** 2).sum()
            away = abs(start + along[:, None] * (end - start) - np.array(rare).reshape(-1, 3)).max(1)
            between = [colour for colour, t, d in zip(rare, along, away, strict=True) if 0 < t < 1 and d <= 2]
            if len(between) >= 4:
                return between
    return []


def _two_programs(per_mask: PerMask) -> tuple[str, str] | None:
    """0 and 1 in some masks, 0 and 255 in others."""
    kinds = [{value for value in values if value != OUTSIDE} for _, values in per_mask]
    small = [place for place, kind in enumerate(kinds) if 1 in kind]
    large = [place for place, kind in enumerate(kinds) if VOID in kind]
    if not small or not large or set(small) & set(large) or not set().union(*kinds) <= {0, 1, VOID}:
        return None
    text = (
        f"0 and 1 here ({_masks(len(small))}), 0 and 255 in {_masks(len(large))}: use --option threshold=1 if both are "
        "foreground, or --option ignore=255 if 255 marks pixels without a label"
    )
    return per_mask[small[0]][0].name, text


def _smoothed(found: Counter[Value], per_mask: PerMask) -> tuple[str, str] | None:
    """Two values that are far apart, and rare ones between or beside them."""
    numbers = Counter({value: count for value, count in found.items() if value != OUTSIDE and isinstance(value, int)})
    if len(numbers) < 3:
        return None
    (first, _), (second, rarer) = numbers.most_common(2)
    low, high = min(first, second), max(first, second)
    rest = {value: count for value, count in numbers.items() if value not in (low, high)}
    share = sum(rest.values()) / numbers.total()
    between = all(low - _NEAR <= value <= high + _NEAR for value in rest)
    rare = share <= (0.02 if len(rest) < 3 else 0.1) or VOID - _NEAR <= high <= VOID
    small = share > 0.01 and set(rest) == set(range(low + 1, low + 1 + len(rest)))  # ids of classes
    if high - low < _FAR or not between or sum(rest.values()) >= rarer or not rare or small:
        return None
    rarest = min(rest, key=lambda value: (rest[value], value))
    holder = next(mask for mask, values in per_mask if rarest in values)
    odd = f"{len(rest)} other values" if len(rest) > 1 else f"{rarest}"
    example = f" (such as {rarest})" if len(rest) > 1 else ""
    voids = [value for value in (VOID, *rest) if value in numbers and (value == VOID or len(rest) == 1)]
    ignored = "".join(f", --option ignore={value} if {value} marks pixels without a label" for value in voids)
    text = (
        f"{low} and {high}, and {odd} in {_pixels(sum(rest.values()))} ({_share(share)}) of all masks{example}: for two "
        f"classes, use --option threshold={(low + high + 1) // 2}{ignored}, --option ignore=none if every value is a class, "
        "or list the classes in classes.toml"
    )
    return holder.name, text


def _spread(found: Counter[Value], per_mask: PerMask) -> tuple[str, str] | None:
    """Greys rather than ids: evenly spread up to 255, or many with wide gaps, or several close to a far one."""
    values = sorted(value for value in found if value != OUTSIDE and isinstance(value, int))
    if len(values) < 3 or values[-1] > VOID:
        return None
    step = (values[-1] - values[0]) / (len(values) - 1)
    even = values[-1] == VOID and step > 1 and all(abs(v - values[0] - i * step) <= 1 for i, v in enumerate(values))
    top = max(value for value in values if value != VOID)
    sparse = len(values) >= _MANY and (len(values) < (top + 1) / 3 or top > VOID // 2)
    close = any(
        after - before >= _FAR and last - after <= _NEAR
        for before, after, last in zip(values, values[1:], values[2:], strict=False)
    )
    if not (even or sparse or close):
        return None
    holder = max(per_mask, key=lambda pair: len(pair[1]))[0]
    last = " (255 too)" if VOID in values else ""
    options = [f"use --option ignore=none if each of them{last} is a class"]
    if VOID in values:
        options.append("--option ignore=255 if 255 marks pixels without a label")
    if even and len(values) == 3:
        options.append(f"--option ignore={values[1]} if {values[1]} does")
    options.append(f"--option threshold={(values[0] + values[-1] + 1) // 2} for two classes")
    text = f"{len(values)} grey levels from {values[0]} to {values[-1]} in all masks ({_some(values)}): {', '.join(options)}"
    return holder.name, text + ", or list the classes in classes.toml"


def _instances(per_mask: PerMask) -> tuple[str, str] | None:
    """Ids that count from 1 in every mask, up to another number in each."""
    tops = []
    for _, values in per_mask:
        ids = {value for value in values if isinstance(value, int) and value > 0} - {VOID, OUTSIDE}
        if ids and ids != set(range(1, max(ids) + 1)) - {VOID}:
            return None
        tops.append(len(ids))
    if len(per_mask) < 4 or len(set(tops)) < 3 or max(tops) < 5:
        return None
    text = (
        f"ids count from 1 in every mask, up to {min(tops)} to {max(tops)}, as if they numbered objects: use --option "
        "threshold=1 for objects against background, --option ignore=none if they are classes, or list the classes in "
        "classes.toml"
    )
    return per_mask[tops.index(max(tops))][0].name, text


def _composed(per_mask: PerMask) -> tuple[str, str] | None:
    """Ids beside others that hold a class in their thousands and an object in the rest: 26 and 26001, 26002."""
    ids = {value for _, values in per_mask for value in values if isinstance(value, int) and value < OUTSIDE}
    large = sorted(value for value in ids if value >= 1000)
    if len({value // 1000 for value in large}) == len(large) or not any(0 < value < 1000 for value in ids):
        return None
    holder = next(mask for mask, values in per_mask if large[0] in values)
    text = (
        f"ids below 1000, and ids such as {_some(large[:3])}, as if these held a class and the number of an object: use masks "
        "of class ids, --option ignore=none if each of them is a class, or list the classes in classes.toml"
    )
    return holder.name, text


def _much_ignored(found: Counter[Value], per_mask: PerMask, ignored: Collection[int]) -> tuple[str, str] | None:
    share = {value: found[value] / found.total() for value in ignored if found[value]}
    if sum(share.values()) <= MOST_IGNORED:
        return None
    value = max(share, key=share.__getitem__)
    holder = max(per_mask, key=lambda pair: pair[1].get(value, 0))[0]
    others = sorted(other for other in found if other not in ignored and isinstance(other, int) and other != OUTSIDE)
    text = (
        f"{value} in {_share(share[value])} of all pixels, beside {_some(others)}: use --option ignore={value} if it marks "
        "pixels without a label, --option ignore=none if it is a class, or list the classes in classes.toml"
    )
    return holder.name, text


def _as_grey(mask: Seen, values: Mapping[Value, int]) -> Counter[Value]:
    """Values as viewers show them, for palettes of greys."""
    if mask.form != "palette" or any(len(set(colour)) > 1 for colour in mask.palette.values()):
        return Counter(values)
    found: Counter[Value] = Counter()
    for number, count in mask.ids.items():
        found[mask.palette[number][0] if number in mask.palette else number] += count
    return found


def _pooled(counts: Iterable[Mapping[Value, int]]) -> Counter[Value]:
    found: Counter[Value] = Counter()
    for values in counts:
        found.update(values)
    return found


def _apart(one: Colour, other: Colour) -> int:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _some(values: Sequence[Value]) -> str:
    shown = [str(value) for value in values[:8]]
    return ", ".join(shown) + (f", ... {values[-1]}" if len(values) > 8 else "")


def _pixels(count: int) -> str:
    return f"{count} pixel{'s' * (count != 1)}"


def _masks(count: int) -> str:
    return f"{count} mask{'s' * (count != 1)}"


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 else "under 0.1%"
