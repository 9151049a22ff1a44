"""Image-level labels as classes: from the publisher's tags, or simulated from dense labels."""

import difflib

import numpy as np

from semiseg.data.errors import DataError
from semiseg.data.read.shard_set import ShardSet
from semiseg.data.taxonomy import Taxonomy


def image_classes(shards: ShardSet, taxonomy: Taxonomy, *, masks: bool = False, least: float = 0.0) -> np.ndarray:
    """Which classes are in each image, bool [n, classes]. Reads every index, no pixels.

    From its tags, which are class names; with `masks`, from its dense label: a class with more than the share `least` of
    the image's pixels is present. Raises DataError for a tag that is not a class name, with the nearest one, and if no
    image has tags.
    """
    if masks:
        pixels = shards.class_pixels(taxonomy)
        return pixels > least * shards.sizes().prod(1, keepdims=True)
    every = shards.tags()
    if not any(every):
        raise DataError(
            f"{shards.url}: no image has tags; the adapter provides none (a folder reads them from tags.csv, VOC from its "
            "Annotations); or simulate them from masks: --tags-from-masks"
        )
    places = {name: number for number, name in enumerate(taxonomy.names)}
    strange = {tag for tags in every for tag in tags} - places.keys()
    if strange:
        lines = [_say(tag, taxonomy, shards, every) for tag in sorted(strange)[:5]] + ["..."] * (len(strange) > 5)
        raise DataError(
            f"{shards.url}: tags that are not classes of taxonomy '{taxonomy.name}':\n  "
            + "\n  ".join(lines)
            + f"\nclasses: {', '.join(taxonomy.names)}; correct the tags and write the shards again"
        )
    found = np.zeros((len(every), len(places)), bool)
    for row, tags in enumerate(every):
        found[row, [places[tag] for tag in tags]] = True
    return found


def _say(tag: str, taxonomy: Taxonomy, shards: ShardSet, every: list[tuple[str, ...]]) -> str:
    rows = [row for row, tags in enumerate(every) if tag in tags]
    near = difflib.get_close_matches(tag, taxonomy.names, n=1)
    hint = f", did you mean '{near[0]}'?" if near else ""
    return f"'{tag}' ({len(rows)} image{'s' * (len(rows) > 1)}, first '{shards.keys()[rows[0]]}'{hint})"
