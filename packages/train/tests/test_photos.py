"""`semiseg predict` reads photographs as `semiseg data shard` reads images: equal masks; a bad photograph costs only itself."""

import io
import json
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from semiseg.cli.main import build_app
from semiseg.data import DataError, ShardSet, inspect_image, read_rgb
from semiseg.train import load, train
from semiseg.train.score.images import find_images, read

HEIGHT, WIDTH = 48, 64
CONVERSIONS = {
    "as they are": (),
    "48x40": ("--size", "48x40"),
    "longer side": ("--size", "40"),
    "enlarged": ("--size", "96x80"),
    "jpeg": ("--format", "jpeg"),
}
RECIPE = """
name = "photos"
steps = 2
precision = "no"
runs = "{root}/runs"
[data]
shards = "{root}/shards"
workers = 0
[data.domains.own]
taxonomy = "own"
augment = {{ crop = [32, 32], flip = 0.5 }}
labeled = {{ dataset = "own", split = "train", batch_size = 4 }}
[model]
encoder = {{ name = "test_resnet", output_stride = 8, weights = "none" }}
context = {{ kind = "psp", channels = 16 }}
norm = "batch"
[[objectives]]
kind = "supervised"
[optimizer]
kind = "sgd"
lr = 0.02
"""


def semiseg(*arguments: object, code: int = 0) -> str:
    """stdout and stderr of a command."""
    done = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def scene(seed: int) -> np.ndarray:
    """A smooth colourful picture, float64 [h, w, 3] in 0..1."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
    return np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) / 255


def write_kinds(folder: Path, bits: int = 12) -> None:
    """The same kinds of pictures that cameras, scanners and programs write, and JPEGs and PNGs as usual."""
    folder.mkdir(parents=True)
    eight = [(255 * scene(seed)).round().astype(np.uint8) for seed in range(9)]
    Image.fromarray(eight[0]).save(folder / "eight.png")
    Image.fromarray(eight[0]).save(folder / "photo.JPG", quality=95)
    deep = (scene(1)[..., 0] * ((1 << bits) - 1)).astype(np.uint16)
    deep[0, 0] = (1 << bits) - 1
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep.astype(">u2")).save(folder / "deep big-endian.tif")
    Image.fromarray(scene(2)[..., 1].astype(np.float32)).save(folder / "float.tif")
    Image.fromarray(eight[3]).convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(eight[4]).save(folder / "exif.jpg", exif=exif, quality=95)
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:20] = 0
    Image.fromarray(np.dstack([eight[5], alpha])).save(folder / "alpha.png")
    palette = Image.fromarray(eight[6]).quantize(64)
    palette.save(folder / "palette.png", transparency=3)
    Image.fromarray(eight[7][..., 0]).save(folder / "grey.webp", lossless=True)


@pytest.fixture(scope="module", params=list(CONVERSIONS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with images of many kinds, their shards, and a run that was trained on these; how they were converted."""
    root = tmp_path_factory.mktemp("trained")
    images, masks = root / "own/images", root / "own/masks"
    write_kinds(images)
    masks.mkdir()
    for number, file in enumerate(sorted(images.iterdir())):
        ids = (scene(20 + number)[..., 0] * 3).astype(np.uint8)
        Image.fromarray(ids.T if file.stem == "exif" else ids).save(masks / f"{file.stem}.png")
    options = ("--option", "val=0", "--option", "range=0,1", "--option", "name=own")
    semiseg("data", "shard", "folder", root / "own", "--to", root / "shards", *options, *CONVERSIONS[request.param])
    (root / "photos.toml").write_text(RECIPE.format(root=root))
    train(load(root / "photos.toml"), quiet=True)
    return root, request.param


def masks_in(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for file in sorted(folder.glob("*.png")):
        with Image.open(file) as mask:
            found[file.stem] = np.array(mask)
    return found


def test_photos_and_their_shards_are_predicted_alike(trained: tuple[Path, str], tmp_path: Path) -> None:
    root, how = trained
    run, shards = root / "runs/photos", ShardSet(root / "shards/own/train")
    semiseg("predict", run, shards.url, "--out", tmp_path / "shards")
    said = semiseg("predict", run, root / "own/images", "--out", tmp_path / "photos")
    of_shards, of_photos = masks_in(tmp_path / "shards"), masks_in(tmp_path / "photos")
    of_photos = {name.replace(" ", "_"): mask for name, mask in of_photos.items()}
    assert len(of_photos) == 10 and of_photos.keys() == of_shards.keys()
    for name, mask in of_photos.items():
        size = (HEIGHT, WIDTH) if name == "exif" else (WIDTH, HEIGHT)
        assert mask.shape[::-1] == size
        expected = Image.fromarray(of_shards[name]).resize(size, Image.Resampling.NEAREST)
        if how == "jpeg" and name in ("photo", "cmyk", "exif"):  # compressed twice in shards of several kinds
            assert (mask == np.asarray(expected)).mean() > 0.9
        else:
            np.testing.assert_array_equal(mask, np.asarray(expected), err_msg=name)
    assert len(np.unique(np.concatenate([mask.ravel() for mask in of_photos.values()]))) > 1
    assert "bits 12, range 0,1" in said and (how == "as they are" or "size" in said or "format jpeg" in said)
    saved = json.loads(next(run.glob("step-*/config.json")).read_text())["metadata"]["conversions"]["own"]
    assert saved == {"image": shards.manifest.image} | {
        name: value for name, value in shards.manifest.settings.items() if name != "size"
    }


def test_the_pixels_of_a_photo_are_those_of_its_shard(trained: tuple[Path, str]) -> None:
    """Masks of a small network could be equal by chance; pixels can't."""
    from semiseg.models import from_pretrained
    from semiseg.train.score.images import saved_conversion

    root, how = trained
    shards = ShardSet(root / "shards/own/train")
    stored = {sample.key: np.asarray(sample.image.convert("RGB")) for sample in shards}
    metadata = from_pretrained(root / "runs/photos").metadata
    images, _ = find_images([root / "own/images"], None, *saved_conversion(metadata, "own"))
    for image in images:
        name = str(image.name).replace(" ", "_")
        pixels = np.asarray(read(image).pixels)
        exact = not (how == "jpeg" and name in ("photo", "cmyk", "exif"))
        assert np.abs(pixels.astype(int) - stored[name]).mean() <= (0 if exact else 2), name
    plain, _ = find_images([root / "own/images/deep.png"])  # without what the model says, other pixels
    assert np.array_equal(np.asarray(read(plain[0]).pixels), stored["deep"]) == (how == "as they are")


@pytest.mark.parametrize("trained", ["as they are"], indirect=True)
def test_models_without_a_conversion_remain_usable(trained: tuple[Path, str], tmp_path: Path) -> None:
    """Bits are then those in use in all images, and floating point numbers need a range."""
    root, _ = trained
    model = shutil.copytree(next((root / "runs/photos").glob("step-*")), tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    del config["metadata"]["conversions"]
    for file in model.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    (model / "config.json").write_text(json.dumps(config))
    images = root / "own/images"
    said = semiseg("predict", model, images, "--out", tmp_path / "a", code=1)
    assert "2 images of more than 8 bits, values up to 4095: scaled from 12 to 8 bits" in said
    assert "float.tif: not a readable image (pixels are floating point numbers" in said
    assert "--option range=0,1" in said and "1 of 10 images have no mask" in said
    semiseg("predict", model, images, "--out", tmp_path / "b", "--option", "range=0,1")
    semiseg("predict", root / "runs/photos", images, "--out", tmp_path / "c")
    expected = masks_in(tmp_path / "c")
    for name, mask in masks_in(tmp_path / "b").items():
        np.testing.assert_array_equal(mask, expected[name])
    semiseg("predict", model, images / "deep.png", "--out", tmp_path / "d", "--option", "bits=16")
    assert len(masks_in(tmp_path / "d")) == 1
    with pytest.raises(DataError, match="--option bit=12: unknown option 'bit'; did you mean 'bits'"):
        semiseg("predict", model, images, "--out", tmp_path / "e", "--option", "bit=12")


def bomb() -> bytes:
    """A PNG whose compressed text is larger than decoders accept."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    text = b"Comment\0\0" + zlib.compress(bytes(100 << 20), 9)
    rows = zlib.compress(b"".join(b"\0" + bytes(8 * 3) for _ in range(8)))
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"zTXt", text) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("trained", ["48x40"], indirect=True)
def test_bad_photos_cost_only_themselves(trained: tuple[Path, str], tmp_path: Path) -> None:
    root, _ = trained
    photos = tmp_path / "photos"
    (photos / "deep er").mkdir(parents=True)
    good = (root / "own/images/eight.png").read_bytes()
    jpeg = (root / "own/images/photo.JPG").read_bytes()
    (photos / "a.png").write_bytes(good)
    (photos / "b cut.png").write_bytes(good[: len(good) // 2])
    (photos / "c.jpg").write_bytes(b"")
    (photos / "d.png").write_bytes(bomb())
    (photos / "e.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (photos / "f\n\x1b[31mred.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (photos / "deep er/z.JFIF").write_bytes(jpeg)
    (photos / "raw.CR2").write_bytes(b"II*\0")
    for hidden in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        (photos / hidden).mkdir()
        (photos / hidden / "x.png").write_bytes(good)
    (photos / "._a.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/linked.png").write_bytes(good)
    (photos / "link").symlink_to(tmp_path / "elsewhere")
    (photos / "loop").symlink_to(photos)
    (photos / "gone.png").symlink_to(tmp_path / "gone.png")
    said = semiseg("predict", root / "runs/photos", photos, "--out", tmp_path / "out", code=1)
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {"a.png", "deep er/z.png", "link/linked.png"}
    lines = [line.removeprefix(f"no mask: {photos}/") for line in said.splitlines() if line.startswith("no mask: ")]
    assert [line.split(": ")[0] for line in lines] == ["b cut.png", "c.jpg", "d.png", "e.png", r"f\n\x1b[31mred.jpg"]
    for line, what in zip(
        lines, ("truncated", "empty", "truncated or damaged", "PostScript", "truncated"), strict=True
    ):
        assert what in line
    assert "3 masks of own" in said and "5 of 8 images have no mask" in said
    assert "left out: .cr2 files" in said and "left out: broken links: 1" in said


@pytest.mark.parametrize("trained", ["48x40"], indirect=True)
def test_two_runs_write_the_same_folder(trained: tuple[Path, str], tmp_path: Path) -> None:
    root, _ = trained
    (tmp_path / "photos").mkdir()
    for number in range(12):
        shutil.copy(root / "own/images/eight.png", tmp_path / f"photos/{number}.png")
    command = [sys.executable, "-m", "semiseg.cli", "predict", root / "runs/photos", tmp_path / "photos", "--overlay"]
    both = [subprocess.Popen([*command, "--out", tmp_path / "out"], stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate(timeout=120)[0] or process.returncode for process in both] == [0, 0]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{number}.{suffix}" for number in range(12) for suffix in ("png", "overlay.jpg")
    )
    masks = masks_in(tmp_path / "out")
    assert all(np.array_equal(mask, masks["0"]) for mask in masks.values())


@pytest.mark.parametrize("trained", ["as they are"], indirect=True)
def test_a_name_that_is_too_long_for_a_mask_costs_only_itself(trained: tuple[Path, str], tmp_path: Path) -> None:
    root, _ = trained
    long = "x" * 246  # fits with ".jpg", and with ".overlay.jpg" no longer
    for name in (long, "short"):
        shutil.copy(root / "own/images/photo.JPG", tmp_path / f"{name}.jpg")
    names = [tmp_path / f"{name}.jpg" for name in (long, "short")]
    said = semiseg("predict", root / "runs/photos", *names, "--overlay", "--out", tmp_path / "out", code=1)
    assert "its name is too long for a mask" in said and (tmp_path / "out/short.png").is_file()
    assert not list((tmp_path / "out").glob("*.part"))


def test_reading_ahead_keeps_order_and_bounds_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of more pixels than the budget are read one at a time; small ones a few ahead; all in order."""
    from concurrent.futures import ThreadPoolExecutor

    from semiseg.train.score import predict
    from semiseg.train.score.images import InputImage

    monkeypatch.setattr(predict, "_AHEAD", 100)
    started: list[int] = []

    def image(number: int) -> Image.Image:
        started.append(number)
        return Image.new("RGB", (1, 1), (number, 0, 0))

    sizes = [10, 10, 500, 500, 10, 90, 90, 10, 10]
    images = [InputImage(str(n), Path(str(n)), lambda n=n: image(n), lambda n=n: sizes[n]) for n in range(len(sizes))]
    with ThreadPoolExecutor(2) as pool:
        for number, (source, reading) in enumerate(predict._ahead(images, pool)):
            assert source.place == str(number) and reading.result().pixels.getpixel((0, 0)) == (number, 0, 0)
            submitted = max(started)
            assert sum(sizes[number : submitted + 1]) <= max(100, sizes[number])
    assert sorted(started) == list(range(len(sizes)))


def test_headers_without_an_image_are_one_clear_error() -> None:
    for data in (b"II*\0", b"MM\0*\0\0\0\x08", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF....WEBP"):
        with pytest.raises(DataError):
            read_rgb(data)
        with pytest.raises(DataError):
            inspect_image(io.BytesIO(data))
