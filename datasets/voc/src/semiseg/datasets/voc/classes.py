"""Ids and classes of VOC: an id is an index into the palette of a mask."""

from semiseg.data import RawSpace, Taxonomy

NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
SPACE = RawSpace(name="voc", names={**dict(enumerate(NAMES)), 255: "border or void"})


def colour(number: int) -> tuple[int, int, int]:
    """The colour of an id in VOC's palette: bits 0, 3, 6 are the highest bits of red, 1, 4, 7 of green, 2, 5 of blue."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]


VOC_21 = Taxonomy(
    name="voc-21",
    raw=SPACE,
    names=NAMES,
    colours=tuple(colour(number) for number in range(len(NAMES))),
    ids={number: number for number in range(len(NAMES))},
    foreground=frozenset(range(1, len(NAMES))),
)
