"""Painted masks: each pixel in its colour, boundaries where they are, nothing stretched, blurred or cut off."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from semiseg.data import DataError, RawSpace, Taxonomy, colourise, contact_sheet, overlay
from semiseg.data.image import paint

COLOURS = ((200, 10, 30), (40, 250, 60), (0, 0, 0))
TAXONOMY = Taxonomy(
    name="town-3",
    raw=RawSpace(name="town", names={0: "roof", 1: "lawn", 2: "night"}),
    names=("roof", "lawn", "night"),
    colours=COLOURS,
    ids={0: 0, 1: 1, 2: 2},
    foreground=frozenset(),
)
IDS = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (24, 30))


def test_pixels_have_the_colour_of_their_class_and_ignored_ones_a_grey_hatch():
    painted = colourise(IDS, TAXONOMY)
    assert (painted.shape, painted.dtype) == ((24, 30, 3), np.uint8)
    greys = set()
    for i in range(24):
        for j in range(30):
            if IDS[i, j] == 255:
                greys.add(tuple(painted[i, j].tolist()))
            else:
                assert tuple(painted[i, j].tolist()) == COLOURS[IDS[i, j]]
    assert greys == {(104, 104, 104), (52, 52, 52)}


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_ids_that_are_not_classes_are_not_painted(dtype):
    with pytest.raises(DataError, match=r"id 3 is not a class of taxonomy 'town-3' \(0\.\.2, 255 = ignore\)"):
        colourise(np.array([[0, 3]], dtype), TAXONOMY)
    with pytest.raises(DataError, match="an integer array"):
        colourise(np.zeros((2, 2, 3), dtype), TAXONOMY)


def test_an_overlay_mixes_by_its_opacity_and_draws_the_boundary():
    image = np.random.default_rng(1).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    ids = np.zeros((8, 10), np.uint8)
    ids[:, 6:] = 1
    for opacity in (0.0, 0.3, 1.0):
        mixed = np.asarray(overlay(image, ids, TAXONOMY, opacity)).astype(float)
        expected = image + opacity * (np.where((ids == 0)[..., None], COLOURS[0], COLOURS[1]) - image.astype(float))
        inner = np.ones((8, 10), bool)
        inner[:, 5] = False  # the last column before the boundary
        assert np.abs(mixed - expected)[inner].max() <= 0.51
        assert np.all(mixed[~inner] >= 255 * 0.74)


def test_an_overlay_leaves_ignored_pixels_untinted():
    image = Image.new("RGB", (4, 4), (200, 100, 50))
    mixed = np.asarray(overlay(image, np.full((4, 4), 255, np.uint8), TAXONOMY, 0.5))
    assert np.all(mixed == [140, 70, 35])


def test_an_overlay_of_another_size_is_refused():
    with pytest.raises(DataError, match="an image of 30x24 has ids of 15x12 pixels"):
        overlay(Image.new("RGB", (30, 24)), IDS[::2, ::2], TAXONOMY)


def test_masks_on_a_sheet_are_their_exact_colours_in_square_pixels():
    sheet = np.asarray(
        contact_sheet([[IDS[:, :20], None]], titles=["mask", ""], taxonomy=TAXONOMY, width=40 + 16 + 2 * 100)
    )
    left, top, factor = 40, 76, 4  # (256 - 2 * 40 - 16) / 2 = 80 pixels of room for 20
    large = sheet[top : top + 24 * factor, left : left + 20 * factor]
    ids = IDS[:, :20].repeat(factor, 0).repeat(factor, 1)
    assert np.array_equal(large[ids != 255], colourise(ids, TAXONOMY)[ids != 255])


def test_a_mask_shrinks_to_pixels_that_it_has():
    wide = np.zeros((40, 400), np.uint8)
    wide[:, 1::2] = 1
    sheet = np.asarray(contact_sheet([[wide]], titles=[""], taxonomy=TAXONOMY, width=80 + 130))
    cell = sheet[76 : 76 + 13, 40 : 40 + 130].reshape(-1, 3)
    assert {tuple(pixel) for pixel in cell.tolist()} == set(COLOURS[:2])


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (1000, 400), (7, 5)])
def test_pictures_keep_their_shape(size):
    sheet = np.asarray(contact_sheet([[Image.new("RGB", size, (255, 0, 0))]], titles=[""], width=80 + 200))
    red = np.argwhere((sheet == (255, 0, 0)).all(2))
    height, width = red.max(0) - red.min(0) + 1
    assert width <= 200
    assert height <= 300
    assert width / height == pytest.approx(size[0] / size[1], rel=0.02)


def test_nothing_touches_the_margin_however_long_the_words():
    long = "an uncommonly long caption " * 20
    rows = [[IDS, Image.new("RGB", (300, 400)), None], [IDS, None, IDS]]
    sheet = np.asarray(contact_sheet(rows, titles=[long] * 3, captions=[long] * 2, taxonomy=TAXONOMY, width=500))
    frame = np.ones(sheet.shape[:2], bool)
    frame[30:-30, 38:-38] = False
    assert np.all(sheet[frame] == 255)
    assert sheet.shape[1] <= 500


def test_the_legend_shows_the_requested_classes_and_the_hatch_if_it_occurs():
    def legend(**options):
        return {tuple(p) for p in np.asarray(contact_sheet(**options))[130:].reshape(-1, 3).tolist()}  # below the mask

    plain = np.zeros((20, 20), np.uint8)
    every = legend(rows=[[plain]], titles=["t"], taxonomy=TAXONOMY, width=110)
    assert set(COLOURS) <= every
    assert (104, 104, 104) not in every
    some = legend(rows=[[plain]], titles=["t"], taxonomy=TAXONOMY, classes=[1], width=110)
    assert COLOURS[1] in some
    assert COLOURS[0] not in some
    ignored = np.full((20, 20), 255, np.uint8)
    assert (104, 104, 104) in legend(rows=[[ignored]], titles=["t"], taxonomy=TAXONOMY, width=110)


def test_words_are_clipped_only_where_they_run_over():
    font = ImageFont.load_default(15)
    draw = ImageDraw.Draw(Image.new("L", (1, 1)))
    assert paint._clip("pavement", font, 200) == "pavement"
    clipped = paint._clip("pavement and kerb", font, 80)
    assert clipped.endswith("...")
    assert draw.textlength(clipped, font) <= 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": [[None]], "titles": ["a"]}, "no pictures"),
        ({"rows": [], "titles": []}, "no pictures"),
        ({"rows": [[IDS]], "titles": ["a"]}, "give a taxonomy"),
        (
            {"rows": [[IDS, IDS]], "titles": ["a"], "taxonomy": TAXONOMY},
            "row 0 of the contact sheet has 2 cells under 1",
        ),
        ({"rows": [[IDS]], "titles": ["a"], "taxonomy": TAXONOMY, "captions": []}, "1 rows and 0 captions"),
        ({"rows": [[IDS]], "titles": ["a"], "taxonomy": TAXONOMY, "width": 90}, "no room for 1 columns"),
        (
            {"rows": [[IDS]], "titles": ["a"], "taxonomy": TAXONOMY, "classes": [7]},
            "7 is not a class of taxonomy 'town-3'",
        ),
        ({"rows": [[np.zeros((2, 2, 4), np.uint8)]], "titles": ["a"]}, r"not uint8 \[2, 2, 4\]"),
    ],
)
def test_an_inconsistent_sheet_is_refused(options, message):
    with pytest.raises(DataError, match=message):
        contact_sheet(**options)
