"""Images larger than memory are predicted in tiles; what fits is predicted as before, bit for bit."""

import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from semiseg.data import SemisegError
from semiseg.models import Segmenter, create_segmenter, save_pretrained
from semiseg.train.memory import available_memory, is_out_of_memory
from semiseg.train.score import footprint, views
from semiseg.train.score.views import Views, predict_ids, tile_starts
from tests.processes import environment

NETWORK: dict[str, Any] = {"encoder": "test_resnet", "weights": "none", "context": "none", "context_channels": 16}


def network() -> Segmenter:
    torch.manual_seed(0)
    return create_segmenter(classes={"street": 5}, **NETWORK).eval()


def picture(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def brute_force(model: Segmenter, image: Tensor, size: tuple[int, int], chosen: Views) -> Tensor:
    """Mean probabilities in float64 [C, *size]: a loop over scales, flips and tiles."""
    total = torch.zeros(5, *size, dtype=torch.float64)
    for scale in chosen.scales:
        height, width = (max(1, round(side * scale)) for side in image.shape[-2:])
        scaled = image if scale == 1 else tv.resize(image, [height, width], antialias=True)
        tall, wide = (
            (height, width) if chosen.tile is None else (min(chosen.tile[0], height), min(chosen.tile[1], width))
        )
        sums, counts = torch.zeros(5, height, width, dtype=torch.float64), torch.zeros(height, width)
        corners = product(tile_starts(height, tall, chosen.overlap), tile_starts(width, wide, chosen.overlap))
        for (y, x), flip in product(corners, (False, True) if chosen.flip else (False,)):
            tile = scaled[None, :, y : y + tall, x : x + wide]
            seen = model(tile.flip(-1) if flip else tile).double().softmax(1)[0]
            sums[:, y : y + tall, x : x + wide] += seen.flip(-1) if flip else seen
            counts[y : y + tall, x : x + wide] += 1
        total += F.interpolate((sums / counts)[None], size, mode="bilinear", align_corners=False)[0]
    return total / len(chosen.scales)


def agree(ids: Tensor, expected: Tensor) -> None:
    """The ids are the largest probability, except where the two largest differ by rounding."""
    best = expected.topk(2, 0).values
    clear = best[0] - best[1] > 1e-5
    assert clear.float().mean() > 0.99
    assert torch.equal(ids[clear], expected.argmax(0).to(torch.uint8)[clear])


@torch.inference_mode()
@pytest.mark.parametrize("size", [(97, 131), (60, 200), (300, 77)])
@pytest.mark.parametrize(
    "chosen",
    [
        Views(tile=(40, 56)),
        Views(tile=(33, 500), overlap=0.7),
        Views(scales=(0.5, 1.0, 1.5), flip=True, tile=(48, 48)),
        Views(scales=(1.0, 0.7), tile=(400, 400)),
    ],
)
def test_strips_equal_a_loop_in_float64(chosen: Views, size: tuple[int, int]) -> None:
    model, image = network(), picture(97, 131)
    ids = views._ids_in_tiles(model, image, None, size, chosen)
    assert ids.dtype == torch.uint8 and tuple(ids.shape) == size
    agree(ids, brute_force(model, image, size, chosen))


@torch.inference_mode()
def test_a_result_too_large_is_resized_in_strips_of_logits() -> None:
    """As for a small image of a large photograph: one pass, and the same classes as without strips."""
    model, image = network(), picture(33, 45)
    size = (531, 402)
    logits = F.interpolate(model(image[None]).double(), size, mode="bilinear", align_corners=False)[0]
    agree(views._ids_in_tiles(model, image, None, size, Views(tile=(64, 64))), logits)


@torch.inference_mode()
def test_little_memory_gives_tiles_and_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, image = network(), picture(300, 420)
    whole = predict_ids(model, image, domain=None, size=(300, 420))
    assert not capsys.readouterr().err
    assert torch.equal(whole, model(image[None])[0].argmax(0).to(torch.uint8))
    monkeypatch.setattr(footprint, "available_memory", lambda device: 8_000_000)
    side = footprint.largest_tile(
        model, None, sides=[(300, 420)], passed=[(300, 420)], size=(300, 420), classes=5, flip=False
    )
    assert side is not None and side % model.stride == 0 and 128 <= side < 300
    first, tiled = (predict_ids(model, image, domain=None, size=(300, 420)) for _ in range(2))
    assert torch.equal(first, tiled)
    agree(tiled, brute_force(model, image, (300, 420), Views(tile=(side, side))))
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"in tiles of {side}x{side}" in told and "--tile" in told


@torch.inference_mode()
@pytest.mark.parametrize("settings", [{}, {"context": "psp", "output_stride": 8}])
def test_the_estimate_is_above_what_a_pass_takes(settings: dict[str, Any], tmp_path: Path) -> None:
    """Against the peak of the process's memory, in a process for each network."""
    save_pretrained(create_segmenter(classes={"street": 5}, **NETWORK | settings), tmp_path / "model")
    script = """
import re, sys, torch
from semiseg.models import from_pretrained
from semiseg.train.score.footprint import bytes_per_pixel
def field(name): return 1024 * int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
model = from_pretrained(sys.argv[1])
with torch.inference_mode():
    estimate = bytes_per_pixel(model, None)
    image = torch.zeros(1, 3, 1024, 1024, dtype=torch.uint8)
    before = field("VmRSS")
    model(image)
    print(estimate / ((field("VmHWM") - before) / 1024**2))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    assert 0.95 < float(done.stdout) < 2.5


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v limits memory on Linux only")
def test_an_image_larger_than_memory_gets_its_mask(tmp_path: Path) -> None:
    described = {"name": "own", "names": ["a", "b"], "colours": [[0, 0, 0], [255, 0, 0]]}
    torch.manual_seed(0)
    model = create_segmenter(classes={"own": 2}, **NETWORK)
    save_pretrained(model, tmp_path / "model", metadata={"taxonomies": {"own": described}})
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (2400, 2000, 3), np.uint8)).save(tmp_path / "big.png")
    script = """
import re, resource, sys
import accelerate, torchvision, semiseg.train.score.predict, semiseg.train.score.views
from semiseg.cli.main import main
used = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000, -1))
sys.argv = ["semiseg", "predict", sys.argv[1] + "/model", sys.argv[1] + "/big.png", "--out", sys.argv[1] + "/out"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    assert "are predicted in tiles of" in done.stderr
    with Image.open(tmp_path / "out" / "big.png") as mask:
        assert mask.size == (2000, 2400)


@torch.inference_mode()
def test_a_pass_that_runs_out_of_memory_is_repeated_in_halves(capsys: pytest.CaptureFixture[str]) -> None:
    """torch's own allocator refuses what is larger than the machine."""
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value) and is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("sizes do not match")) and not is_out_of_memory(
        ValueError("out of memory")
    )
    assert 0 < available_memory(torch.device("cpu")) < 1 << 62

    class Hungry(Segmenter):
        """Allocates more than there is for more than 200x200 pixels."""

        def forward(self, images: Tensor, domain: str | None = None) -> Tensor:
            if images.shape[-1] * images.shape[-2] > 200 * 200:
                torch.empty(1 << 60, dtype=torch.uint8)
            return super().forward(images, domain)

    model, image = network(), picture(300, 420)
    model.__class__ = Hungry
    ids = predict_ids(model, image, domain=None, size=(300, 420))
    agree(ids, brute_force(model, image, (300, 420), Views(tile=(128, 128))))  # 416 and 208 do not fit
    assert "in tiles of 128x128" in capsys.readouterr().err
    with pytest.raises(SemisegError, match=r"tiles of 256x300 do not fit .*--tile 128 150"):
        predict_ids(model, image, domain=None, size=(300, 420), views=Views(tile=(256, 300)))


@torch.inference_mode()
def test_logits_that_are_not_finite_are_refused() -> None:
    model = network()
    decoder = model.decoders["street"]
    torch.nn.init.constant_(next(decoder.parameters()), 3e38)  # finite weights, infinite products
    for chosen in (Views(), Views(flip=True), Views(tile=(32, 32))):
        with pytest.raises(SemisegError, match="NaN or infinite logits"):
            predict_ids(model, picture(40, 40), domain=None, size=(40, 40), views=chosen)
