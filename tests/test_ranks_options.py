"""Several processes against one, for what a recipe may choose beyond its defaults."""

from collections.abc import Callable
from pathlib import Path

from tests.test_ranks import compare, probe


def test_a_mean_over_the_batch_counts_the_pixels_of_all_processes(recipe_file: Callable[..., Path], tmp_path: Path):
    """With one encoder pass and a pair-wise term; a crop wider than the images leaves unequal counts of valid pixels."""
    options = (
        "model.norm=frozen",
        "model.batches=joint",
        "objectives.0.loss.kind=cross_entropy",
        "objectives.0.loss.pool=batch",
        "objectives.1.pairwise=0.5",
        "objectives.1.confidence=0.2",
        "data.domains.street.augment.crop=[48,72]",
    )
    recipe = recipe_file()
    one, two = (probe(recipe, tmp_path, world, [3], *options) for world in (1, 2))
    compare(one, two, 3)
    assert "street/pairwise" in one["3.losses"]
