"""Masks of files and of shards, in every format; options on the command line against the recipe of the run."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from semiseg.cli.main import build_app
from semiseg.data import DataError, RawSpace, SemisegError, ShardSet, Taxonomy
from semiseg.models import create_segmenter, from_pretrained, save_pretrained
from semiseg.train import Views, evaluate, load
from semiseg.train.assemble.sources import build_sources
from semiseg.train.score.predict import raw_ids, with_raw_ids
from semiseg.train.score.saved import build_views, open_model, views_of
from semiseg.train.score.views import predict_ids


def semiseg(*arguments: object) -> str:
    """The stdout of a command; raises what the command raises."""
    done = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def model(taxonomies: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with random weights and named classes."""
    taxonomy = Taxonomy.get(taxonomies["street"])
    torch.manual_seed(0)
    classes = {"street": len(taxonomy.names)}
    built = create_segmenter(encoder="test_resnet", classes=classes, weights="none", context_channels=16).eval()
    described = {"name": taxonomy.name, "names": list(taxonomy.names), "colours": [list(c) for c in taxonomy.colours]}
    folder = tmp_path_factory.mktemp("predict") / "model"
    return save_pretrained(built, folder, metadata={"taxonomies": {"street": described}})


def test_shards_are_predicted_by_key_in_every_format(
    model: Path, scenes: Path, taxonomies: dict[str, str], tmp_path: Path
) -> None:
    shards, network = ShardSet(str(scenes / "street" / "val")), from_pretrained(model)
    taxonomy = Taxonomy.get(taxonomies["street"])
    raw_of = {number: min(raw for raw, c in taxonomy.ids.items() if c == number) for number in taxonomy.ids.values()}
    for form in ("ids", "colour", "raw"):
        semiseg("predict", model, shards.url, "--out", tmp_path / form, "--format", form, "--flip", "--tile", 32, 32)
        written = sorted(path.relative_to(tmp_path / form) for path in (tmp_path / form).rglob("*.*"))
        assert written == sorted(Path(f"{key}.png") for key in shards.keys())  # noqa: SIM118
    views = Views(flip=True, tile=(32, 32))
    for sample in shards:
        pixels = torch.from_numpy(np.array(sample.image.convert("RGB"))).permute(2, 0, 1)
        with torch.inference_mode():
            ids = predict_ids(network, pixels, domain=None, size=(48, 64), views=views).numpy()
        masks = {form: Image.open(tmp_path / form / f"{sample.key}.png") for form in ("ids", "colour", "raw")}
        assert [mask.mode for mask in masks.values()] == ["P", "RGB", "L"]
        assert {mask.size for mask in masks.values()} == {(64, 48)}
        np.testing.assert_array_equal(np.array(masks["ids"]), ids)
        np.testing.assert_array_equal(np.array(masks["colour"]), np.array(taxonomy.colours, np.uint8)[ids])
        np.testing.assert_array_equal(np.array(masks["raw"]), np.vectorize(raw_of.get)(ids))
        np.testing.assert_array_equal(taxonomy.map(np.array(masks["raw"])), ids)


def test_shards_without_labels_are_predicted_too(
    model: Path, write_unlabeled: Callable[[Path], str], tmp_path: Path
) -> None:
    url = write_unlabeled(tmp_path / "shards")
    semiseg("predict", model, url, "--out", tmp_path / "masks", "--format", "raw")
    assert len(list((tmp_path / "masks").rglob("*.png"))) == len(ShardSet(url))


def test_cityscapes_masks_hold_the_label_ids_of_its_server() -> None:
    """Ids of the 19 classes, as the publisher's labels.py lists them."""
    table = raw_ids(Taxonomy.get("cityscapes-19"))
    assert table.tolist() == [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert table.dtype == np.uint8


def test_raw_ids_are_the_lowest_of_a_class_and_of_sixteen_bits_if_necessary() -> None:
    def taxonomy(ids: dict[int, int], names: tuple[str, ...] = ("a", "b")) -> Taxonomy:
        raw = RawSpace(name="r", names={number: str(number) for number in (*ids, 0)})
        colours = ((0, 0, 0),) * len(names)
        return Taxonomy(name="t", raw=raw, names=names, colours=colours, ids=ids, foreground=frozenset())

    assert raw_ids(taxonomy({9: 0, 4: 0, 7: 1})).tolist() == [4, 7]
    wide = raw_ids(taxonomy({300: 1, 2: 0}))
    assert wide.tolist() == [2, 300] and wide.dtype == np.uint16
    with pytest.raises(DataError, match="no raw id for b"):
        raw_ids(taxonomy({9: 0}))
    with pytest.raises(DataError, match="differ from those of taxonomy 't'"):
        with_raw_ids(taxonomy({1: 0, 2: 1}), [taxonomy({1: 0}, ("a",))])
    with pytest.raises(DataError, match=r"ids of taxonomy 't' are unknown here.*; predict shards, .* --format ids"):
        with_raw_ids(taxonomy({1: 0, 2: 1}))


def test_a_file_is_no_model(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"x")
    with pytest.raises(SemisegError, match=r"photo\.png is a file; expected the folder of a run or of a saved model"):
        open_model(str(photo))


def test_impossible_places_and_sizes_are_clear_errors(model: Path, scenes: Path, tmp_path: Path) -> None:
    shards = scenes / "street" / "val"
    for arguments, message in (
        (("predict", model, shards, shards, "--out", tmp_path), "in a separate command"),
        (("predict", model, shards, "--out", tmp_path, "--tile", 0, 32), "--tile 0 32 is not a size"),
        (("predict", model, tmp_path / "nowhere", "--out", tmp_path), "no such file or folder"),
    ):
        with pytest.raises(SemisegError, match=message):
            semiseg(*arguments)


def test_the_command_line_takes_precedence_over_the_recipe(recipe_file: Callable[..., Path]) -> None:
    settings = ["evaluate.scales=[0.5, 1]", "evaluate.flip=true", "evaluate.tile={size=[30, 40], overlap=0.25}"]
    recipe = load(recipe_file(), settings)
    planned = Views(scales=(0.5, 1.0), flip=True, tile=(30, 40), overlap=0.25)
    assert build_views(recipe.evaluate) == planned
    assert build_sources(recipe, fill=(0, 0, 0)).validation["street"].views == planned
    assert views_of(recipe, {}) == planned
    given = views_of(recipe, {}, scale=[2.0], flip=False, tile=(0, 0), overlap=0.5)
    assert given == Views(scales=(2.0,), flip=False, tile=None, overlap=0.5)
    assert views_of(None, {}, tile=(8, 9)) == Views(tile=(8, 9))
    assert build_views(load(recipe_file()).evaluate) == Views()


def test_eval_takes_views(model: Path, scenes: Path, taxonomies: dict[str, str]) -> None:
    shards, taxonomy = ShardSet(str(scenes / "street" / "val")), Taxonomy.get(taxonomies["street"])
    views = Views(scales=(0.5, 1.0), flip=True, tile=(32, 40), overlap=0.5)
    expected = evaluate(from_pretrained(model), shards, taxonomy, views=views).to_json()
    data = ("--dataset", "street", "--shards", scenes, "--workers", 0, "--json")
    looks = ("--scale", 0.5, "--scale", 1, "--flip", "--tile", 32, 40, "--overlap", 0.5)
    found = json.loads(semiseg("eval", model, *data, *looks))["street"]
    assert found == expected
    assert found != json.loads(semiseg("eval", model, *data))["street"]
