"""Classes of CamVid: SegNet's 11, and the 32 colours of the original release."""

from semiseg.data import RawSpace, Taxonomy

NAMES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
_COLOURS = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip
_FOREGROUND = frozenset({2, 6, 8, 9, 10})  # pole, sign, car, pedestrian, bicyclist

SEGNET = RawSpace(name="camvid-segnet", names=dict(enumerate((*NAMES, "unlabelled"))))
CAMVID_11 = Taxonomy(
    name="camvid-11",
    raw=SEGNET,
    names=NAMES,
    colours=_COLOURS,
    ids={i: i for i in range(len(NAMES))},
    foreground=_FOREGROUND,
)

# The original release's label_colors.txt: name, colour, and the class of the 11 into which SegNet's authors merged it.
# An id is a line number in that file, from 0.
TABLE: dict[str, tuple[tuple[int, int, int], str | None]] = {
    "Animal": ((64, 128, 64), "pedestrian"),
    "Archway": ((192, 0, 128), "building"),
    "Bicyclist": ((0, 128, 192), "bicyclist"),
    "Bridge": ((0, 128, 64), "building"),
    "Building": ((128, 0, 0), "building"),
    "Car": ((64, 0, 128), "car"),
    "CartLuggagePram": ((64, 0, 192), "pedestrian"),
    "Child": ((192, 128, 64), "pedestrian"),
    "Column_Pole": ((192, 192, 128), "pole"),
    "Fence": ((64, 64, 128), "fence"),
    "LaneMkgsDriv": ((128, 0, 192), "road"),
    "LaneMkgsNonDriv": ((192, 0, 64), "road"),
    "Misc_Text": ((128, 128, 64), "sign"),
    "MotorcycleScooter": ((192, 0, 192), "bicyclist"),
    "OtherMoving": ((128, 64, 64), "car"),
    "ParkingBlock": ((64, 192, 128), "pavement"),
    "Pedestrian": ((64, 64, 0), "pedestrian"),
    "Road": ((128, 64, 128), "road"),
    "RoadShoulder": ((128, 128, 192), "pavement"),
    "Sidewalk": ((0, 0, 192), "pavement"),
    "SignSymbol": ((192, 128, 128), "sign"),
    "Sky": ((128, 128, 128), "sky"),
    "SUVPickupTruck": ((64, 128, 192), "car"),
    "TrafficCone": ((0, 0, 64), "pole"),
    "TrafficLight": ((0, 64, 64), "sign"),
    "Train": ((192, 64, 128), "car"),
    "Tree": ((128, 128, 0), "tree"),
    "Truck_Bus": ((192, 128, 192), "car"),
    "Tunnel": ((64, 0, 64), "building"),
    "VegetationMisc": ((192, 192, 0), "tree"),
    "Void": ((0, 0, 0), None),
    "Wall": ((64, 192, 0), "building"),
}
ORIGINAL = RawSpace(name="camvid-32", names=dict(enumerate(TABLE)))
VOID = list(TABLE).index("Void")

_IDS = {i: NAMES.index(group) for i, (_, group) in enumerate(TABLE.values()) if group is not None}
CAMVID_ORIGINAL_11 = Taxonomy(
    name="camvid-original-11", raw=ORIGINAL, names=NAMES, colours=_COLOURS, ids=_IDS, foreground=_FOREGROUND
)
"""The classes of "camvid-11", merged from the original 32."""
CAMVID_32 = Taxonomy(
    name="camvid-32",
    raw=ORIGINAL,
    names=tuple(TABLE),
    colours=tuple(colour for colour, _ in TABLE.values()),
    ids={i: i for i in range(len(TABLE))},
    foreground=frozenset(i for i, group in _IDS.items() if group in _FOREGROUND),
)
"""Every published label is a separate class, including Void: nothing is ignored."""
