"""Decoders against closed forms and double loops."""

import pytest
import torch
import torch.nn.functional as F

from semiseg.models import DeepLabV3PlusDecoder, LinearDecoder, SubpixelDecoder


@pytest.mark.parametrize(("classes", "count"), [(21, 16_296), (19, 14_288), (13, 8_840), (11, 7_216)])
def test_parameters_at_stride_8_equal_the_published_number(classes: int, count: int) -> None:
    assert sum(p.numel() for p in SubpixelDecoder(512, classes).parameters()) == count


def test_parameters_at_other_strides_follow_the_closed_form() -> None:
    for stages, stride in ((1, 2), (4, 16), (5, 32)):
        count = sum(p.numel() for p in SubpixelDecoder(320, 11, stride).parameters())
        assert count == 320 * 11 + stages * (4 * 11**2 + 4 * 11)


@pytest.mark.parametrize("last_relu", [False, True])
@pytest.mark.parametrize("stride", [8, 16])
def test_it_starts_as_nearest_neighbour_upsampling_of_one_value_per_cell(stride: int, last_relu: bool) -> None:
    decoder = SubpixelDecoder(16, 5, stride, last_relu=last_relu)
    z = torch.rand(2, 16, 3, 4)
    x = torch.einsum("oc,bchw->bohw", decoder.project.weight[:, :, 0, 0], z)
    for i, stage in enumerate(decoder.stages):
        assert isinstance(stage, torch.nn.Conv2d)
        x = torch.einsum("oc,bchw->bohw", stage.weight[::4, :, 0, 0], x)
        x = x.relu() if last_relu or i + 1 < len(decoder.stages) else x
    out = decoder(z)
    torch.testing.assert_close(out, x.repeat_interleave(stride, 2).repeat_interleave(stride, 3))
    cells = out[:, :, ::stride, ::stride]
    assert torch.equal(out, F.interpolate(cells, scale_factor=float(stride), mode="nearest"))
    assert (out.min() >= 0) == last_relu


def test_a_stage_equals_a_double_loop_over_sub_pixels() -> None:
    decoder = SubpixelDecoder(6, 3, 2).double()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter)
    z = torch.randn(1, 6, 2, 3, dtype=torch.float64)
    parameters = dict(decoder.named_parameters())
    weight, bias = parameters["stages.0.weight"][:, :, 0, 0], parameters["stages.0.bias"]
    expected = torch.empty(1, 3, 4, 6, dtype=torch.float64)
    for c in range(3):
        for y in range(4):
            for x in range(6):
                row = 4 * c + 2 * (y % 2) + x % 2
                cell = decoder.project.weight[:, :, 0, 0] @ z[0, :, y // 2, x // 2]
                expected[0, c, y, x] = weight[row] @ cell + bias[row]
    torch.testing.assert_close(decoder(z), expected)


def test_cells_never_mix_in_the_sub_pixel_decoder() -> None:
    decoder = SubpixelDecoder(6, 3, 8)
    z = torch.rand(1, 6, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(decoder(z)[:, :, 8:16, 16:24].square().sum(), z)
    reached = gradient.abs().sum(1)[0] > 0
    assert reached.nonzero().tolist() == [[1, 2]]


def test_strides_that_are_not_powers_of_two_raise() -> None:
    for stride in (0, 1, 12):
        with pytest.raises(ValueError, match=rf"stride {stride}: expected a power of two"):
            SubpixelDecoder(8, 3, stride)


def test_the_linear_decoder_interpolates_the_logits_of_cells() -> None:
    decoder = LinearDecoder(6, 4, 4).double()
    assert decoder(torch.zeros(1, 6, 2, 2, dtype=torch.float64)).abs().max() == 0  # the bias starts at zero
    torch.nn.init.normal_(decoder.project.weight)
    z = torch.randn(1, 6, 2, 3, dtype=torch.float64)
    logits = torch.einsum("oc,chw->ohw", decoder.project.weight[:, :, 0, 0], z[0])
    out = decoder(z)
    assert out.shape == (1, 4, 8, 12)
    for y in range(8):
        for x in range(12):
            v, u = min(max((y + 0.5) / 4 - 0.5, 0), 1), min(max((x + 0.5) / 4 - 0.5, 0), 2)  # in cells
            i, j = int(v), int(u)
            i2, j2, a, b = min(i + 1, 1), min(j + 1, 2), v - i, u - j
            top = logits[:, i, j] * (1 - b) + logits[:, i, j2] * b
            bottom = logits[:, i2, j] * (1 - b) + logits[:, i2, j2] * b
            torch.testing.assert_close(out[0, :, y, x], top * (1 - a) + bottom * a)


@pytest.mark.parametrize(("low", "classes"), [(128, 19), (256, 21)])
def test_the_deeplab_decoders_parameters_follow_the_closed_form(low: int, classes: int) -> None:
    count = sum(p.numel() for p in DeepLabV3PlusDecoder(256, low, classes).parameters())
    assert count == 48 * low + 304 * 256 * 9 + 256 * 256 * 9 + 2 * 2 * 256 + 256 * classes


def test_the_deeplab_decoder_equals_plain_convolutions_on_interpolated_features() -> None:
    decoder = DeepLabV3PlusDecoder(5, 3, 4, 2).double().eval()
    weights = dict(decoder.named_parameters())
    z, low = torch.randn(1, 5, 3, 4, dtype=torch.float64), torch.randn(1, 3, 6, 8, dtype=torch.float64)
    fine = torch.einsum("oc,bchw->bohw", weights["low.weight"][:, :, 0, 0], low)
    coarse = torch.empty(1, 5, 6, 8, dtype=torch.float64)
    for y in range(6):
        for x in range(8):
            v, u = y * 2 / 5, x * 3 / 7  # in cells, with corners aligned
            i, j = min(int(v), 1), min(int(u), 2)
            a, b = v - i, u - j
            cell = z[..., i : i + 2, j : j + 2]
            coarse[..., y, x] = (
                cell[..., 0, 0] * (1 - a) * (1 - b)
                + cell[..., 0, 1] * (1 - a) * b
                + cell[..., 1, 0] * a * (1 - b)
                + cell[..., 1, 1] * a * b
            )
    mixed = torch.cat([fine, coarse], 1)
    for name in ("refine.0.weight", "refine.3.weight"):
        mixed = F.relu(F.conv2d(mixed, weights[name], padding=1) / (1 + 1e-5) ** 0.5)  # a fresh batch norm
    expected = torch.einsum("oc,bchw->bohw", weights["classify.weight"][:, :, 0, 0], mixed)
    torch.testing.assert_close(decoder(z, low), expected)


def test_the_deeplab_decoder_takes_low_level_features_of_odd_sizes() -> None:
    """An image of 65 pixels has 33 low-level cells, but 9 cells of z need 36."""
    decoder = DeepLabV3PlusDecoder(5, 3, 4, 4).eval()
    with torch.no_grad():
        assert decoder(torch.rand(1, 5, 9, 2), torch.rand(1, 3, 33, 7)).shape == (1, 4, 36, 8)
