"""What prevents training a recipe here, with shards that exist or do not."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from semiseg.data import RawSample, RawSpace, ShardSet, Split, Taxonomy, open_dataset, shard
from semiseg.train.recipe.load import RecipeError, load
from semiseg.train.recipe.preflight import preflight


class Photos:
    """A data set beside the generated ones: four photos of two sizes without masks, four with."""

    name: ClassVar[str] = "street"
    summary: ClassVar[str] = "photos"
    home: ClassVar[str] = ""
    taxonomies: ClassVar[tuple[Taxonomy, ...]] = ()
    version: str = "1"
    root: Path | None = None

    def __init__(self, root: Path | None = None, **options: Any) -> None:
        self.raw_space: RawSpace = open_dataset("street").raw_space

    def splits(self) -> dict[str, Split]:
        return {"photos": Split(name="photos", samples=4, labeled=False), "sizes": Split(name="sizes", samples=4)}

    def samples(self, split: str) -> Iterator[RawSample]:
        for number in range(4):
            width = 40 + 8 * (number % 2)
            image = io.BytesIO()
            Image.new("RGB", (width, 32), (number, 0, 0)).save(image, "PNG")
            label = None if split == "photos" else (lambda width=width: np.zeros((32, width), np.uint8))
            yield RawSample(key=f"{split}{number}", image=image.getvalue(), label=label, size=len(image.getvalue()))


@pytest.fixture(scope="session")
def shards(scenes: Path) -> Path:
    """The generated scenes, and the photos as splits `photos` and `sizes` of street."""
    for split in ("photos", "sizes"):
        shard(Photos(), split, scenes)
    return scenes


@pytest.fixture
def problems(recipe_file: Callable[..., Path], shards: Path) -> Callable[..., list[str]]:
    """The faults of the tiny recipe under overrides, without the place that all of them share."""

    def check(*overrides: str, world: int = 1, domains: int = 1) -> list[str]:
        recipe = load(recipe_file(domains=domains), overrides)
        try:
            preflight(recipe, world=world)
        except RecipeError as error:
            return list(error.faults)
        return []

    return check


def test_a_recipe_whose_data_is_there_has_no_faults(problems: Callable[..., list[str]]) -> None:
    assert problems() == problems(domains=2) == []
    assert problems("data.domains.street.unlabeled.split=['train', 'photos']") == []
    assert problems("data.domains.street.unlabeled.split=photos") == []


def test_missing_shards_name_the_command_that_writes_them(
    problems: Callable[..., list[str]], recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = recipe_file()
    where = f"{tmp_path}/none"
    found = problems(f"data.shards={where}")
    line = 1 + path.read_text().splitlines().index(
        next(text for text in path.read_text().splitlines() if text.startswith("labeled"))
    )
    assert found == [
        f"{path}:{line + number}: data.domains.street.{role}.split: no shards for street/{split} under {where}; "
        f"write them with: semiseg data shard street --split {split} --to {where}"
        for number, (role, split) in enumerate({"labeled": "train", "unlabeled": "train", "val": "val"}.items())
    ]


def test_a_data_set_that_is_missing_is_reported_once(problems: Callable[..., list[str]], tmp_path: Path) -> None:
    roles = {"labeled": "a", "unlabeled": "b", "val": "c"}
    other = [f"data.domains.street.{role}.{key}" for role in roles for key in (f"split={roles[role]}", "dataset=roofs")]
    (found,) = problems(*other, f"data.shards={tmp_path}/none")
    assert (
        f"labeled.dataset=roofs': no shards for roofs/a, roofs/b, roofs/c under {tmp_path}/none, and data set" in found
    )
    assert (
        f"semiseg data shard folder ROOT --option name=roofs --to {tmp_path}/none, which then prints the command"
        in found
    )


def test_shards_that_cannot_be_reached(problems: Callable[..., list[str]]) -> None:
    found = problems("data.shards=nope://bucket")[0]
    assert found.startswith("argument 'data.shards=nope://bucket': nope://bucket/street/train: cannot be opened")


def test_names_of_splits_data_sets_and_taxonomies(problems: Callable[..., list[str]], shards: Path) -> None:
    (split,) = problems("data.domains.street.val.split=['vaal', 'test']")
    assert "no shards for street/vaal, street/test" in split
    command = f"semiseg data shard street --split vaal --split test --to {shards}"
    assert split.endswith(f"; did you mean 'val'? write them with: {command}")
    (name,) = problems("data.domains.street.val.dataset=stret")
    assert "unknown data set 'stret'; did you mean 'street'? known: " in name
    (taxonomy,) = problems("data.domains.street.taxonomy=street-9")
    assert "street.taxonomy=street-9': unknown taxonomy 'street-9'; did you mean 'street-8'?" in taxonomy


def test_classes_come_from_the_shards_of_a_data_set_that_is_not_installed(
    problems: Callable[..., list[str]], shards: Path
) -> None:
    class Roofs(Photos):
        name: ClassVar[str] = "roofs"
        version = "1"

        def __init__(self, root: Path | None = None, **options: Any) -> None:
            self.raw_space = RawSpace(name="roofs", names={0: "none", 1: "roof"})
            own = dict.fromkeys(range(2), 0) | {1: 1}
            colours = ((0, 0, 0), (255, 0, 0))
            roofs = Taxonomy(name="roofs", raw=self.raw_space, names=("none", "roof"), colours=colours, ids=own,
                             foreground=frozenset({1}))  # fmt: skip
            vars(self)["taxonomies"] = (roofs,)

    for split in ("photos", "sizes"):
        shard(Roofs(), split, shards)
    roofs = ("dataset='roofs', split='sizes'", "dataset='roofs', split='photos'")
    change = [
        f"data.domains.street.labeled={{{roofs[0]}, batch_size=3}}",
        f"data.domains.street.unlabeled={{{roofs[1]}, batch_size=3}}",
        f"data.domains.street.val={{{roofs[0]}}}",
    ]
    assert problems(*change, "data.domains.street.taxonomy=roofs", "data.allow_overlap=true") == []
    (taxonomy,) = problems(*change, "data.domains.street.taxonomy=rofs")
    assert "unknown taxonomy 'rofs'; did you mean 'roofs'?" in taxonomy
    wrong = problems(*change, "data.domains.street.taxonomy=street-8")
    assert len(wrong) == 2 and "holds labels of 'roofs'" in wrong[0] and "taxonomies that fit: roofs" in wrong[0]
    later = Roofs()
    vars(later)["taxonomies"] = (replace(later.taxonomies[0], names=("none", "house")),)
    later.splits = lambda: {"later": Split(name="later", samples=4)}  # type: ignore[method-assign]
    shard(later, "later", shards)
    (stale,) = problems(*change, "data.domains.street.taxonomy=roofs", "data.domains.street.val.split=later")
    assert "val.split=later': roofs/later was written with other classes in taxonomy 'roofs'" in stale


def test_labels_must_exist_and_fit(problems: Callable[..., list[str]]) -> None:
    found = problems("data.domains.street.taxonomy=room-9")
    assert len(found) == 2  # labeled and val; masks of unlabeled images are not checked
    assert (
        "street/train holds labels of 'street', taxonomy 'room-9' reads 'room'; taxonomies that fit: street-8"
        in found[0]
    )
    (masks,) = problems("data.domains.street.val.split=photos")
    assert "street/photos holds no masks, and masks are needed here" in masks
    (subset,) = problems(
        "data.domains.street.unlabeled={dataset='street', split='photos', batch_size=3, subset={count=2}}"
    )
    assert "street/photos holds no masks, and a subset is chosen by its masks" in subset


def test_counts(problems: Callable[..., list[str]]) -> None:
    (count,) = problems("data.domains.street.labeled.subset.count=19")
    assert "asks for 19 of 18 samples; ask for 18 at most" in count
    nothing = problems("data.domains.street.labeled.subset=")
    assert len(nothing) == 1 and "minus: nothing is left: all 18 images are labeled" in nothing[0]
    assert len(problems("data.domains.street.labeled.subset.count=18")) == 1
    assert problems("data.domains.street.labeled.subset=", "data.domains.street.unlabeled.split=photos") == []


def test_key_files(problems: Callable[..., list[str]], shards: Path, tmp_path: Path) -> None:
    keys = ShardSet(str(shards / "street" / "train")).keys()
    (tmp_path / "good.txt").write_text("\n".join(keys[:3]))
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bad.txt").write_text(f"{keys[0]}\n{keys[0]}x\n")
    source = "data.domains.street.labeled={{dataset='street', split='train', batch_size=3, ids='{}'}}"
    assert problems(source.format(tmp_path / "good.txt")) == []
    assert "is empty; write one key a line" in problems(source.format(tmp_path / "empty.txt"))[0]
    assert f"nearest to '{keys[0]}x' is '{keys[0]}'" in problems(source.format(tmp_path / "bad.txt"))[0]
    assert "No such file" in problems(source.format(tmp_path / "none.txt"))[0]


def test_images_must_stack(problems: Callable[..., list[str]]) -> None:
    mixed = ["data.domains.street.unlabeled.split=sizes", "data.domains.street.augment={}"]
    (found,) = problems(*mixed)
    assert "images of 2 sizes (32x40, 32x48) do not stack into batches; add augment.crop" in found
    assert problems(*mixed, "data.domains.street.augment.resize=[32, 32]") == []
    assert problems(*mixed, "model.context.kind=none", world=3) == []  # one image a process


def test_pixels_are_ranked_within_one_micro_step(problems: Callable[..., list[str]]) -> None:
    """A mean over the batch can be split; ranks can't."""
    for world, accumulate in ((2, 1), (1, 2)):
        more = ("model.norm=frozen", "model.context.kind=none", f"accumulate={accumulate}")
        assert problems("objectives.0.loss={kind='cross_entropy', pool='batch'}", *more, world=world) == []
        (fault,) = problems("objectives.0.loss={kind='bootstrapped', pool='batch'}", *more, world=world)
        assert '"batch" ranks the pixels of one micro-step of one process, and a batch has 2 such parts' in fault


def test_every_process_needs_an_image(problems: Callable[..., list[str]]) -> None:
    none = ["model.context.kind=none"]
    assert problems(*none, world=3) == []
    few = problems(*none, world=4)
    assert len(few) == 2
    assert "batch_size: 3 images for 4 processes; raise it to at least 4, or use fewer processes" in few[0]
    assert (
        "3 images for 2 processes and accumulate = 2 micro-steps; raise it to at least 4"
        in problems(*none, "accumulate=2", world=2)[0]
    )


@pytest.mark.parametrize(
    ("norm", "world", "faults"), [("batch", 2, 2), ("batch", 1, 0), ("frozen", 3, 0), ("sync", 3, 0)]
)
def test_psp_needs_two_images_for_batch_norm(
    problems: Callable[..., list[str]], norm: str, world: int, faults: int
) -> None:
    found = problems(f"model.norm={norm}", world=world)
    assert len(found) == faults
    assert all(
        "one image at a time" in line and 'raise it to 4, or set model.norm = "frozen" or "sync"' in line
        for line in found
    )


def test_weights_must_exist(problems: Callable[..., list[str]], tmp_path: Path) -> None:
    assert "'weights/none.pth' does not exist; expected" in problems("model.encoder.weights=weights/none.pth")[0]
    assert problems(f"model.encoder.weights={tmp_path}") == []


def test_all_problems_are_reported_at_once(problems: Callable[..., list[str]]) -> None:
    found = problems(
        "data.domains.street.taxonomy=street-9", "data.domains.street.val.split=test", "model.encoder.weights=none.pth",
        "data.domains.street.labeled.subset.count=90", world=4,
    )  # fmt: skip
    wrong = (
        "labeled.batch_size",
        "unlabeled.batch_size",
        "street.taxonomy",
        "val.split",
        "encoder.weights",
        "count=90",
    )
    assert len(found) == len(wrong)
    assert all(any(key in line for line in found) for key in wrong)
