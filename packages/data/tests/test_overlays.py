import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from semiseg.data import (
    DataError,
    Manifest,
    OverlaySet,
    Plan,
    Pool,
    ShardSet,
    Taxonomy,
    image_classes,
    shard,
    verify,
    write_overlay,
)
from semiseg.data.overlays import overlay_facts

ROWS = [0, 2, 3, 5, 6, 8]
SETTINGS = {"rule": "paper", "low": 0.05}


@pytest.fixture
def base(draw: Callable, adapt: Callable, tmp_path: Path) -> ShardSet:
    shard(adapt(draw(9)), "train", tmp_path, size=2000)
    return ShardSet(tmp_path / "pictures" / "train")


def guess(row: int) -> np.ndarray:
    """Labels that differ from image to image, with some pixels left out."""
    ids = np.random.default_rng(row).integers(0, 4, (11, 17))
    return np.where(ids == 3, 255, ids).astype(np.uint8)


def write(
    base: ShardSet, taxonomy: Taxonomy, label: Callable[[int], np.ndarray] = guess, **options: object
) -> Manifest:
    arguments = {"settings": SETTINGS, "rows": ROWS, "size": 6000} | options
    return write_overlay(base, "cam", taxonomy, label, **arguments)  # type: ignore[arg-type]


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_covered_images_have_the_new_labels_and_all_else_of_the_split(base: ShardSet, taxonomy: Taxonomy):
    before = sums(Path(base.url))
    manifest = write(base, taxonomy)
    assert sums(Path(base.url)) == before
    assert len(manifest.shards) > 1
    assert verify(f"{base.url}@cam").ok

    overlay = OverlaySet(f"{base.url}@cam")
    assert overlay.rows() == ROWS
    assert overlay.keys() == [base.keys()[row] for row in ROWS]
    assert overlay.labeled
    own = overlay.taxonomy(taxonomy.name)
    assert (own.names, own.colours, own.foreground) == (taxonomy.names, taxonomy.colours, taxonomy.foreground)
    for number, (row, sample) in enumerate(zip(ROWS, overlay, strict=True)):
        below = base[row]
        assert (sample.key, sample.tags, sample.meta) == (below.key, below.tags, below.meta)
        assert np.array_equal(np.asarray(sample.image), np.asarray(below.image))
        assert sample.label is not None
        assert np.array_equal(own.map(sample.label), guess(row))
        assert overlay.read(number, label=False).label is None
    expected = [[(guess(row) == number).sum() for number in range(3)] for row in ROWS]
    assert overlay.class_pixels(own).tolist() == expected
    assert sorted(draw.sample for draw in Plan(overlay, seed=0).draws(0, 6)) == [0, 1, 2, 3, 4, 5]
    overlay.ahead(range(len(manifest.shards)))
    assert Pool([overlay]).keys() == overlay.keys()


def test_it_records_what_it_was_made_from(base: ShardSet, taxonomy: Taxonomy, tmp_path: Path):
    manifest = write(base, taxonomy)
    assert overlay_facts(manifest) == {"base": base.digest, "taxonomy": "pictures-3", "settings": SETTINGS}
    other = write(base, taxonomy, settings=SETTINGS | {"low": 0.1}, to=tmp_path / "other")
    assert other.digest != manifest.digest
    with pytest.raises(DataError, match="pictures/train is not an overlay"):
        overlay_facts(base.manifest)


def test_when_interrupted_it_resumes_with_what_is_missing(base: ShardSet, taxonomy: Taxonomy, tmp_path: Path):
    write(base, taxonomy, to=tmp_path / "straight")
    asked: list[int] = []

    def breaks(row: int) -> np.ndarray:
        if row == 6:
            raise RuntimeError("the power went")
        asked.append(row)
        return guess(row)

    with pytest.raises(DataError, match=r"'p006'.*the power went"):
        write(base, taxonomy, breaks)
    with pytest.raises(DataError, match="`semiseg weak labels` writes overlays, and resumes"):
        OverlaySet(f"{base.url}@cam")
    finished = len(list(Path(f"{base.url}@cam").glob("*.parquet")))
    assert finished >= 1
    asked.clear()

    def notes(row: int) -> np.ndarray:
        asked.append(row)
        return guess(row)

    with pytest.raises(DataError, match=r"low: 0\.05 there, 0\.5 now"):
        write(base, taxonomy, settings=SETTINGS | {"low": 0.5})
    manifest = write(base, taxonomy, notes)
    done = sum(entry.samples for entry in manifest.shards[:finished])
    assert asked == [ROWS[0], *ROWS[done:]]  # the first one shows the kind of image
    assert sums(Path(f"{base.url}@cam")) == sums(tmp_path / "straight" / "pictures" / "train@cam")


def test_other_settings_are_refused(base: ShardSet, taxonomy: Taxonomy):
    write(base, taxonomy)
    error = r"pictures/train@cam has labels with other settings:\n  low: 0\.05 there, 0\.5 now\ngive this overlay another name"
    with pytest.raises(DataError, match=error):
        write(base, taxonomy, settings=SETTINGS | {"low": 0.5})


def test_a_rewritten_split_is_refused(
    base: ShardSet, taxonomy: Taxonomy, draw: Callable, adapt: Callable, tmp_path: Path
):
    write(base, taxonomy)
    shard(adapt(draw(9, seed=1)), "train", tmp_path / "again", size=2000)
    with pytest.raises(DataError, match=r"they were rewritten since, and rows no longer match") as caught:
        OverlaySet(f"{base.url}@cam", tmp_path / "again" / "pictures" / "train")
    assert base.digest[:12] in str(caught.value)


def test_mistakes_are_named(base: ShardSet, taxonomy: Taxonomy, tmp_path: Path):
    with pytest.raises(DataError, match=r"'p000'.*shape \[17, 11\], the image \[11, 17\]"):
        write(base, taxonomy, lambda row: guess(row).T)
    with pytest.raises(DataError, match="holds id 3 "):
        write(base, taxonomy, lambda row: np.full((11, 17), 3, np.uint8))
    with pytest.raises(DataError, match="an overlay's name 'a b'"):
        write_overlay(base, "a b", taxonomy, guess, settings={})
    moved = Path(base.url).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="give the folder for the overlay"):
        write(ShardSet(moved), taxonomy)


@pytest.fixture
def tagged(draw: Callable, adapt: Callable, tmp_path: Path) -> Callable[..., ShardSet]:
    def tagged(*tags: tuple[str, ...]) -> ShardSet:
        from dataclasses import replace

        samples = [replace(sample, tags=own) for sample, own in zip(draw(len(tags)), tags, strict=True)]
        shard(adapt(samples), "train", tmp_path)
        return ShardSet(tmp_path / "pictures" / "train")

    return tagged


def test_classes_of_images_by_their_tags(tagged: Callable, taxonomy: Taxonomy):
    found = image_classes(tagged(("car",), (), ("sign", "car")), taxonomy)
    assert found.tolist() == [[False, True, False], [False, False, False], [False, True, True]]


def test_classes_of_images_by_their_masks(base: ShardSet, taxonomy: Taxonomy):
    for least in (0.0, 0.2):
        expected = [
            [(taxonomy.map(sample.label) == number).mean() > least for number in range(3)]
            for sample in base
            if sample.label is not None
        ]
        assert image_classes(base, taxonomy, masks=True, least=least).tolist() == expected


def test_a_tag_that_no_class_has_is_named(tagged: Callable, base: ShardSet, taxonomy: Taxonomy):
    with pytest.raises(DataError, match="'noise' \\(4 images, first 'p001'\\)\nclasses: scene, car, sign"):
        image_classes(base, taxonomy)


def test_no_tags_at_all_are_refused_and_near_names_offered(tagged: Callable, taxonomy: Taxonomy):
    with pytest.raises(DataError, match="no image has tags"):
        image_classes(tagged((), ()), taxonomy)


def test_the_nearest_class_is_offered(tagged: Callable, taxonomy: Taxonomy):
    with pytest.raises(DataError, match="'cars' \\(1 image, first 'p001', did you mean 'car'"):
        image_classes(tagged((), ("cars",)), taxonomy)
