"""Domains, sizes, norms and errors of a segmenter."""

import copy
import pickle
from typing import Any

import pytest
import torch

from semiseg.models import Segmenter, create_segmenter
from semiseg.models.norm import SyncBatchNorm2d
from semiseg.models.segmenter import reflected
from semiseg.models.testing import images


def small(**settings: Any) -> Segmenter:
    torch.manual_seed(0)
    plain: dict[str, Any] = {"encoder": "mobilenetv3_small_100", "classes": {"voc": 21}, "context_channels": 16}
    return create_segmenter(**{**plain, "weights": "none", **settings})


@pytest.mark.parametrize(("side", "decoded"), [(64, 64), (65, 72), (321, 328)])
def test_the_decoder_resolution_is_the_stride_times_the_cells(side: int, decoded: int) -> None:
    model = small().eval()
    with torch.no_grad():
        assert model.decode(model.encode(images(1, side, 40))).shape == (1, 21, decoded, 40)
        assert model(images(1, side, 40)).shape == (1, 21, side, 40)


def test_an_odd_size_is_extended_by_reflection_and_cropped() -> None:
    """33 x 43 pixels are those of a 40 x 48 image, built pixel by pixel, whose logits lose the extension again."""
    model = small().eval()
    x = images(1, 33, 43)
    extended = torch.empty(1, 3, 40, 48)
    for y in range(40):
        for x_ in range(48):
            extended[..., y, x_] = x[..., y if y < 33 else 64 - y, x_ if x_ < 43 else 84 - x_]
    with torch.no_grad():
        expected = model.decode(model.encode(extended))[..., :33, :43]
        assert torch.equal(model(x), expected)


@pytest.mark.parametrize("side", range(1, 10))
def test_the_smallest_images_have_logits_of_their_size(side: int) -> None:
    with torch.no_grad():
        assert small().eval()(images(1, side, 2)).shape[-2:] == (side, 2)
    extended = reflected(torch.arange(side)[None, None], 4)[0, 0].tolist()
    wave = [*range(side), *range(side - 2, 0, -1)] or [0]  # 0 1 2 1 | 0 1 2 1 | ...
    assert extended == [wave[i % len(wave)] for i in range(-(-side // 4) * 4)]


def test_images_of_bytes_are_extended_as_they_are() -> None:
    pixels = (images(1, 33, 43) * 255).to(torch.uint8)
    assert reflected(pixels, 8).dtype == torch.uint8
    model = small().eval()
    with torch.no_grad():
        torch.testing.assert_close(model(pixels), model(pixels.float() / 255))


def test_domains_have_separate_decoders_on_shared_features() -> None:
    model = small(classes={"street": 11, "room-2": 5})
    features = model.encode(images(2, 32, 32))
    model.decode(features, "room-2").sum().backward()
    touched = {name.split(".")[1] for name, p in model.decoders.named_parameters("decoders") if p.grad is not None}
    assert touched == {"room-2"}
    with pytest.raises(ValueError, match=r"2 domains: pass domain=..., one of street, room-2"):
        model(images(2, 32, 32))
    with pytest.raises(ValueError, match=r"unknown domain 'sreet'; did you mean 'street'\?"):
        model(images(2, 32, 32), "sreet")
    assert torch.equal(small().eval()(images(1, 32, 32)), small().eval()(images(1, 32, 32), "voc"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": {}}, "classes is empty"),
        ({"context": "fpn"}, r"context=\"fpn\" with levels \[\] of an encoder at stride 8: expected strides from fine"),
        ({"context": "fpn", "levels": (4, 8), "output_stride": 16}, "that end in 16"),
        ({"levels": (4, 5)}, "has no features at stride 5; it has 2, 4, 8: choose levels of these"),
        ({"classes": {"voc.2012": 21}}, r"'voc.2012' cannot be the name of a domain .*such as voc-2012-1"),
        ({"classes": {"keys": 21}}, r"'keys' cannot be the name of a domain \(torch reserves it"),
        ({"classes": {"": 21}}, r"'' cannot be the name of a domain"),
        ({"classes": {"voc": 1}}, r"classes\['voc'\] = 1: expected an integer, at least 2"),
        ({"context": "pps"}, "unknown context 'pps'; did you mean 'psp'"),
        ({"decoder": "lineer"}, "unknown decoder 'lineer'; did you mean 'linear'"),
        ({"norm": "frosen"}, "unknown norm 'frosen'; did you mean 'frozen'"),
        ({"decoder": "linear", "last_relu": True}, "only the sub-pixel decoder has a last ReLU"),
        ({"context_channels": 0}, "context_channels=0: expected at least 1"),
        (
            {"context": "aspp", "context_rates": [6, 0]},
            r"context_rates=\[6, 0\]: expected at least one rate, all at least 1",
        ),
        ({"low_stride": 8}, r"has no low-level features at stride 8; it has 2 and 4: set that"),
        (
            {"encoder": "test_vit", "output_stride": 16, "decoder": "deeplabv3plus"},
            "encoder 'test_vit' has no features finer than its output, which decoder='deeplabv3plus' needs",
        ),
        (
            {"encoder": "test_vit", "output_stride": 16, "low_stride": 4},
            "no low-level features at stride 4; nor any finer than its output: use another",
        ),
    ],
)
def test_invalid_settings_raise(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_frozen_norm_ignores_the_batch_and_still_learns_scale_and_shift() -> None:
    model = small(norm="frozen").train()
    before = copy.deepcopy(model.state_dict())
    a, b = images(2, 32, 40)
    together = model.encode(torch.stack([a, b])).deep
    torch.testing.assert_close(together[:1], model.encode(a[None]).deep, rtol=1e-4, atol=1e-5)
    together.square().mean().backward()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and all(m.weight.grad is not None and m.bias.grad is not None for m in norms)
    assert model.training and model.decoders.training


@pytest.mark.parametrize(
    ("side", "decoded", "low_stride", "stride"), [(64, 32, 2, 8), (65, 36, 2, 8), (65, 18, 4, 8), (65, 40, 2, 16)]
)
def test_the_deeplab_decoder_works_at_the_low_level_stride(
    side: int, decoded: int, low_stride: int, stride: int
) -> None:
    model = small(decoder="deeplabv3plus", context="aspp", low_stride=low_stride, output_stride=stride).eval()
    assert model.upsampling == stride // low_stride
    with torch.no_grad():
        features = model.encode(images(1, side, 32))
        assert features.low is not None and features.low.shape[2] == -(-side // low_stride)
        assert model.decode(features).shape == (1, 21, decoded, 32 // low_stride)
        assert model(images(1, side, 32)).shape == (1, 21, side, 32)


def test_norm_applies_to_the_deeplab_parts_and_to_added_domains() -> None:
    parts: dict[str, Any] = {"decoder": "deeplabv3plus", "context": "aspp"}
    for norm in ("sync", "frozen"):
        model = small(norm=norm, **parts).train()
        model.add_domain("room", 5)
        before = copy.deepcopy(model.state_dict())
        x = images(2, 32, 40)
        model(x, "room").square().mean().backward()
        norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        if norm == "sync":
            synchronised = (SyncBatchNorm2d, torch.nn.SyncBatchNorm)
            assert all(isinstance(m, synchronised) for m in norms)
        else:
            assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
            with torch.no_grad():
                torch.testing.assert_close(model(x, "room")[:1], model(x[:1], "room"), rtol=1e-4, atol=1e-5)
        assert norms and all(p.grad is not None for p in model.decoders["room"].parameters())


def test_batch_norm_follows_the_batch() -> None:
    model = small().train()
    before = model.state_dict()["context.fuse.1.running_mean"].clone()
    model.encode(images(2, 32, 40))
    assert not torch.equal(before, model.state_dict()["context.fuse.1.running_mean"])


def test_synchronised_norm_on_one_process_is_batch_norm_with_its_fused_activations() -> None:
    torch.manual_seed(0)
    batch = small().train()
    torch.manual_seed(0)
    sync = small(norm="sync").train()
    assert batch.state_dict().keys() == sync.state_dict().keys()
    if not torch.cuda.is_available():
        assert any(isinstance(m, SyncBatchNorm2d) and not isinstance(m.act, torch.nn.Identity) for m in sync.modules())
    for _ in range(2):  # the second time with changed running statistics
        for model in (batch, sync):
            model(images(2, 64, 64)).square().mean().backward()
    for (name, one), two in zip(batch.named_parameters(), sync.parameters(), strict=True):
        assert one.grad is not None and two.grad is not None and torch.equal(one.grad, two.grad), name
    for (name, one), two in zip(batch.named_buffers(), sync.buffers(), strict=True):
        assert torch.equal(one, two), name
    assert torch.equal(batch.eval()(images(1, 33, 40)), sync.eval()(images(1, 33, 40)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_training_is_deterministic_and_sync_equals_batch_on_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    gradients = []
    torch.use_deterministic_algorithms(True)
    try:
        for norm in ("batch", "batch", "sync"):
            model = small(norm=norm, encoder="resnet18").cuda().train()
            model(images(4, 65, 71).cuda()).square().mean().backward()
            gradients.append([p.grad for p in model.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    for one, two, sync in zip(*gradients, strict=True):
        assert torch.equal(one, two)
        assert (one - sync).norm() <= 1e-3 * one.norm() + 1e-7


def test_it_can_be_copied_pickled_and_run_channels_last() -> None:
    model = small().eval()
    x = images(2, 33, 40)
    with torch.inference_mode():
        expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), expected)
    torch.testing.assert_close(model.to(memory_format=torch.channels_last)(x), expected, rtol=1e-4, atol=1e-5)  # pyright: ignore
    model.train()(x).sum().backward()  # inference mode left no tensors that autograd rejects


def test_a_domain_can_be_added_and_extracted() -> None:
    model = small().eval()
    x = images(2, 33, 40)
    with torch.no_grad():
        before = model(x)
        model.add_domain("room", 5)
        assert torch.equal(model(x, "voc"), before) and model(x, "room").shape == (2, 5, 33, 40)
        alone = model.only("room")
        assert torch.equal(alone(x), model(x, "room"))
    assert alone.config["classes"] == {"room": 5} and not any("voc" in name for name in alone.state_dict())
    assert model.config["classes"] == {"voc": 21, "room": 5}
    with pytest.raises(ValueError, match="already has a domain 'room', with 5 classes"):
        model.add_domain("room", 7)
    with pytest.raises(ValueError, match="at least 2"):
        model.add_domain("one", 1)
    with pytest.raises(ValueError, match="unknown domain 'rom'; did you mean 'room'"):
        model.only("rom")
