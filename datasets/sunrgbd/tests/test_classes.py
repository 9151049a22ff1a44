"""The classes: the publisher's names, the published map from 37 to 13, distinguishable colours."""

from collections.abc import Callable
from itertools import combinations

import numpy as np

from semiseg.data import Taxonomy
from semiseg.datasets.sunrgbd import SUNRGBD

# The class40-to-13 mapping published with NYUv2, ids 1..40, as public conversion scripts list it; 38..40 are NYU's own.
PUBLISHED = (
    12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5,
    7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 7, 7, 6, 7,
)  # fmt: skip


def test_ids_have_the_publishers_names(names37: tuple[str, ...]) -> None:
    taxonomy = Taxonomy.get("sunrgbd-37")
    assert taxonomy.names == names37
    assert [taxonomy.raw.names[n] for n in range(38)] == ["void", *names37]
    assert taxonomy.map(np.arange(38, dtype=np.uint8)[None]).tolist() == [[255, *range(37)]]


def test_13_classes_are_the_published_groups_by_name_and_by_number(
    names37: tuple[str, ...], names_of_super: dict[str, tuple[str, ...]]
) -> None:
    taxonomy = Taxonomy.get("sunrgbd-13")
    assert taxonomy.names == tuple(names_of_super)
    groups: dict[str, set[str]] = {name: set() for name in taxonomy.names}
    for stored, number in taxonomy.ids.items():
        groups[taxonomy.names[number]].add(names37[stored - 1])
    assert groups == {name: set(members) for name, members in names_of_super.items()}
    assert [taxonomy.ids[n] + 1 for n in range(1, 38)] == list(PUBLISHED[:37])
    assert taxonomy.map(np.zeros((1, 1), np.uint8)).tolist() == [[255]]


def test_the_export_of_13_classes_has_the_same_classes_with_ids_of_its_own() -> None:
    taxonomy, export = Taxonomy.get("sunrgbd-13"), Taxonomy.get("sunrgbd-13-export")
    assert (export.names, export.colours, export.foreground) == (
        taxonomy.names,
        taxonomy.colours,
        taxonomy.foreground,
    )
    assert export.map(np.arange(14, dtype=np.uint8)[None]).tolist() == [[255, *range(13)]]
    assert export.raw_space != taxonomy.raw_space


def test_foreground_is_all_but_the_room_itself() -> None:
    for taxonomy in SUNRGBD.taxonomies:
        scene = {taxonomy.names[n] for n in set(range(len(taxonomy.names))) - taxonomy.foreground}
        assert scene == {"ceiling", "floor", "wall", "window"}


def test_colours_are_distinguishable() -> None:
    for taxonomy in SUNRGBD.taxonomies:
        for one, other in combinations(taxonomy.colours, 2):
            assert np.abs(np.subtract(one, other)).sum() >= 48, (one, other)


def test_13_class_masks_come_back_from_37_classes(real_pairs: list, refine: Callable[[np.ndarray], np.ndarray]) -> None:
    """The published masks, refined into members of each class: the map restores every pixel.

    This covers void and 36 of 37 ids (none of the 8 masks has books). The 37-class labels are made here by the groups'
    names, since no published 37-class label is available: which id belongs to which class rests on the lists above.
    """
    taxonomy, taxonomy37 = Taxonomy.get("sunrgbd-13"), Taxonomy.get("sunrgbd-37")
    seen: set[int] = set()
    for real in real_pairs:
        label = refine(real.mask13)
        expected = np.where(real.mask13 == 0, 255, real.mask13.astype(int) - 1)
        assert np.array_equal(taxonomy.map(label), expected)
        assert np.array_equal(Taxonomy.get("sunrgbd-13-export").map(real.mask13), expected)
        seen |= set(np.unique(label).tolist())
    assert seen == set(range(38)) - {1 + taxonomy37.names.index("books")}
