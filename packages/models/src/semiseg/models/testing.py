"""SegmenterContract: the test class that the tests of each architecture subclass."""

import math
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from semiseg.models.pretrained import create_segmenter, from_pretrained, save_pretrained
from semiseg.models.segmenter import Segmenter


class SegmenterContract:
    """What every encoder must do inside a segmenter: subclass this and set `encoder`. Downloads nothing.

    strides: the output strides that the encoder supports. settings: further arguments of `create_segmenter`.
    """

    encoder: ClassVar[str]
    strides: ClassVar[tuple[int, ...]] = (8, 16, 32)
    settings: ClassVar[dict] = {"context_channels": 16}

    def build(self, stride: int | None = None) -> Segmenter:
        torch.manual_seed(0)
        stride = stride or self.strides[0]
        return create_segmenter(
            encoder=self.encoder,
            classes={"street": 5, "room": 3},
            output_stride=stride,
            weights="none",
            **self.settings,
        )

    def test_shapes_at_every_stride_and_odd_sizes(self) -> None:
        for stride in self.strides:
            model = self.build(stride).eval()
            for height, width in ((64, 96), (65, 71), (33, 64)):
                with torch.no_grad():
                    features = model.encode(images(1, height, width))
                    cells = (math.ceil(height / model.stride), math.ceil(width / model.stride))
                    assert features.deep.shape == (1, model.channels, *cells)
                    assert features.deep.min() >= 0 or model.config["context"] == "aspp"
                    assert features.size == (height, width)
                    for level, own in zip(features.levels, model.encoder.levels, strict=True):
                        assert level.shape[2:] == (math.ceil(height / own), math.ceil(width / own))
                    fine = model.encoder.low_stride
                    if features.low is not None and fine is not None:
                        low = (model.encoder.low_channels, math.ceil(height / fine), math.ceil(width / fine))
                        assert features.low.shape == (1, *low)
                    logits = model.decode(features, "room")
                    ratio = model.upsampling
                    assert logits.shape == (1, 3, ratio * cells[0], ratio * cells[1])
                    assert model(images(1, height, width), "street").shape == (1, 5, height, width)

    def test_gradients_reach_every_parameter_on_an_odd_size(self) -> None:
        model = self.build()
        x = images(2, 65, 71)
        features = model.encode(x)
        loss = sum((model.decode(features, domain).square().mean() for domain in model.classes), torch.zeros(()))
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        stem = next(model.encoder.parameters())
        assert stem.grad is not None and stem.grad.abs().max() > 0

    def test_a_saved_and_loaded_model_is_bit_identical(self, tmp_path: Path) -> None:
        model = self.build()
        model(images(2, 64, 64), "room")  # so that running statistics differ from the initial ones
        save_pretrained(model.eval(), tmp_path / "model")
        again = from_pretrained(tmp_path / "model")
        assert not again.training
        assert again.config == model.config
        for (name, tensor), (other, loaded) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
            assert name == other
            assert torch.equal(tensor, loaded), name
        with torch.no_grad():
            for domain in model.classes:
                assert torch.equal(model(images(1, 65, 71), domain), again(images(1, 65, 71), domain))

    def test_same_seed_same_weights(self) -> None:
        for (name, one), two in zip(self.build().state_dict().items(), self.build().state_dict().values(), strict=True):
            assert torch.equal(one, two), name


def images(batch: int, height: int, width: int) -> Tensor:
    """Noise in [0, 1], [batch, 3, height, width], always the same."""
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))
