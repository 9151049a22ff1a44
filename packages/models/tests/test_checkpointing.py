"""A checkpointed encoder against a plain one: losses, gradients and statistics are bit-identical."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from semiseg.models import Encoder, Segmenter, create_segmenter
from semiseg.models.checkpointing import checkpoint_blocks, keep_activations
from semiseg.models.testing import images
from semiseg.models.wide_resnet import Block


class Wide(nn.Module):
    """Narrow blocks of WideResNet38, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            Block(3, (8, 8)), Block(8, (8, 8), dilation=2), Block(8, (4, 8, 16), dilation=4, dropout=0.5)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


def trained(model: nn.Module, *, autocast: bool = False) -> dict[str, Tensor]:
    """Two forward passes per backward pass, twice: losses, gradients, statistics, and the next random number."""
    torch.manual_seed(5)
    found: dict[str, Tensor] = {}
    for step in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            x = images(4, 40, 33)
            loss = model(x[:2]).float().square().mean() + model(x[2:]).float().square().mean()
        loss.backward()
        found[f"loss {step}"] = loss.detach()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        found[f"gradient {name}"] = parameter.grad
    found |= {name: buffer.clone() for name, buffer in model.named_buffers()}
    return {**found, "random": torch.rand(1)}


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    settings = {"classes": {"voc": 5}, "weights": "none", "context_channels": 16}
    efficient = create_segmenter(encoder="test_efficientnet", **settings)  # batch norms with activations, residuals
    return {
        "wide": Wide(),
        "resnet": create_segmenter(encoder="test_resnet", **settings),
        "efficientnet": efficient,
        "sync": create_segmenter(encoder="test_resnet", norm="sync", **settings),
        "frozen": create_segmenter(encoder="test_resnet", norm="frozen", **settings),
        "vit": create_segmenter(encoder="test_vit", output_stride=16, **settings),
    }


@pytest.mark.parametrize("name", ["wide", "resnet", "efficientnet", "sync", "frozen", "vit"])
@pytest.mark.parametrize("autocast", [False, True])
def test_results_are_bit_identical(name: str, autocast: bool) -> None:
    plain = networks()[name].train()
    before = {key: buffer.clone() for key, buffer in plain.named_buffers()}
    lean = copy.deepcopy(plain)
    assert checkpoint_blocks(lean.encoder if isinstance(lean, Segmenter) else lean) >= 2
    expected, found = trained(plain, autocast=autocast), trained(lean, autocast=autocast)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    if name in ("wide", "resnet"):  # four passes, each counted once
        counts = [value for key, value in found.items() if key.endswith("num_batches_tracked")]
        assert counts and all(int(count) == 4 for count in counts)
        assert any(not torch.equal(value, before[key]) for key, value in lean.named_buffers())


def test_blocks_keep_only_their_inputs() -> None:
    """Counts the bytes that autograd saves: less than half; after undoing it, as many as before."""

    def saved(model: nn.Module) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            kept = model(images(2, 64, 64))
        parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
        assert kept.requires_grad
        return sum(size for place, size in sizes.items() if place not in parameters)

    model = Wide()
    plain = saved(model)
    checkpoint_blocks(model)
    lean = saved(model)
    keep_activations(model)
    assert lean < plain / 2
    assert saved(model) == plain


def test_copied_and_pickled_encoders_checkpoint_their_own_blocks() -> None:
    encoder = Encoder("test_resnet", 8, checkpointing=True)
    names = list(encoder.state_dict())
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        for parameter in other.parameters():
            nn.init.zeros_(parameter)
        assert other(images(1, 64, 64)).deep.abs().max() == 0  # its own blocks, not the first one's
    assert encoder(images(1, 64, 64)).deep.abs().max() > 0
    encoder.checkpointing = False
    assert list(encoder.state_dict()) == names == list(Encoder("test_resnet", 8).state_dict())
    assert not any("forward" in module.__dict__ for module in encoder.modules())


def _rank(rank: int, folder: str) -> None:
    """One of two processes: gradients and statistics of uneven batches, with synchronised norm, plain and checkpointed."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = create_segmenter(
            encoder="test_resnet",
            classes={"voc": 5},
            weights="none",
            context_channels=16,
            norm="sync",
            checkpointing=checkpointing,
        )
        spread = DistributedDataParallel(model.train(), find_unused_parameters=True)
        spread(images(3, 40, 33)[:2] if rank else images(3, 40, 33)[2:]).square().mean().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append(gradients | dict(model.named_buffers()))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_get_the_same_results_with_and_without(tmp_path: Path) -> None:
    spawn(_rank, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        plain, lean = torch.load(tmp_path / f"{rank}.pt")
        assert plain.keys() == lean.keys() and any("running_mean" in name for name in plain)
        for name, tensor in plain.items():
            assert torch.equal(lean[name], tensor), name
