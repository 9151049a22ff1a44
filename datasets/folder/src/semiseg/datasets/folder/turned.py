"""Which masks must be rotated together with images that EXIF rotates."""

from collections import Counter
from collections.abc import Mapping

from semiseg.datasets.folder.file import File
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
    """image name -> EXIF orientation by which its mask must be rotated.

    Most annotation programs show images upright, some as stored; if width and height differ, sizes show which.
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
            what = f"{'x'.join(map(str, size))} pixels, but its image {name} has {shown}; export it at the size of the image"
            problems.add("size of a mask", file.name, what)
    as_stored = Counter(turns[name] == 1 for name in turns if pictures[name].orientation != 1)
    for name in unsure:
        turns[name] = pictures[name].orientation if as_stored[False] > as_stored[True] else 1
    if unsure:
        how = "as their images are stored" if as_stored[False] > as_stored[True] else "upright"
        notes.append(
            f"{len(unsure)} image{'s' * (len(unsure) != 1)} rotated by EXIF (first {unsure[0]}) with masks that fit "
            f"either way: treated as drawn {how}; check them"
        )
    return turns
