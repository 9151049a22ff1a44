"""Which masks are to be turned with images that a camera stored on their side."""

from collections import Counter
from collections.abc import Mapping

from semiseg.datasets.folder.files import File
from semiseg.datasets.folder.masks import Seen
from semiseg.datasets.folder.pictures import Picture
from semiseg.datasets.folder.problems import Problems


def masks_to_turn(
    found: Mapping[str, File],
    pictures: Mapping[str, Picture],
    seen: Mapping[str, Seen],
    problems: Problems,
    notes: list[str],
) -> dict[str, int]:
    """image name -> EXIF orientation by which its mask is to be turned: masks are drawn over what a program shows.

    Most programs show images upright, some as they are stored; sizes tell which, where width and height differ.
    """
    turns, unsure = {}, []
    for name, file in found.items():
        picture, mask = pictures.get(name), seen.get(file.name)
        if picture is None or mask is None:
            continue
        if mask.orientation not in (0, 1):
            turns[name] = mask.orientation
        elif picture.orientation != 1 and mask.size == picture.size == picture.upright:
            unsure.append(name)
        elif picture.orientation != 1 and mask.size == picture.size:
            turns[name] = picture.orientation
        else:
            turns[name] = 1
        swapped = turns.get(name, 1) in (5, 6, 7, 8)
        size = mask.size[::-1] if swapped else mask.size
        if size != picture.upright:
            shown = "x".join(map(str, picture.upright))
            what = f"{'x'.join(map(str, size))} pixels, its image {name} {shown}; draw or export it at the image's size"
            problems.add("size of a mask", file.name, what)
    as_stored = Counter(turns[name] == 1 for name in turns if pictures[name].orientation != 1)
    for name in unsure:
        turns[name] = pictures[name].orientation if as_stored[False] > as_stored[True] else 1
    if unsure:
        how = "as their images are stored" if as_stored[False] > as_stored[True] else "upright"
        notes.append(
            f"{len(unsure)} image{'s' * (len(unsure) != 1)} turned by EXIF (first {unsure[0]}) with masks that could lie "
            f"either way: taken as drawn {how}; look at them"
        )
    return turns
