"""From tags to an overlay: the classifier resumes exactly, labels equal their parts combined, the report counts right."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from semiseg.data import Adapter, OverlaySet, RawSample, RawSpace, ShardSet, Split, Taxonomy, open_dataset, shard
from semiseg.methods import DenseCrf, class_activation_maps, class_activations, pseudo_labels
from semiseg.models import Encoder
from semiseg.train.commands.weak import app
from semiseg.train.weak import classifier as weak
from semiseg.train.weak.classifier import FILE, Fitting, WeakError, build, fit, read, tagged
from semiseg.train.weak.labels import Labeler, Labeling, Quality, activations, compare
from tests.processes import torchrun

FITTING = Fitting(masks=True, encoder="test_resnet", weights="none", steps=6, batch_size=4, crop=48)


@pytest.fixture
def street(scenes: Path, tmp_path: Path) -> ShardSet:
    """A copy of the training scenes, as overlays are written beside them."""
    import shutil

    return ShardSet(shutil.copytree(scenes / "street" / "train", tmp_path / "street" / "train"))


@pytest.fixture(scope="module")
def fitted(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a classifier fitted to the training scenes."""
    shards = ShardSet(scenes / "street" / "train")
    return fit(shards, shards.taxonomies[0], tmp_path_factory.mktemp("fitted"), FITTING, workers=0, quiet=True).parent


def test_a_logit_is_the_mean_of_its_map():
    model = build({"encoder": "test_resnet", "stride": 16, "classes": ["a", "b"], "weights": "none"}, pretrained=False)
    images = torch.rand(2, 3, 40, 56)
    maps = class_activations(model.eval().encoder(images).deep, model.head.weight)
    torch.testing.assert_close(model(images), maps.mean((2, 3)))


def test_an_interrupted_fit_resumes_to_the_same_weights(
    fitted: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shards = ShardSet(scenes / "street" / "train")
    save, saved = weak._save, []

    def cut(file: Path, content: dict[str, Any]) -> None:
        if saved:
            raise KeyboardInterrupt
        saved.append(content["step"])
        save(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(weak, "_save", cut)
        with pytest.raises(KeyboardInterrupt):
            fit(shards, shards.taxonomies[0], tmp_path, replace(FITTING), workers=0, save_every=3, quiet=True)
    assert read(tmp_path / FILE)["step"] == saved[0] < FITTING.steps
    with pytest.raises(WeakError, match=r"is at step 1 of 6; rerun the `semiseg weak fit`"):
        Labeler(tmp_path, shards, shards.taxonomies[0], Labeling())
    fit(shards, shards.taxonomies[0], tmp_path, FITTING, workers=0, save_every=3, quiet=True)
    uninterrupted, resumed = read(fitted / FILE), read(tmp_path / FILE)
    assert uninterrupted["step"] == resumed["step"] == 6
    for name, value in uninterrupted["model"].items():
        assert torch.equal(value, resumed["model"][name]), name


def test_processes_without_an_image_are_one_clear_error(scenes: Path, tmp_path: Path):
    command = ("-m", "semiseg.cli", "weak", "fit", scenes / "street" / "train", "--to", tmp_path, "--tags-from-masks")
    options = ("--weights", "none", "--encoder", "test_resnet", "--batch-size", "2")
    message = torchrun(3, *command, *options, expect=1).stderr
    assert "3 processes cannot share 2 images a step; raise --batch-size to 3" in message


def test_other_settings_are_refused(fitted: Path, scenes: Path):
    shards = ShardSet(scenes / "street" / "train")
    with pytest.raises(WeakError, match=r"lr: 0.01 in the file, 0.02 now"):
        fit(shards, shards.taxonomies[0], fitted, replace(FITTING, lr=0.02), workers=0, quiet=True)
    with pytest.raises(WeakError, match="create one with `semiseg weak fit`"):
        Labeler(fitted / "nowhere", shards, shards.taxonomies[0], Labeling())


def test_labels_are_maps_thresholds_and_crf(fitted: Path, street: ShardSet):
    labeler = Labeler(fitted, street, street.taxonomies[0], Labeling(rule="paper", high=0.5))
    label = labeler(3)

    saved = read(fitted / FILE)
    model = build(saved["settings"], pretrained=False)
    model.load_state_dict(saved["model"])
    model.eval()
    image = torch.from_numpy(np.array(street[3].image)).permute(2, 0, 1)[None]
    pixels = street.class_pixels(street.taxonomies[0])[3]
    tags = torch.from_numpy(pixels > 0.01 * pixels.sum())
    assert 1 < tags.sum() < 8
    maps = class_activation_maps(image / 255, tags[None], lambda x: activations(model.encoder, x, model.head.weight))[0]
    crf = DenseCrf(image)
    ids = [int(i) for i in torch.nonzero(tags)]
    expected = pseudo_labels(
        maps[tags], ids, background=None, high=0.5, refine=lambda x, count: crf.refine(x[None], count)[0]
    )
    assert (label == expected.numpy()).mean() > 0.999  # maps of fewer classes at once may differ in the last bit
    assert set(np.unique(label)) <= {*ids, 255}


@torch.no_grad()
def test_maps_of_odd_sizes_are_those_of_the_extended_image_cropped():
    torch.manual_seed(0)
    encoder = Encoder("test_resnet", stride=8, pretrained=False).eval()
    weight = torch.randn(3, encoder.channels)
    image = torch.rand(1, 3, 33, 43)
    extended = torch.empty(1, 3, 40, 48)
    for y in range(40):
        for x in range(48):
            extended[..., y, x] = image[..., y if y < 33 else 64 - y, x if x < 43 else 84 - x]
    cells = class_activations(encoder(extended).deep, weight).relu()
    expected = torch.nn.functional.interpolate(cells, (40, 48), mode="bilinear")[..., :33, :43]
    assert torch.equal(activations(encoder, image, weight), expected)
    whole = extended[..., :32, :40]
    assert torch.equal(activations(encoder, whole, weight), class_activations(encoder(whole).deep, weight))


def test_the_report_counts_every_pixel():
    taxonomy = pets()
    truth = np.array([[0, 0, 1, 1, 2, 255]])
    labels = np.array([[0, 1, 1, 255, 255, 2]])
    counts = compare(truth, labels, taxonomy)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1]]
    report = Quality(counts, taxonomy.names).to_json()
    assert report["coverage"] == pytest.approx(100 * 3 / 5)  # three of five pixels with a truth have a label
    assert report["precision"] == pytest.approx(100 * 2 / 3)
    assert [scores["iou"] for scores in report["classes"].values()] == pytest.approx([50, 100 / 3, 0])
    assert report["classes"]["dog"]["precision"] is None


def pets() -> Taxonomy:
    space = RawSpace(name="pets", names={0: "", 1: "", 2: "", 255: ""})
    colours = ((0, 0, 0), (200, 0, 0), (0, 200, 0))
    names = ("background", "cat", "dog")
    return Taxonomy(
        name="pets-3", raw=space, names=names, colours=colours, ids={0: 0, 1: 1, 2: 2}, foreground=frozenset()
    )


class Pets:
    """An adapter of tagged images without labels."""

    name, summary, home, version, root = "pets", "", "", "1", None
    taxonomies = (pets(),)
    raw_space = taxonomies[0].raw

    def splits(self) -> dict[str, Split]:
        return {"train": Split(name="train", samples=3, labeled=False)}

    def samples(self, split: str) -> Iterator[RawSample]:
        from io import BytesIO

        from PIL import Image

        for number, tags in enumerate([("dog",), (), ("cat", "dog")]):
            file = BytesIO()
            Image.effect_noise((40, 32), 40 + number).convert("RGB").save(file, "png")
            yield RawSample(key=f"pet{number}", image=file.getvalue(), label=None, size=1000, tags=tags)


def test_tags_of_a_publisher_and_a_background(tmp_path: Path):
    shard(cast(Adapter, Pets()), "train", tmp_path)
    shards, taxonomy = ShardSet(tmp_path / "pets" / "train"), Pets.taxonomies[0]
    found = tagged(shards, taxonomy, masks=False, least=0)
    assert (found.classes, found.background, found.rows.tolist()) == ([1, 2], 0, [0, 2])
    assert found.present.tolist() == [[False, True], [False, False], [True, True]]
    fitting = Fitting(encoder="test_resnet", weights="none", steps=2, batch_size=2, crop=32)
    fit(shards, taxonomy, tmp_path / "runs", fitting, workers=0, quiet=True)
    labeler = Labeler(tmp_path / "runs", shards, taxonomy, Labeling())
    assert set(np.unique(labeler(0))) <= {0, 2, 255}


def test_the_commands_as_documented(tmp_path: Path):
    shard(open_dataset("street", size="40x32", train_count=7, val_count=1), "train", tmp_path)
    street = ShardSet(str(tmp_path / "street" / "train"))
    runner, folder = CliRunner(), str(tmp_path / "runs")
    options = "--tags-from-masks --encoder test_resnet --weights none --steps 3 --batch-size 4 --crop 32 --workers 0"
    done = runner.invoke(app, ["fit", street.url, "--to", folder, *options.split()])
    assert done.exit_code == 0, done.exception
    assert f"next: semiseg weak labels {street.url} --classifier {folder}" in done.output
    done = runner.invoke(app, ["labels", street.url, "--classifier", folder, "--shard-size", "5KB"])
    assert done.exit_code == 0, done.exception
    assert "coverage" in done.output and "7 of 7 images have labels" in done.output

    report = json.loads((tmp_path / "runs" / "train@cam.json").read_text())
    overlay = OverlaySet(f"{street.url}@cam")
    assert len(overlay.shard_sizes) > 1
    taxonomy, own = street.taxonomies[0], overlay.taxonomy(street.taxonomies[0].name)
    right = labeled = 0
    for row, sample in zip(overlay.rows(), overlay, strict=True):
        below = street[row].label
        assert sample.label is not None and below is not None
        labels, truth = own.map(sample.label), taxonomy.map(below)
        both = (labels != 255) & (truth != 255)
        right, labeled = right + int((labels == truth)[both].sum()), labeled + int(both.sum())
    assert report["after"]["precision"] == pytest.approx(100 * right / labeled)
    assert report["images"] == 7
    assert (tmp_path / "runs" / "train@cam.png").stat().st_size > 1000
