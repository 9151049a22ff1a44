"""The labels of Cityscapes as published (cityscapesScripts, helpers/labels.py), and the taxonomies that read them."""

from typing import NamedTuple

from semiseg.data import RawSpace, Taxonomy


class Label(NamedTuple):
    """A row of the publisher's table. `evaluated`: whether its pixels count in the benchmark; others are ignored."""

    name: str
    category: str
    evaluated: bool
    colour: tuple[int, int, int]


# In the order of their ids, 0..33. The publisher's id -1, "license plate", is never drawn into a label.
LABELS = (
    Label("unlabeled", "void", False, (0, 0, 0)),
    Label("ego vehicle", "void", False, (0, 0, 0)),
    Label("rectification border", "void", False, (0, 0, 0)),
    Label("out of roi", "void", False, (0, 0, 0)),
    Label("static", "void", False, (0, 0, 0)),
    Label("dynamic", "void", False, (111, 74, 0)),
    Label("ground", "void", False, (81, 0, 81)),
    Label("road", "flat", True, (128, 64, 128)),
    Label("sidewalk", "flat", True, (244, 35, 232)),
    Label("parking", "flat", False, (250, 170, 160)),
    Label("rail track", "flat", False, (230, 150, 140)),
    Label("building", "construction", True, (70, 70, 70)),
    Label("wall", "construction", True, (102, 102, 156)),
    Label("fence", "construction", True, (190, 153, 153)),
    Label("guard rail", "construction", False, (180, 165, 180)),
    Label("bridge", "construction", False, (150, 100, 100)),
    Label("tunnel", "construction", False, (150, 120, 90)),
    Label("pole", "object", True, (153, 153, 153)),
    Label("polegroup", "object", False, (153, 153, 153)),
    Label("traffic light", "object", True, (250, 170, 30)),
    Label("traffic sign", "object", True, (220, 220, 0)),
    Label("vegetation", "nature", True, (107, 142, 35)),
    Label("terrain", "nature", True, (152, 251, 152)),
    Label("sky", "sky", True, (70, 130, 180)),
    Label("person", "human", True, (220, 20, 60)),
    Label("rider", "human", True, (255, 0, 0)),
    Label("car", "vehicle", True, (0, 0, 142)),
    Label("truck", "vehicle", True, (0, 0, 70)),
    Label("bus", "vehicle", True, (0, 60, 100)),
    Label("caravan", "vehicle", False, (0, 0, 90)),
    Label("trailer", "vehicle", False, (0, 0, 110)),
    Label("train", "vehicle", True, (0, 80, 100)),
    Label("motorcycle", "vehicle", True, (0, 0, 230)),
    Label("bicycle", "vehicle", True, (119, 11, 32)),
)
NOT_DRAWN = "license plate"
IDS = {label.name: i for i, label in enumerate(LABELS)}
RAW_SPACE = RawSpace(name="cityscapes", names={i: label.name for i, label in enumerate(LABELS)})

_EVALUATED = [i for i, label in enumerate(LABELS) if label.evaluated]
_CATEGORIES = tuple(dict.fromkeys(LABELS[i].category for i in _EVALUATED))
_OBJECTS = ("object", "human", "vehicle")  # foreground categories


def _of_objects(ids: list[int]) -> frozenset[int]:
    """Positions in `ids` of the labels that are objects."""
    return frozenset(n for n, i in enumerate(ids) if LABELS[i].category in _OBJECTS)


CITYSCAPES_19 = Taxonomy(
    name="cityscapes-19",
    raw=RAW_SPACE,
    names=tuple(LABELS[i].name for i in _EVALUATED),
    colours=tuple(LABELS[i].colour for i in _EVALUATED),
    ids={i: n for n, i in enumerate(_EVALUATED)},
    foreground=_of_objects(_EVALUATED),
)
"""The 19 classes of the benchmark; class ids are the publisher's train ids."""

CITYSCAPES_7 = Taxonomy(
    name="cityscapes-7",
    raw=RAW_SPACE,
    names=_CATEGORIES,
    # The publisher defines no colours for categories; each has the colour of its first label.
    colours=tuple(next(LABELS[i].colour for i in _EVALUATED if LABELS[i].category == name) for name in _CATEGORIES),
    ids={i: _CATEGORIES.index(LABELS[i].category) for i in _EVALUATED},
    foreground=frozenset(_CATEGORIES.index(name) for name in _OBJECTS),
)
"""The categories of the benchmark: the eight published ones without void. Pixels that it does not evaluate are ignored."""

CITYSCAPES_34 = Taxonomy(
    name="cityscapes-34",
    raw=RAW_SPACE,
    names=tuple(label.name for label in LABELS),
    colours=tuple(label.colour for label in LABELS),
    ids={i: i for i in range(len(LABELS))},
    foreground=_of_objects(list(range(len(LABELS)))),
)
"""Every published label is a separate class, including the seven of void: nothing is ignored."""
