"""Validation images among the training images are refused, whichever way they got there."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from PIL import Image

from semiseg.data import (
    Adapter,
    OverlaySet,
    RawSample,
    RawSpace,
    ShardSet,
    Split,
    Taxonomy,
    open_dataset,
    shard,
    write_overlay,
)
from semiseg.train.loop import train
from semiseg.train.recipe.load import RecipeError, changes, digest, load, to_toml
from semiseg.train.recipe.overlap import check_overlap
from semiseg.train.recipe.preflight import preflight

STREET = "data.domains.street"
REMEDY = "use other images for one of them, or, to measure the fit on purpose, set data.allow_overlap=true"


def picture(seed: int) -> Image.Image:
    """A smooth random picture: equal seeds are one photograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


class Own:
    """Splits of pictures, as {split: {key: bytes}}, with the labels of street."""

    summary: ClassVar[str] = "pictures"
    home: ClassVar[str] = ""
    version: str = "1"
    root: Path | None = None

    def __init__(self, name: str, images: dict[str, dict[str, bytes]]) -> None:
        self.name, self.images = name, images
        street = open_dataset("street")
        self.raw_space: RawSpace = street.raw_space
        self.taxonomies: tuple[Taxonomy, ...] = street.taxonomies

    def splits(self) -> dict[str, Split]:
        return {name: Split(name=name, samples=len(images)) for name, images in self.images.items()}

    def samples(self, split: str) -> Iterator[RawSample]:
        for key, image in sorted(self.images[split].items()):
            width, height = Image.open(io.BytesIO(image)).size
            label = (np.arange(width * height) % 3).astype(np.uint8).reshape(height, width)
            yield RawSample(key=key, image=image, label=lambda label=label: label, size=len(image))


@pytest.fixture
def faults(recipe_file: Callable[..., Path], tmp_path: Path) -> Callable[..., list[str]]:
    """Shards of these pictures, and the faults of a recipe on them."""

    def check(images: dict[str, dict[str, dict[str, bytes]]], *overrides: str) -> list[str]:
        for name, splits in images.items():
            for split in splits:
                shard(cast(Adapter, Own(name, splits)), split, tmp_path / "own")
        own = [f"data.shards={tmp_path / 'own'}", f"{STREET}.labeled.subset=", f"{STREET}.unlabeled="]
        own += [f"{STREET}.labeled.dataset=a", f"{STREET}.val.dataset=a", "objectives=[{kind='supervised'}]"]
        try:
            preflight(load(recipe_file(), [*own, *overrides]))
        except RecipeError as error:
            return list(error.faults)
        return []

    return check


def test_a_recipe_names_the_images_that_both_use(recipe_file: Callable[..., Path], scenes: Path) -> None:
    path = recipe_file()
    with pytest.raises(RecipeError) as caught:
        preflight(load(path, [f"{STREET}.labeled.split=val", f"{STREET}.labeled.subset.count=4"]))
    keys = [f"val-{number:06}" for number in range(5)]
    (fault,) = caught.value.faults
    line = 1 + path.read_text().splitlines().index('val = { dataset = "street", split = "val" }')
    start = f"{path}:{line}: {STREET}.val: 4 of 5 validation images are also training images: "
    start += f"4 in labeled ({scenes}/street/val): "
    assert fault.startswith(start) and fault.endswith(f", ...; {REMEDY}")
    assert all(key in keys for key in fault.removeprefix(start).partition(", ...")[0].split(", "))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([f"{STREET}.unlabeled.split=val"], "5 of 5 validation images are also training images: 5 in unlabeled ("),
        ([f"{STREET}.unlabeled.split=['train', 'val']"], "5 of 5"),
        ([f"{STREET}.val.split=train"], "18 of 18"),
        ([f"{STREET}.val.split=['val', 'train']"], "18 of 23"),
        ([f"{STREET}.val.split=train", f"{STREET}.unlabeled.subset.count=7"], ""),
        (["data.domains.room.unlabeled.dataset=street", "data.domains.room.unlabeled.split=val"], "5 of 5"),
    ],
)
def test_unlabeled_images_of_any_domain_count(tiny: Callable[..., Any], overrides: list[str], words: str) -> None:
    domains = 2 if "room" in overrides[0] else 1
    with pytest.raises(RecipeError) as caught:
        preflight(tiny(*overrides, domains=domains))
    (fault,) = caught.value.faults
    assert words in fault
    if domains == 2:
        assert "5 in data.domains.room.unlabeled (" in fault


def test_only_the_samples_that_are_used_are_compared(tiny: Callable[..., Any], scenes: Path, tmp_path: Path) -> None:
    keys = ShardSet(scenes / "street" / "train").keys()
    lists = {"a": keys[:6], "b": keys[6:12], "c": keys[12:]}
    for name, chosen in lists.items():
        (tmp_path / name).write_text("\n".join(chosen))
    fold = [f"{STREET}.labeled.subset=", f"{STREET}.val.split=train", f"{STREET}.unlabeled.minus="]
    fold += [
        f"{STREET}.{role}.ids={tmp_path / name}"
        for role, name in zip(("labeled", "unlabeled", "val"), "abc", strict=True)
    ]
    preflight(tiny(*fold))
    with pytest.raises(RecipeError, match=f"1 of 6 validation images are .*: 1 in unlabeled .*: {keys[12]}; use other"):
        (tmp_path / "b").write_text("\n".join(keys[6:13]))
        preflight(tiny(*fold))


def test_extra_crops_and_pseudo_labels_count(
    tiny: Callable[..., Any], scenes: Path, taxonomies: dict[str, str]
) -> None:
    extra = f"{STREET}.labeled.class_uniform={{extra={{dataset='street', split='val'}}}}"
    with pytest.raises(RecipeError, match=r"5 of 5 .*: 5 in labeled\.class_uniform\.extra \("):
        preflight(tiny(extra))
    val = ShardSet(scenes / "street" / "val")
    taxonomy = Taxonomy.get(taxonomies["street"])
    place = f"{val.url}@leak"
    write_overlay(val, "leak", taxonomy, lambda i: taxonomy.map(val[i].label), settings={"by": "test"}, rows=[1, 3])  # type: ignore[arg-type]
    assert (OverlaySet(place).image_checksums() == val.image_checksums()[[1, 3]]).all()
    weak = [f"{STREET}.weak={{dataset='street', split='val', overlay='leak', batch_size=2}}"]
    weak.append("objectives=[{kind='supervised'}, {kind='supervised', on='weak'}]")
    with pytest.raises(RecipeError, match=r"2 of 5 validation images .*: 2 in weak \(.*: val-000001, val-000003; "):
        check_overlap(tiny(*weak, f"{STREET}.unlabeled="))


def test_equal_bytes_under_other_names_are_one_image(faults: Callable[..., list[str]]) -> None:
    one, two, three, four = (encoded(picture(number)) for number in range(4))
    copies = {"a": {"train": {"x": one, "y": two, "z": three}, "val": {"v": four, "w": two}}}
    (fault,) = faults(copies)
    assert "1 of 2 validation images are also training images: 1 in labeled (" in fault and "/a/train): w; " in fault
    (fault,) = faults({"b": {"val": {"p": three, "q": four}}}, f"{STREET}.val.dataset=b")
    assert "1 of 2 validation images" in fault and "/a/train): p; " in fault


def test_equal_keys_prove_nothing_but_equal_photographs_do(faults: Callable[..., list[str]]) -> None:
    train = {f"{number:03}": encoded(picture(number)) for number in range(20)}
    others = {f"{number:03}": encoded(picture(100 + number)) for number in range(20)}
    assert faults({"a": {"train": train, "val": others}}) == []
    smaller = {f"{number:03}": encoded(picture(number).resize((72, 54)), "JPEG") for number in range(20)}
    (fault,) = faults({"b": {"val": smaller}}, f"{STREET}.val.dataset=b")
    assert "20 of 20 validation images" in fault
    some = {**others, "000": encoded(picture(0).resize((72, 54)))}
    (fault,) = faults({"c": {"val": some}}, f"{STREET}.val.dataset=c")
    assert "1 of 20 validation images" in fault and "): 000; " in fault


def test_weights_of_a_run_that_trained_on_the_validation_images(tiny: Callable[..., Any], tmp_path: Path) -> None:
    swapped = [f"{STREET}.labeled.split=val", f"{STREET}.labeled.subset=", f"{STREET}.unlabeled=", f"{STREET}.val="]
    swapped.append("objectives=[{kind='supervised'}]")
    overrides = {"first": swapped, "second": [f"model.start={tmp_path / 'first'}"]}
    for name, changed in overrides.items():  # as `train` writes them
        (tmp_path / name / "step-00000002").mkdir(parents=True)
        (tmp_path / name / "recipe.toml").write_text(to_toml(tiny(*changed)))
    first, second = tmp_path / "first", tmp_path / "second"
    weights = {
        f"model.start={first}": f"model.start = {first}: street.labeled (",
        f"model.start={first / 'step-00000002'}": f"model.start = {first}: street.labeled (",
        f"model.encoder.weights={first}": f"model.encoder.weights = {first}: street.labeled (",
        f"model.start={second}": f"model.start = {second}, which started from {first}: street.labeled (",
    }
    for override, where in weights.items():
        with pytest.raises(RecipeError) as raised:
            check_overlap(tiny(override))
        (fault,) = raised.value.faults
        assert "5 of 5 validation images are also training images: 5 in " + where in fault
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "recipe.toml").write_text(to_toml(tiny()))
    assert check_overlap(tiny(f"model.start={tmp_path / 'clean'}")) == ()
    (first / "recipe.toml").write_text(to_toml(tiny(*swapped, f"model.start={second}")))  # a circle ends
    assert "which started from" in check_overlap(tiny(f"model.start={second}", "data.allow_overlap=true"))[0]


def test_overlays_are_no_splits(tiny: Callable[..., Any]) -> None:
    words = {
        "labeled": f"add {STREET}.weak=\"{{dataset='street',split='train',overlay='cam',batch_size=3}}\" and an objective",
        "unlabeled": f"name the split: {STREET}.unlabeled.split=train",
        "val": f"name the split: {STREET}.val.split=train",
    }
    for role, remedy in words.items():
        with pytest.raises(RecipeError) as raised:
            preflight(tiny(f"{STREET}.{role}.split=train@cam"))
        (fault,) = raised.value.faults
        assert "'train@cam' holds pseudo-labels of 'train'; " in fault and remedy in fault


def test_an_overlap_that_is_allowed_is_recorded(tiny: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    leaky = tiny(f"{STREET}.unlabeled.split=['train', 'val']", "steps=2", "checkpoint.every=2")
    with pytest.raises(RecipeError, match="5 of 5 validation images"):
        train(leaky, quiet=True)
    allowed = replace(leaky, data=replace(leaky.data, allow_overlap=True))
    assert digest(leaky) == digest(allowed) and changes(leaky, allowed) == []
    run = train(allowed)
    (told,) = json.loads((run.folder / "results.json").read_text())["overlap"]
    assert told.startswith("street: 5 of 5 validation images are also training images: 5 in unlabeled (")
    assert told in capsys.readouterr().err.replace("\n", "")
    assert "overlap" not in train(tiny("name=clean", "steps=2", "checkpoint.every=2"), quiet=True).results
