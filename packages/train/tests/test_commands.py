"""The commands as a user types them, in separate processes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.processes import python, run, torchrun


def semiseg(*arguments: str | Path, expect: int = 0) -> str:
    """Run `semiseg ...`; returns stdout and stderr, which never contain a traceback."""
    done = python("-m", "semiseg.cli", *arguments, expect=expect)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(scenes: Path, taxonomies: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two domains."""
    from conftest import RECIPE, ROOM

    folder = tmp_path_factory.mktemp("trained")
    recipe = folder / "tiny.toml"
    room = ROOM.format(**taxonomies)
    recipe.write_text(RECIPE.format(runs=folder / "runs", shards=scenes, street=taxonomies["street"], room=room))
    out = semiseg("train", recipe, "steps=4")
    assert "results.json" in out and "semiseg eval" in out
    return folder / "runs" / "tiny"


def test_a_run_folder_holds_what_it_promises(trained: Path):
    assert {"recipe.toml", "env.json", "metrics.jsonl", "results.json", "best-00000004", "subsets"} <= {
        path.name for path in trained.iterdir()
    }
    step = sorted(trained.glob("step-*"))[-1]
    assert {path.name for path in step.iterdir()} == {
        "config.json", "model.safetensors", "learner.safetensors", "optimizer.pt", "state.json", "seal.json"
    }  # fmt: skip
    results = json.loads((trained / "results.json").read_text())
    assert results["last"]["step"] == 4 and results["last"]["domains"].keys() == {"street", "room"}
    assert not [path for path in trained.rglob("*") if path.name.endswith(".part")]


def test_eval_gives_the_numbers_of_training(trained: Path):
    scores = json.loads(python("-m", "semiseg.cli", "eval", trained, "--json").stdout)
    results = json.loads((trained / "results.json").read_text())
    for domain in ("street", "room"):
        assert scores[domain] == results["last"]["domains"][domain]


def test_eval_takes_another_split_or_other_shards(trained: Path):
    out = semiseg("eval", trained, "--domain", "street", "--split", "train")
    assert "street: 18 images" in out
    assert "nonsense" in semiseg("eval", trained, "--split", "nonsense", expect=1)


def test_eval_of_a_saved_model_needs_data(trained: Path, scenes: Path):
    shutil.copytree(sorted(trained.glob("step-*"))[-1], trained.parent / "alone", dirs_exist_ok=True)
    assert "--dataset" in semiseg("eval", trained.parent / "alone", expect=1)
    arguments = ("--domain", "room", "--dataset", "room", "--shards", scenes)
    assert "room: 5 images" in semiseg("eval", trained.parent / "alone", *arguments)


def test_predict_writes_ids_in_the_classes_colours(trained: Path, tmp_path: Path):
    images = tmp_path / "in" / "deep er"
    images.mkdir(parents=True)
    grey = Image.fromarray(np.linspace(0, 255, 70 * 50).reshape(50, 70).astype(np.uint8))
    grey.save(images / "grey.PNG")
    Image.new("RGB", (33, 65), (200, 30, 30)).save(tmp_path / "in" / "größe.jpg")
    semiseg("predict", trained, tmp_path / "in", "--out", tmp_path / "out", "--domain", "street", "--overlay")
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["deep er/grey.overlay.jpg", "deep er/grey.png", "größe.overlay.jpg", "größe.png"]
    mask = Image.open(tmp_path / "out" / "deep er" / "grey.png")
    assert mask.mode == "P" and mask.size == (70, 50)
    from semiseg.data import Taxonomy, open_dataset

    taxonomy = Taxonomy.get(open_dataset("street").taxonomies[0].name)
    ids = np.array(mask)
    assert ids.max() < len(taxonomy.names)
    colours = np.array(mask.convert("RGB"))
    np.testing.assert_array_equal(colours, np.array(taxonomy.colours, np.uint8)[ids])


def test_a_domain_can_be_added_with_the_encoder_frozen_and_taken_out(
    recipe_file: Callable[..., Path], scenes: Path, tmp_path: Path
):
    """The old domain's predictions are bit-identical right after the domain is added and after training."""
    import torch

    from semiseg.data import ShardSet
    from semiseg.models import from_pretrained
    from semiseg.train.assemble.model import build_model
    from semiseg.train.recipe.load import load
    from semiseg.train.recipe.shards import classes_of

    semiseg("train", recipe_file(), "steps=3")
    old = tmp_path / "runs" / "tiny"
    text = recipe_file(domains=2).read_text()
    street = text[text.index("[data.domains.street]") : text.index("[data.domains.room]")]
    added = tmp_path / "added.toml"
    added.write_text(text.replace(street, ""))
    changes = [f"model.start={old}", "model.norm=frozen", "model.freeze=encoder", "name=added", "steps=3"]
    picture = np.array(ShardSet(scenes / "street" / "val")[0].image)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None]
    with torch.inference_mode():
        before = from_pretrained(old)(pixels)
        recipe = load(added, changes)
        assert torch.equal(build_model(recipe.model, classes_of(recipe)).eval()(pixels, "street"), before)
        semiseg("train", added, *changes)
        after = from_pretrained(tmp_path / "runs" / "added")
        assert torch.equal(after(pixels, "street"), before)
        semiseg("export", tmp_path / "runs" / "added", "--domain", "room", "--to", tmp_path / "room")
        alone = from_pretrained(tmp_path / "room")
        assert list(alone.classes) == ["room"] and torch.equal(alone(pixels), after(pixels, "room"))
    assert set(after.metadata["taxonomies"]) == {"street", "room"} and set(alone.metadata["taxonomies"]) == {"room"}
    out = semiseg("eval", tmp_path / "runs" / "added", "--domain", "street", "--dataset", "street", "--shards", scenes)
    assert "street: 5 images" in out
    assert "not an empty folder" in semiseg("export", old, "--to", tmp_path / "room", expect=1)
    assert "of 32 channels" in semiseg("train", added, *changes, "name=x", "model.context.channels=16", expect=1)


def test_an_unknown_encoder_is_one_clear_error(recipe_file: Callable[..., Path]):
    """The second try has another recipe: it may use the folder, as that has no checkpoint."""
    assert "did you mean" in semiseg("train", recipe_file(), "model.encoder.name=resnet5", expect=1)
    assert "output stride" in semiseg(
        "train", recipe_file(), "model.encoder.name=swin_tiny_patch4_window7_224", expect=1
    )


def test_predict_names_what_it_cannot_read(trained: Path, tmp_path: Path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    out = semiseg("predict", trained, tmp_path, "--out", tmp_path / "out", "--domain", "room", expect=1)
    assert "broken.jpg" in out
    assert "choose one with --domain: street, room" in semiseg("predict", trained, tmp_path, "--out", "x", expect=1)
    assert "nowhere" in semiseg("predict", trained, tmp_path / "nowhere", "--out", "x", "--domain", "room", expect=1)
    (tmp_path / "broken.png").write_bytes(b"")
    twice = semiseg("predict", trained, tmp_path, "--out", tmp_path / "out", "--domain", "room", expect=1)
    assert "broken.jpg" in twice and "broken.png" in twice and "separately" in twice


def test_predictions_never_overwrite_images(trained: Path, tmp_path: Path):
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    Image.new("RGB", (40, 30), "red").save(photos / "x.png")
    before = (photos / "x.png").read_bytes()
    street = ("--domain", "street")
    assert "is the folder of the images" in semiseg("predict", trained, photos, *street, "--out", photos, expect=1)
    one = semiseg("predict", trained, photos / "x.png", *street, "--out", photos, expect=1)
    assert "an image that its mask would overwrite" in one
    assert (photos / "x.png").read_bytes() == before and {path.name for path in photos.iterdir()} == {"more", "x.png"}
    for _ in range(2):  # masks of the first time are not images of the second
        out = semiseg("predict", trained, photos, *street, "--out", photos / "masks", "--overlay")
        assert out.startswith("1 masks of") or "\n1 masks of" in out
    assert {path.name for path in (photos / "masks").iterdir()} == {"x.png", "x.overlay.jpg"}


def test_a_saved_model_is_evaluated_with_the_views_of_its_run(
    recipe_file: Callable[..., Path], scenes: Path, tmp_path: Path
):
    semiseg(
        "train",
        recipe_file(),
        "steps=40",
        "evaluate.scales=[0.5]",
        "evaluate.flip=true",
        "evaluate.tile={size=[32, 32]}",
    )
    run = tmp_path / "runs" / "tiny"
    score = json.loads((run / "results.json").read_text())["last"]["domains"]["street"]["miou"]
    evaluate = ("-m", "semiseg.cli", "eval")
    semiseg("export", run, "--to", tmp_path / "exported")
    for place in (run / "step-00000040", tmp_path / "exported"):
        scores = json.loads(python(*evaluate, place, "--dataset", "street", "--shards", scenes, "--json").stdout)
        assert scores["street"]["miou"] == score
    plain = ("--scale", "1", "--no-flip", "--tile", "0", "0")
    scores = json.loads(python(*evaluate, run, *plain, "--json").stdout)
    assert scores["street"]["miou"] != score


def test_the_quickstart_from_scenes_to_a_picture(tmp_path: Path):
    """A short one: two updates of each run."""
    out = semiseg("quickstart", "--to", tmp_path, "--steps", "2")
    assert all(word in out for word in ("person", "road", "mean", "CCT %"))
    with Image.open(tmp_path / "predictions.png") as sheet:
        assert sheet.width > 4 * 128
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["quickstart", "quickstart-supervised"]
    assert "already complete" in semiseg("quickstart", "--to", tmp_path, "--steps", "2")


def test_a_folder_without_a_model(tmp_path: Path):
    assert "model.safetensors" in semiseg("eval", tmp_path, expect=1)


def test_dry_run_describes_the_run_and_writes_nothing(recipe_file: Callable[..., Path], tmp_path: Path):
    recipe = recipe_file()
    out = semiseg("train", recipe, "--dry-run")
    assert "6 of 18 images" in out and "12 of 18 images" in out and "5 images" in out
    assert not (tmp_path / "runs").exists()


def test_five_mistakes_at_once(recipe_file: Callable[..., Path]):
    recipe = recipe_file()
    recipe.write_text(
        recipe.read_text()
        .replace('kind = "dropout"', 'kind = "droput"')
        .replace("value = 10", "vlaue = 10")
        .replace("lr = 0.05", "lr = -1")
        .replace('norm = "batch"', 'norm = "group"')
    )
    for start in (("-m", "semiseg.cli", "train"), ("-m", "semiseg.train")):
        done = python(*start, recipe, "optimizer.lrr=0.1", expect=1)
        assert "Traceback" not in done.stderr
        for word in (
            "'droput'",
            "did you mean 'dropout'",
            "vlaue",
            "optimizer.lr",
            "group",
            "argument 'optimizer.lrr=0.1'",
        ):
            assert word in done.stderr
        assert done.stderr.count("tiny1.toml:") >= 4


def test_missing_shards_name_the_command_that_writes_them(recipe_file: Callable[..., Path], tmp_path: Path):
    out = semiseg("train", recipe_file(), f"data.shards={tmp_path}/empty", expect=1)
    assert "semiseg data shard street" in out


def test_an_unwritable_run_folder(recipe_file: Callable[..., Path], tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert "runs=FOLDER" in semiseg("train", recipe_file(), f"runs={tmp_path}/file", expect=1)


def test_help_needs_no_torch_and_doctor_finds_no_problem():
    probe = (
        "import sys, semiseg.cli.main as m; m.build_app(); print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    )
    assert python("-c", probe).stdout.strip() in ("[]", "['rich']")
    report = json.loads(python("-m", "semiseg.cli", "doctor", "--json").stdout)
    assert report["problems"] == [] and "street" in report["datasets"] and report["torch"]["torchvision"] == "ok"


def test_usage_errors_exit_with_2():
    run("semiseg", "train", expect=2)
    run("semiseg", "nonsense", expect=2)
    python("-m", "semiseg.train", expect=2)
    message = python("-m", "semiseg.train", "quickstart", "--dryrun", expect=2).stderr
    assert message == "error: unknown option '--dryrun'; did you mean '--dry-run'?\n"


def test_a_dry_run_of_a_launcher_is_one_process(
    recipe_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """It prints once what `semiseg train --dry-run` prints; preflight checks use the number of launched processes."""
    from semiseg.train.__main__ import main
    from semiseg.train.dry_run import preview
    from semiseg.train.recipe.load import load

    recipe = recipe_file()
    expected = preview(load(recipe, ["model.norm=frozen"])).partition("  measured on")[0]
    launched = torchrun(2, "-m", "semiseg.train", "--dry-run", recipe, "model.norm=frozen").stdout
    assert launched.startswith(expected + "  measured on") and launched.count("measured on") == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([str(recipe), "--dry-run"]) == 1
    assert "one image at a time for each of 2 processes" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
