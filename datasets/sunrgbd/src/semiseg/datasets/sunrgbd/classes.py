"""Classes of SUN RGB-D: 37 and void, their 13 super-classes, and the ids of the export that stores the 13."""

from semiseg.data import RawSpace, Taxonomy

SUN_37 = {
    "wall": (168, 178, 190), "floor": (176, 154, 120), "cabinet": (110, 72, 52), "bed": (231, 111, 81),
    "chair": (244, 162, 97), "sofa": (178, 58, 72), "table": (42, 157, 143), "door": (176, 248, 116),
    "window": (110, 186, 222), "bookshelf": (20, 116, 20), "picture": (214, 93, 140), "counter": (20, 140, 248),
    "blinds": (20, 248, 188), "desk": (188, 176, 20), "shelves": (248, 188, 248), "curtain": (236, 236, 152),
    "dresser": (104, 104, 20), "pillow": (20, 56, 164), "mirror": (68, 248, 248), "floor_mat": (20, 80, 44),
    "clothes": (68, 92, 152), "ceiling": (222, 214, 198), "books": (148, 82, 165), "fridge": (128, 200, 128),
    "tv": (38, 70, 83), "paper": (248, 116, 224), "towel": (116, 44, 80), "shower_curtain": (248, 164, 164),
    "box": (152, 92, 20), "whiteboard": (176, 152, 248), "person": (164, 116, 152), "night_stand": (116, 164, 20),
    "toilet": (176, 20, 140), "sink": (104, 140, 92), "lamp": (188, 164, 80), "bathtub": (20, 188, 92),
    "bag": (176, 32, 20),
}  # fmt: skip
"""Names in the order of their ids 1..37 (Metadata/seg37list.mat of the toolbox); the colours are ours."""

SUN_13 = {
    "bed": (231, 111, 81), "books": (148, 82, 165), "ceiling": (222, 214, 198), "chair": (244, 162, 97),
    "floor": (176, 154, 120), "furniture": (110, 72, 52), "objects": (233, 196, 106), "picture": (214, 93, 140),
    "sofa": (178, 58, 72), "table": (42, 157, 143), "tv": (38, 70, 83), "wall": (168, 178, 190),
    "window": (110, 186, 222),
}  # fmt: skip
"""Super-classes of Couprie et al., "Indoor semantic segmentation using depth information", 2013, in the order of ids 1..13."""

_SUPER = (
    12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7,  # wall .. mirror
    5, 7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 7,           # floor_mat .. bag
)  # fmt: skip
SUPER: dict[int, int] = dict(enumerate(_SUPER, start=1))
"""Id 1..37 -> id 1..13, as in the published class13 mapping of NYUv2 and SUN RGB-D. NYU's 38..40 do not occur here."""

_SCENE = ("ceiling", "floor", "wall", "window")  # background classes


def _taxonomy(name: str, raw: RawSpace, classes: dict[str, tuple[int, int, int]], ids: dict[int, int]) -> Taxonomy:
    """Class ids are the publisher's ids minus one; 0, void, is ignored."""
    return Taxonomy(
        name=name,
        raw=raw,
        names=tuple(classes),
        colours=tuple(classes.values()),
        ids={stored: number - 1 for stored, number in ids.items()},
        foreground=frozenset(number for number, class_name in enumerate(classes) if class_name not in _SCENE),
    )


RAW_37 = RawSpace(name="sunrgbd-37", names=dict(enumerate(("void", *SUN_37))))
RAW_13 = RawSpace(name="sunrgbd-13-export", names=dict(enumerate(("void", *SUN_13))))
SUNRGBD_37 = _taxonomy("sunrgbd-37", RAW_37, SUN_37, {number: number for number in SUPER})
SUNRGBD_13 = _taxonomy("sunrgbd-13", RAW_37, SUN_13, SUPER)
SUNRGBD_13_EXPORT = _taxonomy("sunrgbd-13-export", RAW_13, SUN_13, {number: number for number in range(1, 14)})
