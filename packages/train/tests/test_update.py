"""One update: that it waits for no GPU, in which precision and layout it runs, and that fused updates keep their moments."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.functional import pad
from torch.utils._python_dispatch import TorchDispatchMode

from semiseg.data import SemisegError
from tests.processes import python, torchrun

if TYPE_CHECKING:
    from semiseg.train.recipe import Recipe

WAITS = ("aten._local_scalar_dense", "aten.item", "aten.nonzero", "aten.equal", "aten.is_nonzero", "aten.unique")


class Recorder(TorchDispatchMode):
    """Keeps the names of all operations that would make a GPU's host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += 1
        if str(func).startswith(WAITS):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def one_update(recipe: "Recipe") -> Callable[[int], object]:
    """`update` on real batches, everything prepared as the loop does."""
    from semiseg.train.assemble.learner import build_learner
    from semiseg.train.assemble.model import build_model
    from semiseg.train.assemble.optimizer import build_optimizer
    from semiseg.train.assemble.sources import build_sources
    from semiseg.train.recipe.shards import classes_of
    from semiseg.train.step.batches import StepData
    from semiseg.train.step.precision import build_accelerator
    from semiseg.train.step.update import update

    sources = build_sources(recipe, fill=(0, 0, 0))
    model = build_model(recipe.model, classes_of(recipe))
    accelerator = build_accelerator(model, precision=recipe.precision, deterministic=recipe.deterministic)
    learner = build_learner(recipe, model, sources.taxonomies).train()
    learner, optimizer = accelerator.prepare(learner, build_optimizer(recipe, learner))
    data = StepData(sources.streams)
    batches = [data[step] for step in range(3)]

    def take(step: int) -> object:
        batch = batches[step]
        assert isinstance(batch, dict)
        options = {"seed": recipe.seed, "accumulate": recipe.accumulate, "clip": recipe.clip}
        return update(accelerator, learner, optimizer, batch, step=step, steps=recipe.steps, **options)

    return take


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_reads_no_value(tiny: "Callable[..., Recipe]", optimizer: str, monkeypatch: pytest.MonkeyPatch):
    """Counted on the CPU: no operation of an update, forward or backward, is one that waits for a GPU's result."""
    from semiseg.methods import prediction as view

    label = view.connected_components  # in as many rounds as on a GPU: on a CPU it asks whether it is done
    monkeypatch.setattr(view, "connected_components", lambda groups, rounds: label(groups, view.ROUNDS))
    kind = "optimizer={kind='" + optimizer + "', lr=0.01}"
    take = one_update(tiny(kind, "clip=1.0", "accumulate=1"))
    take(0)
    with Recorder() as recorder:
        take(1)
    assert recorder.seen > 500 and recorder.found == []
    with Recorder() as recorder:  # the count can fail
        bool(torch.ones(2).nonzero().sum() > 1)
    assert len(recorder.found) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU: that a step never synchronises is not proved here")
def test_a_step_never_synchronises_with_a_gpu(tiny: "Callable[..., Recipe]"):
    take = one_update(tiny("precision=auto"))
    take(0)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        take(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_gpu_that_is_full_is_one_clear_error():
    from semiseg.train.step.update import in_memory

    with (
        pytest.raises(
            SemisegError, match=r"does not fit into the memory of .*; lower batch_size .*\(CUDA out of memory\.\)"
        ),
        in_memory(),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")


def test_statistics_that_are_no_numbers_end_a_run():
    from semiseg.train.loop import TrainingError, check_finite

    norm = torch.nn.BatchNorm2d(2)
    check_finite({"step": 7}, norm)
    norm.get_buffer("running_mean")[1] = float("nan")
    with pytest.raises(TrainingError, match="at step 7 running_mean contains NaN or infinite weights"):
        check_finite({"step": 7}, norm)


def test_a_precision_that_was_asked_for_or_kept_is_not_chosen_again():
    from semiseg.train.step.precision import PrecisionError, choose

    dense, depthwise = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
    assert choose("no", dense) == "no" and choose("no", dense, kept="bf16") == "no"
    if not torch.cuda.is_available():
        assert choose("bf16", depthwise) == "bf16"
        assert choose("auto", dense, kept="no") == "no" and choose("auto", depthwise, kept="bf16") == "bf16"
        assert choose("auto", depthwise) == "no"
        assert choose("auto", dense) == ("bf16" if torch.cpu._is_amx_tile_supported() else "no")
        with pytest.raises(PrecisionError, match="precision=bf16, no or auto"):
            choose("fp16", dense)


def test_ranks_that_would_choose_differently_agree(tmp_path: Path):
    script = tmp_path / "probe.py"
    script.write_text(
        "import torch.distributed as dist\nfrom semiseg.train.step import precision\ndist.init_process_group('gloo')\n"
        "first = dist.get_rank() == 0\nassert precision._agreed('bf16' if first else 'no') == 'no'\n"
        "assert precision._agreed('bf16') == 'bf16'\ndist.destroy_process_group()\n"
    )
    torchrun(2, script)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_moments_take_the_layout_of_their_weights(kind: str):
    """A fused update pairs a weight and its moment by place in memory: another layout in a checkpoint must not matter."""
    from semiseg.train.run.checkpoint import _lay_out

    def trained(saved: torch.memory_format, own: torch.memory_format) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        weight = nn.Parameter(torch.randn(8, 4, 3, 3, generator=generator).contiguous(memory_format=own))
        optimizer = (
            torch.optim.AdamW([weight], lr=0.1, fused=True)
            if kind == "adamw"
            else torch.optim.SGD([weight], lr=0.1, momentum=0.9, fused=True)
        )
        weight.grad = torch.randn(8, 4, 3, 3, generator=generator).contiguous(memory_format=own)
        optimizer.step()
        for kept in optimizer.state.values():
            kept.update({name: m.contiguous(memory_format=saved) for name, m in kept.items() if m.ndim == 4})
        _lay_out(optimizer)
        optimizer.step()
        return weight.detach()

    plain, last = torch.contiguous_format, torch.channels_last
    expected = trained(plain, plain)
    for saved, own in ((plain, last), (last, plain), (last, last)):
        torch.testing.assert_close(trained(saved, own), expected, rtol=0, atol=0)


def test_a_missing_compiler_is_one_clear_error(recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    done = python("-m", "semiseg.train", recipe_file(), "compile=true", "steps=1", expect=1)
    assert "compile=false" in done.stderr and "Traceback" not in done.stderr


class SamePadding(nn.Module):
    """A convolution of stride 2 that pads by its input's size, as timm's tf_ networks do; features as an encoder has them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(into, out, 3, stride=2), nn.BatchNorm2d(out), nn.ReLU())
            for into, out in ((3, 4), (4, 6))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            missing = [max((-(-side // 2) - 1) * 2 + 3 - side, 0) for side in x.shape[2:]]
            x = layer(
                pad(x, (missing[1] // 2, missing[1] - missing[1] // 2, missing[0] // 2, missing[0] - missing[0] // 2))
            )
        return x


def test_a_compiled_encoder_computes_the_same():
    """Compiled once for each of two sizes of training, and not at all for the many of evaluation."""
    from torch._dynamo.utils import counters

    from semiseg.methods.structure import exact_products
    from semiseg.train.step.precision import compile_encoder, uncompiled

    plain = SamePadding().double()
    compiled = copy.deepcopy(plain)
    try:
        compile_encoder(compiled)
    except SemisegError as error:
        pytest.skip(f"NO COMPILER: {error}")
    assert list(compiled.state_dict()) == list(plain.state_dict())
    counters.clear()
    for count, side in ((2, 33), (2, 40), (2, 33), (2, 40)):
        images = torch.randn(count, 3, side, side + 7, dtype=torch.float64)
        for module in (plain, compiled):
            module(images).square().sum().backward()
        with exact_products():  # what an objective does between two calls
            pass
    for (name, expected), found in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, msg=lambda text, name=name: f"{name}: {text}")
    torch.testing.assert_close(compiled.state_dict(), plain.state_dict())
    assert counters["stats"]["unique_graphs"] == 2
    plain.eval()
    compiled.eval()
    compiled.load_state_dict(plain.state_dict())
    with uncompiled(compiled), torch.inference_mode():
        for side in range(20, 60):  # more sizes than torch would compile
            images = torch.randn(1, 3, side, 31, dtype=torch.float64)
            torch.testing.assert_close(compiled(images), plain(images), rtol=0, atol=0)
    assert counters["stats"]["unique_graphs"] == 2


def test_a_dry_run_reports_time_memory_and_the_bottleneck(tiny: "Callable[..., Recipe]", tmp_path: Path):
    from semiseg.train.dry_run import preview

    text = preview(tiny("compile=false"))
    assert "a step; " in text and " to load a batch in the same process" in text and "is the bottleneck" in text
    assert "peak memory" in text and "hours for 8 steps and 2 evaluations of" in text
    assert not (tmp_path / "runs").exists()


def test_the_console_says_once_that_loading_is_slow(capsys: pytest.CaptureFixture[str]):
    from semiseg.train.console import SETTLED, Console

    for waited, times in ((10.0, 1), (0.0, 0)):
        with Console().training(0, 100) as console:
            for step in range(1, SETTLED + 5):
                console.stepped(step, waited=waited)
                console.losses(step, {"a": 1.0}, ["a"])
        assert capsys.readouterr().err.count("loading is the bottleneck") == times
