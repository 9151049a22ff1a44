"""Whether palette masks are read by index or by the colours that viewers show."""

from collections.abc import Sequence

from semiseg.datasets.folder.classes import ClassFile
from semiseg.datasets.folder.masks import Seen
from semiseg.datasets.folder.pixels import Colour
from semiseg.datasets.folder.problems import Problems

UNCLEAR = "unclear masks"
_BLACK = (0, 0, 0)
_ASK = "use --option palette=ids to read indices as ids, or palette=colours to read colours"


def palettes_are_colours(
    masks: Sequence[Seen], given: ClassFile | None, known: set[Colour], option: str | None, problems: Problems
) -> bool:
    """Palettes are colours if they contradict the ids of the class file or, if it has no colours, each other.

    known   colours of the class file
    option  "ids" or "colours", as the user decided
    """
    if option is not None or not masks:
        return option == "colours"
    plain = [mask for mask in masks if _without_colours(mask)]
    others = [mask for mask in masks if not _without_colours(mask)]
    pairs = {pair for mask in others for pair in mask.palette.items()}
    differ = len(pairs) > len({place for place, _ in pairs})
    listed: dict[int, Colour | None] = {}
    if given is not None:
        listed = {**dict.fromkeys(given.ignore_ids), **{entry.id: entry.colour for entry in given.classes}}
    all_listed = all(place in listed for mask in masks for place in mask.palette)
    if known:
        contradicts = any(place not in listed or listed[place] not in (None, colour) for place, colour in pairs)
        differ = contradicts and all(colour in known for _, colour in pairs)
    merging = next((mask for mask in others if len(set(mask.palette.values())) < len(mask.palette)), None)
    if differ and plain:
        what = f"all its indices show {next(iter(plain[0].palette.values()))}, and other masks differ in their palettes: {_ASK}"
        problems.add(UNCLEAR, plain[0].name, what)
    elif merging is not None and (differ and all_listed if known else not all_listed):
        colours = list(merging.palette.values())
        twice = next(colour for colour in colours if colours.count(colour) > 1)
        places = [str(place) for place, colour in merging.palette.items() if colour == twice]
        problems.add(UNCLEAR, merging.name, f"indices {', '.join(places[:5])} show one colour, {twice}: {_ASK}")
    return differ


def _without_colours(mask: Seen) -> bool:
    """Whether a program stored no palette: all indices show one colour, which tells nothing."""
    if len(set(mask.palette.values())) != 1:
        return False
    (first, colour), *more = mask.palette.items()
    return bool(more) or (colour == _BLACK and first != 0)
