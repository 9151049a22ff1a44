"""Taxonomies: what they accept, and how raw ids become class ids."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from semiseg.data import DataError, RawSpace, Taxonomy

SPACE = RawSpace(name="town-raw", names={0: "void", 1: "sky", 7: "road", 8: "kerb", 300: "car", 65535: "border"})


def town(**changes):
    fields = {
        "name": "town-3",
        "raw": SPACE,
        "names": ("sky", "road", "car"),
        "colours": ((10, 20, 30), (40, 50, 60), (255, 0, 0)),
        "ids": {1: 0, 7: 1, 8: 1, 300: 2},
        "foreground": frozenset({2}),
    }
    return Taxonomy(**fields | changes)


@given(
    arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.sampled_from(sorted(SPACE.names)))
)
def test_map_is_a_lookup_per_pixel(raw):
    taxonomy = town()
    mapped = taxonomy.map(raw)
    assert mapped.dtype == np.uint8
    expected = [[taxonomy.ids.get(int(number), 255) for number in row] for row in raw]
    assert mapped.tolist() == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.uint64])
def test_map_takes_any_integers(dtype):
    assert town().map(np.array([[0, 1], [7, 8]], dtype)).tolist() == [[255, 0], [1, 1]]


@pytest.mark.parametrize(("dtype", "strange"), [(np.uint8, 9), (np.uint16, 65534), (np.int32, -1), (np.int64, 65536)])
def test_an_unknown_id_is_named_with_its_count_and_first_pixel(dtype, strange):
    raw = np.ones((5, 6), dtype)
    raw[3, 4] = raw[4, 0] = strange
    with pytest.raises(DataError) as caught:
        town().map(raw)
    message = str(caught.value)
    assert f"label id {strange} (2 pixels, first at row 3, column 4)" in message
    assert "'town-raw', whose ids are 0..1, 7..8, 300, 65535" in message


def test_a_label_of_floats_or_truth_values_is_refused():
    for dtype in (np.float32, bool):
        with pytest.raises(DataError, match="integer ids, not"):
            town().map(np.ones((2, 2), dtype))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colours": ((0, 0, 0),)}, "3 names and 1 colours"),
        ({"colours": ((0, 0, 0), (0, 0, 256), (1, 1, 1))}, r"colour \(0, 0, 256\) of class 'road'"),
        ({"colours": ((0, 0, 0), (0, 0), (1, 1, 1))}, "is not three numbers"),
        ({"ids": {1: 3}}, r"maps raw id 1 to class 3; its classes are 0\.\.2"),
        ({"ids": {1: -1}}, "maps raw id 1 to class -1"),
        ({"ids": {2: 0}}, "maps raw id 2, which 'town-raw' does not have"),
        ({"foreground": frozenset({0, 3})}, "has 3 in its foreground"),
        ({"names": ("sky", "road", "sky")}, "has two classes named sky"),
        ({"names": ()}, "has 0 classes"),
        ({"names": tuple(map(str, range(255)))}, "has 255 classes; 1 to 254"),
    ],
)
def test_an_inconsistent_taxonomy_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        town(**changes)


def test_a_raw_space_holds_ids_of_sixteen_bits():
    for names in ({}, {-1: "licence plate"}, {65536: "too much"}):
        with pytest.raises(DataError, match="raw space 'bad'"):
            RawSpace(name="bad", names=names)


def test_254_classes_fit_beside_ignore():
    names = {i: f"class {i}" for i in range(254)}
    wide = Taxonomy(
        name="wide",
        raw=RawSpace(name="wide", names=names | {254: "void"}),
        names=tuple(names.values()),
        colours=tuple((i, i, i) for i in names),
        ids={i: i for i in names},
        foreground=frozenset(),
    )
    assert wide.map(np.arange(255, dtype=np.uint8)).tolist() == [*range(254), 255]


def test_a_taxonomy_does_not_change_and_travels():
    ids = {1: 0}
    taxonomy = town(ids=ids)
    ids[7] = 1
    assert dict(taxonomy.ids) == {1: 0}
    with pytest.raises(ValueError, match="read-only"):
        taxonomy.lookup[0] = 0
    copy = pickle.loads(pickle.dumps(taxonomy))
    assert copy == taxonomy
    assert len({copy, taxonomy, town()}) == 2
    assert taxonomy.raw_space == "town-raw"
