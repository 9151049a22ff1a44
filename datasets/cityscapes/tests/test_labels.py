"""The published label table and the taxonomies over it."""

import numpy as np
import pytest

from semiseg.data import Taxonomy
from semiseg.datasets.cityscapes.labels import LABELS

# labelId -> trainId and names as the publisher states them, written down a second time.
TRAIN_IDS = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip


def test_nineteen_classes_are_the_train_ids() -> None:
    taxonomy = Taxonomy.get("cityscapes-19")
    expected = np.full(34, 255, np.uint8)
    for number, raw in enumerate(TRAIN_IDS):
        expected[raw] = number
    assert np.array_equal(taxonomy.map(np.arange(34, dtype=np.uint8)[None])[0], expected)
    assert taxonomy.names == tuple(TRAIN_IDS.values())
    assert taxonomy.colours[0] == (128, 64, 128) and taxonomy.colours[18] == (119, 11, 32)
    assert {taxonomy.names[i] for i in taxonomy.foreground} == {
        "pole", "traffic light", "traffic sign", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    }  # fmt: skip


def test_seven_categories_are_those_of_the_nineteen_classes() -> None:
    taxonomy = Taxonomy.get("cityscapes-7")
    assert taxonomy.names == ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
    sizes = {"flat": 2, "construction": 3, "object": 3, "nature": 2, "sky": 1, "human": 2, "vehicle": 6}
    expected = np.full(34, 255)
    expected[list(TRAIN_IDS)] = np.repeat(np.arange(7), list(sizes.values()))
    assert np.array_equal(taxonomy.map(np.arange(34, dtype=np.uint8)[None])[0], expected)
    assert {taxonomy.names[i] for i in taxonomy.foreground} == {"object", "human", "vehicle"}


def test_thirtyfour_labels_keep_their_ids() -> None:
    taxonomy = Taxonomy.get("cityscapes-34")
    ids = np.arange(34, dtype=np.uint8)[None]
    assert np.array_equal(taxonomy.map(ids), ids)
    assert taxonomy.names[0] == "unlabeled" and taxonomy.names[29] == "caravan"


@pytest.mark.parametrize("name", ["cityscapes-19", "cityscapes-7", "cityscapes-34"])
def test_all_read_one_raw_space_of_the_published_ids(name: str) -> None:
    raw = Taxonomy.get(name).raw
    assert raw.name == "cityscapes"
    assert dict(raw.names) == {i: label.name for i, label in enumerate(LABELS)}
    assert sorted(raw.names) == list(range(34))
