"""Saving, loading, loading only an encoder, and errors for wrong files."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from semiseg.models import Segmenter, create_segmenter, from_pretrained, load_encoder, save_pretrained
from semiseg.models.testing import images

NAME = "mobilenetv3_small_100"


def small(**settings: Any) -> Segmenter:
    plain: dict[str, Any] = {"encoder": NAME, "classes": {"voc": 21}, "context_channels": 16, "weights": "none"}
    return create_segmenter(**{**plain, **settings})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(7)
    return save_pretrained(small(), tmp_path_factory.mktemp("zoo") / "model", metadata={"step": 40, "miou": 0.5})


def test_a_saved_folder_has_two_files_and_metadata(saved: Path) -> None:
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert [p.name for p in saved.parent.iterdir()] == ["model"]
    config = json.loads((saved / "config.json").read_text())
    assert config["metadata"] == {"step": 40, "miou": 0.5}
    assert config["model"]["classes"] == {"voc": 21}
    assert from_pretrained(saved).metadata == {"step": 40, "miou": 0.5}


def test_saving_again_replaces_the_files_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "state.json").write_text("{}")
    save_pretrained(small(), tmp_path / "model")
    second = small()
    save_pretrained(second, tmp_path / "model")
    loaded = from_pretrained(tmp_path / "model")
    assert all(torch.equal(a, b) for a, b in zip(second.parameters(), loaded.parameters(), strict=True))
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors", "state.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_failed_save_leaves_no_files(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save_pretrained(small(), tmp_path / "model", metadata={"when": object()})
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError):
        save_pretrained(small(), tmp_path / "taken")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_loading_does_not_change_random_numbers(saved: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    from_pretrained(saved)
    assert torch.equal(torch.rand(4), expected)


def test_norm_can_be_changed_and_sync_is_loaded_as_batch(saved: Path, tmp_path: Path) -> None:
    assert from_pretrained(saved, norm="frozen").norm == "frozen"
    save_pretrained(from_pretrained(saved), tmp_path / "sync")
    config = tmp_path / "sync" / "config.json"
    config.write_text(config.read_text().replace('"norm": "batch"', '"norm": "sync"'))
    x = images(1, 40, 33)
    assert torch.equal(from_pretrained(tmp_path / "sync")(x), from_pretrained(saved)(x))


def test_older_files_without_rates_and_low_strides_load(saved: Path, tmp_path: Path) -> None:
    old = json.loads((saved / "config.json").read_text())
    del old["model"]["low_stride"], old["model"]["context_rates"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    assert from_pretrained(tmp_path).config == from_pretrained(saved).config


def test_only_the_encoder_is_loaded_from_a_run_a_step_or_its_file(tmp_path: Path) -> None:
    """Transfer from one set of classes to another, with the parts of the structured-consistency paper."""
    parts: dict[str, Any] = {"context": "aspp", "context_rates": (2, 3), "decoder": "deeplabv3plus", "low_stride": 2}
    source = small(classes={"streets-65": 65}, **parts)
    source.encoder.normalise_by((0.1, 0.2, 0.3), (1, 1, 2))
    step = save_pretrained(source, tmp_path / "run" / "step-00000040")
    for place in (tmp_path / "run", step, step / "model.safetensors"):
        model = small(classes={"cityscapes": 19}, weights=place, **parts)
        assert model.config["mean"] == [0.1, 0.2, 0.3]
        for name, tensor in source.encoder.state_dict().items():
            assert torch.equal(model.encoder.state_dict()[name], tensor), (place, name)
        fuse = model.context.state_dict()["fuse.weight"]
        assert not torch.equal(fuse, source.context.state_dict()["fuse.weight"])
    tagged = json.loads((step / "config.json").read_text())
    tagged["model"]["encoder"] += ".lamb_in1k"  # the same network, named with its pretrained weights
    (step / "config.json").write_text(json.dumps(tagged))
    assert load_encoder(small(), step) == len(source.encoder.body.state_dict())


def test_an_encoder_keeps_its_normalisation_between_sets_of_classes(
    saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = from_pretrained(saved)
    source.encoder.normalise_by((0.1, 0.2, 0.3), (1, 1, 2))
    run = tmp_path / "runs" / "first"
    save_pretrained(source, run / "step-00000040")
    save_pretrained(small(), run / "step-00000020")
    with caplog.at_level(logging.INFO):
        model = small(classes={"room": 5, "street": 3}, output_stride=16, context="none", weights=run)
    assert model.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert model.config["std"] == [1, 1, 2]
    for (name, ours), theirs in zip(
        model.encoder.state_dict().items(), source.encoder.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    assert f"{len(model.encoder.state_dict())} tensors loaded into encoder {NAME}" in caplog.text


@pytest.mark.parametrize("name", [NAME, "convnext_atto", "vit_tiny_patch16_224"])
def test_a_complete_timm_network_gives_its_encoder(name: str, tmp_path: Path) -> None:
    network = timm.create_model(name)  # its names may contain dots where the encoder's do not, and it has a classifier
    save_file(network.state_dict(), tmp_path / "complete.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "complete.pth")
    for file in ("complete.safetensors", "complete.pth"):
        model = small(encoder=name, output_stride=16)
        assert load_encoder(model, tmp_path / file) == len(model.encoder.body.state_dict())
        first = next(model.encoder.body.parameters())
        assert any(torch.equal(first, p) for p in network.parameters())
    (tmp_path / "config.json").write_text('{"architecture": "as on timm\'s hub"}')
    (tmp_path / "complete.safetensors").rename(tmp_path / "model.safetensors")
    assert load_encoder(small(encoder=name, output_stride=16), tmp_path / "model.safetensors") > 0


def test_the_error_for_files_that_do_not_fit_names_the_first_tensors(tmp_path: Path) -> None:
    tensors = timm.create_model(NAME).state_dict()
    stem = tensors.pop("conv_stem.weight")
    save_file(tensors, tmp_path / "missing.safetensors")
    save_file({**tensors, "conv_stem.weight": stem[:8].clone()}, tmp_path / "shape.safetensors")
    model = small()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=rf"does not fit encoder '{NAME}': conv_stem.weight is missing$"):
        load_encoder(model, tmp_path / "missing.safetensors")
    with pytest.raises(ValueError, match=r"conv_stem.weight is \[8, 3, 3, 3\], expected \[16, 3, 3, 3\]$"):
        load_encoder(model, tmp_path / "shape.safetensors")
    with pytest.raises(ValueError, match=r"conv1.weight is missing; .*and \d+ more$"):
        small(encoder="resnet18", weights=tmp_path / "shape.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_files_of_the_wrong_kind_raise(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("not tensors")
    (tmp_path / "text.pth").write_text("not tensors")
    torch.save([1, 2], tmp_path / "list.pth")
    for file, message in (
        ("text.safetensors", "not a safetensors file"),
        ("text.pth", "not a file of tensors"),
        ("list.pth", "no named tensors"),
    ):
        with pytest.raises(ValueError, match=message):
            small(weights=tmp_path / file)
    with pytest.raises(ValueError, match="a file; expected the folder of a saved model"):
        from_pretrained(saved / "config.json")
    with pytest.raises(ValueError, match=rf"contains encoder '{NAME}', the model has 'resnet18'"):
        small(encoder="resnet18", weights=saved)
    for text, message in (
        ("{", "not JSON"),
        ('{"format": "other"}', 'format is "other", expected "semiseg'),
        ('{"format": "semiseg-segmenter/1", "model": {"norm": "batch"}}', r"model.encoder is missing"),
    ):
        (tmp_path / "config.json").write_text(text)
        (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
        with pytest.raises(ValueError, match=message):
            from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((saved / "config.json").read_text().replace(": 21", ": 20"))
    with pytest.raises(ValueError, match=r"decoders.voc.project.weight is \[21, 16, 1, 1\], expected \[20, 16"):
        from_pretrained(tmp_path)


def test_missing_files_raise(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file or folder; did you mean .*/model\?"):
        from_pretrained(saved.parent / "modle")
    with pytest.raises(FileNotFoundError, match=r"no model.safetensors and no config.json"):
        from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"weights.pth: no such file or folder"):
        small(weights="nowhere/weights.pth")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match=r"nobody/nothing: no such folder here, and no such model could be"):
        from_pretrained("nobody/nothing")


def test_equal_models_are_equal_bytes(tmp_path: Path):
    """Eight times: the writer of safetensors orders its metadata at random."""
    model = create_segmenter(encoder="test_resnet", classes={"street": 3}, weights="none", context_channels=16)
    written = {(save_pretrained(model, tmp_path / str(n)) / "model.safetensors").read_bytes() for n in range(8)}
    assert len(written) == 1
