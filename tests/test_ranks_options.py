"""Several processes against one, for options of a recipe that are off by default."""

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


def test_weak_and_unlabeled_images_on_two_processes_with_micro_steps_equal_one(
    recipe_file: Callable[..., Path], weak_scenes: Path, tmp_path: Path
):
    """Five weak and four unlabeled images: both parts keep their weight in the consistency term on any process."""
    street = "data.domains.street"
    options = (
        f"data.shards={weak_scenes}",
        "model.norm=frozen",
        f"{street}.labeled.batch_size=4",
        f"{street}.unlabeled.batch_size=4",
        f"{street}.weak={{dataset='street', split='train', batch_size=5}}",
        "objectives.1.weak={value=0.4, over=0.3}",
        "objectives.1.pairwise=0.5",
    )
    recipe = recipe_file()
    one, two = (probe(recipe, tmp_path, world, [3], *options, f"accumulate={world}") for world in (1, 2))
    compare(one, two, 3)
    assert one["3.losses"]["street/weak"] > 0
