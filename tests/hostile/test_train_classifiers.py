"""Classifiers of strangers: a file with other contents is one error, and nothing of it runs or is kept."""

from pathlib import Path
from typing import Any

import pytest
import torch

from semiseg.train.weak.classifier import Classifier, WeakError, build, read
from semiseg.train.weak.stored import load_weights

SETTINGS: dict[str, Any] = {
    "encoder": "mobilenetv3_small_100", "stride": 16, "weights": "none", "masks": True, "least": 0.01, "steps": 4,
    "classes": ["a", "b"], "taxonomy": "t", "digest": "d", "scale": [0.75, 1.5],
}  # fmt: skip


@pytest.fixture(scope="module")
def network() -> Classifier:
    return build(SETTINGS, pretrained=False)


def stored(network: Classifier) -> dict[str, Any]:
    return {"settings": dict(SETTINGS), "step": 4, "model": dict(network.state_dict()), "optimizer": {}}


CHANGES: list[dict[str, Any]] = [
    {"encoder": None}, {"encoder": 5}, {"stride": "16"}, {"stride": 0}, {"stride": 10**9}, {"classes": []}, {"classes": "ab"},
    {"classes": [1, 2]}, {"classes": ["a\x1b[2J", "b"]}, {"weights": "http://127.0.0.1:9/x"}, {"masks": "yes"}, {"least": -1.0},
    {"steps": 0}, {"steps": "4"}, {"taxonomy": None}, {"least": float("nan")}, {"stride": torch.ones(3)},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_settings_of_another_type_are_refused(network: Classifier, tmp_path: Path, number: int) -> None:
    saved = stored(network)
    saved["settings"] |= CHANGES[number]
    torch.save(saved, tmp_path / "classifier.pt")
    with pytest.raises(WeakError, match=r"classifier.pt is damaged \(settings.*; delete it and fit again") as caught:
        read(tmp_path / "classifier.pt")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("content", [5, [], {}, {"settings": {}}, {"settings": 5, "step": 1, "model": {}, "optimizer": {}},
                                     {"settings": SETTINGS, "step": -1, "model": {}, "optimizer": {}},
                                     {"settings": SETTINGS, "step": 1, "model": {"a": 5}, "optimizer": {}}],
                         ids=range(7))  # fmt: skip
def test_contents_of_another_kind_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "classifier.pt")
    with pytest.raises(WeakError, match=r"classifier.pt is (damaged|not a classifier)"):
        read(tmp_path / "classifier.pt")


def test_weights_that_do_not_fit_are_refused(network: Classifier, tmp_path: Path) -> None:
    saved = stored(network)
    head = saved["model"]["head.weight"]
    for value, words in (
        (head[:1], "expected"),
        (head.long(), "int64"),
        (head * float("nan"), "NaN"),
        (None, "missing"),
    ):
        changed = {**saved, "model": {**saved["model"], "head.weight": value}}
        if value is None:
            del changed["model"]["head.weight"]
        before = network.head.weight.clone()
        with pytest.raises(ValueError, match=words):
            load_weights(network, changed, tmp_path)
        assert torch.equal(network.head.weight, before)
